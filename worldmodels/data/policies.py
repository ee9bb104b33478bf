"""What acts while a buffer is collected: every draw planned before the episode, from its own rng.

random: uniform, anew at every step. zero: no control. bang: extremes, held for 1 to 20 steps.
controller: the system's hand-written one, disturbed. mixed: one of these four, drawn per episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

BEHAVIOURS = ("random", "bang", "zero", "controller")
LONGEST_HOLD = 20
"""Steps for which an extreme action is held at most."""
MOST_NOISE = 0.5
"""Largest share of disturbed actions, or standard deviation of the noise on continuous ones."""


class Plan(NamedTuple):
    """All that one episode of T steps will draw."""

    behaviour: int
    """Index into BEHAVIOURS."""
    actions: np.ndarray
    """(T,) int64 or (T, A) float64: the actions, or for a controller what disturbs it."""
    disturbed: np.ndarray | None
    """(T,) bool: steps at which a discrete controller is replaced by `actions`."""


def plan_episode(
    policy: str, table: np.ndarray, discrete: bool, steps: int, rng: np.random.Generator
) -> Plan:
    """Draw one episode's plan. `table` (n, A): the continuous twin of each discrete action."""
    mixed = policy == "mixed"
    behaviour = int(rng.integers(len(BEHAVIOURS))) if mixed else BEHAVIOURS.index(policy)
    kind = BEHAVIOURS[behaviour]
    if kind == "controller":
        level = rng.uniform(0.0, MOST_NOISE)
        if not discrete:
            return Plan(behaviour, rng.normal(0.0, level, (steps, table.shape[1])), None)
        return Plan(behaviour, rng.integers(len(table), size=steps), rng.random(steps) < level)
    if kind == "zero":
        still = int(np.argmin(np.abs(table).sum(axis=1)))
        chosen = np.full(steps, still)
        return Plan(behaviour, chosen if discrete else np.zeros((steps, table.shape[1])), None)
    if kind == "random":
        if discrete:
            return Plan(behaviour, rng.integers(len(table), size=steps), None)
        return Plan(behaviour, rng.uniform(-1.0, 1.0, (steps, table.shape[1])), None)
    return Plan(behaviour, _bang(table, discrete, steps, rng), None)


def _bang(table: np.ndarray, discrete: bool, steps: int, rng: np.random.Generator) -> np.ndarray:
    holds = rng.integers(1, LONGEST_HOLD + 1, size=steps)
    index = np.repeat(np.arange(steps), holds)[:steps]
    if not discrete:
        return rng.choice([-1.0, 1.0], (steps, table.shape[1]))[index]
    size = np.linalg.norm(table, axis=1)
    extremes = np.flatnonzero(size > 0.99 * size.max())
    return extremes[rng.integers(len(extremes), size=steps)][index]


class Actor:
    """The plans of B episodes as one policy over the batch."""

    def __init__(self, system: Any, plans: Sequence[Plan], discrete: bool) -> None:
        self._system = system
        self._discrete = discrete
        self._actions = np.stack([plan.actions for plan in plans], axis=1)
        controlled = [BEHAVIOURS[plan.behaviour] == "controller" for plan in plans]
        self._rows = np.flatnonzero(controlled)
        marks = [plan.disturbed for plan in plans if plan.disturbed is not None]
        self._disturbed = np.stack(marks, axis=1) if marks else None

    def act(self, step: int, states: np.ndarray, params: Any) -> np.ndarray:
        """Actions (B,) int64 or (B, A) float32 at `step` in `states` (B, D)."""
        actions = self._actions[step].copy()
        if len(self._rows):
            actions[self._rows] = self._steered(step, states, params)
        return actions if self._discrete else np.clip(actions, -1.0, 1.0).astype(np.float32)

    def _steered(self, step: int, states: np.ndarray, params: Any) -> np.ndarray:
        rows, noise = self._rows, self._actions[step][self._rows]
        own = type(params)(*(np.asarray(values)[rows] for values in params))
        wanted = self._system.controller(states[rows], own, step)
        if self._discrete:
            assert self._disturbed is not None  # every discrete controller has its plan's
            return np.asarray(np.where(self._disturbed[step], noise, wanted))
        return self._system.discrete_actions[wanted] + noise
