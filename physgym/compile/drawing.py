"""Machine code for the random streams of `physgym.streams`, whose numbers have 128 bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from physgym.compile import native
from physgym.compile.cache import once

Draw = Callable[[np.ndarray, int, np.ndarray, np.ndarray], np.ndarray]


def draws(multiplier: int) -> Draw | None:
    """What moves rows of streams on by machine code; None where that cannot be had.

    (rows (K,) int64, count, states (2, N), steps (2, N)) -> numbers (count, K) of 64 bits, as
    `physgym.streams` defines them; the states, uint64 high halves and then low ones, are written.
    """
    return _attempt(multiplier) if native.available() else None


@once
def _attempt(multiplier: int) -> Draw | None:
    try:
        function: Any = native.function_of(native.engine_of(assembly(multiplier)), "draw")
    except Exception:  # whatever llvmlite or LLVM may raise; arrays do it all, and say the same
        return None

    function.argtypes = [ctypes.c_int64] * 3 + [ctypes.c_void_p] * 4

    def draw(rows: np.ndarray, count: int, states: np.ndarray, steps: np.ndarray) -> np.ndarray:
        out = np.empty((count, len(rows)), dtype=np.uint64)
        addresses = [x.ctypes.data for x in (rows, states, steps, out)]
        function(len(rows), count, states.shape[1], *addresses)
        return out

    return draw


def assembly(multiplier: int) -> str:
    """LLVM assembly of `draw(K, count, N, rows, states, steps, out)`."""
    from llvmlite import ir

    module, word = ir.Module(name="physgym_draws"), ir.IntType(64)
    kinds = [word] * 3 + [word.as_pointer()] * 4
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name="draw")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    rows, count, width, index, states, steps, out = function.args

    def over_rows(i: Any) -> None:
        row = b.load(b.gep(index, [i]))
        step, state = _read(b, steps, row, width), b.alloca(ir.IntType(128))
        b.store(_read(b, states, row, width), state)

        def over_numbers(k: Any) -> None:
            moved = b.add(b.mul(b.load(state), ir.IntType(128)(multiplier)), step)
            b.store(moved, state)
            b.store(_scrambled(b, moved), b.gep(out, [b.add(b.mul(k, rows), i)]))

        _loop(b, count, over_numbers)
        high, low = _halves(b, b.load(state))
        b.store(high, b.gep(states, [row]))
        b.store(low, b.gep(states, [b.add(row, width)]))

    _loop(b, rows, over_rows)
    b.ret_void()
    return str(module)


def _loop(b: Any, end: Any, body: Callable[[Any], None]) -> None:
    """`body` for every number from 0 below `end`."""
    start = b.block
    inside, after = b.append_basic_block("inside"), b.append_basic_block("after")
    head = b.append_basic_block("head")
    b.branch(head)
    b.position_at_end(head)
    counter = b.phi(end.type)
    counter.add_incoming(end.type(0), start)
    b.cbranch(b.icmp_signed("<", counter, end), inside, after)
    b.position_at_end(inside)
    body(counter)
    counter.add_incoming(b.add(counter, end.type(1)), b.block)
    b.branch(head)
    b.position_at_end(after)


def _read(b: Any, halves: Any, row: Any, width: Any) -> Any:
    from llvmlite import ir

    whole = ir.IntType(128)
    high = b.zext(b.load(b.gep(halves, [row])), whole)
    low = b.zext(b.load(b.gep(halves, [b.add(row, width)])), whole)
    return b.or_(b.shl(high, whole(64)), low)


def _halves(b: Any, number: Any) -> tuple[Any, Any]:
    from llvmlite import ir

    word = ir.IntType(64)
    return b.trunc(b.lshr(number, number.type(64)), word), b.trunc(number, word)


def _scrambled(b: Any, state: Any) -> Any:
    """XSL-RR: both halves of the state together, turned right by its highest six bits."""
    high, low = _halves(b, state)
    mixed, places = b.xor(high, low), b.lshr(high, high.type(58))
    back = b.and_(b.sub(high.type(0), places), high.type(63))
    return b.or_(b.lshr(mixed, places), b.shl(mixed, back))
