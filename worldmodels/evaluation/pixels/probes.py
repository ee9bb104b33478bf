"""Probes: what of the physical state can be read from a latent, and how well.

n samples, F features of a latent, C targets: positions (an angle as its cosine and sine), then velocities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

PENALTIES = tuple(10.0**power for power in range(-4, 6))
"""Ridge penalties tried, times the number of samples; validation chooses."""
COMPONENTS = 16
"""Principal components that the network of ``fit_network`` sees."""
FAINT = 0.01
"""Components fainter than this share of the strongest are not scaled up to it: they may be noise."""
EPOCHS = 100
"""Passes over the samples in fitting it."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Targets (n, C) of features (n, F)."""


class Samples(NamedTuple):
    """Latents with the states behind them."""

    features: np.ndarray
    """(n, F)."""
    targets: np.ndarray
    """(n, C), as ``targets_of`` gives them."""


class Probe(NamedTuple):
    """A fitted probe."""

    predict: Predict
    error: float
    """Mean squared error on the validation samples, targets at unit variance."""


def targets_of(states: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    """Targets (..., C) of states (..., D): an angle becomes its cosine and sine, in its place."""
    columns = []
    for index in range(states.shape[-1]):
        values = states[..., index]
        columns += [np.cos(values), np.sin(values)] if index in angles else [values]
    return np.stack(columns, -1)


def target_names(names: Sequence[str], angles: Sequence[int]) -> list[str]:
    """Names of the targets of states whose components are ``names``."""
    found = []
    for index, name in enumerate(names):
        found += [f"cos {name}", f"sin {name}"] if index in angles else [name]
    return found


def states_of(targets: np.ndarray, angles: Sequence[int], size: int) -> np.ndarray:
    """States (..., D) of targets (..., C), ``size`` = D; angles in [-pi, pi]."""
    columns, at = [], 0
    for index in range(size):
        if index in angles:
            columns.append(np.arctan2(targets[..., at + 1], targets[..., at]))
            at += 2
        else:
            columns.append(targets[..., at])
            at += 1
    return np.stack(columns, -1)


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(C,) share of the variance of ``truth`` (n, C) that ``predicted`` explains; NaN where it has none."""
    spread = ((truth - truth.mean(0)) ** 2).sum(0)
    error = ((truth - predicted) ** 2).sum(0)
    with np.errstate(all="ignore"):
        return np.where(spread > 1e-18, 1.0 - error / spread, np.nan)


def fit_linear(train: Samples, val: Samples) -> Probe:
    """Ridge regression with an intercept; the penalty of least validation error is taken."""
    shift, scale = _standard(train.features)
    middle, spread = _standard(train.targets)
    x = (train.features - shift) / scale
    y = (train.targets - middle) / spread
    wide = x.shape[1] > len(x)
    gram = x @ x.T if wide else x.T @ x
    right = y if wide else x.T @ y
    fits: list[tuple[float, np.ndarray]] = []
    seen, wanted = (val.features - shift) / scale, (val.targets - middle) / spread
    for penalty in PENALTIES:
        regular = gram + penalty * len(x) * np.eye(len(gram))
        solved = np.linalg.solve(regular, right)
        coefficients = x.T @ solved if wide else solved
        error = float(((seen @ coefficients - wanted) ** 2).mean())
        fits.append((error, coefficients))
    least, chosen = min(fits, key=lambda fit: fit[0])

    def predict(features: np.ndarray) -> np.ndarray:
        return (features - shift) / scale @ chosen * spread + middle

    return Probe(predict, least)


def fit_network(train: Samples, val: Samples, seed: int = 0, epochs: int = EPOCHS) -> Probe:
    """A small network on the leading principal components; the best epoch on ``val`` is kept.

    It looks where true frames lie and is bounded, so that a rollout that leaves their latents a little is
    still read, where a linear probe of thousands of features extrapolates without limit.
    """
    shift = train.features.mean(0)
    middle, spread = _standard(train.targets)
    basis = _principal(train.features - shift, seed)
    scale = ((train.features - shift) @ basis).std(0)
    scale = np.maximum(scale, max(FAINT * scale.max(), 1e-9))

    def reduced(features: np.ndarray) -> Tensor:
        return torch.from_numpy(((features - shift) @ basis / scale).astype(np.float32))

    def wanted(targets: np.ndarray) -> Tensor:
        return torch.from_numpy(((targets - middle) / spread).astype(np.float32))

    pairs = reduced(train.features), wanted(train.targets)
    checks = reduced(val.features), wanted(val.targets)
    net, error = _descend(pairs, checks, seed, epochs)

    def predict(features: np.ndarray) -> np.ndarray:
        flat = features.reshape(-1, features.shape[-1])
        with torch.no_grad():
            found = net(reduced(flat)).numpy().astype(np.float64) * spread + middle
        return found.reshape(*features.shape[:-1], -1)

    return Probe(predict, error)


def scores(probe: Probe, test: Samples, names: Sequence[str]) -> dict[str, float]:
    """R^2 of each target on ``test``, which are other episodes than those fitted on, by name."""
    values = r_squared(test.targets, probe.predict(test.features))
    return dict(zip(names, values.tolist(), strict=True))


def _descend(
    pairs: tuple[Tensor, Tensor], checks: tuple[Tensor, Tensor], seed: int, epochs: int
) -> tuple[nn.Module, float]:
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs, outputs = pairs[0].shape[1], pairs[1].shape[1]
        net = nn.Sequential(
            nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(),
            nn.Linear(128, outputs),
        )  # fmt: skip
        optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
        best: tuple[float, dict[str, Any]] = (float("inf"), {})
        for _ in range(epochs):
            for rows in torch.randperm(len(pairs[0]), generator=generator).split(256):
                optimiser.zero_grad()
                ((net(pairs[0][rows]) - pairs[1][rows]) ** 2).mean().backward()
                optimiser.step()
            schedule.step()
            with torch.no_grad():
                error = float(((net(checks[0]) - checks[1]) ** 2).mean())
            if error < best[0]:
                best = error, {k: v.detach().clone() for k, v in net.state_dict().items()}
        if best[1]:
            net.load_state_dict(best[1])
    return net.eval(), best[0]


def _principal(centred: np.ndarray, seed: int) -> np.ndarray:
    """(F, k) leading principal directions of ``centred`` (n, F)."""
    count = min(COMPONENTS, *centred.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, basis = torch.svd_lowrank(torch.from_numpy(np.ascontiguousarray(centred)), count)
    return basis.numpy().astype(np.float64)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns; 1 for one that never varies."""
    spread = values.std(0)
    return values.mean(0), np.where(spread > 1e-9, spread, 1.0)
