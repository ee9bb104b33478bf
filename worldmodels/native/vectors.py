"""One row times a matrix in LLVM's language, in whole registers: sums are kept there, and each weight is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from worldmodels.native.functions import Functions
from worldmodels.native.recording import Ref

BYTES = 32
"""Of a register."""
TILE = 8
"""Sums that are kept side by side."""
CONTRACT = ("contract",)


class RowProduct:
    """start[j] + sum_k left[k] right[k, j], for pointers to numbers without gaps.

    Args:
        b: the builder, at whose place it is written.
        functions: of the numbers' type.
        sizes: (terms, columns).
    """

    def __init__(self, b: Any, functions: Functions, sizes: tuple[int, int]) -> None:
        ir = functions.ir
        self.ir, self.b, self.real, self.int = ir, b, functions.real, ir.IntType(64)
        self.terms, self.columns = sizes
        self.lanes = self.lanes_of(functions)
        self.vector = ir.VectorType(self.real, self.lanes)
        self.aligned = 8 if functions.double else 4

    @staticmethod
    def lanes_of(functions: Functions) -> int:
        """Numbers side by side in a register."""
        return BYTES // (8 if functions.double else 4)

    def by_rows(self, left: Any, right: Any, start: Any, result: Any) -> None:
        """``right`` holds its rows one after another; ``start``: None, or a pointer. Columns fill registers."""
        width = self.columns // self.lanes
        for first in range(0, width, TILE):
            count = min(TILE, width - first)
            at = [self.int((first + j) * self.lanes) for j in range(count)]
            zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
            sums = [zero if start is None else self._load(start, place) for place in at]

            def term(k: Any, totals: Sequence[Any], at: Any = at) -> list[Any]:
                b = self.b
                x = self._repeated(b.load(b.gep(left, [k])))
                row = b.mul(k, self.int(self.columns))
                rows = (self._load(right, b.add(row, place)) for place in at)
                return [self._added(t, x, own) for t, own in zip(totals, rows, strict=True)]

            for place, total in zip(at, self._over(self.terms, 1, sums, term), strict=True):
                self._store(result, place, total)

    def by_columns(self, left: Any, right: Any, start: Any, result: Any) -> None:
        """``right`` holds its columns one after another. Terms fill registers, columns whole groups of as many."""
        for first in range(0, self.columns, self.lanes):
            zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
            at = [self.int((first + j) * self.terms) for j in range(self.lanes)]

            def term(k: Any, totals: Sequence[Any], at: Any = at) -> list[Any]:
                x = self._load(left, k)
                columns = (self._load(right, self.b.add(place, k)) for place in at)
                return [self._added(t, x, own) for t, own in zip(totals, columns, strict=True)]

            total = self._together(self._over(self.terms, self.lanes, [zero] * self.lanes, term))
            place = self.int(first)
            if start is not None:
                total = self.b.fadd(total, self._load(start, place))
            self._store(result, place, total)

    def _over(
        self,
        count: int,
        pace: int,
        first: Sequence[Any],
        term: Callable[[Any, Sequence[Any]], list[Any]],
    ) -> list[Any]:
        """``first`` after ``term`` of 0, ``pace``, ... below ``count``."""
        b = self.b
        before, head = b.block, b.append_basic_block("terms")
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(self.int)
        k.add_incoming(self.int(0), before)
        totals = [b.phi(self.vector) for _ in first]
        for total, own in zip(totals, first, strict=True):
            total.add_incoming(own, before)
        added = term(k, totals)
        following = b.add(k, self.int(pace))
        k.add_incoming(following, b.block)
        for total, own in zip(totals, added, strict=True):
            total.add_incoming(own, b.block)
        after = b.append_basic_block("summed")
        b.cbranch(b.icmp_signed("<", following, self.int(count)), head, after)
        b.position_at_end(after)
        return added

    def _together(self, parts: Sequence[Any]) -> Any:
        """Of as many registers as each has numbers, the sum of each: halves by themselves first, which is cheap."""
        half, lanes = self.lanes // 2, self.lanes
        pairs = [first + k for first in (0, half) for k in range(0, half, 2)]
        order = [*pairs[: half // 2], *(lanes + k for k in pairs[: half // 2])]
        order += [*pairs[half // 2 :], *(lanes + k for k in pairs[half // 2 :])]
        while len(parts) > 2:
            parts = [
                self._sums(u, v, order, 1) for u, v in zip(parts[::2], parts[1::2], strict=True)
            ]
        low, high = parts
        return self._sums(low, high, [*range(half), *range(lanes, lanes + half)], half)

    def _sums(self, u: Any, v: Any, order: Sequence[int], ahead: int) -> Any:
        """Numbers of ``u`` and ``v`` in that ``order``, each with the one that lies ``ahead`` of it."""
        kind = self.ir.VectorType(self.ir.IntType(32), self.lanes)
        taken = [[place + more for place in order] for more in (0, ahead)]
        return self.b.fadd(
            *(self.b.shuffle_vector(u, v, self.ir.Constant(kind, own)) for own in taken)
        )

    def _added(self, total: Any, x: Any, y: Any) -> Any:
        return self.b.fadd(total, self.b.fmul(x, y, flags=CONTRACT), flags=CONTRACT)

    def _place(self, base: Any, at: Any) -> Any:
        return self.b.bitcast(self.b.gep(base, [at]), self.vector.as_pointer())

    def _load(self, base: Any, at: Any) -> Any:
        value = self.b.load(self._place(base, at))
        value.align = self.aligned
        return value

    def _store(self, base: Any, at: Any, value: Any) -> None:
        self.b.store(value, self._place(base, at)).align = self.aligned

    def _repeated(self, value: Any) -> Any:
        ir, whole = self.ir, self.ir.IntType(32)
        none = ir.Constant(self.vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(whole, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(self.b.insert_element(none, value, whole(0)), none, zeros)


def in_registers(
    b: Any, functions: Functions, places: Sequence[Any], refs: tuple[Ref, Ref, Ref, Ref | None]
) -> bool:
    """Write the product of one row and a matrix, where their sizes fill registers; False: nothing is written.

    ``refs``: (result, left, right, start), each a view of what lies at its one of the ``places``.
    """
    result, left, right, start = refs
    terms, columns = right.shape[-2:]
    lanes = RowProduct.lanes_of(functions)
    one = result.shape == (1, columns) and right.stride in ((columns, 1), (1, terms))
    even = left.stride[-1] == result.stride[-1] == 1 and columns % lanes == 0
    if not one or not even or (start is not None and start.stride[-1] != 1):
        return False

    def at(ref: Ref) -> Any:
        return b.gep(places[ref.storage], [functions.ir.IntType(64)(ref.offset)])

    product = RowProduct(b, functions, (terms, columns))
    given = at(left), at(right), None if start is None else at(start), at(result)
    if right.stride == (columns, 1):
        product.by_rows(*given)
    elif terms % lanes == 0:
        product.by_columns(*given)
    else:
        return False
    return True
