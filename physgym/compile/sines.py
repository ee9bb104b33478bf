"""Sine and cosine for all lanes of a vector register at once, within 3e-16 of the true ones.

x is brought to r in [-pi/2, pi/2] by the nearest multiple of pi (for the cosine: half a multiple more), with pi in
three parts of which the first two have 32 bits, so that their products with whole and half numbers up to 2^20 are exact
(W. J. Cody and W. Waite, *Software Manual for the Elementary Functions*, 1980). There sin r = r + r s q(s), s = r^2, q
of degree 7 through the Chebyshev nodes of the interval. Arguments beyond `FAR` go to the C library. Nothing is fused,
so that numbers depend neither on the machine nor on how many lanes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FAR = 1e6
"""Largest |x| that the three parts serve."""
PI = (3.1415926534682512, 1.2154201012607932e-10, 4.044532497591901e-21)
RECIPROCAL = 0.3183098861837907
SERIES = (
    -0.16666666666666666,
    0.008333333333333316,
    -0.00019841269841254955,
    2.755731921915843e-06,
    -2.5052107616384624e-08,
    1.6058977272817488e-10,
    -7.64396903111606e-13,
    2.7314289869116175e-15,
)


def call(module: Any, builder: Any, name: str, value: Any, lanes: int) -> Any:
    """The sine or cosine (``name``) of ``value``, of as many ``lanes``, in the function of ``builder``."""
    title = f"physgym_{name}_{lanes}"
    if title not in module.globals:
        _Function(module, title, name, value.type, lanes).write()
    return builder.call(module.globals[title], [value])


def intrinsic(module: Any, builder: Any, name: str, value: Any, lanes: int) -> Any:
    """LLVM's own ``name`` of ``value``, of all ``lanes`` at once."""
    title = f"llvm.{name}.{'f64' if lanes == 1 else f'v{lanes}f64'}"
    return builder.call(_external(module, title, value.type), [value])


def by_library(module: Any, builder: Any, name: str, value: Any, lanes: int) -> Any:
    """The C library's ``name`` of ``value``, of one lane after the other."""
    from llvmlite import ir

    function = _external(module, f"physgym_{name}", ir.DoubleType())
    if lanes == 1:
        return builder.call(function, [value])
    index = ir.IntType(32)
    parts = [builder.extract_element(value, index(lane)) for lane in range(lanes)]
    return together(builder, [builder.call(function, [part]) for part in parts], value.type)


def together(builder: Any, parts: Sequence[Any], kind: Any) -> Any:
    """One value of ``kind``, of as many lanes as there are ``parts``."""
    from llvmlite import ir

    if len(parts) == 1:
        return parts[0]
    value = ir.Constant(kind, ir.Undefined)
    for lane, part in enumerate(parts):
        value = builder.insert_element(value, part, ir.IntType(32)(lane))
    return value


def _external(module: Any, title: str, kind: Any) -> Any:
    from llvmlite import ir

    if title not in module.globals:
        ir.Function(module, ir.FunctionType(kind, [kind]), name=title)
    return module.globals[title]


class _Function:
    """One function of ``module``: ``name`` of ``kind``, a number or ``lanes`` of them."""

    def __init__(self, module: Any, title: str, name: str, kind: Any, lanes: int) -> None:
        from llvmlite import ir

        self.ir, self.module, self.name, self.kind, self.lanes = ir, module, name, kind, lanes
        self.function = ir.Function(module, ir.FunctionType(kind, [kind]), name=title)
        self.function.linkage = "internal"
        self.function.attributes.add("alwaysinline")

    def write(self) -> None:
        near, far = (self.function.append_basic_block(n) for n in ("near", "far"))
        entry = self.function.insert_basic_block(0, "entry")
        b, (x,) = self.ir.IRBuilder(entry), self.function.args
        beyond = b.fcmp_ordered(
            ">", intrinsic(self.module, b, "fabs", x, self.lanes), self._number(FAR)
        )
        if self.lanes > 1:
            whole = self.ir.IntType(self.lanes)
            beyond = b.icmp_unsigned("!=", b.bitcast(beyond, whole), whole(0))
        b.cbranch(beyond, far, near)
        b.position_at_end(near)
        b.ret(self._by_series(b, x))
        b.position_at_end(far)
        b.ret(by_library(self.module, b, self.name, x, self.lanes))

    def _by_series(self, b: Any, x: Any) -> Any:
        half = self._number(0.5)
        turns = b.fmul(x, self._number(RECIPROCAL))
        if self.name == "cos":
            turns = b.fsub(turns, half)
        whole = intrinsic(self.module, b, "rint", turns, self.lanes)
        times = b.fadd(whole, half) if self.name == "cos" else whole
        r = x
        for part in PI:
            r = b.fsub(r, b.fmul(times, self._number(part)))
        s = b.fmul(r, r)
        y = b.fadd(r, b.fmul(r, b.fmul(s, self._polynomial(b, s))))
        pairs = intrinsic(self.module, b, "rint", b.fmul(whole, half), self.lanes)
        rest = b.fsub(whole, b.fmul(self._number(2.0), pairs))  # 0, or 1 or -1 where `whole` is odd
        turned = b.fcmp_ordered("==" if self.name == "cos" else "!=", rest, self._number(0.0))
        return b.select(turned, b.fneg(y), y)

    def _polynomial(self, b: Any, s: Any) -> Any:
        """`SERIES` at ``s`` by pairs, whose steps wait less for one another than those of Horner's rule."""
        terms, power = [self._number(c) for c in SERIES], s
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2], strict=True)
            terms = [b.fadd(low, b.fmul(high, power)) for low, high in pairs]
            power = b.fmul(power, power)
        return terms[0]

    def _number(self, value: float) -> Any:
        if self.lanes == 1:
            return self.kind(value)
        return self.ir.Constant(self.kind, [value] * self.lanes)
