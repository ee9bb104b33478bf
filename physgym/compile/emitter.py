"""Prints a traced program as LLVM assembly: a loop over rows around a loop over sub-steps.

Rows go one by one, or several side by side in the lanes of vector registers (`lanes`, for programs
whose rows take the same sub-steps). Operations keep their order and are never fused, so both give
the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from physgym.compile import sines
from physgym.compile.program import MAX_SUBSTEPS, Program
from physgym.compile.tracing import FIXED, HELD, MOVING, Expression, needed

_COMPARISONS = {"lt": "<", "le": "<="}
_INTRINSICS = ("fabs", "sqrt", "rint", "ceil")


class Emitter:
    """Writes the function `name` into `module`; every value in it is `lanes` rows wide.

    With `side_by_side`, sines of all lanes are one computation, see `sines`; else those of the C library.
    """

    def __init__(
        self, program: Program, module: Any, name: str, lanes: int = 1, side_by_side: bool = False
    ) -> None:
        from llvmlite import ir

        if lanes > 1 and program.adaptive:
            raise ValueError(f"lanes={lanes}: rows of an adaptive program go at their own pace")
        self.ir, self.program, self.module, self.lanes = ir, program, module, lanes
        self.side_by_side = side_by_side
        self.double, self.int = ir.DoubleType(), ir.IntType(64)
        self.number = self.double if lanes == 1 else ir.VectorType(self.double, lanes)
        pointer = self.double.as_pointer()
        kinds = [self.int] * 3  # first row, last row, stride of the state and of the results
        kinds += [pointer, self.int, pointer]  # state; stride of the control, control
        kinds += [pointer, self.int, self.int]  # constants, their stride and their step a row
        kinds += [pointer, self.double, self.int]  # results; dt, number of sub-steps
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name=name)
        self.values: dict[int, Any] = {}

    def emit(self) -> None:
        """Write the function."""
        ir = self.ir
        entry, head, body, after = (
            self.function.append_basic_block(n) for n in ("entry", "head", "body", "after")
        )
        b = self.builder = ir.IRBuilder(entry)
        first, last, stride = self.function.args[:3]
        row = b.alloca(self.int)
        self.cells = [b.alloca(self.number) for _ in self.program.state]
        self.remaining, self.count = b.alloca(self.double), b.alloca(self.int)
        b.store(first, row)
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(b.icmp_signed("<", b.load(row), last), body, after)
        b.position_at_end(body)
        self._row(b.load(row), stride)
        self.builder.store(self.builder.add(self.builder.load(row), self.int(self.lanes)), row)
        self.builder.branch(head)
        self.builder.position_at_end(after)
        self.builder.ret_void()

    def _place(self, pointer: Any, i: int, stride: Any, row: Any) -> Any:
        """Where component `i` of `row` (and of the rows beside it) lies."""
        b = self.builder
        place = b.gep(pointer, [b.add(b.mul(self.int(i), stride), row)])
        return place if self.lanes == 1 else b.bitcast(place, self.number.as_pointer())

    def _load(self, pointer: Any, i: int, stride: Any, row: Any) -> Any:
        return self.builder.load(self._place(pointer, i, stride, row), align=8)

    def _gather(self, pointer: Any, i: int, stride: Any, row: Any, step: Any) -> Any:
        """Component `i` of rows that lie `step` apart (0: they share it)."""
        b = self.builder
        base, parts = b.mul(self.int(i), stride), []
        for lane in range(self.lanes):
            at = b.mul(b.add(row, self.int(lane)), step)
            parts.append(b.load(b.gep(pointer, [b.add(base, at)])))
        return self._together(parts)

    def _together(self, parts: Sequence[Any]) -> Any:
        """One value of as many lanes as there are `parts`."""
        return sines.together(self.builder, parts, self.number)

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
            self.values[c.order] = self._gather(constants, i, c_stride, row, c_step)
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
            if value.type != self.number:
                value = b.uitofp(value, self.number)
            b.store(value, self._place(out, i, stride, row), align=8)

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
        pieces = self._call("ceil", b.fdiv(remaining, self._number(program.rule[0])))
        h = b.fdiv(remaining, pieces)
        b.store(b.fsub(remaining, h), self.remaining)
        self.values[program.step_size.order] = h

    def _number(self, x: Any) -> Any:
        if isinstance(x, Expression):
            return self.values[x.order]
        kind = self.ir.IntType(1) if isinstance(x, bool) else self.double
        number = int(x) if isinstance(x, bool) else float(x)
        if self.lanes == 1:
            return kind(number)
        return self.ir.Constant(self.ir.VectorType(kind, self.lanes), [number] * self.lanes)

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
        return self._call("fabs" if node.op == "abs" else node.op, *args)

    def _call(self, name: str, value: Any) -> Any:
        """An intrinsic on all lanes, or the C library's function on one lane after the other."""
        if name in _INTRINSICS:
            return sines.intrinsic(self.module, self.builder, name, value, self.lanes)
        if self.side_by_side:
            return sines.call(self.module, self.builder, name, value, self.lanes)
        return sines.by_library(self.module, self.builder, name, value, self.lanes)


def assembly(program: Program, lanes: int, side_by_side: bool = False) -> str:
    """LLVM assembly of `program`: "rows", and "lanes" beside it for batches where that is
    possible.
    """
    from llvmlite import ir

    module = ir.Module(name="physgym")
    Emitter(program, module, "rows", 1, side_by_side).emit()
    if not program.adaptive:
        Emitter(program, module, "lanes", lanes, side_by_side).emit()
    return str(module)
