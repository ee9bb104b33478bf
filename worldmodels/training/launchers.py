"""Where the cells of a sweep run: processes here, a Ray cluster, or Slurm. One function under all three.

A launcher takes a function of plain values and the arguments of every cell, and yields `(index, result)`
as cells end. A worker that dies costs its own cell, never the sweep.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from physgym.plugins import VARIABLE

Function = Callable[..., dict[str, Any]]
Launcher = Literal["local", "ray", "slurm"]
POLL_SECONDS = 1.0


class LauncherError(RuntimeError):
    """Cells cannot be started there; the message says what is missing."""


def launch(
    launcher: Launcher,
    function: Function,
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    threads: int,
    *,
    address: str | None = None,
    logs: Path | None = None,
    slurm: dict[str, Any] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run ``function(*arguments[i])`` for every i, ``workers`` at once, and yield results as they come.

    Args:
        launcher: "local", "ray" (extra `cluster`) or "slurm" (extra `cluster`).
        threads: processor cores that a cell asks for.
        address: of a Ray cluster; None: one is started here.
        logs: folder of Slurm's own files.
        slurm: parameters of submitit, such as {"slurm_partition": "gpu"}; "cluster": "local" tries them here.

    Raises:
        LauncherError: the package or the cluster is not there.
    """
    if launcher == "ray":
        return _ray(function, arguments, workers, threads, address)
    if launcher == "slurm":
        return _slurm(function, arguments, workers, threads, logs or Path("slurm"), slurm or {})
    return _local(function, arguments, workers)


def _local(
    function: Function, arguments: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """A fresh process a cell: what one does to torch, or how it dies, is nothing to the next."""
    context = multiprocessing.get_context("spawn")
    waiting = list(range(len(arguments)))[::-1]
    running: dict[Any, tuple[int, Any, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_entry, args=(function, arguments[index], theirs))
                process.start()
                theirs.close()
                running[process.sentinel] = index, process, ours
            for sentinel in wait(list(running)):
                index, process, ours = running.pop(sentinel)
                process.join()
                yield index, _answer(process, ours)
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.join()


def _entry(function: Function, arguments: tuple[Any, ...], answer: Connection) -> None:
    """What a worker does. Ctrl-C reaches the whole group: the parent says when a worker ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer.send(function(*arguments))
    answer.close()


def _end_with_parent() -> None:
    """Ask this process to save and end when the sweep's own is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _answer(process: Any, ours: Connection) -> dict[str, Any]:
    try:
        if ours.poll():
            return ours.recv()
    except (EOFError, OSError):
        pass
    finally:
        ours.close()
    code = process.exitcode
    ended = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
    return {"status": "failed", "error": f"its process ended with {ended}"}


def _ray(
    function: Function,
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    threads: int,
    address: str | None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    ray = _package("ray", "--launcher ray")
    try:
        own: dict[str, Any] = (
            {} if address else {"num_cpus": max(workers * threads, 1), "include_dashboard": False}
        )
        ray.init(
            address=address, ignore_reinit_error=True, log_to_driver=False, **own, **_environment()
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LauncherError(
            f"no Ray cluster answers at {address or 'this machine'}: {error}"
        ) from error
    remote = ray.remote(num_cpus=threads, max_retries=0)(function)
    tasks = {remote.remote(*given): index for index, given in enumerate(arguments)}
    try:
        while tasks:
            (ended, *_), _ = ray.wait(list(tasks), num_returns=1)
            index = tasks.pop(ended)
            try:
                yield index, ray.get(ended)
            except Exception as error:  # the worker died, or its machine
                first = next(iter(str(error).splitlines()), type(error).__name__)
                yield index, {"status": "failed", "error": first}
    finally:
        for task in tasks:
            ray.cancel(task, force=True)
        if not address:
            ray.shutdown()


def _environment() -> dict[str, Any]:
    """What tells Ray's workers of the plugins; files must lie at the same paths on their machines."""
    given = os.environ.get(VARIABLE)
    return {"runtime_env": {"env_vars": {VARIABLE: given}}} if given else {}


def _slurm(
    function: Function,
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    threads: int,
    logs: Path,
    parameters: dict[str, Any],
) -> Iterator[tuple[int, dict[str, Any]]]:
    submitit = _package("submitit", "--launcher slurm")
    options = dict(parameters)
    cluster = options.pop("cluster", None)
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster=cluster or "slurm")
        executor.update_parameters(
            name="physgym", cpus_per_task=threads, slurm_array_parallelism=workers, **options
        )
        jobs = executor.map_array(function, *map(list, zip(*arguments, strict=True)))
    except (RuntimeError, FileNotFoundError, NameError, ValueError) as error:
        raise LauncherError(f"Slurm does not take the sweep: {error}") from error
    left = dict(enumerate(jobs))
    try:
        for job in submitit.helpers.as_completed(jobs, poll_frequency=POLL_SECONDS):
            index = next(i for i, own in left.items() if own is job)
            del left[index]
            failure = job.exception()
            if failure is None:
                yield index, job.result()
            else:
                last = next(iter(str(failure).strip().splitlines()[-1:]), type(failure).__name__)
                yield index, {"status": "failed", "error": last}
    finally:
        for job in left.values():
            job.cancel()


def _package(name: str, option: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LauncherError(f'{option} needs {name}: pip install "physgym[cluster]"') from error
