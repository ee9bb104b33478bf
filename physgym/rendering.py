"""Draws the shapes of :mod:`physgym.primitives` with OpenCV, to a fraction of a pixel.

World units, y up, the origin in the middle of a square picture whose half width is ``view``. It
knows no system. OpenCV is imported at the first picture: state observations work without it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from math import atan2, ceil, cos, hypot, pi, sin, sqrt
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium import error

from physgym.primitives import Arc, Arrow, Disc, Polyline, Segment

__all__ = [
    "BACKGROUND",
    "SCREEN",
    "opencv",
    "render",
    "render_batch",
    "warn_of_empty",
    "write_text",
]

Color = tuple[int, int, int]

BACKGROUND: Color = (0, 0, 0)
"""Background of pixel observations."""
SCREEN: Color = (24, 28, 38)
"""Background of pictures for people."""
INK: Color = (226, 230, 238)
"""Text on ``SCREEN``."""

_SHIFT = 8  # OpenCV coordinates carry this many fractional bits
_ONE = 1 << _SHIFT
_LINE_AA = 16  # cv2.LINE_AA
_EDGE = 0.6  # pixels that LINE_AA adds around a filled shape
_SMALL = 12.0  # pixels; discs below it are drawn as polygons
_FAR = 1e5  # pixels; beyond it (or NaN) nothing is drawn: OpenCV's integers would overflow
_LIBRARY_HELP = (
    "OpenCV cannot be imported ({reason}). Pictures need it; state observations do not. "
    "On a desktop: pip install opencv-python. On a server or in a container without libGL: "
    "pip uninstall -y opencv-python && pip install opencv-python-headless."
)

_cv2: ModuleType | None = None
_warned_of: set[str] = set()
_canvases: dict[tuple[int, Color], np.ndarray] = {}


def opencv() -> ModuleType:
    """OpenCV, imported at the first call.

    Raises:
        gymnasium.error.DependencyNotInstalled: missing, or cannot load (no libGL); with the fix.
    """
    global _cv2
    if _cv2 is None:
        try:
            import cv2
        except ImportError as reason:
            raise error.DependencyNotInstalled(_LIBRARY_HELP.format(reason=reason)) from reason
        _cv2 = cv2
    return _cv2


def render(
    primitives: Iterable[Any],
    view: float,
    size: int = 64,
    background: Color = BACKGROUND,
    caption: str | None = None,
) -> np.ndarray:
    """A picture of ``primitives``, in their order, as a new uint8 array (size, size, 3), RGB.

    ``view`` is half the picture's width in world units. A primitive with a coordinate that is not
    finite, or far outside, is left out. ``caption`` is written in the upper left corner.
    """
    cv2 = _cv2 or opencv()
    image = _canvas(size, background).copy()
    _draw(cv2, image, primitives, view)
    if caption:
        write_text(image, caption)
    return image


def render_batch(
    scenes: Sequence[Iterable[Any]], view: float, size: int = 64, background: Color = BACKGROUND
) -> np.ndarray:
    """One picture a scene: uint8 (N, size, size, 3); row i equals ``render(scenes[i], ...)``."""
    cv2 = _cv2 or opencv()
    images = np.empty((len(scenes), size, size, 3), np.uint8)
    images[:] = _canvas(size, background)
    for image, scene in zip(images, scenes, strict=True):
        _draw(cv2, image, scene, view)
    return images


def warn_of_empty(pictures: np.ndarray, system: str, view: float) -> None:
    """Warn, once a process and system, where one of the pictures (N, S, S, 3) shows nothing at all."""
    if system in _warned_of or pictures.any(axis=(1, 2, 3)).all():
        return
    _warned_of.add(system)
    warnings.warn(
        f"a picture of {system} is empty: its bodies are beyond the {view:g} that it shows to each side. "
        "Choose parameters (a shorter length, say) and starts that keep them in view, or observe the state.",
        UserWarning,
        stacklevel=4,
    )


def write_text(
    image: np.ndarray, text: str, corner: str = "top", color: Color = INK, scale: float = 1.0
) -> None:
    """Write a line of ``text`` into ``image`` (H, W, 3), at its left ``"top"`` or ``"bottom"``."""
    cv2 = _cv2 or opencv()
    height = scale * max(image.shape[0] / 480, 0.6)
    base = 22 * height if corner == "top" else image.shape[0] - 10 * height
    origin = round(10 * height), round(base)
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * height, color, 1, _LINE_AA)


def _canvas(size: int, background: Color) -> np.ndarray:
    key = size, background
    if key not in _canvases:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a positive integer, got {size!r}")
        _canvases[key] = np.full((size, size, 3), background, np.uint8)
    return _canvases[key]


def _draw(cv2: Any, image: np.ndarray, primitives: Iterable[Any], view: float) -> None:
    size = image.shape[0]
    scale = 0.5 * size / view
    middle = 0.5 * size - 0.5  # OpenCV counts from the centre of the first pixel
    for primitive in primitives:
        try:
            draw = _DRAW[type(primitive)]
        except KeyError:
            names = sorted(kind.__name__ for kind in _DRAW)
            raise TypeError(f"cannot draw {primitive!r}; primitives are {names}") from None
        draw(cv2, image, primitive, scale, middle)


def _disc(cv2: Any, image: np.ndarray, disc: Disc, scale: float, middle: float) -> None:
    x, y = middle + disc.x * scale, middle - disc.y * scale
    radius = disc.radius * scale
    if not (-_FAR < x < _FAR and -_FAR < y < _FAR and radius < _FAR):
        return
    centre = int(x * _ONE), int(y * _ONE)
    if radius < _SMALL:
        outline = _outline(radius) + np.array(centre, np.int32)
        cv2.fillConvexPoly(image, outline, disc.color, _LINE_AA, _SHIFT)
    else:
        reach = int((radius - _EDGE) * _ONE)
        cv2.circle(image, centre, reach, disc.color, -1, _LINE_AA, _SHIFT)


@functools.lru_cache(maxsize=256)
def _outline(radius: float) -> np.ndarray:
    """A small disc about 0 as a polygon (16, 2) of its area; OpenCV would draw a diamond."""
    angles = (np.arange(16) + 0.5) * (pi / 8)
    reach = max(radius - _EDGE, 0.2) * sqrt(pi / (8 * sin(pi / 8)))
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.round(corners * reach * _ONE).astype(np.int32)


def _segment(cv2: Any, image: np.ndarray, segment: Segment, scale: float, middle: float) -> None:
    x0, y0 = middle + segment.x0 * scale, middle - segment.y0 * scale
    x1, y1 = middle + segment.x1 * scale, middle - segment.y1 * scale
    if abs(x0) + abs(y0) + abs(x1) + abs(y1) < _FAR:  # NaN compares false
        start, end = (int(x0 * _ONE), int(y0 * _ONE)), (int(x1 * _ONE), int(y1 * _ONE))
        cv2.line(image, start, end, segment.color, _pixels(segment.width, scale), _LINE_AA, _SHIFT)


def _polyline(cv2: Any, image: np.ndarray, line: Polyline, scale: float, middle: float) -> None:
    points = np.asarray(line.points, np.float64).reshape(-1, 2)
    points = np.array([middle, middle]) + points * (scale, -scale)
    points = points[(np.abs(points) < _FAR).all(axis=1)]
    if len(points) > 1:
        fixed = np.round(points * _ONE).astype(np.int32)
        thickness = _pixels(line.width, scale)
        cv2.polylines(image, [fixed], False, line.color, thickness, _LINE_AA, _SHIFT)


def _arrow(cv2: Any, image: np.ndarray, arrow: Arrow, scale: float, middle: float) -> None:
    dx, dy = arrow.x1 - arrow.x0, arrow.y1 - arrow.y0
    length = hypot(dx, dy)
    if not 0 < length < _FAR:
        return
    head = min(3.2 * max(arrow.width, 1 / scale), length)
    neck = 1 - 0.9 * head / length
    shaft = Segment(
        arrow.x0, arrow.y0, arrow.x0 + neck * dx, arrow.y0 + neck * dy, arrow.width, arrow.color
    )
    _segment(cv2, image, shaft, scale, middle)
    _head(cv2, image, (arrow.x1, arrow.y1), atan2(dy, dx), head, arrow.color, scale, middle)


def _arc(cv2: Any, image: np.ndarray, arc: Arc, scale: float, middle: float) -> None:
    span = arc.end - arc.start
    if not 0 < abs(span) < 100 * pi:
        return
    head = min(3.2 * max(arc.width, 1 / scale), arc.radius * abs(span))
    turn = head / arc.radius if span > 0 else -head / arc.radius  # the angle that the head takes
    angles = np.linspace(arc.start, arc.end - 0.9 * turn, max(2, ceil(abs(span) / 0.1)))
    x, y = arc.x + arc.radius * np.cos(angles), arc.y + arc.radius * np.sin(angles)
    points = tuple(zip(x.tolist(), y.tolist(), strict=True))
    line = Polyline(points, arc.width, arc.color)
    _polyline(cv2, image, line, scale, middle)
    tip = arc.x + arc.radius * cos(arc.end), arc.y + arc.radius * sin(arc.end)
    heading = arc.end + (0.5 if span > 0 else -0.5) * pi - 0.5 * turn
    _head(cv2, image, tip, heading, head, arc.color, scale, middle)


def _head(
    cv2: Any,
    image: np.ndarray,
    tip: tuple[float, float],
    heading: float,
    length: float,
    color: Color,
    scale: float,
    middle: float,
) -> None:
    """A triangle that ends in ``tip`` and points along ``heading`` [rad]; as long as it is wide."""
    along, across = np.array([cos(heading), sin(heading)]), np.array([-sin(heading), cos(heading)])
    corners = np.array(tip) - np.outer([0.0, length, length], along)
    corners += np.outer([0.0, 0.5 * length, -0.5 * length], across)
    fixed = np.array([middle, middle]) + corners * (scale, -scale)
    if (np.abs(fixed) < _FAR).all():
        cv2.fillConvexPoly(image, np.round(fixed * _ONE).astype(np.int32), color, _LINE_AA, _SHIFT)


def _pixels(width: float, scale: float) -> int:
    return max(1, round(width * scale))


_DRAW: dict[type, Callable[..., None]] = {
    Disc: _disc,
    Segment: _segment,
    Polyline: _polyline,
    Arrow: _arrow,
    Arc: _arc,
}
