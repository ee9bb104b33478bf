"""Kernels over a block of rows: what a node computes, and what its gradient adds to those of what it read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from worldmodels.native.derivatives import Expression
from worldmodels.native.functions import Functions
from worldmodels.native.graph import Fused, Instruction, Plain
from worldmodels.native.kernels import COPIED, Kernel, loop
from worldmodels.native.recording import NotRecordable, Ref


class RowKernel(Kernel):
    """One node on rows that lie ``pitches`` elements apart (0: the same for all rows).

    The function is ``kernel(rows, values..., gradients...)``: pointers to the tensors that the node's ``Ref``s count,
    and, where ``gradients`` are asked, to theirs. ``fresh`` says whose gradients are written and not added to.
    """

    def __init__(
        self,
        module: Any,
        functions: Functions,
        node: Fused | Plain,
        kinds: Sequence[Any],
        pitches: Sequence[int],
        name: str,
        active: frozenset[int] | None = None,
        fresh: frozenset[int] = frozenset(),
    ) -> None:
        ir = functions.ir
        self.ir, self.functions, self.real, self.int = ir, functions, functions.real, ir.IntType(64)
        self.pitches, self.fresh = pitches, fresh
        self.read: set[int] = set()
        self.active = sorted(active or ())
        given = [*kinds, *(kinds[index] for index in self.active)]
        kind = ir.FunctionType(ir.VoidType(), [self.int, *given])
        self.function = ir.Function(module, kind, name=name)
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        for argument in self.function.args[1:]:
            argument.add_attribute("noalias")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        rows, *pointers = self.function.args
        count = len(kinds)

        def body(row: Any) -> None:
            def moved(pointer: Any, pitch: int) -> Any:
                return self.b.gep(pointer, [self.b.mul(row, self.int(pitch))]) if pitch else pointer

            self.places = [moved(*pair) for pair in zip(pointers[:count], pitches, strict=True)]
            own = [moved(p, pitches[i]) for p, i in zip(pointers[count:], self.active, strict=True)]
            self.gradients = dict(zip(self.active, own, strict=True))
            if active is None:
                self._forward(node)
            else:
                self._backward(node)

        loop(self.b, rows, body)
        self.b.ret_void()

    def _load(self, ref: Ref, at: Sequence[Any]) -> Any:
        self.read.add(ref.storage)
        return super()._load(ref, at)

    def _given(self, told: Instruction, at: Sequence[Any]) -> Any:
        return self._value(told[1], at)

    def _forward(self, node: Fused | Plain) -> None:
        if isinstance(node, Plain):
            self._operation(node.operation)
            return

        def body(at: list[Any]) -> None:
            whole = Expression(
                self.b, self.functions, node.code, lambda told: self._given(told, at)
            )
            self._store(node.result, at, whole.value())

        self._each(node.result.shape, body)

    def _backward(self, node: Fused | Plain) -> None:
        if isinstance(node, Fused):
            self._each(node.result.shape, lambda at: self._fused_adjoint(node, at))
            return
        operation = node.operation
        if operation.name in COPIED:
            self._copied(operation.result, operation.arguments[0], lambda at: at)
            return
        rule = getattr(self, f"_{operation.name}_adjoint", None)
        if rule is None:
            raise NotRecordable(f"the gradient of {operation.name} has no rule")
        rule(operation.result, *operation.arguments, **dict(operation.named))

    def _fused_adjoint(self, node: Fused, at: list[Any]) -> None:
        whole = Expression(
            self.b,
            self.functions,
            node.code,
            lambda told: self._given(told, at),
            lambda: self._load(node.result, at),
        )
        asked = {
            place
            for place, told in enumerate(node.code)
            if told[0] == "load" and told[1].storage in self.gradients
        }
        slopes = whole.slopes(self._gradient(node.result, at), asked)
        for place in sorted(slopes):
            self._add(node.code[place][1], at, slopes[place])

    def _gradient(self, ref: Ref, at: Sequence[Any]) -> Any:
        return self.b.load(self._place(ref, at))

    def _place(self, ref: Ref, at: Sequence[Any]) -> Any:
        """Where the gradient of element ``at`` of ``ref``, broadcast as in ``_load``, lies."""
        own = at[len(at) - len(ref.shape) :]
        pairs = zip(ref.shape, ref.stride, strict=True)
        stride = [0 if size == 1 else step for size, step in pairs]
        return self.b.gep(self.gradients[ref.storage], [self._linear(own, stride, ref.offset)])

    def _add(self, ref: Ref, at: Sequence[Any], value: Any) -> None:
        place = self._place(ref, at)
        if ref.storage not in self.fresh:
            value = self.b.fadd(self.b.load(place), value)
        self.b.store(value, place)

    def _copied(self, result: Ref, source: Ref, there: Callable[[list[Any]], list[Any]]) -> None:
        """The gradient of a copy of ``source`` whose element ``at`` went to ``there(at)``."""
        if source.storage in self.gradients:
            self._each(
                source.shape, lambda at: self._add(source, at, self._gradient(result, there(at)))
            )

    def _cat_adjoint(self, result: Ref, parts: Sequence[Ref], axis: int = 0) -> None:
        axis %= len(result.shape)
        begin = 0
        for part in parts:
            if part.shape == (0,):
                continue

            def there(at: list[Any], begin: int = begin) -> list[Any]:
                return [*at[:axis], self.b.add(at[axis], self.int(begin)), *at[axis + 1 :]]

            self._copied(result, part, there)
            begin += part.shape[axis]

    def _stack_adjoint(self, result: Ref, parts: Sequence[Ref], axis: int = 0) -> None:
        axis %= len(result.shape)
        for place, part in enumerate(parts):

            def there(at: list[Any], place: int = place) -> list[Any]:
                return [*at[:axis], self.int(place), *at[axis:]]

            self._copied(result, part, there)

    def _embedding_adjoint(self, result: Ref, table: Ref, index: Ref, *options: Any) -> None:
        depth = len(index.shape)

        def body(at: list[Any]) -> None:
            place = self._linear(at[:depth], index.stride, index.offset)
            row = self.b.load(self.b.gep(self.places[index.storage], [place]))
            self._add(table, [row, at[-1]], self._gradient(result, at))

        self._each(result.shape, body)

    def _products(self, result: Ref, left: Ref, right: Ref, start: Ref | None = None) -> None:
        def body(at: list[Any]) -> None:
            g = self._gradient(result, at[:-1])
            *outer, i, j, k = at
            a, b = [*outer, i, k], [*outer, k, j]
            if left.storage in self.gradients:
                self._add(left, a, self.b.fmul(g, self._load(right, b)))
            if right.storage in self.gradients:
                self._add(right, b, self.b.fmul(g, self._load(left, a)))

        self._each((*result.shape, left.shape[-1]), body)
        if start is not None and start.storage in self.gradients:
            self._each(result.shape, lambda at: self._add(start, at, self._gradient(result, at)))

    def _mm_adjoint(self, result: Ref, left: Ref, right: Ref) -> None:
        self._products(result, left, right)

    _bmm_adjoint = _mm_adjoint

    def _addmm_adjoint(self, result: Ref, start: Ref, left: Ref, right: Ref) -> None:
        self._products(result, left, right, start)

    _baddbmm_adjoint = _addmm_adjoint

    def _spread(self, result: Ref, x: Ref, axes: Any, keep: bool, over: float) -> None:
        chosen = tuple(range(len(x.shape))) if axes is None else axes
        gone = {axis % len(x.shape) for axis in chosen}

        def body(at: list[Any]) -> None:
            own = [
                self.int(0) if axis in gone else index
                for axis, index in enumerate(at)
                if keep or axis not in gone
            ]
            g = self.b.fmul(self._gradient(result, own), self.functions.number(over))
            self._add(x, at, g)

        if x.storage in self.gradients:
            self._each(x.shape, body)

    def _sum_adjoint(
        self, result: Ref, x: Ref, axes: Any = None, keepdim: bool = False, **_: Any
    ) -> None:
        self._spread(result, x, axes, keepdim, 1.0)

    def _mean_adjoint(
        self, result: Ref, x: Ref, axes: Any = None, keepdim: bool = False, **_: Any
    ) -> None:
        over = 1.0
        for axis in range(len(x.shape)) if axes is None else axes:
            over /= x.shape[axis]
        self._spread(result, x, axes, keepdim, over)
