"""Machine code for a traced program, by LLVM (optional: `pip install "physgym[native]"`).

The same graph that `physgym.compile.program` prints as Python becomes one function that takes rows over a
whole environment step. Operations keep their order and are never fused, sines come from the C
library that Python uses, so results are the same to the bit; only the time differs. Compiling takes
some tens of milliseconds, once a process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from physgym.compile.emitter import assembly
from physgym.compile.program import Program

ROWS_PER_THREAD = 2048
"""Batches are split over the cores in pieces of at least this many rows."""
LANES = 4
"""Rows side by side in a vector register, where all rows take the same sub-steps."""


def available() -> bool:
    """Whether llvmlite is installed and the environment variable PHYSGYM_NATIVE is not 0."""
    if os.environ.get("PHYSGYM_NATIVE", "1") == "0":
        return False
    try:
        import llvmlite.binding  # noqa: F401
    except ImportError:
        return False
    return True


class _Compiled(NamedTuple):
    """The compiled functions of a program, over single rows and over rows side by side."""

    rows: Callable[..., None]
    lanes: Callable[..., None] | None
    engine: Any
    """What must stay alive beside them."""

    def over(self, first: int, last: int, shared: tuple[Any, ...]) -> None:
        """Step the rows from `first` to `last`."""
        middle = first
        if self.lanes is not None:
            middle = last - (last - first) % LANES
            self.lanes(ctypes.c_int64(first), ctypes.c_int64(middle), *shared)
        if middle < last:
            self.rows(ctypes.c_int64(middle), ctypes.c_int64(last), *shared)


@functools.cache
def _compile(program: Program) -> _Compiled:
    """The machine code of `program`."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    for name in ("sin", "cos"):
        llvm.add_symbol(
            f"physgym_{name}", ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        )
    module = llvm.parse_assembly(assembly(program, LANES))
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    # Without argtypes, ctypes passes the ready-made instances of its callers straight on.
    kind = ctypes.CFUNCTYPE(None)
    rows = kind(engine.get_function_address("rows"))
    lanes = None if program.adaptive else kind(engine.get_function_address("lanes"))
    return _Compiled(rows, lanes, engine)


class NativeStep:
    """The native counterpart of `Program.transition` for one state (floats): same arguments, same
    result.
    """

    def __init__(self, program: Program) -> None:
        self._function = _compile(program).rows
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

    def __init__(self, program: Program) -> None:
        self._compiled = _compile(program)
        self._size, self._outputs = program.state_size, program.state_size + len(program.outcome)
        self._constants: Any = None
        self._fixed = np.zeros((1, 1))

    def __call__(
        self, state: Any, control: Any, constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        """Take the rows of `state` (D, N) over `dt`; see `Program.transition`."""
        state = np.ascontiguousarray(state, dtype=np.float64)
        count = state.shape[1]
        pushes = np.empty((len(control), count))
        for row, u in zip(pushes, control, strict=True):
            row[...] = u
        if constants is not self._constants:
            self._constants = constants
            self._fixed = np.ascontiguousarray(
                np.stack(np.broadcast_arrays(*constants)), np.float64
            )
            self._fixed = self._fixed.reshape(len(constants), -1)
        out = np.empty((self._outputs, count))
        width = self._fixed.shape[1]
        shared = (
            *(ctypes.c_int64(count), _pointer(state), ctypes.c_int64(count), _pointer(pushes)),
            *(_pointer(self._fixed), ctypes.c_int64(width), ctypes.c_int64(int(width > 1))),
            *(_pointer(out), ctypes.c_double(dt), ctypes.c_int64(substeps)),
        )
        _spread(self._compiled, count, shared)
        flags = out[self._size + 2 :] != 0.0
        return (*out[: self._size + 2], *flags)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _spread(compiled: _Compiled, count: int, shared: tuple[Any, ...]) -> None:
    """Step all rows, in pieces on several threads where there are many (ctypes frees the GIL)."""
    pieces = min(_cores(), count // ROWS_PER_THREAD)
    if pieces < 2:
        compiled.over(0, count, shared)
        return
    edges = [count * i // pieces for i in range(pieces + 1)]
    pool = _pool(os.getpid())
    waiting = [pool.submit(compiled.over, a, b, shared) for a, b in itertools.pairwise(edges[1:])]
    compiled.over(0, edges[1], shared)
    for piece in waiting:
        piece.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, _cores() - 1), thread_name_prefix="physgym")
