"""What acts while a buffer is collected: every draw planned before the episode, from its own rng.

random: uniform, anew at every step. zero: no control. bang: extremes, held for 1 to 20 steps.
controller: the system's hand-written one, disturbed. mixed: one of these four, drawn per episode. ou: an
Ornstein-Uhlenbeck process, as numbers or as the nearest of the levels. own: what the user gave.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

MIXED = ("random", "bang", "zero", "controller")
"""What a mixed buffer draws from."""
BEHAVIOURS = (*MIXED, "ou", "own")
LONGEST_HOLD = 20
"""Steps for which an extreme action is held at most."""
OU_RATE, OU_NOISE = 0.15, 0.3
"""x' = x - OU_RATE x + OU_NOISE N(0, 1), from its stationary law, clipped to [-1, 1]: the process that the
published comparison of Hamiltonian world models collects with."""
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
    policy: str,
    table: np.ndarray,
    discrete: bool,
    steps: int,
    rng: np.random.Generator,
    mixed: Sequence[str] = MIXED,
) -> Plan:
    """Draw one episode's plan. `table` (n, A): the continuous twin of each discrete action."""
    if policy == "mixed":
        policy = mixed[int(rng.integers(len(mixed)))]
    kind = policy if policy in BEHAVIOURS else "own"
    behaviour = BEHAVIOURS.index(kind)
    if kind == "own":
        return Plan(behaviour, np.zeros(steps if discrete else (steps, table.shape[1])), None)
    if kind == "ou":
        numbers = _ornstein_uhlenbeck(steps, table.shape[1], rng)
        return Plan(behaviour, _nearest(numbers, table) if discrete else numbers, None)
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


def _ornstein_uhlenbeck(steps: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(T, A) in [-1, 1]."""
    spread = OU_NOISE / np.sqrt(1.0 - (1.0 - OU_RATE) ** 2)
    numbers = np.empty((steps, size))
    state = spread * rng.standard_normal(size)
    for step in range(steps):
        numbers[step] = state
        state = (1.0 - OU_RATE) * state + OU_NOISE * rng.standard_normal(size)
    return numbers.clip(-1.0, 1.0)


def _nearest(numbers: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(T,) the discrete actions nearest to `numbers` (T, A)."""
    return ((numbers[:, None] - table) ** 2).sum(2).argmin(1)


Policy = Callable[[np.ndarray], Any]
"""Observations (N, F) to actions (N,) or (N, A), as the env takes them."""


def load_function(text: str) -> Policy:
    """The function that "module:function" names. Raises ValueError where there is none."""
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"policy={text!r}: {module} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"policy={text!r}: {module} has no function {name!r}")
    return found


def asked(
    policy: Policy, observations: np.ndarray, shape: tuple[int, ...], name: str
) -> np.ndarray:
    """What `policy` does at `observations` (N, F), an array of `shape`; ValueError for anything else."""
    actions = np.asarray(policy(observations))
    if actions.shape != shape or actions.dtype.kind not in ("iu" if len(shape) == 1 else "iuf"):
        kind = "integers" if len(shape) == 1 else "numbers"
        raise ValueError(
            f"policy={name!r} returned {actions.dtype} of shape {actions.shape} for observations of shape "
            f"{observations.shape}: expected {kind} of shape {shape}"
        )
    return actions


class Actor:
    """The plans of B episodes as one policy over the batch; `policy`: what acts in their place, where
    the user gave one, called `name` in messages.
    """

    def __init__(
        self,
        system: Any,
        plans: Sequence[Plan],
        discrete: bool,
        policy: Policy | None = None,
        name: str = "",
    ) -> None:
        self._system, self._policy, self._name = system, policy, name
        self._discrete = discrete
        self._actions = np.stack([plan.actions for plan in plans], axis=1)
        controlled = [BEHAVIOURS[plan.behaviour] == "controller" for plan in plans]
        self._rows = np.flatnonzero(controlled)
        marks = [plan.disturbed for plan in plans if plan.disturbed is not None]
        self._disturbed = np.stack(marks, axis=1) if marks else None

    def act(self, step: int, states: np.ndarray, params: Any) -> np.ndarray:
        """Actions (B,) int64 or (B, A) float32 at `step` in `states` (B, D)."""
        actions = self._actions[step].copy()
        if self._policy is not None:
            mode = getattr(self._policy, "obs_mode", "state")
            seen = self._system.observe(states, mode)
            actions = asked(self._policy, seen, actions.shape, self._name)
            actions = actions.astype(np.int64) if self._discrete else actions
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
