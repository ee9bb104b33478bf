"""Elementary functions in LLVM's language, such that loops over them can be vectorised.

float32: exp by argument reduction to |r| <= ln 2 / 2 and a polynomial, the others by it; absolute errors stay below
2e-7 where the result is of order one, relative ones below 5e-7 for exp. float64, and what is rare, is the C library's.
"""

from __future__ import annotations

import math
from typing import Any

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693359375
"""ln 2 to 9 bits: its products with whole numbers are exact; ``LN2_LOW`` is the rest."""
LN2_LOW = math.log(2.0) - LN2_HIGH
ROUNDER = 12582912.0
"""1.5 * 2^23: a float32 plus it has its nearest whole number in the low bits."""
LARGEST = 88.0
"""|argument| of exp beyond which float32 is as good as 0 or infinity."""
SATURATED = 40.0
"""|2x| beyond which tanh x is 1 in float32."""
TANH_SERIES = (1.0, -1.0 / 3.0, 2.0 / 15.0, -17.0 / 315.0, 62.0 / 2835.0)
"""Of odd powers, for |x| < 1/4, where 1 - exp(-2x) would lose digits."""
UNARY = ("tanh", "sigmoid", "silu", "softplus", "exp")
LIBRARY = ("sin", "cos", "log1p")
INTRINSIC = {"abs": "fabs", "sqrt": "sqrt"}
BINARY = ("add", "sub", "rsub", "mul", "div", "remainder", "atan2", "clamp", "clamp_min")
ELEMENTWISE = (*BINARY, *UNARY, *LIBRARY, *INTRINSIC, "neg", "pow")


