"""What chooses the best checkpoint: open-loop rollouts on the validation split, by the kind of model."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.data.batches import TrainingError, param_table
from worldmodels.evaluation.states import metrics
from worldmodels.evaluation.statistics import at_horizon
from worldmodels.imagination import evaluating, imagine, placed, unroll
from worldmodels.interface import DivergenceError, Spec, WorldModel
from worldmodels.sight.seeing import trusted

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
            predicted = self._predicted(model).double().cpu().numpy()
        errors = metrics.normalised_mse(self.truth, predicted, self.scale, self.spec.angles)
        values = {"nmse": self._median(errors), "finite": metrics.finite_share(predicted)}
        for horizon in sorted({h for h in (1, 10, 50, 100) if h < self.steps} | {self.steps}):
            values[f"nmse_{horizon}"] = at_horizon(errors, self.valid, horizon)["median"]
        return values

    def _predicted(self, model: Any) -> Tensor:
        """States (B, T, D) of the rollouts, by machine code where the model is trained by it."""
        latent = model.encode(self.starts, self.params)
        if getattr(model, "accelerated", False):
            with contextlib.suppress(DivergenceError):  # then each row is gone on with for itself
                return model.shown(model.rollout(latent, self.actions)[:, 1:])
        return imagine(model, latent, self.actions)

    def of_copying(self) -> float:
        """``nmse`` of leaving the state as it is: what a model must beat."""
        still = self.starts.double().cpu().numpy().repeat(self.steps, 1)
        return self._median(metrics.normalised_mse(self.truth, still, self.scale, self.spec.angles))

    def _median(self, errors: np.ndarray) -> float:
        """Median over rollouts of the mean of ``errors`` (B, T) over their steps."""
        return float(np.median(np.where(self.valid, errors, 0.0).sum(1) / self.valid.sum(1)))


class FrameValidation:
    """Open-loop rollouts on the validation split, in pictures; the median error chooses the best."""

    def __init__(
        self, dataset: Any, context: int, steps: int, device: str, background: Any = 0.0
    ) -> None:
        """``background`` (S, S, 3): what a frame's squared brightness is above; black where nobody says."""
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
        black = torch.as_tensor(background, dtype=torch.float32, device=device)
        above = self.truth.float() / 255.0 - black
        self.bright = (above**2).mean((2, 3, 4)).clamp(min=1e-9)

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
        error = torch.where(torch.isfinite(error), error, torch.inf)
        finite = torch.isfinite(predicted).flatten(1).all(1).float().mean()
        values = {"nmse": self._median(error / self.bright), "finite": float(finite)}
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
        return self._median(((last - truth) ** 2).mean((2, 3, 4)) / self.bright)

    def _median(self, errors: Tensor) -> float:
        """Median over rollouts of the mean of ``errors`` (B, T) over their steps."""
        count = self.valid.float().sum(1).clamp(min=1)
        return float((torch.where(self.valid, errors, 0.0).sum(1) / count).median())


class PointValidation:
    """Open-loop rollouts on a split, in what is read of its pictures; the median error chooses the best.

    ``nmse`` is the squared distance of the points that a model imagines from those that are read, over the
    points' own variance: 1 is no better than their mean. Where a body is hidden, nothing is compared.
    """

    def __init__(self, dataset: Any, split: str, made: Any, steps: int, device: str) -> None:
        rows = np.asarray(dataset.splits[split])
        lengths, first = np.asarray(dataset.lengths), made.config.context_frames
        seen = trusted(torch.from_numpy(made.seen))
        whole = seen[rows, :first].all(2).all(1).numpy()
        kept = rows[(lengths[rows] >= first) & whole][:EPISODES]
        if not len(kept):
            raise TrainingError(
                f"no {split} episode begins with {first} frames in which every body is seen whole: "
                "collect more episodes"
            )
        self.first, self.steps = first, int(min(steps, lengths[kept].max() - first + 1))
        stop = first + self.steps
        chart, points = made.sight.chart, torch.from_numpy(made.points[kept, :stop])
        self.coordinates = chart.coordinates(points[:, :first]).to(device)
        self.seen = seen[kept, :first].to(device)
        self.radii = chart.radii(points[:, :first]).mean(1).to(device)
        self.truth, self.last = points[:, first:], points[:, first - 1 : first]
        self.actions = torch.as_tensor(dataset.actions[kept, : stop - 1]).to(device)
        self.params = param_table(dataset, kept).to(device)
        inside = torch.arange(first, stop)[None] <= torch.as_tensor(lengths[kept])[:, None]
        self.valid = seen[kept, first:stop] & inside.unsqueeze(2)
        self.half = 0.5 * made.sight.reader.image_size
        every = torch.from_numpy(made.points)[seen.all(2)]
        self.variance = float(((every - every.mean(0)) ** 2).sum(2).mean())

    def score(self, model: Any) -> dict[str, float]:
        """``nmse``, and ``pixels_h``: the median distance of the worst body, at a few horizons."""
        with evaluating(model):
            warm = self.actions[:, : self.first - 1]
            latent = model.observe(self.coordinates, self.seen, self.radii, warm, self.params)
            places = []
            for moved, going in unroll(model.step, latent, self.actions[:, self.first - 1 :]):
                places.append(placed(model.places(moved), going, len(self.actions)))
            predicted = torch.stack(places, 1).cpu()
        distance = (predicted - self.truth).norm(dim=3)
        values = {
            "nmse": self._median(distance**2 / self.variance),
            "finite": float(torch.isfinite(predicted).flatten(1).all(1).float().mean()),
        }
        pixels = torch.where(self.valid, self.half * distance, -1.0).amax(2)
        for horizon in sorted({h for h in (10, 20, 40, 60) if h < self.steps} | {self.steps}):
            own = pixels[:, horizon - 1]
            values[f"pixels_{horizon}"] = float(own[own >= 0.0].nan_to_num(torch.inf).median())
        return values

    def of_copying(self) -> float:
        """``nmse`` of bodies that stay where they were seen last: what a model must beat."""
        return self._median(((self.last - self.truth) ** 2).sum(3) / self.variance)

    def _median(self, errors: Tensor) -> float:
        """Median over rollouts of the mean of ``errors`` (B, T, K) over what can be compared."""
        errors = torch.where(self.valid, errors.nan_to_num(torch.inf), 0.0)
        count = self.valid.sum((1, 2))
        return float((errors.sum((1, 2)) / count.clamp(min=1))[count > 0].median())
