"""Measures of predicted frames against true ones: pure functions of tensors.

Frames are (..., S, S, 3), uint8 or floats in [0, 1]. A frame that is not finite counts as an infinite
error, so that diverging never flatters a median.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import Tensor

VALID_THRESHOLD = 0.025
"""A prediction is valid until its normalised image MSE first exceeds this."""
BEST_PSNR = 100.0
"""Decibels that a perfect prediction scores; it would be infinite."""
SSIM_INSTALL = 'pip install "physgym[vision]"'
"""What SSIM needs where torchmetrics is not installed."""


def brightness(frames: Tensor) -> Tensor:
    """(..., S, S, 3) float frames in [0, 1]; the background, black, is 0."""
    return frames if frames.is_floating_point() else frames.float() / 255.0


def energy(frames: Tensor) -> Tensor:
    """Summed squared brightness (...) of frames above the background."""
    return (brightness(frames) ** 2).flatten(-3).sum(-1)


def squared_error(truth: Tensor, predicted: Tensor) -> Tensor:
    """Squared error (...) summed over a frame; infinite where the prediction is not finite."""
    error = ((brightness(predicted) - brightness(truth)) ** 2).flatten(-3).sum(-1)
    return torch.where(torch.isfinite(error), error, torch.inf)


def normalised_error(
    error: Tensor, truth: Tensor, least: float, background: Tensor | None = None
) -> Tensor:
    """Normalised image MSE (...): ``squared_error`` over the true frame's ``energy``.

    A body drawn where there is none beside one that is missing scores 2, a black frame 1. ``least``: what
    the denominator is at least, for frames that a body has left. ``background`` (S, S, 3): what brightness is
    above; None: black.
    """
    shown = truth if background is None else brightness(truth) - background.to(truth.device)
    return error / energy(shown).clamp(min=least)


def psnr(mse: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio [dB] of a mean squared error, at most ``BEST_PSNR``; -inf where infinite."""
    with np.errstate(divide="ignore"):
        return np.minimum(-10.0 * np.log10(np.asarray(mse, np.float64)), BEST_PSNR)


def has_ssim() -> bool:
    """Whether torchmetrics, which ``ssim`` needs, is installed."""
    return importlib.util.find_spec("torchmetrics") is not None


def ssim(truth: Tensor, predicted: Tensor) -> Tensor:
    """Structural similarity (B,) of frames (B, S, S, 3), at most 1; -inf where not finite.

    torchmetrics' own: Gaussian window of 1.5 px (Wang et al. 2004, doi:10.1109/TIP.2003.819861).
    Raises ``ImportError`` where it is not installed: see ``has_ssim``.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    drawn, wanted = (brightness(frames).movedim(-1, 1) for frames in (predicted, truth))
    found = structural_similarity_index_measure(drawn, wanted, data_range=1.0, reduction="none")
    similarity = torch.as_tensor(found).reshape(len(truth))
    return torch.where(torch.isfinite(similarity), similarity, -torch.inf)


def ratio(errors: np.ndarray, reference: np.ndarray, valid: np.ndarray, horizon: int) -> float:
    """Mean of ``errors`` over that of ``reference``, both (B, T), at step ``horizon`` (from 1).

    Only rollouts whose episode lasts that long count (``valid``, (B, T) bool). NaN where there is none.
    """
    kept = valid[:, horizon - 1]
    if not kept.any():
        return float("nan")
    with np.errstate(all="ignore"):
        return float(errors[kept, horizon - 1].mean() / reference[kept, horizon - 1].mean())
