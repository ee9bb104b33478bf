"""Where bodies are in a picture, in closed form: no network, nothing fitted.

A picture of a system is discs of known colours on black. The colours of a pixel are projected on those of
the bodies by least squares; a body's centroid is the mean place of its weights. B pictures, N bodies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.primitives import Disc
from physgym.rendering import render
from worldmodels.evaluation.pixels.metrics import brightness

LEAST_WEIGHT = 0.1
"""Weights of a pixel below this share of a body's own colour count as none."""
LEAST_MASS = 0.25
"""A body with less than this share of the weight it has when all of it is seen is not visible."""
_NAMES = {
    (230, 159, 0): "orange",
    (86, 180, 233): "blue",
    (204, 121, 167): "purple",
}


class Readout(NamedTuple):
    """How to read the bodies of one system from pictures of one size."""

    names: tuple[str, ...]
    """What a body is called: its colour."""
    colors: np.ndarray
    """(N, 3) in [0, 1]."""
    masses: np.ndarray
    """(N,) summed weights of each body where all of it is seen [px]."""
    view: float
    """Half the width of the picture [m]."""
    size: int
    """Width and height of the picture [px]."""

    @property
    def meters_per_pixel(self) -> float:
        """Width of a pixel [m]."""
        return 2.0 * self.view / self.size


def readout_of(system: Any, size: int, params: Any = None) -> Readout:
    """Readout of a ``physgym.System``'s pictures; ``params`` (default: its own) give the discs' sizes.

    Raises ``ValueError`` where the picture is more than discs, or their colours cannot be told apart.
    """
    params = system.Params() if params is None else params
    scene = system.scene((0.0,) * system.state_size, None, params, False)
    colors = np.array([disc.color for disc in scene], np.float64) / 255.0
    if not all(isinstance(disc, Disc) for disc in scene) or np.linalg.matrix_rank(colors) < len(
        scene
    ):
        raise ValueError(
            f"bodies of {system.name} cannot be read from pictures: expected at most 3 discs of "
            f"linearly independent colours, got {scene}"
        )
    names = tuple(_NAMES.get(disc.color, str(disc.color)) for disc in scene)
    readout = Readout(names, colors, np.ones(len(scene)), float(system.view), size)
    alone = np.stack([render([disc._replace(x=0.0, y=0.0)], readout.view, size) for disc in scene])
    seen = weights(readout, torch.from_numpy(alone)).sum((1, 2)).numpy()
    return readout._replace(masses=np.diagonal(seen).astype(np.float64))


def weights(readout: Readout, frames: Tensor) -> Tensor:
    """Share (..., S, S, N) of each body's colour in every pixel of ``frames`` (..., S, S, 3)."""
    inverse = torch.as_tensor(
        np.linalg.pinv(readout.colors), dtype=torch.float32, device=frames.device
    )
    shares = brightness(frames) @ inverse
    return torch.where(shares < LEAST_WEIGHT, 0.0, shares)


def centroids(readout: Readout, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids (..., N, 2) [m] of the bodies in ``frames`` (..., S, S, 3), and visible (..., N) bool.

    x to the right, y up, 0 in the middle, as states are. NaN where a body is not visible.
    """
    shares = weights(readout, frames)
    mass = shares.sum((-3, -2))
    place = torch.arange(readout.size, dtype=shares.dtype, device=shares.device)
    place = (place - 0.5 * (readout.size - 1)) * readout.meters_per_pixel
    across = (shares.sum(-3) * place[:, None]).sum(-2)
    up = (shares.sum(-2) * -place[:, None]).sum(-2)
    full = torch.as_tensor(readout.masses, dtype=shares.dtype, device=shares.device)
    visible = mass >= LEAST_MASS * full
    found = torch.stack((across, up), -1) / mass.unsqueeze(-1)
    return torch.where(visible.unsqueeze(-1), found, torch.nan), visible


def centroid_error(truth: Tensor, predicted: Tensor) -> Tensor:
    """Distance (..., N) of centroids (..., N, 2); infinite where a predicted body is not visible."""
    distance = (predicted - truth).norm(dim=-1)
    return torch.where(torch.isfinite(distance), distance, torch.inf)
