"""What chooses the best checkpoint: open-loop rollouts on the validation split, by the kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.data.batches import TrainingError, param_table
from worldmodels.evaluation.states import metrics
from worldmodels.evaluation.statistics import at_horizon
from worldmodels.imagination import evaluating, imagine
from worldmodels.interface import Spec, WorldModel

EPISODES = 32
"""Episodes that a model of pixels is validated on."""


class Validation:
    """Open-loop rollouts on the validation split; the median error chooses the best checkpoint."""

    def __init__(
        self, dataset: Any, spec: Spec, scale: np.ndarray, steps: int, device: str
    ) -> None:
        kept = np.flatnonzero(np.asarray(dataset.lengths) > 0)[:128]
        if not len(kept):
            raise TrainingError("the validation split has no episodes: collect more")
        lengths = np.asarray(dataset.lengths)[kept]
        self.steps = int(min(steps, lengths.max()))
        self.spec = spec
        self.scale = scale
        self.truth = dataset.states[kept, 1 : self.steps + 1]
        self.valid = np.arange(self.steps)[None, :] < lengths[:, None]
        starts = torch.as_tensor(dataset.states[kept, :1], dtype=torch.float32)
        self.starts = starts.to(device)
        self.actions = torch.as_tensor(dataset.actions[kept, : self.steps]).to(device)
        self.params = param_table(dataset, kept).to(device)

    def score(self, model: WorldModel) -> dict[str, float]:
        """``nmse`` (what is minimised) and the medians at a few horizons."""
        with evaluating(model):
            latent = model.encode(self.starts, self.params)
            predicted = imagine(model, latent, self.actions).double().cpu().numpy()
        errors = metrics.normalised_mse(self.truth, predicted, self.scale, self.spec.angles)
        values = {"nmse": self._median(errors), "finite": metrics.finite_share(predicted)}
        for horizon in sorted({h for h in (1, 10, 50, 100) if h < self.steps} | {self.steps}):
            values[f"nmse_{horizon}"] = at_horizon(errors, self.valid, horizon)["median"]
        return values

    def of_copying(self) -> float:
        """``nmse`` of leaving the state as it is: what a model must beat."""
        still = self.starts.double().cpu().numpy().repeat(self.steps, 1)
        return self._median(metrics.normalised_mse(self.truth, still, self.scale, self.spec.angles))

    def _median(self, errors: np.ndarray) -> float:
        """Median over rollouts of the mean of ``errors`` (B, T) over their steps."""
        return float(np.median(np.where(self.valid, errors, 0.0).sum(1) / self.valid.sum(1)))


class FrameValidation:
    """Open-loop rollouts on the validation split, in pictures; the median error chooses the best."""

    def __init__(self, dataset: Any, context: int, steps: int, device: str) -> None:
        lengths = np.asarray(dataset.lengths)
        kept = np.flatnonzero(lengths >= context)[:EPISODES]
        if not len(kept):
            raise TrainingError(
                f"no validation episode has the {context} frames and a step that a rollout needs"
            )
        self.context = context
        self.steps = int(min(steps, lengths[kept].max() - context + 1))
        frames = torch.from_numpy(dataset.pixels[kept][:, : context + self.steps])
        self.seen = frames[:, :context].to(device)
        self.truth = frames[:, context:].to(device)
        self.actions = torch.as_tensor(dataset.actions[kept, : context - 1 + self.steps]).to(device)
        self.params = param_table(dataset, kept).to(device)
        steps_at = np.arange(context - 1, context - 1 + self.steps)
        self.valid = torch.as_tensor(steps_at[None] < lengths[kept, None], device=device)

    def score(self, model: Any) -> dict[str, float]:
        """``nmse``: squared error over squared brightness, median over rollouts of the mean over steps.

        With ``mse_h`` at a few horizons, and ``versus_copy_h``: its ratio to copying the last frame.
        """
        with evaluating(model):
            warm = self.actions[:, : self.context - 1]
            latent = model.encode(self.seen, self.params, warm)
            predicted = imagine(model, latent, self.actions[:, self.context - 1 :])
        truth, last = self.truth.float() / 255.0, self.seen[:, -1:].float() / 255.0
        error = ((predicted - truth) ** 2).mean((2, 3, 4))
        copied = ((last - truth) ** 2).mean((2, 3, 4))
        bright = (truth**2).mean((2, 3, 4)).clamp(min=1e-9)
        error = torch.where(torch.isfinite(error), error, torch.inf)
        finite = torch.isfinite(predicted).flatten(1).all(1).float().mean()
        values = {"nmse": self._median(error / bright), "finite": float(finite)}
        for horizon in sorted({h for h in (1, 5, 10, 20, 40) if h < self.steps} | {self.steps}):
            alive = self.valid[:, horizon - 1]
            mean = float(error[alive, horizon - 1].mean())
            values[f"mse_{horizon}"] = mean
            values[f"versus_copy_{horizon}"] = mean / max(
                float(copied[alive, horizon - 1].mean()), 1e-12
            )
        return values

    def of_copying(self) -> float:
        """``nmse`` of showing the last frame seen for ever: what a model must beat."""
        truth, last = self.truth.float() / 255.0, self.seen[:, -1:].float() / 255.0
        bright = (truth**2).mean((2, 3, 4)).clamp(min=1e-9)
        return self._median(((last - truth) ** 2).mean((2, 3, 4)) / bright)

    def _median(self, errors: Tensor) -> float:
        """Median over rollouts of the mean of ``errors`` (B, T) over their steps."""
        count = self.valid.float().sum(1).clamp(min=1)
        return float((torch.where(self.valid, errors, 0.0).sum(1) / count).median())
