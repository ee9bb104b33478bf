"""Machine code for a traced program, by LLVM (optional: `pip install "physgym[native]"`).

The same graph that `physgym.compile.program` prints as Python becomes one function that takes rows over a
whole environment step. Operations keep their order and are never fused, sines come from the C
library that Python uses, so results are the same to the bit; only the time differs. Compiling takes
some tens of milliseconds, once a process. Where it fails, the Python functions take over, with one
warning a process.

An address in machine code is worth nothing without the memory it points into: functions own the
engine that holds their code, pointers own their arrays. Threads may therefore make, step and drop
envs as they like, and a step that is interrupted leaves its arrays to the threads still at work.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import importlib.util
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from physgym.compile.cache import once
from physgym.compile.emitter import assembly
from physgym.compile.program import Program

ROWS_PER_THREAD = 2048
"""Batches are split over the cores in pieces of at least this many rows."""
LANES = 4
"""Rows side by side in a vector register, where all rows take the same sub-steps."""


_warned = False


def available() -> bool:
    """Whether llvmlite is installed and the environment variable PHYSGYM_NATIVE is not 0."""
    if os.environ.get("PHYSGYM_NATIVE", "1") == "0":
        return False
    if sys.modules.get("llvmlite") is not None:
        return True
    return importlib.util.find_spec("llvmlite") is not None


def transition(program: Program, kind: str) -> Callable[..., tuple[Any, ...]]:
    """`program.function(kind)` for "floats", "arrays" or "tensors", as machine code where that can be had.

    That of tensors takes and gives arrays, the tensors' own memory, and computes the sines of rows side by side, which
    differ from the C library's by 3e-16 at most: torch's do, too.
    """
    if not available():
        return program.function(kind)
    failure = _attempt(program, kind == "tensors")
    if failure is not None:
        _warn(failure)
        return program.function(kind)
    return NativeStep(program) if kind == "floats" else NativeRows(program, kind == "tensors")


@once
def _attempt(program: Program, side_by_side: bool) -> Exception | None:
    """Compile `program`; what kept it from that is remembered, not tried again."""
    try:
        _compile(program, side_by_side)
    except Exception as reason:  # whatever llvmlite, LLVM or the C library may raise
        return reason
    return None


def _warn(reason: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"PhysGym cannot compile to machine code here ({type(reason).__name__}: {reason}). Its "
            "Python functions take over: same results, slower steps. Repair llvmlite (pip install "
            "--force-reinstall llvmlite), or set PHYSGYM_NATIVE=0 to stop trying.",
            RuntimeWarning,
            stacklevel=3,
        )


class _Compiled(NamedTuple):
    """The compiled functions of a program, over single rows and over rows side by side."""

    rows: Callable[..., None]
    lanes: Callable[..., None] | None
    width: int = LANES

    def over(self, first: int, last: int, steps: Sequence[tuple[Any, ...]]) -> None:
        """Take the rows from `first` to `last` through the `steps`, whose other arguments these are."""
        middle = first if self.lanes is None else last - (last - first) % self.width
        start, edge, end = (ctypes.c_int64(x) for x in (first, middle, last))
        for shared in steps:
            if self.lanes is not None:
                self.lanes(start, edge, *shared)
            if middle < last:
                self.rows(edge, end, *shared)


@once
def _compile(program: Program, side_by_side: bool) -> _Compiled:
    """The machine code of `program`."""
    add_symbols()
    width = 2 * LANES if side_by_side else LANES  # twice: one register works while the other waits
    engine = engine_of(assembly(program, width, side_by_side))
    rows = function_of(engine, "rows")
    return _Compiled(rows, None if program.adaptive else function_of(engine, "lanes"), width)


def add_symbols() -> None:
    """Tell LLVM where the C library's functions are, as ``physgym_sin`` and ``physgym_cos``."""
    import llvmlite.binding as llvm

    library = ctypes.CDLL(ctypes.util.find_library("m"))
    for name in ("sin", "cos"):
        llvm.add_symbol(
            f"physgym_{name}", ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        )


