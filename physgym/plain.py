"""What a system looks like that draws nothing itself: a point for each pair of positions, or for each one."""

from __future__ import annotations

from collections.abc import Sequence

from physgym.elementwise import cos, sin
from physgym.primitives import Disc, Primitive, Segment

COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (200, 200, 200),
)
"""Of the points, in turn."""
_TRACK = (110, 110, 110)


def scene(
    positions: Sequence[float], angles: Sequence[int], view: float, detail: bool
) -> list[Primitive]:
    """Points of `positions` in a picture that reaches to `view`; `detail` adds tracks and axes.

    Without angles, an even number of positions are points (x, y) of a plane. Otherwise each has a place of its
    own: a length its track, an angle (0 down, as a pendulum's) its dial.
    """
    radius = 0.1 * view
    if not angles and len(positions) % 2 == 0:
        points = list(zip(positions[::2], positions[1::2], strict=True))
        lines = [Segment(-view, 0.0, view, 0.0, 0.01 * view, _TRACK)]
        lines += [Segment(0.0, -view, 0.0, view, 0.01 * view, _TRACK)]
    else:
        room = view / len(positions)
        radius = min(radius, 0.5 * room)
        points, lines = [], []
        for index, value in enumerate(positions):
            middle = view - room * (2 * index + 1)
            turning = index in angles
            points.append(_on_dial(value, middle, 0.7 * room) if turning else (value, middle))
            if turning:
                lines.append(Segment(0.0, middle, *points[-1], 0.03 * view, _TRACK))
            else:
                lines.append(Segment(-view, middle, view, middle, 0.01 * view, _TRACK))
    discs = [Disc(x, y, radius, COLORS[index % len(COLORS)]) for index, (x, y) in enumerate(points)]
    return [*lines, *discs] if detail else [*discs]


def _on_dial(angle: float, middle: float, radius: float) -> tuple[float, float]:
    return radius * sin(angle), middle - radius * cos(angle)
