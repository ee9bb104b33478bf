"""What predicted frames are worth: measures of a batch, and the scores of all of them.

Legend: B problems, T steps, N bodies, H horizons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.evaluation.pixels import metrics as pixel_metrics
from worldmodels.evaluation.pixels.problems import PixelProblems
from worldmodels.evaluation.pixels.readout import Readout, centroid_error, centroids
from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.statistics import (
    EXAMPLES,
    at_horizon,
    at_horizons,
    curve,
    energy_error,
    valid_time,
)

Values = dict[str, np.ndarray]
"""Measures of one row: (B, T), of bodies (B, T, N), of SSIM (B, H)."""


class Ruler(NamedTuple):
    """What every row of a comparison is measured with."""

    readout: Readout | None
    """How bodies are read; None: nobody knows what the pictures show."""
    least: float
    """Squared brightness that a frame's counts as at least."""
    horizons: tuple[int, ...]
    """H steps at which SSIM is computed; the other measures are at every step."""
    similarity: bool
    """Whether torchmetrics is installed."""
    background: Tensor | None = None
    """(S, S, 3) in [0, 1] that brightness is above; None: black."""

    @property
    def names(self) -> tuple[str, ...]:
        """N bodies that are read."""
        return () if self.readout is None else self.readout.names


def measure(
    batch: PixelProblems, predicted: Tensor, ruler: Ruler, similarity: bool = False
) -> Values:
    """Measures of ``predicted`` frames (B, T, S, S, 3) against the truth of ``batch``.

    ``mse`` and ``nmse`` (B, T); ``centroid`` (B, T, N) [m], infinite where a body is not visible in the
    prediction; ``seen`` (B, T, N), whether it is in the truth (N = 0 where none is read); ``ssim`` (B, H) where it
    is asked for.
    """
    truth = pixel_metrics.brightness(batch.truth.to(predicted.device))
    error = pixel_metrics.squared_error(truth, predicted)
    values = {
        "mse": error / float(np.prod(truth.shape[2:])),
        "nmse": pixel_metrics.normalised_error(error, truth, ruler.least, ruler.background),
        "centroid": error.new_zeros(*error.shape, 0),
        "seen": torch.zeros(*error.shape, 0, dtype=torch.bool),
    }
    if ruler.readout is not None:
        places, values["seen"] = centroids(ruler.readout, truth)
        values["centroid"] = centroid_error(places, centroids(ruler.readout, predicted)[0])
    if similarity and ruler.similarity:
        columns = [h - 1 for h in ruler.horizons]
        values["ssim"] = torch.stack(
            [pixel_metrics.ssim(truth[:, t], predicted[:, t]) for t in columns], 1
        )
    return {name: value.cpu().numpy() for name, value in values.items()}


def row_scores(
    values: Values, copy: Values, tasks: Problems, ruler: Ruler, energy_scale: float
) -> dict[str, Any]:
    """What the measures of one row are worth."""
    found = _image_scores(values, copy, tasks.valid, tasks.dt, ruler)
    found["ssim"] = None
    if "ssim" in values:
        valid = tasks.valid[:, [h - 1 for h in ruler.horizons]]
        found["ssim"] = {
            str(h): at_horizon(values["ssim"], valid, index + 1)
            for index, h in enumerate(ruler.horizons)
        }
    found["backward"] = None
    if "backward mse" in values:
        own, other = (
            {k.removeprefix("backward "): v for k, v in part.items() if k.startswith("backward ")}
            for part in (values, copy)
        )
        found["backward"] = _image_scores(own, other, own["valid"], tasks.dt, ruler)
    found["reward_r_squared"] = None
    if "reward" in values:
        found["reward_r_squared"] = {
            str(h): reward_score(values["reward"], values["true reward"], tasks.valid, h)
            for h in ruler.horizons
        }
    found |= {"energy": None, "energy_error": None, "energy_curve": None}
    if "energy" in values:
        truth = tasks.energy(tasks.states)
        errors = energy_error(truth, values["energy"])[:, 1:] / energy_scale
        found["energy"] = values["energy"][:EXAMPLES]
        found["energy_error"] = at_horizons(errors, tasks.valid, ruler.horizons)
        found["energy_curve"] = curve(errors, tasks.valid)
    return found


