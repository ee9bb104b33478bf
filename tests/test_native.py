"""Machine code has owners: threads, forks and garbage collection, and what happens where there is none."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import subprocess
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest

from physgym import SYSTEMS, PhysicsEnv, PhysicsVectorEnv
from physgym.compile.program import Program
from physgym.task import Task

pytest.importorskip("llvmlite")

from physgym.compile import cache, native

THREADS = """
import sys, threading
import gymnasium, numpy as np, physgym
gate, name, failed = threading.Barrier(4), sys.argv[1], []
def work(seed):
    try:
        gate.wait()
        env = physgym.PhysicsEnv(name) if seed % 2 else physgym.PhysicsVectorEnv(name, 3)
        env.reset(seed=seed)
        action = 1 if seed % 2 else np.ones(3, int)
        for _ in range(400):
            if np.any(env.step(action)[2:4]): env.reset()
    except BaseException as error:
        failed.append(error)
        raise
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
sys.exit(bool(failed))
"""


def fresh_program(name: str = "spaceship") -> Program:
    """A program that nothing has compiled yet."""
    system = SYSTEMS[name]
    return Program(system, system.default_integrator, system.adaptive, "dense")


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_threads_may_make_the_same_env_at_once(name: str) -> None:
    codes = [subprocess.run([sys.executable, "-c", THREADS, name]).returncode for _ in range(2)]
    assert codes == [0, 0]


def test_a_program_is_compiled_once_whoever_asks() -> None:
    program, gate = fresh_program(), threading.Barrier(4)
    found: list[Any] = []

    def ask() -> None:
        gate.wait()
        found.append(native._compile(program, False))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(compiled) for compiled in found}) == 1


@pytest.mark.parametrize("kind", ["floats", "arrays"])
def test_code_lives_as_long_as_who_can_call_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    program = fresh_program()
    made: Any = native._compile
    holder = [made.__wrapped__(program, False)]  # past the cache, which would keep it for ever

    class Owner:
        engine = holder[0].rows.engine

        def __del__(self) -> None:
            closed.append("engine")

    holder[0].rows.engine = Owner()
    monkeypatch.setattr(native, "_compile", lambda program, side_by_side: holder[0])
    step = native.NativeStep(program) if kind == "floats" else native.NativeRows(program)
    monkeypatch.undo()
    holder.clear()
    gc.collect()
    assert not closed, "the step can still be called"
    del step
    gc.collect()
    assert closed == ["engine"]


def test_a_pointer_owns_its_array() -> None:
    pointer = native._pointer(np.arange(100_000.0))
    gc.collect()
    view = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_double))
    assert [view[0], view[99_999]] == [0.0, 99_999.0]


@pytest.mark.skipif(not hasattr(cache.os, "fork"), reason="no fork here")
def test_a_fork_waits_for_a_compilation_of_another_thread() -> None:
    inside, go_on = threading.Event(), threading.Event()

    @cache.once
    def slow() -> int:
        inside.set()
        go_on.wait(10)
        return 1

    thread = threading.Thread(target=slow)
    thread.start()
    inside.wait(10)
    threading.Timer(0.2, go_on.set).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks beside threads
        child = multiprocessing.get_context("fork").Process(target=_steps_something_new)
        child.start()
    child.join(30)
    code = child.exitcode
    if code is None:
        child.kill()
    thread.join()
    assert code == 0


def _steps_something_new() -> None:
    native._compile(fresh_program("three_body"), False)


def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", _refuse(TypeError("argument of type 'NoneType'")))


def _broken_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite.binding as llvm

    monkeypatch.setattr(llvm, "initialize_native_target", _refuse(OSError("no shared object")))


def _unimportable_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)


def _llvm_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite.binding as llvm

    monkeypatch.setattr(llvm, "parse_assembly", _refuse(RuntimeError("LLVM IR parsing error")))


def _refuse(error: Exception) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    return refuse


@pytest.mark.parametrize(
    "break_it", [_no_library, _broken_llvmlite, _unimportable_llvmlite, _llvm_error]
)
def test_python_takes_over_with_one_warning(break_it: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [_steps(PhysicsEnv("spaceship")), _rows(PhysicsVectorEnv("spaceship", 3))]
    monkeypatch.setattr(native, "_warned", False)
    monkeypatch.setattr("physgym.stepping._program", lambda *spec: fresh_program())
    break_it(monkeypatch)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        again = [_steps(PhysicsEnv("spaceship")), _rows(PhysicsVectorEnv("spaceship", 3))]
        PhysicsEnv("spaceship")
    assert [w.category for w in told] == [RuntimeWarning]
    assert "PHYSGYM_NATIVE=0" in str(told[0].message)
    assert all(np.array_equal(a, b) for a, b in zip(expected, again, strict=True))


def _steps(env: PhysicsEnv) -> np.ndarray:
    env.reset(seed=3)
    return np.array([env.step(4)[0] for _ in range(5)])


def _rows(env: PhysicsVectorEnv) -> np.ndarray:
    env.reset(seed=3)
    return np.array([env.step(np.full(3, 4))[0] for _ in range(5)])


@pytest.mark.parametrize("given", [0, 1])
def test_rows_are_stepped_where_no_thread_can_be_had(
    given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("pendulum")
    assert task.program is not None
    rng = np.random.default_rng(0)
    state, control = rng.uniform(-3.0, 3.0, (2, 100)), (rng.uniform(-3.0, 3.0, 100),)
    constants, step = task.constants(task.base), native.NativeRows(task.program)
    alone = step(state, control, constants, task.dt, task.count)
    monkeypatch.setattr(native, "_cores", lambda: 4)
    monkeypatch.setattr(native, "ROWS_PER_THREAD", 25)
    pool, count = native._pool(native.os.getpid()), [given]

    class Poor:
        def submit(self, *work: Any) -> Any:
            if not count[0]:
                raise RuntimeError("can't start new thread")
            count[0] -= 1
            return pool.submit(*work)

    monkeypatch.setattr(native, "_pool", lambda process: Poor())
    together = step(state, control, constants, task.dt, task.count)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
