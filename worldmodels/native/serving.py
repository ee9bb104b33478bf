"""The step of a learned env as one function of machine code, around the machine code of its model.

Whether the model's weights are where they were, the model's step, what of it can be trusted, reward, energy and ends by
the true env's own equations, and the observation: one call for all of it, from one table of addresses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from physgym.compile.cache import once
from physgym.compile.emitter import Emitter
from physgym.compile.native import add_symbols, engine_of, function_of
from physgym.compile.program import Program
from physgym.compile.verdict import Verdict
from worldmodels.native.kernels import loop
from worldmodels.native.places import data_pointer

SLOTS = (
    "rows", "asked", "tensors", "weights", "step", "inputs", "numbers", "outputs", "shown", "doubt",
    "limit", "states", "control", "constants", "stride", "pace", "out", "observed",
)  # fmt: skip
"""Of the table that the function reads, 8 bytes each.

``asked``: how many weights are asked where they lie, ``tensors``; ``weights``: where they lay. ``step``: the model's
machine code, or 0, with its tables. ``shown`` (N, D) and ``doubt`` (N,), or 0: what it gives, in its own type.
``limit`` (D,): the largest magnitudes that are trusted. ``states`` (D, N): the last that were. ``control`` (U, N), and
``constants``, ``stride`` from one to the next and ``pace`` from row to row. ``out`` (K, N) and ``observed`` (N, F)
float32 are results; all numbers but these and the model's are doubles.
"""


class Serving:
    """The machine code for ``program``, observed in one way, of models in one floating type.

    Attributes:
        function: of the address of a table, see ``SLOTS``: 1 where a weight has moved (nothing is done then), else 0.
        size: K, of ``out``: the state (D), reward, energy, out of bounds, events (E), features (F), whether the
            prediction cannot be trusted (then all is of the state before), and the members' disagreement.
        features: F.
    """

    def __init__(self, program: Program, embedded: bool, real: torch.dtype) -> None:
        verdict = Verdict(program, embedded)
        self.features = len(verdict.features)
        self.size = program.state_size + len(verdict.outcome) + 2
        add_symbols()
        if (address := data_pointer()) is not None:
            _add_symbol("worldmodels_data_pointer", address)
        text = _Assembly(verdict, real, address is not None).text
        function: Any = function_of(engine_of(text), "serve")
        function.restype = ctypes.c_int64
        self.function: Callable[..., int] = function


@once
def serving(program: Program, embedded: bool, real: torch.dtype) -> Serving:
    """The machine code, made once a process."""
    return Serving(program, embedded, real)


def _add_symbol(name: str, address: int) -> None:
    from llvmlite import binding

    binding.add_symbol(name, address)


class _Assembly:
    """LLVM assembly of ``i64 serve(i64* table)``; ``asks``: whether torch can be asked where tensors lie."""

    def __init__(self, verdict: Verdict, real: torch.dtype, asks: bool) -> None:
        from llvmlite import ir

        self.ir, self.verdict = ir, verdict
        self.double, self.int = ir.DoubleType(), ir.IntType(64)
        self.real = self.double if real is torch.float64 else ir.FloatType()
        self.module = ir.Module(name="serving")
        judge = Emitter(verdict, self.module, "judge")  # type: ignore[arg-type]
        judge.emit()
        self.judge = judge.function
        kind = ir.FunctionType(self.int, [self.int.as_pointer()])
        self.function = ir.Function(self.module, kind, name="serve")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.slots = {name: self._slot(place) for place, name in enumerate(SLOTS)}
        if asks:
            self._ask()
        self._step()
        rows = self.slots["rows"]
        loop(self.b, rows, self._trust)
        self._judge()
        loop(self.b, rows, self._observe)
        self.b.ret(self.int(0))
        self.text = str(self.module)

    def _slot(self, place: int) -> Any:
        return self.b.load(self.b.gep(self.function.args[0], [self.int(place)]))

    def _pointer(self, name: str, kind: Any) -> Any:
        return self.b.inttoptr(self.slots[name], kind.as_pointer())

    def _ask(self) -> None:
        """Return 1 where a weight lies elsewhere than it did."""
        ir, b = self.ir, self.b
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [byte, self.int.as_pointer()])
        ask = ir.Function(self.module, kind, name="worldmodels_data_pointer")
        found = b.alloca(self.int)
        tensors, known = (self._pointer(name, self.int) for name in ("tensors", "weights"))
        moved = self.function.append_basic_block("moved")
        with b.if_then(b.icmp_signed(">", self.slots["asked"], self.int(0))):

            def compare(index: Any) -> None:
                b.store(self.int(0), found)
                b.call(ask, [b.bitcast(b.gep(tensors, [index]), byte), found])
                same = b.icmp_signed("==", b.load(found), b.load(b.gep(known, [index])))
                going = self.function.append_basic_block("same")
                b.cbranch(same, going, moved)
                b.position_at_end(going)

            loop(b, self.slots["asked"], compare)
        after = b.block
        b.position_at_end(moved)
        b.ret(self.int(1))
        b.position_at_end(after)

    def _step(self) -> None:
        """The model's own machine code, where there is some."""
        ir, b = self.ir, self.b
        table = ir.IntType(8).as_pointer().as_pointer()
        kind = ir.FunctionType(
            ir.VoidType(), [self.int, table, table, self.real.as_pointer(), table]
        )
        with b.if_then(b.icmp_signed("!=", self.slots["step"], self.int(0))):
            tables = {
                name: b.inttoptr(self.slots[name], table)
                for name in ("weights", "inputs", "outputs")
            }
            b.call(
                b.inttoptr(self.slots["step"], kind.as_pointer()),
                [
                    self.slots["rows"],
                    tables["weights"],
                    tables["inputs"],
                    self._pointer("numbers", self.real),
                    tables["outputs"],
                ],
            )

    def _element(self, name: str, kind: Any, first: Any, width: Any, second: Any) -> Any:
        """Where element (first, second) of a table lies, whose rows are ``width`` long."""
        place = self.b.add(self.b.mul(first, width), second)
        return self.b.gep(self._pointer(name, kind), [place])

    def _result(self, place: int, row: Any) -> Any:
        return self._element("out", self.double, self.int(place), self.slots["rows"], row)

    def _wide(self, value: Any) -> Any:
        return value if value.type == self.double else self.b.fpext(value, self.double)

    def _absolute(self, value: Any) -> Any:
        return self.b.call(self.module.declare_intrinsic("llvm.fabs", [self.double]), [value])

    def _trust(self, row: Any) -> None:
        """Keep what is shown as the row's state, where all of it is within the limits."""
        b, size = self.b, self.verdict.state_size
        sound, values = self.ir.IntType(1)(1), []
        for d in range(size):
            place = self._element("shown", self.real, row, self.int(size), self.int(d))
            values.append(self._wide(b.load(place)))
            limit = b.load(b.gep(self._pointer("limit", self.double), [self.int(d)]))
            sound = b.and_(sound, b.fcmp_ordered("<=", self._absolute(values[d]), limit))
        for d, value in enumerate(values):
            place = self._element("states", self.double, self.int(d), self.slots["rows"], row)
            b.store(b.select(sound, value, b.load(place)), place)
        lost = size + len(self.verdict.outcome)
        b.store(b.uitofp(b.not_(sound), self.double), self._result(lost, row))
        self._doubt(row, lost + 1)

    def _doubt(self, row: Any, place: int) -> None:
        b = self.b
        with b.if_then(b.icmp_signed("!=", self.slots["doubt"], self.int(0))):
            value = b.load(b.gep(self._pointer("doubt", self.real), [row]))
            b.store(self._wide(value), self._result(place, row))

    def _judge(self) -> None:
        """The true env's equations, of all rows."""
        rows, zero = self.slots["rows"], self.int(0)
        states, control, constants, out = (
            self._pointer(name, self.double) for name in ("states", "control", "constants", "out")
        )
        pace = self.slots["stride"], self.slots["pace"]
        given = [zero, rows, rows, states, rows, control, constants, *pace, out]
        self.b.call(self.judge, [*given, self.double(0.0), zero])

    def _observe(self, row: Any) -> None:
        """Features in float32, one row after another."""
        b, count = self.b, len(self.verdict.features)
        first = self.verdict.state_size + len(self.verdict.outcome) - count
        for place in range(count):
            value = b.fptrunc(b.load(self._result(first + place, row)), self.ir.FloatType())
            b.store(
                value,
                self._element(
                    "observed", self.ir.FloatType(), row, self.int(count), self.int(place)
                ),
            )
