"""Measures of predicted states against true ones: pure functions of arrays.

Legend: B rollouts, T steps, D state size. An error that is not finite counts as infinite, so that
diverging never flatters a median.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ANGLE_SCALE = float(np.pi / np.sqrt(3.0))
"""Standard deviation of an angle spread evenly over the circle, however often it turned."""


def state_scale(dataset: Any, angles: Sequence[int]) -> np.ndarray:
    """(D,) standard deviation of each state component over the episodes; 1 for one that never varies."""
    valid = np.arange(dataset.states.shape[1]) <= np.asarray(dataset.lengths)[:, None]
    scale = dataset.states[valid].std(axis=0)
    scale[list(angles)] = ANGLE_SCALE
    return np.where(scale > 1e-9, scale, 1.0)


def state_error(truth: np.ndarray, predicted: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    """Predicted minus true states, (B, T, D); angles by the shorter way round."""
    with np.errstate(all="ignore"):
        error = np.asarray(predicted, np.float64) - truth
        for index in angles:
            error[..., index] = np.arctan2(np.sin(error[..., index]), np.cos(error[..., index]))
    return error


def normalised_mse(
    truth: np.ndarray, predicted: np.ndarray, scale: np.ndarray, angles: Sequence[int] = ()
) -> np.ndarray:
    """Squared error over ``scale`` (D,), averaged over components: (B, T)."""
    with np.errstate(all="ignore"):
        squared = ((state_error(truth, predicted, angles) / scale) ** 2).mean(axis=-1)
    return np.where(np.isfinite(squared), squared, np.inf)


def finite_share(predicted: np.ndarray) -> float:
    """Share of rollouts (B, T, D) that stay finite throughout."""
    return float(np.isfinite(predicted).all(axis=(1, 2)).mean())
