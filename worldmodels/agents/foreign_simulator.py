"""Futures in the truth of an env that is not of PhysGym, where it can be put into what it shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np

import physgym
from physgym.foreign.system import ForeignSystem
from worldmodels.agents.simulators import Cost, Moment, Seen, Simulator, paid


class ForeignSimulator(Simulator):
    """A true Gymnasium env, set to an observation and stepped from there, one future after another.

    That an env is a function of its observation nobody can promise but its documentation; those whose is
    known are in `physgym.foreign.facts`. Their observations are in single precision, and so is a start.

    Args:
        system: what is known of the env.
        cost: see `Simulator.cost`; of observations.

    Raises:
        ValueError: an env of which nobody knows how to put it into an observation.
    """

    no_gradients = "an env that is not of PhysGym steps no tensors"

    def __init__(self, system: ForeignSystem, cost: Cost | None = None) -> None:
        if system.facts is None or system.facts.state is None:
            raise ValueError(
                f"{system.env_id} cannot be planned in: nobody has said how to put it into an observation; learn "
                "a model of it and plan in that, or give a worldmodels.Simulator"
            )
        self.system, self.cost, self._state_of = system, cost, system.facts.state
        self.actions = system.task().actions
        self.idle = 0 if system.discrete else np.zeros(system.action_size)
        self._env: Any = system.make().unwrapped
        self._env.reset(seed=0)

    def read(self, observations: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        if params:
            raise ValueError(f"params={params!r} are not valid: {self.system.env_id} tells none")
        rows = self.system.read(observations)
        return rows, np.zeros((len(rows), 0))

    def begin(self, seen: Seen, rows: np.ndarray) -> Any:
        shown = seen.context[rows, -1]
        return _Carry(shown, [self._state_of(row) for row in shown], np.zeros(len(rows), bool))

    def advance(self, carry: Any, actions: np.ndarray) -> Moment:
        count = len(actions)
        shown, states = carry.shown.copy(), list(carry.states)
        rewards, ended = np.zeros(count), carry.over.copy()
        taken = self.system.to_env(actions)
        for row in np.flatnonzero(~carry.over).tolist():
            shown[row], states[row], rewards[row], ended[row] = self._stepped(
                states[row], taken[row]
            )
        if self.cost is not None:
            rewards = -paid(self.cost, carry.shown, actions, shown)
        return Moment(_Carry(shown, states, ended), rewards, ended, ~np.isfinite(shown).all(1))

    def _stepped(self, state: Any, action: Any) -> tuple[np.ndarray, Any, float, bool]:
        env = self._env
        env.state = state
        env.steps_beyond_terminated = None  # CartPole's: it would warn of a step behind an end
        observation, reward, terminated, _, _ = env.step(action)
        return observation, env.state, float(reward), bool(terminated)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        return self.system.to_env(actions)


class _Carry(NamedTuple):
    shown: np.ndarray
    """(B, D) observations."""
    states: list[Any]
    """What the env calls its state, in full precision."""
    over: np.ndarray
    """(B,) bool: ended."""


def foreign_of(place: Any) -> ForeignSystem | None:
    """What is known of a Gymnasium env (single, or vector of equal ones) that is not of PhysGym; None of others."""
    if not isinstance(place, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        return None
    spec = place.spec
    if spec is None or spec.namespace in ("PhysGym", "WorldModels") or hasattr(place, "task"):
        return None
    system = physgym.get_system(spec.id, spec.kwargs)
    return system if isinstance(system, ForeignSystem) else None
