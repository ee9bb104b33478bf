"""Thrust in the plane: nine discrete settings, a disc of continuous ones, and the flame that shows them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from physgym.elementwise import maximum, sqrt
from physgym.primitives import Disc

EIGHT_WINDS = np.array(
    [[0.0, 0.0]] + [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]
).round(16)
"""(9, 2): no thrust, then unit thrust at 0, 45, ... 315 degrees."""
NAMES = ("nothing", *(f"thrust at {45 * k} degrees" for k in range(8)))
"""What the nine settings are called."""
KEYS = {"d": 1, "wd": 2, "w": 3, "aw": 4, "a": 5, "as": 6, "s": 7, "ds": 8}
"""Keys of the nine settings."""
_FLAME = ((240, 228, 66), (240, 190, 40), (213, 94, 0))


def clip_to_disc(action: Any) -> tuple[Any, Any]:
    """Equations: a two-component action, shortened to length 1 where it is longer."""
    x, y = action
    # Clamped before the root, whose slope is infinite at 0: gradients stay finite there.
    length = sqrt(maximum(x * x + y * y, 1.0))
    return (x / length, y / length)


def nearest_wind(wanted: np.ndarray, thrust: Any) -> np.ndarray:
    """The discrete actions (B,) whose thrust is nearest to `wanted` (B, 2) [m/s^2]."""
    levels = EIGHT_WINDS * np.asarray(thrust)[..., None, None]
    return np.argmin(((wanted[..., None, :] - levels) ** 2).sum(-1), axis=-1).astype(np.int64)


def flame(x: float, y: float, control: Any, parts: tuple[tuple[float, float], ...]) -> list[Disc]:
    """Discs behind a ship at (x, y) under a thrust; `parts`: distance and radius [m] of each of three."""
    if control is None or math.hypot(control[0], control[1]) <= 1e-9:
        return []
    back = 1.0 / math.hypot(control[0], control[1])
    return [
        Disc(x - reach * back * control[0], y - reach * back * control[1], radius, color)
        for (reach, radius), color in zip(parts, _FLAME, strict=True)
    ]
