"""Matrix products in LLVM's language, for operands that lie in the cache."""

from __future__ import annotations

from typing import Any

from worldmodels.native.functions import Functions
from worldmodels.native.kernels import loop

PADDING = 8
"""Rows of tensors are as long as the next multiple of this many numbers."""
TILE = 4
"""Rows of a product that are summed up side by side."""
CONTRACT = ("contract",)


def padded(count: int) -> int:
    """``count`` rounded up to a multiple of ``PADDING``."""
    return -(-count // PADDING) * PADDING


class Matrices:
    """C[i, j] = I[i, j] + sum_k A[i, k] B[k, j], tile by tile, its sums kept in registers.

    The function is ``product(rows, columns, terms, A, step of i, step of k, B, step of k, C, step of i, I, step of
    i)``, steps in elements. B, C and I have rows of a multiple of ``PADDING`` columns without gaps; what lies behind
    the last column is computed too, and means nothing. I may be C itself; a step of 0 repeats its one row.
    """

    def __init__(self, module: Any, functions: Functions) -> None:
        ir = functions.ir
        self.ir, self.module, self.real, self.int = ir, module, functions.real, ir.IntType(64)
        self.lanes = PADDING // 2 if functions.double else PADDING
        self.vector = ir.VectorType(self.real, self.lanes)
        place = self.real.as_pointer()
        arguments = [self.int] * 3 + [place, self.int, self.int] + [place, self.int] * 3
        self.kind = ir.FunctionType(ir.VoidType(), arguments)
        self._tiles: dict[tuple[int, int], Any] = {}
        self.product = self._product()

    def _named(self, name: str) -> Any:
        function = self.ir.Function(self.module, self.kind, name=name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        return function

    def _product(self) -> Any:
        """The loop over tiles."""
        function = self._named("product")
        rows, columns, terms, a, ai, ak, b, bk, c, ci, start, si = function.args
        b_ = self.ir.IRBuilder(function.append_basic_block("entry"))
        widths = (2, 1)

        def tile(height: int, width: int, i: Any, j: Any) -> None:
            places = [
                b_.gep(a, [b_.mul(i, ai)]),
                b_.gep(b, [j]),
                b_.gep(c, [b_.add(b_.mul(i, ci), j)]),
                b_.gep(start, [b_.add(b_.mul(i, si), j)]),
            ]
            if (height, width) not in self._tiles:
                self._tiles[height, width] = self._tile(height, width)
            steps = [places[0], ai, ak, places[1], bk, places[2], ci, places[3], si]
            b_.call(self._tiles[height, width], [rows, columns, terms, *steps])

        def band(width: int, j: Any) -> None:
            whole = b_.sdiv(rows, self.int(TILE))
            self._some(b_, whole, lambda k: tile(TILE, width, b_.mul(k, self.int(TILE)), j))
            done = b_.mul(whole, self.int(TILE))
            self._some(b_, b_.sub(rows, done), lambda k: tile(1, width, b_.add(done, k), j))

        done = self.int(0)
        for width in widths:
            size = self.int(width * self.lanes)
            count = b_.sdiv(b_.sub(columns, done), size)
            first = done
            self._some(b_, count, lambda k: band(width, b_.add(first, b_.mul(k, size))))  # noqa: B023
            done = b_.add(done, b_.mul(count, size))
        b_.ret_void()
        return function

    def _some(self, b: Any, count: Any, body: Any) -> None:
        """A loop that may have no turns."""
        with b.if_then(b.icmp_signed(">", count, self.int(0))):
            loop(b, count, body)

    def _tile(self, height: int, width: int) -> Any:
        """``height`` rows and ``width`` vectors of C."""
        function = self._named(f"tile_{height}_{width}")
        _, _, terms, a, ai, ak, b, bk, c, ci, start, si = function.args
        b_ = self.ir.IRBuilder(function.append_basic_block("entry"))
        sums = [
            self._load(b_, start, b_.mul(self.int(i), si), j)
            for i in range(height)
            for j in range(width)
        ]
        before, head = b_.block, b_.append_basic_block("terms")
        b_.branch(head)
        b_.position_at_end(head)
        k = b_.phi(self.int)
        k.add_incoming(self.int(0), before)
        totals = [b_.phi(self.vector) for _ in sums]
        for total, first in zip(totals, sums, strict=True):
            total.add_incoming(first, before)
        right = [self._load(b_, b, b_.mul(k, bk), j) for j in range(width)]
        added = []
        for i in range(height):
            at = b_.add(b_.mul(self.int(i), ai), b_.mul(k, ak))
            left = self._repeated(b_, b_.load(b_.gep(a, [at])))
            for j in range(width):
                term = b_.fmul(left, right[j], flags=CONTRACT)
                added.append(b_.fadd(totals[i * width + j], term, flags=CONTRACT))
        following = b_.add(k, self.int(1))
        k.add_incoming(following, b_.block)
        for total, value in zip(totals, added, strict=True):
            total.add_incoming(value, b_.block)
        after = b_.append_basic_block("summed")
        b_.cbranch(b_.icmp_signed("<", following, terms), head, after)
        b_.position_at_end(after)
        for i in range(height):
            for j in range(width):
                place = self._vector(b_, c, b_.mul(self.int(i), ci), j)
                b_.store(added[i * width + j], place).align = self._aligned
        b_.ret_void()
        return function

    @property
    def _aligned(self) -> int:
        return 8 if self.lanes * 2 == PADDING else 4

    def _vector(self, b: Any, base: Any, at: Any, j: int) -> Any:
        place = b.gep(base, [b.add(at, self.int(j * self.lanes))])
        return b.bitcast(place, self.vector.as_pointer())

    def _load(self, b: Any, base: Any, at: Any, j: int) -> Any:
        value = b.load(self._vector(b, base, at, j))
        value.align = self._aligned
        return value

    def _repeated(self, b: Any, value: Any) -> Any:
        ir, whole = self.ir, self.ir.IntType(32)
        one = b.insert_element(ir.Constant(self.vector, ir.Undefined), value, whole(0))
        none = ir.Constant(ir.VectorType(whole, self.lanes), [0] * self.lanes)
        return b.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), none)
