"""What a set of errors is worth: medians and quartiles over rollouts, valid prediction time, energy.

Legend: B rollouts, T steps. An error that is not finite counts as infinite, so that diverging never
flatters a median.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worldmodels.evaluation.problems import Problems

EXAMPLES = 3
"""Problems whose energy a report keeps, to be drawn."""


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


def at_horizons(
    errors: np.ndarray, valid: np.ndarray, horizons: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Median, quartiles, finite share and count of ``errors`` (B, T) at each of ``horizons``."""
    return {str(h): at_horizon(errors, valid, h) for h in horizons}


def valid_prediction_time(
    errors: np.ndarray, valid: np.ndarray, dt: float, threshold: float = 0.09
) -> np.ndarray:
    """Seconds (B,) until the normalised MSE first exceeds ``threshold``; the length if it never does."""
    beyond = (errors > threshold) & valid
    first = np.where(beyond.any(axis=1), beyond.argmax(axis=1), valid.sum(axis=1))
    return first * dt


def valid_time(
    errors: np.ndarray, valid: np.ndarray, dt: float, threshold: float
) -> dict[str, Any]:
    """Median, quartiles and count of the seconds until ``errors`` (B, T) first exceed ``threshold``.

    ``at_least``: half of the rollouts or more never exceed it, so that the median is a lower bound.
    """
    times = valid_prediction_time(errors, valid, dt, threshold)
    begun = valid[:, 0]
    kept = ~((errors > threshold) & valid).any(axis=1)[begun]
    at_least = bool(begun.any() and kept.mean() >= 0.5)
    return {**at_horizon(times[:, None], valid[:, :1], 1), "at_least": at_least}


def curve(errors: np.ndarray, valid: np.ndarray) -> dict[str, list[float]]:
    """Median and quartiles of ``errors`` (B, T) at every step."""
    steps = [at_horizon(errors, valid, h) for h in range(1, errors.shape[1] + 1)]
    return {key: [step[key] for step in steps] for key in ("median", "q25", "q75")}


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


def affine_r_squared(truth: np.ndarray, values: np.ndarray) -> float:
    """R^2 of ``truth`` (n,) under the best a ``values`` + b: their squared correlation; NaN where undefined."""
    kept = np.isfinite(values) & np.isfinite(truth)
    if not kept.all() or truth.std() < 1e-12 or values.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(truth, values)[0, 1] ** 2)


def span(tasks: Problems, dt_values: Sequence[float]) -> tuple[float, float]:
    """Seconds for which a study of step lengths holds an action, and for which it lasts."""
    hold = max(dt_values)
    return hold, max(1, int(tasks.steps * tasks.dt / hold + 1e-9)) * hold


def plain(value: Any) -> Any:
    """``value`` as JSON types: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
