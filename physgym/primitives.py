"""Shapes that a system's picture is made of, in world units with y upwards; `physgym.rendering`
draws them.
"""

from __future__ import annotations

from typing import NamedTuple

Color = tuple[int, int, int]


class Disc(NamedTuple):
    """A filled disc."""

    x: float
    y: float
    radius: float
    color: Color


class Segment(NamedTuple):
    """A straight line of `width`."""

    x0: float
    y0: float
    x1: float
    y1: float
    width: float
    color: Color


class Arrow(NamedTuple):
    """A straight line with a head at (x1, y1)."""

    x0: float
    y0: float
    x1: float
    y1: float
    width: float
    color: Color


class Arc(NamedTuple):
    """Part of a circle from angle `start` to `end` [rad, counter-clockwise from +x], with an arrow
    head at `end`.
    """

    x: float
    y: float
    radius: float
    start: float
    end: float
    width: float
    color: Color


class Polyline(NamedTuple):
    """A line through `points`."""

    points: tuple[tuple[float, float], ...]
    width: float
    color: Color


Primitive = Disc | Segment | Arrow | Arc | Polyline
