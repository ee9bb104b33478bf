"""Values of elementwise expressions and their derivatives, as instructions at one place of a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worldmodels.native.functions import Functions, scalar
from worldmodels.native.graph import Instruction
from worldmodels.native.recording import NotRecordable


class Expression:
    """One element of a ``Fused`` node: values are computed where they are first asked for.

    Args:
        b: Where instructions are added.
        functions: Elementary functions.
        code: The instructions.
        load: Gives the value of a ("load", ...) or ("number", ...) instruction.
        known: The value of the whole where it is there already, such as ``tanh`` of what is no longer kept.
    """

    def __init__(
        self,
        b: Any,
        functions: Functions,
        code: tuple[Instruction, ...],
        load: Callable[[Instruction], Any],
        known: Callable[[], Any] | None = None,
    ) -> None:
        self.b, self.f, self.code, self._load = b, functions, code, load
        self._known, self._values = known, dict[int, Any]()

    def value(self, place: int = -1) -> Any:
        """The value of instruction ``place``."""
        place %= len(self.code)
        if place not in self._values:
            told = self.code[place]
            if told[0] in ("load", "number"):
                made = self._load(told)
            elif self._known is not None and place == len(self.code) - 1:
                made = self._known()
            else:
                name, *places = told
                made = scalar(
                    self.b, self.f, name, [None if k is None else self.value(k) for k in places]
                )
            self._values[place] = made
        return self._values[place]

    def slopes(self, upon: Any, asked: set[int]) -> dict[int, Any]:
        """Gradients by the ("load", ...) instructions ``asked``, given ``upon``, that by the whole."""
        b, needed = self.b, set(asked)
        for place, (name, *places) in enumerate(self.code):
            if name not in ("load", "number") and needed.intersection(places):
                needed.add(place)
        cotangents: dict[int, Any] = {len(self.code) - 1: upon}
        for place in reversed(range(len(self.code))):
            name, *places = self.code[place]
            if place not in cotangents or name in ("load", "number"):
                continue
            for k, argument in enumerate(places):
                if argument not in needed:
                    continue
                part = self._slope(name, places, k, place, cotangents[place])
                if part is None:
                    continue
                old = cotangents.get(argument)
                cotangents[argument] = part if old is None else b.fadd(old, part)
        return {place: cotangents[place] for place in asked if place in cotangents}

    def _slope(self, name: str, places: list[Any], k: int, place: int, g: Any) -> Any:
        """What argument ``k`` gets of ``g``; None: nothing."""
        b = self.b
        if name in ("add", "sub", "rsub"):
            return b.fneg(g) if (name, k) in (("sub", 1), ("rsub", 0)) else g
        if name == "neg":
            return b.fneg(g)
        if name == "mul":
            return b.fmul(g, self.value(places[1 - k]))
        if name == "div":
            over = b.fdiv(g, self.value(places[1]))
            return over if k == 0 else b.fneg(b.fmul(over, self.value(place)))
        if name == "remainder":
            if k:
                raise NotRecordable("a remainder by what is learned")
            return g
        if name == "atan2":
            y, x = self.value(places[0]), self.value(places[1])
            square = b.fadd(b.fmul(x, x), b.fmul(y, y))
            return b.fdiv(b.fmul(g, x if k == 0 else b.fneg(y)), square)
        x = self.value(places[k]) if name not in ("tanh", "sigmoid", "exp", "sqrt") else None
        if name in ("clamp", "clamp_min"):
            if k:
                raise NotRecordable(f"{name} at what is learned")
            return self._inside(x, places[1:], g)
        return b.fmul(g, self._rate(name, x, lambda: self.value(place)))

    def _inside(self, x: Any, bounds: list[Any], g: Any) -> Any:
        """``g`` where x is within its bounds, as torch has it: at them too."""
        b, zero = self.b, self.f.number(0.0)
        for sign, bound in zip((">=", "<="), bounds, strict=False):
            if bound is not None:
                g = b.select(b.fcmp_ordered(sign, x, self.value(bound)), g, zero)
        return g

    def _rate(self, name: str, x: Any, whole: Callable[[], Any]) -> Any:
        """The derivative of a function of one number at ``x``, where it is ``whole()``."""
        b, f = self.b, self.f
        one = f.number(1.0)
        if name == "tanh":
            y = whole()
            return b.fsub(one, b.fmul(y, y))
        if name == "sigmoid":
            y = whole()
            return b.fmul(y, b.fsub(one, y))
        if name == "exp":
            return whole()
        if name == "sqrt":
            return b.fdiv(f.number(0.5), whole())
        if name == "pow":
            return b.fmul(f.number(2.0), x)
        if name == "silu":
            s = f.sigmoid(b, x)
            return b.fadd(s, b.fmul(b.fmul(x, s), b.fsub(one, s)))
        if name == "softplus":
            return b.select(b.fcmp_ordered(">", x, f.number(20.0)), one, f.sigmoid(b, x))
        if name == "sin":
            return f.library(b, "cos", x)
        if name == "cos":
            return b.fneg(f.library(b, "sin", x))
        if name == "log1p":
            return b.fdiv(one, b.fadd(one, x))
        if name == "abs":
            zero = f.number(0.0)
            sign = f.intrinsic(b, "copysign", one, x)
            return b.select(b.fcmp_ordered("==", x, zero), zero, sign)
        raise NotRecordable(f"the derivative of {name}")
