"""Searches for the plan that earns most, each for many rows at once and knowing nothing of what they are.

All begin from the plan before, one block later, have it and the plan of doing nothing among their candidates
in the first round, and draw a row's noise from that row's generator, so that no row's plan depends on others.

Legend: K rows, S samples, E elites.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from physgym.actions import ActionKind
from worldmodels.agents.beliefs import Warm, belief_of, coloured_noise
from worldmodels.agents.futures import Problem

Rngs = Sequence[np.random.Generator]


@dataclass(frozen=True)
class Effort:
    """How hard a search looks."""

    samples: int
    """Candidates a row and round."""
    elites: int
    """The best of them, where a search keeps any."""
    rounds: int
    """Times that candidates are made."""
    spread: float = 0.7
    """Standard deviation of continuous actions about the plan, where a search begins."""
    temperature: float = 0.2
    """Of MPPI, in units of the spread of a row's returns."""
    noise: float = 0.0
    """Colour of the noise along a plan: power falls with frequency f as 1 / f^noise."""
    rate: float = 0.25
    """Step length of Adam."""


class Search(ABC):
    """Finds plans (K, blocks[, A]); abstract.

    Args:
        actions: what an action is.
        idle: the one that does nothing.
        blocks: actions of a plan.
        effort: see `Effort`; `usual` is what suits the method.
    """

    usual: ClassVar[Effort]

    def __init__(self, actions: ActionKind, idle: object, blocks: int, effort: Effort) -> None:
        self.belief, self.effort = belief_of(actions, idle, blocks), effort
        self.blocks = blocks

    def fresh(self, rows: int) -> Warm:
        """What K rows start from; "plan" is the plan itself."""
        plan = self.belief.idle_plans(rows)
        return {"plan": plan, **self.belief.fresh(rows, self.effort.spread)}

    def shifted(self, warm: Warm) -> Warm:
        """`warm` one block later; a plan's last action stays for one more."""
        plan = np.concatenate([warm["plan"][:, 1:], warm["plan"][:, -1:]], axis=1)
        return {"plan": plan, **self.belief.shifted(warm, self.effort.spread)}

    @abstractmethod
    def search(self, problem: Problem, warm: Warm, rngs: Rngs) -> Warm:
        """The best plans found, and what the next search is to begin from."""

    def noise(self, rngs: Rngs, samples: int) -> np.ndarray:
        """(K, samples, blocks, width)."""
        shape = (samples, self.blocks, self.belief.width)
        return coloured_noise(rngs, shape, self.effort.noise)

    def known(self, warm: Warm, room: int) -> np.ndarray:
        """The plan before and that of doing nothing (K, 2, ...), as far as there is `room`."""
        idle = self.belief.idle_plans(len(warm["plan"]))
        return np.stack([warm["plan"], idle], axis=1)[:, : max(0, room)]


class Best(NamedTuple):
    """The best plans so far."""

    plan: np.ndarray
    score: np.ndarray
    """(K,)."""

    def or_of(self, plans: np.ndarray, scores: np.ndarray) -> Best:
        """The better of these and the best of plans (K, S, ...) with scores (K, S)."""
        at = scores.argmax(axis=1)
        rows = np.arange(len(plans))
        better = scores[rows, at] > self.score
        plan = np.where(_wide(better, self.plan), plans[rows, at], self.plan)
        return Best(plan, np.where(better, scores[rows, at], self.score))


