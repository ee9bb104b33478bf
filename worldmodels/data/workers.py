"""Shards in several processes: started fresh (spawn), each collecting whole shards."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from worldmodels.data.store import DatasetError
from worldmodels.storage.reading import explain

Result = TypeVar("Result")
_POLL_SECONDS = 0.2
_progress: Any = None
"""In a worker: what it shares with the parent."""


def run_jobs(
    work: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    part: Callable[[float], object],
) -> Iterator[Result]:
    """Yield `work(*job, tick)` of every job as it ends, at most `workers` at once.

    `tick` is what a job tells how far it is; `part` is told the sum over the running jobs. A
    worker ends with the process that started it, however that ends. Raises what `work` raises,
    and DatasetError where a worker was killed, or none can be started.
    """
    shared, pool = _start(min(workers, len(jobs)), len(jobs))
    pending: set[Any] = set()
    try:
        slots = _submit(pool, work, jobs)
        pending = set(slots)
        while pending:
            ended, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in ended:
                shared[slots[future]] = 0.0
                yield future.result()
            part(sum(shared[:-2]))
    except BrokenProcessPool as error:
        raise DatasetError(_KILLED if shared[-2] else _NEVER_BEGAN) from error
    finally:
        shared[-1] = 1.0
        pool.shutdown(wait=True, cancel_futures=True)


_KILLED = (
    "a worker was killed (out of memory?); the shards listed are kept: run the same command again, "
    "with fewer workers"
)
_NEVER_BEGAN = (
    "no worker could begin; what it said is above. Workers import the main script anew: a script "
    'that collects with workers > 1 does so under `if __name__ == "__main__":` and lies in a file; '
    "workers=1 needs neither"
)


def require_main_guard() -> None:
    """Raise DatasetError where a worker that imports the main script would start workers too."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise DatasetError(
            "workers import the main script anew, and it starts workers while it is imported: put "
            'what it does under `if __name__ == "__main__":`, or give workers=1'
        )


def _start(workers: int, jobs: int) -> tuple[Any, ProcessPoolExecutor]:
    """What the processes share (how far each job is, whether any began, whether to stop), and
    their pool."""
    context = multiprocessing.get_context("spawn")
    try:
        shared = context.Array("d", jobs + 2)
        return shared, ProcessPoolExecutor(workers, context, _begin, (shared,))
    except OSError as error:
        raise _not_started(error) from error


def _submit(
    pool: ProcessPoolExecutor, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> dict[Any, int]:
    try:
        return {pool.submit(_run, work, slot, job): slot for slot, job in enumerate(jobs)}
    except OSError as error:
        raise _not_started(error) from error


def _not_started(error: OSError) -> DatasetError:
    shared = error.errno in (errno.ENOSPC, errno.ENOSYS, errno.EACCES, errno.ENOENT)
    where = "; processes share memory in /dev/shm, which is full, small or missing" * shared
    many = "; the system allows no more processes" * (error.errno == errno.EAGAIN)
    return DatasetError(
        f"the workers cannot be started: {explain(error)}{where}{many}. Collect with workers=1 "
        "(--workers 1)"
    )


def _begin(shared: Any) -> None:
    global _progress
    _progress = shared
    shared[-2] = 1.0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which tells us to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _run(work: Callable[..., Result], slot: int, job: tuple[Any, ...]) -> Result:
    def tick(done: float) -> None:
        if _progress[-1]:
            raise InterruptedError("the collection was stopped")
        _progress[slot] = done

    return work(*job, tick)