def engine_of(text: str) -> Any:
    """An engine that holds the machine code of LLVM assembly."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def function_of(engine: Any, name: str) -> Callable[..., None]:
    """The compiled function `name`, which keeps its `engine` alive for as long as itself."""
    address = engine.get_function_address(name)
    if not address:
        raise OSError(f"LLVM gave no address for {name!r}")
    # Without argtypes, ctypes passes the ready-made instances of its callers straight on.
    function: Any = ctypes.CFUNCTYPE(None)(address)
    function.engine = engine
    return function


class NativeStep:
    """The native counterpart of `Program.transition` for one state (floats): same arguments, same
    result.
    """

    def __init__(self, program: Program) -> None:
        self._function = _compile(program, False).rows
        self._outputs = program.state_size + len(program.outcome)
        self._state = (ctypes.c_double * program.state_size)()
        self._control = (ctypes.c_double * len(program.control))()
        self._fixed = (ctypes.c_double * max(1, len(program.constants)))()
        self._out = (ctypes.c_double * self._outputs)()
        self._constants: Any = None
        self._pace: Any = None
        self._arguments: tuple[Any, ...] = ()

    def __call__(
        self, state: Any, control: Any, constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        """Take `state` over `dt`; see `Program.transition`."""
        if constants is not self._constants:
            self._constants = constants
            self._fixed[: len(constants)] = constants
        if self._pace != (dt, substeps):
            self._pace = (dt, substeps)
            one, zero, step, count = (
                ctypes.c_int64(1),
                ctypes.c_int64(0),
                ctypes.c_double(dt),
                ctypes.c_int64(substeps),
            )
            buffers = (self._state, one, self._control, self._fixed, one, zero, self._out)
            self._arguments = (zero, one, one, *buffers, step, count)
        self._state[:] = state
        self._control[:] = control
        self._function(*self._arguments)
        return tuple(self._out)


class NativeRows:
    """The native counterpart of `Program.transition` for rows (NumPy): same arguments, same
    result.
    """

    def __init__(self, program: Program, side_by_side: bool = False) -> None:
        self._compiled = _compile(program, side_by_side)
        self._size, self._outputs = program.state_size, program.state_size + len(program.outcome)
        self._constants: Any = None
        self._fixed = np.zeros((1, 1))

    def __call__(
        self, state: Any, control: Any, constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        """Take the rows of `state` (D, N) over `dt`; see `Program.transition`."""
        pushes = np.empty((1, len(control), np.shape(state)[1]))
        for row, u in zip(pushes[0], control, strict=True):
            row[...] = u
        (out,) = self.many(state, pushes, constants, dt, substeps)
        flags = out[self._size + 2 :] != 0.0
        return (*out[: self._size + 2], *flags)

    def machine_code(self, state: Any) -> NativeRows:
        """What takes many steps from `state` at once."""
        return self

    def many(
        self, state: Any, controls: np.ndarray, constants: Any, dt: float, substeps: int
    ) -> np.ndarray:
        """(T, D + 3 + events, N): the next states of the rows of `state` (D, N), their reward, energy and flags
        after each of T steps under `controls` (T, U, N).
        """
        state = np.ascontiguousarray(state, dtype=np.float64)
        self._adopt(constants)
        count, width = state.shape[1], self._fixed.shape[1]
        out = np.empty((len(controls), self._outputs, count))
        size, fixed = ctypes.c_int64(count), _pointer(self._fixed)
        pace = (ctypes.c_double(dt), ctypes.c_int64(substeps))
        strides = (ctypes.c_int64(width), ctypes.c_int64(int(width > 1)))
        steps = []
        for pushes, after in zip(controls, out, strict=True):
            given = (size, _pointer(state), size, _pointer(pushes), fixed, *strides)
            steps.append((*given, _pointer(after), *pace))
            state = after  # which begins with the next one
        _spread(self._compiled, count, steps)
        return out

    def _adopt(self, constants: Any) -> None:
        if isinstance(constants, np.ndarray):  # rows that their owner may write into
            self._constants = self._fixed = constants
        elif constants is not self._constants:
            self._constants = constants
            self._fixed = np.ascontiguousarray(
                np.stack(np.broadcast_arrays(*constants)), np.float64
            )
            self._fixed = self._fixed.reshape(len(constants), -1)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    pointer: Any = ctypes.c_void_p(array.ctypes.data)
    pointer.array = array  # alive as long as the pointer, in whichever thread that is
    return pointer


def _spread(compiled: _Compiled, count: int, steps: Sequence[tuple[Any, ...]]) -> None:
    """Take all rows through the `steps`, in pieces on several threads where there are many (ctypes frees the GIL)."""
    pieces = max(1, min(_cores(), count // ROWS_PER_THREAD))
    edges = [count * i // pieces for i in range(pieces + 1)]
    waiting: list[Future[None]] = []
    if pieces > 1:
        # Refused where the process is ending or has no thread left; this thread then does it all.
        with contextlib.suppress(RuntimeError):
            pool = _pool(os.getpid())
            for a, b in itertools.pairwise(edges[1:]):
                waiting.append(pool.submit(compiled.over, a, b, steps))
    compiled.over(0, edges[1], steps)
    for piece in waiting:
        piece.result()
    if len(waiting) < pieces - 1:
        compiled.over(edges[1 + len(waiting)], count, steps)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, _cores() - 1), thread_name_prefix="physgym")
