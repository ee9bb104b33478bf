"""The mean picture of a buffer, and how much its frames differ from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

EPISODES = 200
"""Episodes at most, evenly spread, that a mean is taken of."""


class Background(NamedTuple):
    """What the pictures of a buffer have in common."""

    mean: np.ndarray
    """(S, S, 3) float64 mean picture, in [0, 1]."""
    brightness: float
    """Summed squared brightness of a picture, on average."""
    spread: float
    """Summed squared difference of a picture from their mean, on average."""


def background_of(dataset: Any) -> Background:
    """Of at most ``EPISODES`` episodes of ``dataset``, which has pictures (S, S, 3) uint8."""
    rows = np.linspace(0, len(dataset) - 1, min(EPISODES, len(dataset))).round()
    total, squares, seen = 0.0, 0.0, 0
    for row in rows.astype(int):
        frames = dataset.pixels[int(row)][: int(dataset.lengths[row]) + 1]
        total = total + frames.sum(0, dtype=np.float64)
        squares += float(np.square(frames, dtype=np.float32).sum(dtype=np.float64)) / 255.0**2
        seen += len(frames)
    mean = np.asarray(total) / (255.0 * seen)
    bright = squares / seen
    return Background(mean, max(bright, 1e-6), max(bright - float((mean**2).sum()), 1e-6))
