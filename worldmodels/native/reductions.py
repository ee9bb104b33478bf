"""Operations that sum over axes, in LLVM's language: what `worldmodels.native.kernels.Kernel` knows of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from worldmodels.native.recording import NotRecordable, Ref

SUM = ("reassoc", "contract", "nsz")
"""Liberties of a sum of products."""


class Reductions:
    """The part of a kernel that has sums over axes, means and variances."""

    ir: Any
    b: Any
    int: Any
    real: Any
    functions: Any
    _each: Callable[..., None]
    _load: Callable[..., Any]
    _store: Callable[..., None]

    def _reduced(self, result: Ref, x: Ref, axes: Any, keep: bool, over: float) -> None:
        chosen = tuple(range(len(x.shape))) if axes is None else axes
        gone = {axis % len(x.shape) for axis in chosen}
        kept = [axis for axis in range(len(x.shape)) if axis not in gone]

        def body(at: list[Any]) -> None:
            own = [at[axis] for axis in kept] if keep else at
            total = self.functions.number(0.0)
            for places in itertools.product(*(range(x.shape[axis]) for axis in sorted(gone))):
                there: list[Any] = [None] * len(x.shape)
                for axis, index in zip(kept, own, strict=True):
                    there[axis] = index
                for axis, index in zip(sorted(gone), places, strict=True):
                    there[axis] = self.int(index)
                total = self.b.fadd(total, self._load(x, there), flags=SUM)
            self._store(result, at, self.b.fmul(total, self.functions.number(over)))

        self._each(result.shape, body)

    def _sum(self, result: Ref, x: Ref, axes: Any = None, keepdim: bool = False, **_: Any) -> None:
        self._reduced(result, x, axes, keepdim, 1.0)

    def _mean(self, result: Ref, x: Ref, axes: Any = None, keepdim: bool = False, **_: Any) -> None:
        self._reduced(result, x, axes, keepdim, count_of(result.shape) / count_of(x.shape))

    def _var(
        self, result: Ref, x: Ref, axes: Any = None, correction: Any = 1, keepdim: bool = False
    ) -> None:
        """About the mean, in doubles, of one axis."""
        if axes is None or len(axes) != 1 or keepdim or x.shape[axes[0]] <= (correction or 0):
            raise NotRecordable(f"var over {axes} with correction {correction}")
        axis = axes[0] % len(x.shape)
        count, double = x.shape[axis], self.ir.DoubleType()

        def body(at: list[Any]) -> None:
            b = self.b
            found = [self._load(x, [*at[:axis], self.int(k), *at[axis:]]) for k in range(count)]
            values = [self._cast(value, double) for value in found]
            mean = b.fdiv(_sum_of(b, values), double(count))
            squares = [b.fmul(own, own) for own in (b.fsub(value, mean) for value in values)]
            value = b.fdiv(_sum_of(b, squares), double(count - (correction or 0)))
            self._store(result, at, self._cast(value, self.real))

        self._each(result.shape, body)

    def _cast(self, value: Any, kind: Any) -> Any:
        if value.type == kind:
            return value
        wider = kind == self.ir.DoubleType()
        return self.b.fpext(value, kind) if wider else self.b.fptrunc(value, kind)


def _sum_of(b: Any, values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = b.fadd(total, value)
    return total


def count_of(shape: Sequence[int]) -> int:
    """Elements of a tensor of that shape."""
    count = 1
    for size in shape:
        count *= size
    return count
