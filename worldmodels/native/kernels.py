"""One kind of operation in LLVM's language: loops over the elements of tensors that are given by their pointers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from worldmodels.native.functions import ELEMENTWISE, UNARY, Functions, scalar
from worldmodels.native.recording import NotRecordable, Number, Operation, Ref
from worldmodels.native.reductions import SUM, Reductions, count_of
from worldmodels.native.vectors import in_registers

UNROLLED = 4
"""Loops of at most so many turns are written out."""
COPIED = ("clone", "_to_copy", "contiguous")


def loop(b: Any, count: Any, body: Callable[[Any], None]) -> None:
    """``body`` of 0 to ``count`` - 1 (a value, at least 1), written at the place of ``b``."""
    before, kind = b.block, count.type
    head = b.append_basic_block("head")
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(kind)
    index.add_incoming(kind(0), before)
    body(index)
    following = b.add(index, kind(1))
    index.add_incoming(following, b.block)
    after = b.append_basic_block("after")
    b.cbranch(b.icmp_signed("<", following, count), head, after)
    b.position_at_end(after)


class Kernel(Reductions):
    """One operation on tensors that are given by their pointers."""

    def __init__(
        self, module: Any, functions: Functions, operation: Operation, kinds: list[Any], name: str
    ) -> None:
        ir = functions.ir
        self.ir, self.functions, self.real, self.int = ir, functions, functions.real, ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), kinds)
        self.function = ir.Function(module, kind, name=name)
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self.function.args[-1].add_attribute("noalias")
        self.places = self.function.args
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self._operation(operation)
        self.b.ret_void()

    def _times(self, count: int, body: Callable[[Any], None]) -> None:
        if count <= UNROLLED:
            for i in range(count):
                body(self.int(i))
        else:
            loop(self.b, self.int(count), body)

    def _each(self, shape: Sequence[int], body: Callable[[list[Any]], None]) -> None:
        """``body`` of every index into ``shape``."""

        def inner(axis: int, at: list[Any]) -> None:
            if axis == len(shape):
                body(at)
            else:
                self._times(shape[axis], lambda i: inner(axis + 1, [*at, i]))

        inner(0, [])

    def _linear(self, at: Sequence[Any], stride: Sequence[int], offset: int = 0) -> Any:
        place = self.int(offset)
        for index, step in zip(at, stride, strict=True):
            if step:
                place = self.b.add(place, self.b.mul(index, self.int(step)))
        return place

    def _load(self, ref: Ref, at: Sequence[Any]) -> Any:
        """Element ``at`` of ``ref``, whose shape is broadcast to as many axes as ``at`` has."""
        missing = len(at) - len(ref.shape)
        own = at[missing:]
        stride = [
            0 if size == 1 else step for size, step in zip(ref.shape, ref.stride, strict=True)
        ]
        place = self._linear(own, stride, ref.offset)
        value = self.b.load(self.b.gep(self.places[ref.storage], [place]))
        if value.type == self.real:
            return value
        return self.b.sitofp(value, self.real)

    def _store(self, ref: Ref, at: Sequence[Any], value: Any) -> None:
        place = self._linear(at, ref.stride, ref.offset)
        self.b.store(value, self.b.gep(self.places[ref.storage], [place]))

    def _value(self, argument: Any, at: Sequence[Any]) -> Any:
        if isinstance(argument, Ref):
            return self._load(argument, at)
        if isinstance(argument, Number):
            return self.b.load(self.places[argument.place])
        return self.functions.number(float(argument))

    def _operation(self, operation: Operation) -> None:
        rule = getattr(self, f"_{operation.name}", None)
        named = dict(operation.named)
        if operation.name in ELEMENTWISE:
            self._elementwise(operation)
        elif operation.name in COPIED:
            source = operation.arguments[0]
            self._each(
                operation.result.shape,
                lambda at: self._store(operation.result, at, self._load(source, at)),
            )
        elif rule is not None:
            rule(operation.result, *operation.arguments, **named)
        else:
            raise NotRecordable(f"{operation.name} has no rule")

    def _elementwise(self, operation: Operation) -> None:
        check_elementwise(operation)

        def body(at: list[Any]) -> None:
            values = [
                None if argument is None else self._value(argument, at)
                for argument in operation.arguments
            ]
            value = scalar(self.b, self.functions, operation.name, values)
            self._store(operation.result, at, value)

        self._each(operation.result.shape, body)

    def _cat(self, result: Ref, parts: Sequence[Ref], axis: int = 0) -> None:
        axis %= len(result.shape)
        begin = 0
        for part in parts:
            if part.shape == (0,):
                continue

            def body(at: list[Any], part: Ref = part, begin: int = begin) -> None:
                there = list(at)
                there[axis] = self.b.add(at[axis], self.int(begin))
                self._store(result, there, self._load(part, at))

            self._each(part.shape, body)
            begin += part.shape[axis]

    def _stack(self, result: Ref, parts: Sequence[Ref], axis: int = 0) -> None:
        axis %= len(result.shape)
        for place, part in enumerate(parts):

            def body(at: list[Any], part: Ref = part, place: int = place) -> None:
                there = [*at[:axis], self.int(place), *at[axis:]]
                self._store(result, there, self._load(part, at))

            self._each(part.shape, body)

    def _embedding(self, result: Ref, table: Ref, index: Ref, *options: Any) -> None:
        depth = len(index.shape)

        def body(at: list[Any]) -> None:
            place = self._linear(at[:depth], index.stride, index.offset)
            row = self.b.load(self.b.gep(self.places[index.storage], [place]))
            self._store(result, at, self._load(table, [row, at[-1]]))

        self._each(result.shape, body)

    def _product(self, result: Ref, left: Ref, right: Ref, start: Any = None) -> None:
        """result[..., i, j] = start[..., i, j] + sum_k left[..., i, k] right[..., k, j]."""
        if in_registers(self.b, self.functions, self.places, (result, left, right, start)):
            return
        count, zero = left.shape[-1], self.functions.number(0.0)

        def begin(at: list[Any]) -> Any:
            return zero if start is None else self._load(start, at)

        def term(at: list[Any], k: Any) -> Any:
            factors = self._load(left, [*at[:-1], k]), self._load(right, [*at[:-2], k, at[-1]])
            return self.b.fmul(*factors, flags=SUM)

        if (
            right.stride[-1] == 1 and result.shape[-1] > 1
        ):  # whole rows of `right`, one after another
            self._each(result.shape, lambda at: self._store(result, at, begin(at)))

            def row(at: list[Any]) -> None:
                def add(j: Any) -> None:
                    there = [*at[:-1], j]
                    value = self.b.fadd(self._load(result, there), term(there, at[-1]), flags=SUM)
                    self._store(result, there, value)

                self._times(result.shape[-1], add)

            self._each((*result.shape[:-1], count), row)
            return

        def column(at: list[Any]) -> None:
            self._store(result, at, self._added(count, begin(at), lambda k: term(at, k)))

        self._each(result.shape, column)

    def _added(self, count: int, start: Any, term: Callable[[Any], Any]) -> Any:
        """``start`` + the ``count`` terms."""
        if count <= UNROLLED:
            for k in range(count):
                start = self.b.fadd(start, term(self.int(k)), flags=SUM)
            return start
        before = self.b.block
        head = self.b.append_basic_block("sum")
        self.b.branch(head)
        self.b.position_at_end(head)
        k, total = self.b.phi(self.int), self.b.phi(self.real)
        k.add_incoming(self.int(0), before)
        total.add_incoming(start, before)
        more = self.b.fadd(total, term(k), flags=SUM)
        following = self.b.add(k, self.int(1))
        k.add_incoming(following, self.b.block)
        total.add_incoming(more, self.b.block)
        after = self.b.append_basic_block("summed")
        self.b.cbranch(self.b.icmp_signed("<", following, self.int(count)), head, after)
        self.b.position_at_end(after)
        return more

    def _mm(self, result: Ref, left: Ref, right: Ref) -> None:
        self._product(result, left, right)

    _bmm = _mm

    def _addmm(self, result: Ref, start: Ref, left: Ref, right: Ref) -> None:
        self._product(result, left, right, start)

    _baddbmm = _addmm


def check_elementwise(operation: Operation) -> None:
    """Raise ``NotRecordable`` for an elementwise operation with options that no rule has."""
    name, named = operation.name, dict(operation.named)
    if named.pop("alpha", 1) != 1 or named:
        raise NotRecordable(f"{name} with {dict(operation.named)}")
    if (name == "pow" and operation.arguments[1] != 2) or (
        name in UNARY and len(operation.arguments) > 1
    ):
        raise NotRecordable(f"{name} of {operation.arguments[1:]}")


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor of that shape without gaps, last axis fastest."""
    return tuple(count_of(shape[axis + 1 :]) for axis in range(len(shape)))
