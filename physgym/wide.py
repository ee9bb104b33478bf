"""Whole numbers of 128 bits in arrays: a high and a low half of 64 on the first axis, modulo 2^128."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LOW = np.uint64(0xFFFFFFFF)
"""The lower half of a number of 64 bits."""
_HALF, _ALL = np.uint64(32), np.uint64(63)


def split(numbers: Sequence[int]) -> np.ndarray:
    """(2, K) of K integers."""
    return np.array([[x >> 64 & 2**64 - 1, x & 2**64 - 1] for x in numbers], dtype=np.uint64).T


def joined(numbers: np.ndarray) -> list[int]:
    """The K integers of (2, K)."""
    return [high << 64 | low for high, low in numbers.T.tolist()]


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b."""
    low = a[1] + b[1]
    return np.stack([a[0] + b[0] + (low < a[1]), low])


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b, the low halves by the four products of their own halves."""
    (a_high, a_low), (b_high, b_low) = a, b
    a1, a0, b1, b0 = a_low >> _HALF, a_low & LOW, b_low >> _HALF, b_low & LOW
    cross = a1 * b0 + (a0 * b0 >> _HALF)
    middle = (cross & LOW) + a0 * b1
    carried = a1 * b1 + (cross >> _HALF) + (middle >> _HALF)
    return np.stack([carried + a_high * b_low + a_low * b_high, a_low * b_low])


def turned(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`numbers` of 64 bits, each rotated right by its number of `places` (0 to 63)."""
    return numbers >> places | numbers << (-places & _ALL)