def reward_score(
    rewards: np.ndarray, truth: np.ndarray, valid: np.ndarray, horizon: int
) -> dict[str, float]:
    """R^2 of the rewards (B, T) that a model gives at step ``horizon`` (from 1), as a cell of a report.

    1 - squared error / variance of the true rewards over the rollouts: 0 is no better than their mean, and
    one that is not finite makes it -inf. Nothing counts where the true rewards do not vary.
    """
    kept = valid[:, horizon - 1]
    own, wanted = rewards[kept, horizon - 1], truth[kept, horizon - 1]
    variance = float(wanted.var()) if len(wanted) else 0.0
    if variance < 1e-12:
        nan = float("nan")
        return {"median": nan, "q25": nan, "q75": nan, "finite": nan, "count": 0}
    known = np.isfinite(own)
    value = float(1.0 - ((own - wanted) ** 2).mean() / variance) if known.all() else -np.inf
    share, count = float(known.mean()), len(own)
    return {"median": value, "q25": value, "q75": value, "finite": share, "count": count}


def _image_scores(
    values: Values, copy: Values, valid: np.ndarray, dt: float, ruler: Ruler
) -> dict[str, Any]:
    """Errors of pictures and of the bodies in them; ``copy``: the measures of copying the last frame."""
    kept = ruler.horizons
    pixel = 1.0 if ruler.readout is None else ruler.readout.meters_per_pixel
    bodies = list(_bodies(values, valid, ruler.names))
    psnr = pixel_metrics.psnr(values["mse"])
    threshold = pixel_metrics.VALID_THRESHOLD
    return {
        "mse": at_horizons(values["mse"], valid, kept),
        "psnr": at_horizons(psnr, valid, kept),
        "nmse": at_horizons(values["nmse"], valid, kept),
        "copy_ratio": {
            str(h): pixel_metrics.ratio(values["mse"], copy["mse"], valid, h) for h in kept
        },
        "valid_time": valid_time(values["nmse"], valid, dt, threshold),
        "centroid": {name: at_horizons(errors, shown, kept) for name, errors, shown in bodies},
        "centroid_pixels": {
            name: at_horizons(errors / pixel, shown, kept) for name, errors, shown in bodies
        },
        "nmse_curve": curve(values["nmse"], valid),
        "psnr_curve": curve(psnr, valid),
        "centroid_curve": {name: curve(errors, shown) for name, errors, shown in bodies},
    }


def _bodies(
    values: Values, valid: np.ndarray, names: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each body's name, errors (B, T) and where they count: where the truth shows the body."""
    for index, name in enumerate(names):
        yield name, values["centroid"][..., index], valid & values["seen"][..., index]


def worst_body(values: Values, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest error (B, T) of the bodies (N >= 1) that the truth shows, and where there is one."""
    seen = values["seen"]
    return np.where(seen, values["centroid"], 0.0).max(-1), valid & seen.any(-1)


def energy_scores(
    energies: np.ndarray, spread: float, tasks: Problems, horizons: Sequence[int]
) -> dict[str, Any]:
    """Whether the learned energy (B, T+1) is kept along unforced rollouts, and what it knows of the true one.

    ``drift``: |H(t) - H(0)| over the ``spread`` of H on test frames; ``wander``: largest less smallest H of a
    rollout.
    """
    with np.errstate(all="ignore"):
        drift = energy_error(energies[:, :1], energies)[:, 1:] / spread
        wander = (energies.max(1) - energies.min(1))[:, None]
    started = np.repeat(tasks.valid[:, :1], drift.shape[1], 1)
    wander = np.where(np.isfinite(wander), wander, np.inf)
    return {
        "spread": spread,
        "drift": at_horizons(drift, started, horizons),
        "wander": at_horizon(wander, started[:, :1], 1),
    }
