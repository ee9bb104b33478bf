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


def at_horizon(errors: np.ndarray, valid: np.ndarray, horizon: int) -> dict[str, float]:
    """Median, quartiles, finite share and count of ``errors`` (B, T) at step ``horizon`` (from 1).

    Only rollouts whose episode lasts that long count (``valid``, (B, T) bool).
    """
    if not 1 <= horizon <= errors.shape[1]:
        raise ValueError(f"horizon={horizon} is not valid: expected 1 to {errors.shape[1]}")
    kept = errors[valid[:, horizon - 1], horizon - 1]
    if not kept.size:
        nan = float("nan")
        return {"median": nan, "q25": nan, "q75": nan, "finite": nan, "count": 0}
    low, middle, high = np.quantile(kept, (0.25, 0.5, 0.75), method="nearest")
    return {
        "median": float(np.median(kept)) if np.isfinite(middle) else float(middle),
        "q25": float(low),
        "q75": float(high),
        "finite": float(np.isfinite(kept).mean()),
        "count": int(kept.size),
    }


def valid_prediction_time(
    errors: np.ndarray, valid: np.ndarray, dt: float, threshold: float = 0.09
) -> np.ndarray:
    """Seconds (B,) until the normalised MSE first exceeds ``threshold``; the length if it never does."""
    beyond = (errors > threshold) & valid
    first = np.where(beyond.any(axis=1), beyond.argmax(axis=1), valid.sum(axis=1))
    return first * dt


def energy_error(true_energy: np.ndarray, predicted_energy: np.ndarray) -> np.ndarray:
    """Absolute difference of two energy series, (B, T): score both with the *true* energy function."""
    with np.errstate(all="ignore"):
        error = np.abs(np.asarray(predicted_energy, np.float64) - true_energy)
    return np.where(np.isfinite(error), error, np.inf)


def energy_drift(energy: np.ndarray) -> np.ndarray:
    """Root mean square of E(t) - E(0) over a series (B, T+1), relative to |E(0)|: (B,).

    Means something on undamped, unforced runs only, where the true energy is constant.
    """
    start = energy[:, :1]
    with np.errstate(all="ignore"):
        drift = np.sqrt(((energy - start) ** 2).mean(axis=1)) / np.maximum(
            np.abs(start[:, 0]), 1e-12
        )
    return np.where(np.isfinite(drift), drift, np.inf)


def finite_share(predicted: np.ndarray) -> float:
    """Share of rollouts (B, T, D) that stay finite throughout."""
    return float(np.isfinite(predicted).all(axis=(1, 2)).mean())
