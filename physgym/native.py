"""Machine code for a traced program, by LLVM (optional: `pip install "physgym[native]"`).

The same graph that `physgym.program` prints as Python becomes one function that takes rows over a
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from physgym.program import MAX_SUBSTEPS, Program
from physgym.tracing import FIXED, HELD, MOVING, Expression, needed

ROWS_PER_THREAD = 2048
"""Batches are split over the cores in pieces of at least this many rows."""
_COMPARISONS = {"lt": "<", "le": "<="}


def available() -> bool:
    """Whether llvmlite is installed and the environment variable PHYSGYM_NATIVE is not 0."""
    if os.environ.get("PHYSGYM_NATIVE", "1") == "0":
        return False
    try:
        import llvmlite.binding  # noqa: F401
    except ImportError:
        return False
    return True


class _Emitter:
    """Writes the function: a loop over rows around a loop over sub-steps."""

    def __init__(self, program: Program) -> None:
        from llvmlite import ir

        self.ir, self.program = ir, program
        self.double, self.int = ir.DoubleType(), ir.IntType(64)
        pointer = self.double.as_pointer()
        self.module = ir.Module(name="physgym")
        # first row, last row, stride; state; control stride, control; constants, their stride and
        # step a row; results
        kinds = [
            self.int,
            self.int,
            self.int,
            pointer,
            self.int,
            pointer,
            pointer,
            self.int,
            self.int,
            pointer,
        ]
        signature = ir.FunctionType(ir.VoidType(), [*kinds, self.double, self.int])
        self.function = ir.Function(self.module, signature, name="rows")
        self.values: dict[int, Any] = {}
        self.externals: dict[str, Any] = {}

    def text(self) -> str:
        """The module's LLVM assembly."""
        ir = self.ir
        entry, head, body, after = (
            self.function.append_basic_block(n) for n in ("entry", "head", "body", "after")
        )
        b = self.builder = ir.IRBuilder(entry)
        first, last, stride = self.function.args[:3]
        row = b.alloca(self.int)
        self.cells = [b.alloca(self.double) for _ in self.program.state]
        self.remaining, self.count = b.alloca(self.double), b.alloca(self.int)
        b.store(first, row)
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(b.icmp_signed("<", b.load(row), last), body, after)
        b.position_at_end(body)
        self._row(b.load(row), stride)
        self.builder.store(self.builder.add(self.builder.load(row), self.int(1)), row)
        self.builder.branch(head)
        self.builder.position_at_end(after)
        self.builder.ret_void()
        return str(self.module)

    def _load(self, pointer: Any, i: int, stride: Any, row: Any) -> Any:
        b = self.builder
        return b.load(b.gep(pointer, [b.add(b.mul(self.int(i), stride), row)]))

    def _row(self, row: Any, stride: Any) -> None:
        _, _, _, state, u_stride, control, constants, c_stride, c_step, out, dt, substeps = (
            self.function.args
        )
        b, program = self.builder, self.program
        for cell, i in zip(self.cells, range(program.state_size), strict=True):
            b.store(self._load(state, i, stride, row), cell)
        for i, u in enumerate(program.control):
            self.values[u.order] = self._load(control, i, u_stride, row)
        for i, c in enumerate(program.constants):
            self.values[c.order] = self._load(constants, i, c_stride, b.mul(row, c_step))
        self._emit((*program.advanced, *program.rule, *program.outcome), HELD)
        b.store(dt if program.adaptive else self.double(0.0), self.remaining)
        b.store(self.int(0), self.count)
        self._loop(substeps)
        b = self.builder
        for e, cell in zip(program.final, self.cells, strict=True):
            self.values[e.order] = b.load(cell)
        self._emit(program.outcome, MOVING)
        results = [*program.final, *program.outcome]
        for i, x in enumerate(results):
            value = self._number(x)
            if i == program.state_size + 2 and program.adaptive:
                value = b.or_(value, b.fcmp_ordered(">", b.load(self.remaining), self.double(0.0)))
            if value.type == self.ir.IntType(1):
                value = b.uitofp(value, self.double)
            b.store(value, b.gep(out, [b.add(b.mul(self.int(i), stride), row)]))

    def _loop(self, substeps: Any) -> None:
        b, program = self.builder, self.program
        head, body, after = (
            self.function.append_basic_block(n) for n in ("substeps", "substep", "done")
        )
        b.branch(head)
        b.position_at_end(head)
        zero = self.double(0.0)
        if program.adaptive:
            b.cbranch(b.fcmp_ordered(">", b.load(self.remaining), zero), body, after)
        else:
            b.cbranch(b.icmp_signed("<", b.load(self.count), substeps), body, after)
        b.position_at_end(body)
        for s, cell in zip(program.state, self.cells, strict=True):
            self.values[s.order] = b.load(cell)
        if program.adaptive:
            self._pace(after)
        b = self.builder
        self._emit(program.advanced, MOVING)
        for x, cell in zip(program.advanced, self.cells, strict=True):
            b.store(self._number(x), cell)
        b.store(b.add(b.load(self.count), self.int(1)), self.count)
        b.branch(head)
        b.position_at_end(after)

    def _pace(self, after: Any) -> None:
        """Stop at a collision or when sub-steps run out; else take the size of the next one from
        the rule.
        """
        b, program = self.builder, self.program
        self._emit(program.rule, MOVING)
        if program.rule[1] is not False:
            hit, free = (self.function.append_basic_block(n) for n in ("hit", "free"))
            b.cbranch(self._number(program.rule[1]), hit, free)
            b.position_at_end(hit)
            b.store(self.double(0.0), self.remaining)
            b.branch(after)
            b.position_at_end(free)
        go = self.function.append_basic_block("go")
        b.cbranch(b.icmp_signed("==", b.load(self.count), self.int(MAX_SUBSTEPS)), after, go)
        b.position_at_end(go)
        remaining = b.load(self.remaining)
        pieces = self._call("llvm.ceil.f64", b.fdiv(remaining, self._number(program.rule[0])))
        h = b.fdiv(remaining, pieces)
        b.store(b.fsub(remaining, h), self.remaining)
        self.values[program.step_size.order] = h

    def _number(self, x: Any) -> Any:
        if isinstance(x, Expression):
            return self.values[x.order]
        return self.ir.IntType(1)(int(x)) if isinstance(x, bool) else self.double(float(x))

    def _emit(self, outputs: Sequence[Any], level: int) -> None:
        for node in needed(outputs, self.values):
            if FIXED < node.level <= level and node.op != "symbol":
                self.values[node.order] = self._operation(node)

    def _operation(self, node: Expression) -> Any:
        b, args = self.builder, [self._number(a) for a in node.args]
        arithmetic = {
            "add": b.fadd,
            "sub": b.fsub,
            "mul": b.fmul,
            "div": b.fdiv,
            "and": b.and_,
            "or": b.or_,
        }
        if node.op in arithmetic:
            return arithmetic[node.op](*args)
        if node.op in _COMPARISONS:
            return b.fcmp_ordered(_COMPARISONS[node.op], *args)
        if node.op in ("minimum", "maximum"):
            return b.select(b.fcmp_ordered("<" if node.op == "minimum" else ">", *args), *args)
        if node.op == "where":
            return b.select(*args)
        if node.op == "neg":
            return b.fneg(*args)
        names = {
            "abs": "llvm.fabs.f64",
            "sqrt": "llvm.sqrt.f64",
            "rint": "llvm.rint.f64",
            "ceil": "llvm.ceil.f64",
        }
        return self._call(names.get(node.op, f"physgym_{node.op}"), *args)

    def _call(self, name: str, *args: Any) -> Any:
        if name not in self.externals:
            kind = self.ir.FunctionType(self.double, [self.double])
            self.externals[name] = self.ir.Function(self.module, kind, name=name)
        return self.builder.call(self.externals[name], args)


