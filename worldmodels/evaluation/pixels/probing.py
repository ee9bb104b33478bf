"""What the latents of a visual model know of the physics: probes of true frames, and the learned energy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodels.evaluation.pixels import probes
from worldmodels.evaluation.pixels import problems as pixel_problems
from worldmodels.evaluation.pixels.baselines import encode
from worldmodels.evaluation.pixels.probes import Probe, Samples
from worldmodels.evaluation.pixels.problems import PixelProblems
from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.statistics import affine_r_squared
from worldmodels.imagination import evaluating

FRAMES = 2000
"""Training frames that probes are fitted on; half as many choose among them, and half as many test them."""
EPISODES = 100
"""Episodes of each split at most that they are from."""
BATCH = 128
LEAST_KNOWN = 0.5
"""Share of the frames sampled whose latents must be finite."""
CONTROL_SEED = 20_000
"""Seed of the random weights that a probe's R^2 is compared with."""


class Reading(NamedTuple):
    """What can be read from the latents of one model."""

    probe: Probe
    """Network that reads the physical state (what a foreign env observes), for energies."""
    angles: tuple[int, ...]
    scores: dict[str, Any]
    """R^2 by component: of a linear probe, of one with random weights, and of ``probe``."""
    energy_r_squared: float | None
    """R^2 of the true energy under an affine map of the learned one, on test frames."""
    energy_spread: float
    """Standard deviation of the learned energy on test frames."""
    reads_energy: bool = True
    """Whether anybody knows the true energy of a state."""

    def energy(self, tasks: Problems, latents: np.ndarray) -> np.ndarray:
        """True energy (B, T+1) [J] of the states that the probe reads from ``latents`` (B, T+1, F)."""
        size = tasks.states.shape[-1]
        with np.errstate(all="ignore"):
            targets = self.probe.predict(latents.astype(np.float64))
            return tasks.energy(probes.states_of(targets, self.angles, size))


def read_latents(model: Any, dataset: Any, frames: int = FRAMES) -> Reading:
    """Fit probes to ``model`` on the train split of ``dataset``, choose on val, and score on test.

    A control with random weights, of the same architecture, is fitted alike.
    """
    many = model.context_frames
    counts = {"train": frames, "val": max(1, frames // 2), "test": max(1, frames // 2)}
    found = {
        split: pixel_problems.sample(dataset.subset(split), many, count, EPISODES, seed)
        for seed, (split, count) in enumerate(counts.items())
    }
    system = found["test"].tasks.system
    names = probes.target_names(system.state_names, system.angles)
    parts = {split: _samples(model, batch) for split, batch in found.items()}
    linear = probes.fit_linear(parts["train"], parts["val"])
    probe = probes.fit_network(parts["train"], parts["val"])
    control = {split: _samples(_untrained(model), batch) for split, batch in found.items()}
    random = probes.fit_linear(control["train"], control["val"])
    scores = {
        "linear": probes.scores(linear, parts["test"], names),
        "random weights": probes.scores(random, control["test"], names),
        "network": probes.scores(probe, parts["test"], names),
    }
    r_squared, spread, knows_energy = None, 1.0, "energy" in system.knows
    if model.has_energy:
        learned = energies_of(model, found["test"])
        known = np.isfinite(learned)
        spread = max(float(learned[known].std()), 1e-12)
        if knows_energy:
            truth = found["test"].tasks.energy(found["test"].tasks.states)[:, 0]
            r_squared = affine_r_squared(truth[known], learned[known])
    return Reading(probe, tuple(system.angles), scores, r_squared, spread, knows_energy)


def _samples(model: Any, batch: PixelProblems) -> Samples:
    system = batch.tasks.system
    with evaluating(model), torch.inference_mode():
        latents = [
            encode(model, part).z.flatten(1).cpu().double().numpy() for part in _batches(batch)
        ]
    features = np.concatenate(latents)
    known = np.isfinite(features).all(1)  # a body that no frame shows has no place
    if known.mean() < LEAST_KNOWN:
        raise ValueError(
            f"latents of {1 - known.mean():.0%} of the true frames are not finite: the weights have "
            "diverged; evaluate another run or checkpoint"
        )
    targets = probes.targets_of(batch.tasks.states[:, 0], system.angles)
    return Samples(features[known], targets[known])


def energies_of(model: Any, batch: PixelProblems) -> np.ndarray:
    """Learned energies (n,) of the frames of ``batch``."""
    with evaluating(model), torch.inference_mode():
        parts = [model.energy(encode(model, part)) for part in _batches(batch)]
    return torch.cat(parts).cpu().double().numpy()


def _batches(batch: PixelProblems) -> list[PixelProblems]:
    starts = range(0, len(batch.context), BATCH)
    return [pixel_problems.rows_of(batch, slice(start, start + BATCH)) for start in starts]


def _untrained(model: Any) -> Any:
    """The same architecture with fresh weights, where the model is; torch's generator stays as it was."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(CONTROL_SEED)
        fresh = model.untrained()
    return fresh.to(device)
