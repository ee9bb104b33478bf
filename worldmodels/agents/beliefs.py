"""Where good plans are believed to lie, for continuous and for discrete actions: draw plans, and fit them again.

A plan is drawn from standard normal numbers, so that searches shape their noise (`coloured_noise`) without
knowing what an action is: a discrete one is the choice at the normal number's quantile.

Legend: K rows, S samples, A action size, n discrete actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from physgym.actions import ActionKind

Warm = dict[str, np.ndarray]
"""What a search carries from plan to plan: arrays with the rows on axis 0 and blocks on the axis after
(of `elites`, on axis 2)."""
LEAST_SPREAD = 0.05
"""Standard deviation below which continuous actions are not searched closer."""
EXPLORED = 0.1
"""Share of discrete actions that are drawn from all, whatever is believed."""


class Belief(ABC):
    """A distribution of plans of `blocks` actions in each row; abstract."""

    width: int
    """Normal numbers that an action is made of."""

    def __init__(self, actions: ActionKind, idle: object, blocks: int) -> None:
        self.kind, self.idle, self.blocks = actions, np.asarray(idle), blocks

    def idle_plans(self, rows: int) -> np.ndarray:
        """(K, blocks[, A]) of the action that does nothing."""
        dtype = np.int64 if self.kind.count else np.float64
        shape = (rows, self.blocks, *self.idle.shape)
        return np.broadcast_to(self.idle, shape).astype(dtype)

    @abstractmethod
    def fresh(self, rows: int, spread: float) -> Warm:
        """What is believed where nothing is known."""

    @abstractmethod
    def shifted(self, warm: Warm, spread: float) -> Warm:
        """What was believed, one block later; its last block is open again, and so is its spread."""

    @abstractmethod
    def draw(self, warm: Warm, noise: np.ndarray) -> np.ndarray:
        """Plans (K, S, blocks[, A]) of standard normal `noise` (K, S, blocks, width)."""

    @abstractmethod
    def uniform(self, noise: np.ndarray) -> np.ndarray:
        """Plans of `noise` that prefer no action to another."""

    @abstractmethod
    def fit(self, warm: Warm, plans: np.ndarray, weights: np.ndarray, kept: float = 0.0) -> Warm:
        """What plans (K, S, ...) of `weights` (K, S), which add up to 1, make believe; `kept` is the share
        of what was believed before.
        """

    @abstractmethod
    def centre(self, warm: Warm) -> np.ndarray:
        """The plan (K, blocks[, A]) in the middle of what is believed."""


class Gaussian(Belief):
    """Continuous actions: a normal number each, by its mean and spread (K, blocks, A), clipped to [-1, 1]."""

    def __init__(self, actions: ActionKind, idle: object, blocks: int) -> None:
        super().__init__(actions, idle, blocks)
        self.width = actions.size

    def fresh(self, rows: int, spread: float) -> Warm:
        mean = self.idle_plans(rows)
        return {"mean": mean, "spread": np.full_like(mean, spread)}

    def shifted(self, warm: Warm, spread: float) -> Warm:
        mean = np.concatenate([warm["mean"][:, 1:], warm["mean"][:, -1:]], axis=1)
        return {"mean": mean, "spread": np.full_like(mean, spread)}

    def draw(self, warm: Warm, noise: np.ndarray) -> np.ndarray:
        return np.clip(warm["mean"][:, None] + warm["spread"][:, None] * noise, -1.0, 1.0)

    def uniform(self, noise: np.ndarray) -> np.ndarray:
        return 2.0 * ndtr(noise) - 1.0

    def fit(self, warm: Warm, plans: np.ndarray, weights: np.ndarray, kept: float = 0.0) -> Warm:
        share = weights[:, :, None, None]
        mean = (share * plans).sum(axis=1)
        spread = np.sqrt((share * (plans - mean[:, None]) ** 2).sum(axis=1))
        mean = kept * warm["mean"] + (1.0 - kept) * mean
        spread = kept * warm["spread"] + (1.0 - kept) * spread
        return {"mean": mean, "spread": np.maximum(spread, LEAST_SPREAD)}

    def centre(self, warm: Warm) -> np.ndarray:
        return np.clip(warm["mean"], -1.0, 1.0)


class Categorical(Belief):
    """Discrete actions: the chance of each (K, blocks, n), mixed with a little of all."""

    width = 1

    def fresh(self, rows: int, spread: float) -> Warm:
        return {"chances": np.full((rows, self.blocks, self.kind.count), 1.0 / self.kind.count)}

    def shifted(self, warm: Warm, spread: float) -> Warm:
        open_ = np.full_like(warm["chances"][:, :1], 1.0 / self.kind.count)
        return {"chances": np.concatenate([warm["chances"][:, 1:], open_], axis=1)}

    def draw(self, warm: Warm, noise: np.ndarray) -> np.ndarray:
        chances = (1.0 - EXPLORED) * warm["chances"] + EXPLORED / self.kind.count
        return self._chosen(chances, noise)

    def uniform(self, noise: np.ndarray) -> np.ndarray:
        return self._chosen(self.fresh(len(noise), 1.0)["chances"], noise)

    def _chosen(self, chances: np.ndarray, noise: np.ndarray) -> np.ndarray:
        above = ndtr(noise) > chances.cumsum(axis=2)[:, None]
        return np.minimum(above.sum(axis=3), self.kind.count - 1)

    def fit(self, warm: Warm, plans: np.ndarray, weights: np.ndarray, kept: float = 0.0) -> Warm:
        one_hot = np.eye(self.kind.count)[plans]
        chances = (weights[:, :, None, None] * one_hot).sum(axis=1)
        return {"chances": kept * warm["chances"] + (1.0 - kept) * chances}

    def centre(self, warm: Warm) -> np.ndarray:
        return warm["chances"].argmax(axis=2)


def belief_of(actions: ActionKind, idle: object, blocks: int) -> Belief:
    """That of the kind of action."""
    return (Categorical if actions.count else Gaussian)(actions, idle, blocks)


def coloured_noise(
    rngs: Sequence[np.random.Generator], shape: tuple[int, int, int], exponent: float
) -> np.ndarray:
    """Standard normal numbers (K, S, blocks, width) for `shape` (S, blocks, width), each row's from its own
    generator.

    Along the blocks their power falls with frequency f as 1 / f^exponent: 0 is white noise, 2 drifts slowly.
    After Timmer & Koenig (1995), "On generating power law noise", Astron. Astrophys. 300, 707.
    """
    white = np.stack([rng.standard_normal(shape) for rng in rngs])
    blocks = shape[1]
    if exponent == 0.0 or blocks < 3:
        return white
    frequency = np.fft.rfftfreq(blocks)
    frequency[0] = frequency[1]
    gain = frequency ** (-0.5 * exponent)
    spectrum = np.fft.rfft(white, axis=2) * gain[:, None]
    twice = np.full(
        len(gain), 2.0
    )  # each line but the first (and, of even lengths, the last) counts twice
    twice[0] = 1.0
    if blocks % 2 == 0:
        twice[-1] = 1.0
    size = np.sqrt((twice * gain**2).sum() / blocks)
    return np.fft.irfft(spectrum, blocks, axis=2) / size
