"""Shards in several processes: started fresh (spawn), each collecting whole shards."""

from __future__ import annotations

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
    and DatasetError where a worker was killed.
    """
    context = multiprocessing.get_context("spawn")
    shared = context.Array("d", len(jobs) + 1)  # how far each job is, and whether to stop
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin, (shared,))
    slots = {pool.submit(_run, work, slot, job): slot for slot, job in enumerate(jobs)}
    pending = set(slots)
    try:
        while pending:
            ended, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in ended:
                shared[slots[future]] = 0.0
                yield future.result()
            part(sum(shared[:-1]))
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker was killed (out of memory?); the shards listed are kept: run the same "
            "command again, with fewer workers"
        ) from error
    finally:
        shared[-1] = 1.0
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(shared: Any) -> None:
    global _progress
    _progress = shared
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