class Functions:
    """Calls of elementary functions on values of type ``real``, written at the place of ``builder``.

    ``flags``: liberties of polynomials: with "contract" a product and a sum round once.
    """

    def __init__(self, module: Any, real: Any, flags: tuple[str, ...] = ()) -> None:
        from llvmlite import ir

        self.ir, self.module, self.real, self.flags = ir, module, real, flags
        self.double = isinstance(real, ir.DoubleType)

    def number(self, value: float) -> Any:
        """A constant."""
        return self.ir.Constant(self.real, value)

    def intrinsic(self, b: Any, name: str, *values: Any) -> Any:
        """llvm.``name`` of ``values``."""
        suffix = "f64" if self.double else "f32"
        return b.call(self._declared(f"llvm.{name}.{suffix}", len(values)), values)

    def library(self, b: Any, name: str, *values: Any) -> Any:
        """The C library's ``name`` of ``values``."""
        called = name if self.double else f"{name}f"
        return b.call(self._declared(f"worldmodels_{called}", len(values)), values)

    def _declared(self, name: str, arguments: int) -> Any:
        if name not in self.module.globals:
            kind = self.ir.FunctionType(self.real, [self.real] * arguments)
            self.ir.Function(self.module, kind, name=name)
        return self.module.globals[name]

    def exp(self, b: Any, x: Any) -> Any:
        """e^x."""
        if self.double:
            return self.library(b, "exp", x)
        r, power = self._reduced(b, self.between(b, x, -LARGEST, LARGEST))
        return b.fmul(self._series(b, r, 0), power)

    def _reduced(self, b: Any, x: Any) -> tuple[Any, Any]:
        """r and 2^n, where e^x = e^r 2^n and |r| <= ln 2 / 2."""
        n, flags, whole = self.number, self.flags, self.ir.IntType(32)
        shifted = b.fadd(b.fmul(x, n(LOG2_E)), n(ROUNDER))
        count = b.fsub(shifted, n(ROUNDER))
        r = b.fsub(x, b.fmul(count, n(LN2_HIGH), flags=flags), flags=flags)
        r = b.fsub(r, b.fmul(count, n(LN2_LOW), flags=flags), flags=flags)
        bits = b.sub(b.bitcast(shifted, whole), whole(0x4B400000 - 127))
        return r, b.bitcast(b.shl(bits, whole(23)), self.real)

    def _series(self, b: Any, r: Any, least: int) -> Any:
        """The terms of e^r from the power ``least`` on, over r to that power."""
        value = self.number(1.0 / math.factorial(7))
        for power in range(6, least - 1, -1):
            factor = self.number(1.0 / math.factorial(power))
            value = self._plus(b, b.fmul(value, r, flags=self.flags), factor)
        return value

    def _plus(self, b: Any, x: Any, y: Any) -> Any:
        return b.fadd(x, y, flags=self.flags)

    def between(self, b: Any, x: Any, low: float, high: float) -> Any:
        """``x`` cut off at both ends; what is not a number stays so."""
        x = b.select(b.fcmp_ordered("<", x, self.number(low)), self.number(low), x)
        return b.select(b.fcmp_ordered(">", x, self.number(high)), self.number(high), x)

    def tanh(self, b: Any, x: Any) -> Any:
        """tanh x."""
        if self.double:
            return self.library(b, "tanh", x)
        n = self.number
        if self.flags:  # by e^2x - 1, which loses no digits where it is small
            r, power = self._reduced(b, self.between(b, b.fadd(x, x), -SATURATED, SATURATED))
            grown = b.fmul(b.fmul(self._series(b, r, 1), r), power, flags=self.flags)
            grown = self._plus(b, grown, b.fsub(power, n(1.0)))
            return b.fdiv(grown, b.fadd(grown, n(2.0)))
        size = self.intrinsic(b, "fabs", x)
        shrunk = self.exp(b, b.fmul(size, n(-2.0)))
        far = b.fdiv(b.fsub(n(1.0), shrunk), b.fadd(n(1.0), shrunk))
        far = self.intrinsic(b, "copysign", far, x)
        square, near = b.fmul(x, x), n(TANH_SERIES[-1])
        for coefficient in reversed(TANH_SERIES[:-1]):
            near = self._plus(b, b.fmul(near, square, flags=self.flags), n(coefficient))
        return b.select(b.fcmp_ordered("<", size, n(0.25)), b.fmul(near, x), far)

    def sigmoid(self, b: Any, x: Any) -> Any:
        """1 / (1 + e^-x)."""
        one = self.number(1.0)
        return b.fdiv(one, b.fadd(one, self.exp(b, b.fneg(x))))

    def silu(self, b: Any, x: Any) -> Any:
        """x / (1 + e^-x)."""
        return b.fmul(x, self.sigmoid(b, x))

    def softplus(self, b: Any, x: Any) -> Any:
        """ln(1 + e^x), x itself beyond 20 as torch has it."""
        n = self.number
        size = self.intrinsic(b, "fabs", x)
        rest = self.library(b, "log1p", self.exp(b, b.fneg(size)))
        positive = b.select(b.fcmp_ordered(">", x, n(0.0)), x, n(0.0))
        return b.select(b.fcmp_ordered(">", x, n(20.0)), x, b.fadd(positive, rest))

    def remainder(self, b: Any, x: Any, y: Any) -> Any:
        """x - y floor(x / y), of the sign of ``y``."""
        return b.fsub(x, b.fmul(y, self.intrinsic(b, "floor", b.fdiv(x, y))))


def scalar(b: Any, f: Functions, name: str, values: list[Any]) -> Any:
    """One element of the elementwise operation ``name``."""
    if name in UNARY:
        return getattr(f, name)(b, *values)
    if name in LIBRARY:
        return f.library(b, name, *values)
    if name in INTRINSIC:
        return f.intrinsic(b, INTRINSIC[name], *values)
    if name in ("add", "sub", "mul", "div"):
        return getattr(b, f"f{name}")(*values)
    if name == "rsub":
        return b.fsub(values[1], values[0])
    if name == "neg":
        return b.fneg(*values)
    if name == "remainder":
        return f.remainder(b, *values)
    if name == "atan2":
        return f.library(b, "atan2", *values)
    if name == "pow":
        return b.fmul(values[0], values[0])
    if name in ("clamp", "clamp_min"):
        x, low, high = (*values, None, None)[:3]
        if low is not None:
            x = b.select(b.fcmp_ordered("<", x, low), low, x)
        return x if high is None else b.select(b.fcmp_ordered(">", x, high), high, x)
    raise LookupError(f"{name} has no rule")