@functools.cache
def _compile(program: Program) -> tuple[Callable[..., None], Any]:
    """The compiled function of `program`, and what must stay alive beside it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    for name in ("sin", "cos"):
        llvm.add_symbol(
            f"physgym_{name}", ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        )
    module = llvm.parse_assembly(_Emitter(program).text())
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    # Without argtypes, ctypes passes the ready-made instances of its callers straight on.
    return ctypes.CFUNCTYPE(None)(engine.get_function_address("rows")), engine


class NativeStep:
    """The native counterpart of `Program.transition` for one state (floats): same arguments, same
    result.
    """

    def __init__(self, program: Program) -> None:
        self._function, self._engine = _compile(program)
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
        self._function, self._engine = _compile(program)
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
        _spread(self._function, count, shared)
        flags = out[self._size + 2 :] != 0.0
        return (*out[: self._size + 2], *flags)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _spread(function: Callable[..., None], count: int, shared: tuple[Any, ...]) -> None:
    """Call `function` on all rows, in pieces on several threads where there are many (ctypes frees
    the GIL).
    """
    pieces = min(_cores(), count // ROWS_PER_THREAD)
    if pieces < 2:
        function(ctypes.c_int64(0), ctypes.c_int64(count), *shared)
        return
    edges = [count * i // pieces for i in range(pieces + 1)]
    pool = _pool(os.getpid())
    waiting = [
        pool.submit(function, ctypes.c_int64(a), ctypes.c_int64(b), *shared)
        for a, b in itertools.pairwise(edges[1:])
    ]
    function(ctypes.c_int64(0), ctypes.c_int64(edges[1]), *shared)
    for piece in waiting:
        piece.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, _cores() - 1), thread_name_prefix="physgym")
