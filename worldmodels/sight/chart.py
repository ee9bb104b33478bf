"""What a point can do: run along a line, around a circle, or in the plane; and its coordinates there.

A chart turns places (B, K, 2) into generalised coordinates (B, n), one number for a point on a line or a circle
(its angle) and two for one in the plane, and back. Which it is, is found from the residuals of the fits.
The radius of a circle may differ by episode (a rod of another length): it is measured from the frames that are
seen, and carried along. Places are in half-widths of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

SIZES = {"line": 1, "circle": 1, "plane": 2}
"""Coordinates of each."""
TOLERANCE = 0.15
"""Pixels within which nine readings of ten must be on a curve for the point to live on it."""


class Residuals(NamedTuple):
    """How far a point's readings are from the best line and circle, in pixels (their 90th percentile)."""

    line: float
    circle: float
    shared: bool
    """Whether all episodes have one radius."""


class Chart(nn.Module):
    """Places to coordinates and back; ``kinds`` are one of ``COORDINATES`` for each body."""

    origin: Tensor
    direction: Tensor

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.size = sum(SIZES[kind] for kind in self.kinds)
        self.register_buffer("origin", torch.zeros(len(self.kinds), 2))
        self.register_buffer("direction", torch.tensor([[1.0, 0.0]]).repeat(len(self.kinds), 1))
        owners = [k for k, kind in enumerate(self.kinds) for _ in range(SIZES[kind])]
        self.owners = tuple(owners)
        """The body of each coordinate."""
        self.angles = tuple(
            index for index, body in enumerate(owners) if self.kinds[body] == "circle"
        )
        """Coordinates that are angles."""

    def coordinates(self, points: Tensor) -> Tensor:
        """(..., n) of places (..., K, 2); angles in (-pi, pi]."""
        columns = []
        for body, kind in enumerate(self.kinds):
            offset = points[..., body, :] - self.origin[body]
            if kind == "line":
                columns.append(offset @ self.direction[body])
            elif kind == "circle":
                columns.append(torch.atan2(offset[..., 1], offset[..., 0]))
            else:
                columns += offset.unbind(-1)
        return torch.stack(columns, -1)

    def radii(self, points: Tensor) -> Tensor:
        """(..., K) distance of each place from its circle's centre; 0 for other kinds."""
        distance = (points - self.origin).norm(dim=-1)
        round_ = torch.tensor([kind == "circle" for kind in self.kinds], device=points.device)
        return torch.where(round_, distance, 0.0)

    def points(self, coordinates: Tensor, radii: Tensor) -> Tensor:
        """(..., K, 2) places of coordinates (..., n) and radii (..., K)."""
        columns, places = list(coordinates.unbind(-1)), []
        for body, kind in enumerate(self.kinds):
            if kind == "line":
                offset = columns.pop(0).unsqueeze(-1) * self.direction[body]
            elif kind == "circle":
                angle = columns.pop(0)
                offset = torch.stack((angle.cos(), angle.sin()), -1) * radii[..., body, None]
            else:
                offset = torch.stack((columns.pop(0), columns.pop(0)), -1)
            places.append(offset + self.origin[body])
        return torch.stack(places, -2)

    def nearest(self, difference: Tensor) -> Tensor:
        """``difference`` (..., n) of coordinates, angles by the shorter way round."""
        if not self.angles:
            return difference
        turns = torch.zeros_like(difference)
        for index in self.angles:
            turns[..., index] = torch.round(difference[..., index] / (2.0 * torch.pi))
        return difference - 2.0 * torch.pi * turns


def fit_chart(
    points: Sequence[np.ndarray], image_size: int, asked: Sequence[str] | None = None
) -> tuple[Chart, list[Residuals]]:
    """Chart of episodes of places (T, K, 2), of the kinds ``asked`` or else of those that fit."""
    bodies = points[0].shape[1]
    half, kinds, residuals, places = 0.5 * image_size, [], [], []
    for body in range(bodies):
        episodes = [part[:, body] for part in points]
        centre, direction, off_line = _line(np.concatenate(episodes))
        pivot, off_circle, shared = _circle(episodes, half)
        found = Residuals(off_line * half, off_circle * half, shared)
        kind = _kind(found) if asked is None else asked[body]
        residuals.append(found)
        kinds.append(kind)
        places.append((pivot if kind == "circle" else centre, direction))
    chart = Chart(kinds)
    chart.origin.copy_(torch.as_tensor(np.stack([origin for origin, _ in places])))
    chart.direction.copy_(torch.as_tensor(np.stack([direction for _, direction in places])))
    return chart, residuals


def _kind(found: Residuals) -> str:
    if found.line <= TOLERANCE:
        return "line"
    return "circle" if found.circle <= TOLERANCE else "plane"


def _line(places: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Centre, direction and residual of the best line through places (M, 2)."""
    centre = places.mean(0)
    _, _, axes = np.linalg.svd(places - centre, full_matrices=False)
    direction = axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])
    return centre, direction, float(np.quantile(np.abs((places - centre) @ axes[1]), 0.9))


def _circle(episodes: Sequence[np.ndarray], half: float) -> tuple[np.ndarray, float, bool]:
    """Centre, residual, and whether one radius does, of the best concentric circles, one an episode.

    Least squares of |p|^2 - 2 c p = k (I. Kasa 1976, doi:10.1109/TIM.1976.6312298), k of all or of each.
    """
    best: tuple[np.ndarray, float, bool] | None = None
    for shared in (True, False):
        groups = [np.concatenate(episodes)] if shared else [e for e in episodes if len(e) > 2]
        rows = [group - group.mean(0) for group in groups]
        sides = [(group**2).sum(1) - (group**2).sum(1).mean() for group in groups]
        centre = np.linalg.lstsq(2.0 * np.concatenate(rows), np.concatenate(sides), rcond=None)[0]
        distances = [np.linalg.norm(group - centre, axis=1) for group in groups]
        off = np.concatenate([np.abs(d - np.median(d)) for d in distances])
        residual = float(np.quantile(off, 0.9))
        if best is None or (best[1] * half > TOLERANCE and residual * half <= TOLERANCE):
            best = centre, residual, shared
    assert best is not None
    return best
