"""How uncertain an ensemble may be before a learned env should stop trusting it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldmodels.interface import WorldModel


def knows_uncertainty(model: WorldModel) -> bool:
    """Whether `model` can say how far its members disagree."""
    return hasattr(model, "disagreement")


def calibrate_uncertainty(
    model: WorldModel, dataset: Any, quantile: float = 0.99, split: str = "val"
) -> float:
    """The uncertainty that open-loop rollouts of a buffer's episodes stay below at `quantile`.

    Use it as `uncertainty_limit` of a learned env: episodes as long and as far afield as the
    buffer's are then rarely cut short, others are.

    Args:
        model: an ensemble.
        dataset: `worldmodels.data.Dataset`; the episodes of `split` are rolled out from their
            first states under their own actions.
        quantile: share of the steps that lie below, in (0, 1].

    Raises:
        ValueError: the model is no ensemble, there is no such episode, a bad quantile.
    """
    if not knows_uncertainty(model):
        raise ValueError("the model has one member only: train with --model.ensemble 5")
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile={quantile!r} must lie in (0, 1]")
    episodes = np.asarray(dataset.splits.get(split, []), dtype=np.int64)
    lengths = np.asarray(dataset.lengths)[episodes]
    if not len(episodes) or not lengths.any():
        raise ValueError(f"the buffer has no steps in its split {split!r} to calibrate on")
    first = next(model.parameters())
    starts = torch.as_tensor(dataset.states[episodes, :1], dtype=first.dtype, device=first.device)
    told = [dataset.params[name][episodes] for name in model.spec.param_names]
    params = torch.as_tensor(np.stack(told, 1), dtype=first.dtype, device=first.device)
    actions = torch.as_tensor(dataset.actions[episodes], device=first.device)
    seen: list[np.ndarray] = []
    disagreement: Any = model.disagreement
    with torch.inference_mode():
        latent = model.eval().encode(starts, params)
        for t in range(int(lengths.max())):
            latent = model.step(latent, actions[:, t])
            seen.append(disagreement(latent).double().cpu().numpy()[t < lengths])
    return float(np.quantile(np.nan_to_num(np.concatenate(seen), nan=np.inf), quantile))
