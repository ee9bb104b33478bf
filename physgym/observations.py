"""Observations of states: one rule for a single state (floats), NumPy rows and torch rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym.elementwise import cos, sin, wrap

if TYPE_CHECKING:
    from physgym.system import System


def features(system: System, state: Any, embedded: bool = False) -> list[Any]:
    """Components (D,) of a state as observed: angles wrapped to [-pi, pi], or as cos, sin."""
    if not embedded:
        wrapped = list(state)
        for i in system.angles:
            wrapped[i] = wrap(wrapped[i])
        return wrapped
    found: list[Any] = []
    for i, x in enumerate(state):
        found += [cos(x), sin(x)] if i in system.angles else [x]
    return found


def largest(system: System, bounds: tuple[Any, ...], embedded: bool = False) -> list[float]:
    """The bound of every feature, for `bounds` (D,) of the state (rows: the largest of them)."""
    high: list[float] = []
    for i, bound in enumerate(bounds):
        if i in system.angles:
            high += [1.0, 1.0] if embedded else [math.pi]
        else:
            high.append(float(np.max(bound)))
    return high


def clip(vectors: np.ndarray, space: Any) -> np.ndarray:
    """`vectors` (..., F) float32 brought into `space`; what is not a number reads 0."""
    return np.clip(np.nan_to_num(vectors, nan=0.0), space.low, space.high)


def frames_per_second(dt: float) -> int | float:
    """Frames a second that show steps of `dt` [s] in real time: an int where it is one."""
    rate = 1.0 / dt
    return round(rate) if abs(rate - round(rate)) < 1e-9 * rate and rate > 0.5 else rate
