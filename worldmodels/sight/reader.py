"""Where the bodies of a picture are: one frame to points, by what differs from the background.

A pixel that a body of colour c covers to a share alpha shows alpha c + (1 - alpha) b, with b the background
there. So alpha is read from the difference, and a body is at the centroid of its alpha: unbiased on any static
background, far finer than a pixel, and the same for every frame. Nothing of it is trained by descent.
Legend: N frames, K bodies, S x S pixels; places are (column, row) from -1 to 1, to the edges of the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SOFTNESS = 0.08
"""Difference in colour by which a pixel is still partly another body's."""
NEITHER = 4.0
"""Squared misfit, in units of ``SOFTNESS``, of belonging to no body: a mixture, or something else."""
BATCH = 256
"""Frames read at a time."""


class Reading(NamedTuple):
    """What is read from N frames."""

    points: Tensor
    """(N, K, 2) places."""
    seen: Tensor
    """(N, K) how much of a body is seen, in its usual mass: about 1, 0 where it is hidden or has left."""


class Reader(nn.Module):
    """Frames to places; ``background``, ``colours``, ``radius`` and ``mass`` are found by ``finding``."""

    background: Tensor
    colours: Tensor
    radius: Tensor
    mass: Tensor
    threshold: Tensor

    def __init__(self, bodies: int, image_size: int) -> None:
        super().__init__()
        self.bodies, self.image_size = bodies, image_size
        self.register_buffer("background", torch.zeros(3, image_size, image_size))
        self.register_buffer("colours", torch.ones(bodies, 3))
        self.register_buffer("radius", torch.ones(bodies))  # pixels
        self.register_buffer("mass", torch.ones(bodies))  # pixels
        self.register_buffer("threshold", torch.full((), 0.03))

    def begin(
        self, background: Tensor, colours: Tensor, threshold: float, radius: Tensor | None = None
    ) -> None:
        """Take what was found; ``radius`` where it is known already."""
        self.background.copy_(background)
        self.colours.copy_(colours)
        self.threshold.fill_(threshold)
        if radius is not None:
            self.radius.copy_(radius)

    def forward(self, frames: Tensor) -> Reading:
        """Read ``frames`` (N, 3, S, S) in [0, 1]."""
        if len(frames) > BATCH:
            parts = [self(part) for part in frames.split(BATCH)]
            return Reading(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        shares = self.shares(frames)
        # A body is where a disc of its size holds most of its colour; the centroid is taken around there.
        side = max(2, min(int(self.radius.max().ceil()), self.image_size // 4))
        coarse = F.avg_pool2d(shares, 2 * side, side, ceil_mode=True)
        cell = coarse.flatten(2).argmax(2)
        place = (_on_grid(cell, coarse.shape[3]) + 1.0) * side - 0.5
        for _ in range(3):
            place, mass = self._centroid(shares, place)
        half = 0.5 * self.image_size
        return Reading((place + 0.5) / half - 1.0, mass / self.mass)

    def shares(self, frames: Tensor) -> Tensor:
        """(N, K, S, S): the share of each pixel that each body covers."""
        difference = (frames - self.background).flatten(2)  # (N, 3, S S)
        squared = (difference**2).sum(1)
        frame, pixel = torch.nonzero(squared > self.threshold**2, as_tuple=True)
        shares = frames.new_zeros(len(frames), self.bodies, squared.shape[1])
        # The few pixels that differ, M of them, are all there is to think about.
        towards = self.colours - self.background.flatten(1).T[pixel].unsqueeze(1)  # (M, K, 3)
        size = (towards**2).sum(2).clamp(min=1e-4)
        if self.bodies == 1:  # there is none to mistake it for: its colour may be another
            alpha = (squared[frame, pixel].unsqueeze(1) / size).sqrt()
        else:
            along = (difference[frame, :, pixel].unsqueeze(1) * towards).sum(2)
            alpha = along / size
            rest = squared[frame, pixel].unsqueeze(1) - alpha * along
            misfit = torch.cat(
                (rest / (2.0 * SOFTNESS**2), torch.full_like(rest[:, :1], NEITHER)), 1
            )
            alpha = alpha * torch.softmax(-misfit, 1)[:, :-1]
        shares[frame, :, pixel] = alpha.clamp(0.0, 1.5)
        return shares.unflatten(2, frames.shape[2:])

    def _centroid(self, shares: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Centroid (N, K, 2) in pixels, and mass (N, K), of the window around ``place`` (N, K, 2)."""
        reach = int((2.0 * self.radius.max()).ceil()) + 2
        steps = torch.arange(-reach, reach + 1, device=place.device)
        size = self.image_size
        columns = place[..., 0].round().long().unsqueeze(2) + steps  # (N, K, W)
        rows = place[..., 1].round().long().unsqueeze(2) + steps
        inside = ((rows >= 0) & (rows < size)).unsqueeze(3) & (
            (columns >= 0) & (columns < size)
        ).unsqueeze(2)
        index = rows.clamp(0, size - 1).unsqueeze(3) * size + columns.clamp(0, size - 1).unsqueeze(
            2
        )
        values = (
            shares.flatten(2).gather(2, index.flatten(2)).unflatten(2, index.shape[2:]) * inside
        )
        mass = values.sum((2, 3))
        total = mass.clamp(min=1e-6)
        x = (values.sum(2) * columns).sum(2) / total
        y = (values.sum(3) * rows).sum(2) / total
        return torch.stack((x, y), 2), mass


def channels(frames: Tensor, kind: torch.dtype = torch.float32) -> Tensor:
    """Frames (N, S, S, 3), uint8 or in [0, 1], as the reader takes them: (N, 3, S, S) in [0, 1]."""
    pictures = frames.permute(0, 3, 1, 2).to(kind)
    return pictures if frames.is_floating_point() else pictures / 255.0


def _on_grid(index: Tensor, size: int) -> Tensor:
    """Pixels (column, row) of flat indices, as floats."""
    return torch.stack((index % size, index // size), -1).float()