def _wide(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def _none(warm: Warm) -> Best:
    return Best(warm["plan"], np.full(len(warm["plan"]), -np.inf))


class Shooting(Search):
    """Random shooting: plans of which no action is likelier than another, and the best is taken."""

    usual = Effort(samples=256, elites=1, rounds=1)

    def search(self, problem: Problem, warm: Warm, rngs: Rngs) -> Warm:
        best = _none(warm)
        for turn in range(self.effort.rounds):
            known = self.known(warm, (self.effort.samples - 1) if turn == 0 else 0)
            drawn = self.belief.uniform(self.noise(rngs, self.effort.samples - known.shape[1]))
            plans = np.concatenate([known, drawn], axis=1)
            best = best.or_of(plans, problem.score(plans))
        return {**warm, "plan": best.plan}


class CrossEntropy(Search):
    """The cross-entropy method: draw, keep the elites, draw anew around them. The best plan seen is taken.

    Diagonal normal actions, or categorical ones. Rubinstein (1999), doi:10.1023/A:1010091220143.
    """

    usual = Effort(samples=64, elites=8, rounds=3)
    momentum: ClassVar[float] = 0.0
    """Share of what was believed before that a round leaves."""
    kept_share: ClassVar[float] = 0.0
    """Share of the elites that stays a candidate in the next round, and in the next plan."""
    decay: ClassVar[float] = 1.0
    """Each round has this many times fewer samples, down to twice the elites."""

    @property
    def kept(self) -> int:
        """How many elites stay."""
        return int(self.kept_share * self.effort.elites)

    def fresh(self, rows: int) -> Warm:
        warm = super().fresh(rows)
        elites = np.repeat(warm["plan"][:, None], self.kept, axis=1)
        return {**warm, "elites": elites}

    def shifted(self, warm: Warm) -> Warm:
        old = warm["elites"]
        elites = np.concatenate([old[:, :, 1:], old[:, :, -1:]], axis=2)
        return {**super().shifted(warm), "elites": elites}

    def search(self, problem: Problem, warm: Warm, rngs: Rngs) -> Warm:
        best, effort = _none(warm), self.effort
        for turn in range(effort.rounds):
            count = max(int(effort.samples * self.decay**-turn), 2 * effort.elites)
            plans = self._candidates(warm, rngs, min(count, effort.samples), turn)
            scores = problem.score(plans)
            best = best.or_of(plans, scores)
            order = np.argsort(-scores, axis=1, kind="stable")[:, : effort.elites]
            elites = np.take_along_axis(plans, _wide2(order, plans), axis=1)
            weights = np.full(order.shape, 1.0 / order.shape[1])
            believed = self.belief.fit(warm, elites, weights, self.momentum)
            warm = {**believed, "plan": best.plan, "elites": elites[:, : self.kept]}
        return warm

    def _candidates(self, warm: Warm, rngs: Rngs, count: int, turn: int) -> np.ndarray:
        room = count - 1
        known = [self.known(warm, room)] if turn == 0 else []
        room -= sum(each.shape[1] for each in known)
        known.append(warm["elites"][:, : max(0, room)])
        if turn and turn == self.effort.rounds - 1 and self.kept:
            known.append(self.belief.centre(warm)[:, None])
        taken = sum(each.shape[1] for each in known)
        drawn = self.belief.draw(warm, self.noise(rngs, max(1, count - taken)))
        return np.concatenate([*known, drawn], axis=1)


def _wide2(order: np.ndarray, plans: np.ndarray) -> np.ndarray:
    return order.reshape(*order.shape, *[1] * (plans.ndim - 2))


class ImprovedCrossEntropy(CrossEntropy):
    """iCEM: coloured noise, elites that stay, fewer samples each round, the mean among the last.

    Pinneri et al. (2020), "Sample-efficient Cross-Entropy Method for Real-time Planning", arXiv:2008.06389.
    A discrete plan is coloured through the quantiles of its choices.
    """

    usual = Effort(samples=64, elites=8, rounds=3, noise=2.0)
    momentum, kept_share, decay = 0.1, 0.3, 1.25


class PathIntegral(Search):
    """MPPI: the mean of all candidates, weighted by exp(return / temperature), with smooth noise.

    Williams et al. (2017), "Model Predictive Path Integral Control", arXiv:1707.02342, without its price of
    control (an env's reward has its own), and with returns in units of their spread in a row, so that a
    temperature means the same for every reward. Of discrete actions the likeliest are taken.
    """

    usual = Effort(samples=128, elites=1, rounds=2, noise=1.0, spread=0.7)

    def search(self, problem: Problem, warm: Warm, rngs: Rngs) -> Warm:
        for turn in range(self.effort.rounds):
            known = self.known(warm, (self.effort.samples - 1) if turn == 0 else 1)
            count = self.effort.samples - known.shape[1]
            drawn = self.belief.draw(warm, self.noise(rngs, max(1, count)))
            plans = np.concatenate([known, drawn], axis=1)
            scores = problem.score(plans)
            height = scores - scores.max(axis=1, keepdims=True)
            unit = self.effort.temperature * scores.std(axis=1, keepdims=True) + 1e-12
            weights = np.exp(height / unit)
            weights /= weights.sum(axis=1, keepdims=True)
            believed = self.belief.fit(warm, plans, weights)
            if "spread" in warm:
                believed["spread"] = warm["spread"]  # MPPI moves the mean alone
            warm = {**believed, "plan": self.belief.centre(believed)}
        return warm


class Descent(Search):
    """Gradient ascent on the return, through the simulator, from several starts; the best plan seen is taken.

    Adam (Kingma & Ba 2015, arXiv:1412.6980) on every plan by itself, held to [-1, 1]. Continuous actions.
    """

    usual = Effort(samples=8, elites=1, rounds=8, noise=1.0)

    def search(self, problem: Problem, warm: Warm, rngs: Rngs) -> Warm:
        known = self.known(warm, self.effort.samples)
        others = max(0, self.effort.samples - known.shape[1])
        plans = np.concatenate([known, self.belief.uniform(self.noise(rngs, others))], axis=1)
        best, mean, square = _none(warm), np.zeros_like(plans), np.zeros_like(plans)
        for turn in range(1, self.effort.rounds + 1):
            scores, slope = problem.slope(plans)
            best = best.or_of(plans, scores)
            mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
            size = np.sqrt(square / (1.0 - 0.99**turn)) + 1e-12
            step = self.effort.rate * mean / (1.0 - 0.9**turn) / size
            plans = np.clip(plans + step, -1.0, 1.0)
        return {**warm, "plan": best.or_of(plans, problem.score(plans)).plan}


METHODS: dict[str, type[Search]] = {
    "shooting": Shooting,
    "cem": CrossEntropy,
    "icem": ImprovedCrossEntropy,
    "mppi": PathIntegral,
    "gradient": Descent,
}
"""Searches by name."""
