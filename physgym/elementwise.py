"""Elementary functions that follow their operand: float, NumPy array, torch tensor or traced
expression.

Equations of a system use these names and nothing else, so one text serves a single environment
(floats), a batch (arrays), training (tensors, with gradients) and the tracer that compiles it
(`physgym.compile.tracing`). Floats go through `math` and arrays through NumPy's loops over the same C
library, which keeps both bit-identical for the functions listed here; `exp` and `tanh` are left out
because NumPy's own versions differ in the last bit.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

TWO_PI = 2.0 * math.pi


class _Floats:
    """The functions on Python floats."""

    sin, cos, sqrt, ceil = math.sin, math.cos, math.sqrt, math.ceil

    @staticmethod
    def rint(x: float) -> float:
        return float(round(x))

    @staticmethod
    def minimum(a: float, b: float) -> float:
        return a if a < b else b

    @staticmethod
    def maximum(a: float, b: float) -> float:
        return a if a > b else b

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b


class _Tensors:
    """The functions on torch tensors; torch is never imported from here, only found."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.sin, self.cos, self.sqrt, self.ceil = torch.sin, torch.cos, torch.sqrt, torch.ceil
        self.rint = torch.round

    def _pair(self, a: Any, b: Any) -> tuple[Any, Any]:
        tensor = a if isinstance(a, self._torch.Tensor) else b
        as_tensor = self._torch.as_tensor
        return (as_tensor(v, dtype=tensor.dtype, device=tensor.device) for v in (a, b))  # type: ignore[return-value]

    def minimum(self, a: Any, b: Any) -> Any:
        return self._torch.minimum(*self._pair(a, b))

    def maximum(self, a: Any, b: Any) -> Any:
        return self._torch.maximum(*self._pair(a, b))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self._torch.where(condition, a, b)


_tensors: _Tensors | None = None


def library(*operands: Any) -> Any:
    """Return the namespace (`sin`, `cos`, `sqrt`, `rint`, `ceil`, `minimum`, `maximum`, `where`)
    that suits `operands`.

    The richest operand decides: expression, then tensor, then array, then float. An unknown type
    raises TypeError.
    """
    global _tensors
    found: Any = _Floats
    for x in operands:
        if type(x) is float or (
            isinstance(x, (float, int, np.bool_)) and not isinstance(x, np.generic)
        ):
            continue
        if hasattr(x, "elementwise"):
            return x.elementwise
        if isinstance(x, (np.ndarray, np.generic)):
            found = np if found is _Floats else found
        elif "torch" in sys.modules and isinstance(x, sys.modules["torch"].Tensor):
            _tensors = _tensors or _Tensors(sys.modules["torch"])
            found = _tensors
        else:
            raise TypeError(
                "elementwise functions take floats, NumPy arrays and torch tensors, "
                f"not {type(x).__name__}"
            )
    return found


def sin(x: Any) -> Any:
    """Sine of `x` [rad]."""
    return library(x).sin(x)


def cos(x: Any) -> Any:
    """Cosine of `x` [rad]."""
    return library(x).cos(x)


def sqrt(x: Any) -> Any:
    """Square root of `x` >= 0."""
    return library(x).sqrt(x)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of `a` and `b`."""
    return library(a, b).minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of `a` and `b`."""
    return library(a, b).maximum(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where `condition` holds, else `b`."""
    return library(condition, a, b).where(condition, a, b)


def wrap(x: Any) -> Any:
    """The angle `x` [rad] brought to [-pi, pi] by whole turns (the IEEE remainder by 2 pi, to
    rounding).
    """
    if type(x) is float:  # the single env's, at every step
        return x - TWO_PI * round(x / TWO_PI)
    return x - TWO_PI * library(x).rint(x / TWO_PI)
