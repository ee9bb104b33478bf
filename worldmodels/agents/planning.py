"""An agent that does not learn: it imagines many futures in a world model and takes the best."""

from __future__ import annotations

from typing import Any

import numpy as np

import physgym
from physgym.rewards import Reward, check_at_starts, check_reward, earned
from physgym.task import Task
from worldmodels.configs.schema import converted, require, require_count, shown
from worldmodels.imagination import forecast
from worldmodels.interface import WorldModel


class Planner:
    """Cross-entropy search over sequences of discrete actions, in the model's imagination.

    Call it with observations (N, D) of ``obs_mode="state"``, all rows in step; it answers with
    actions (N,). Every ``hold`` steps it draws ``samples`` futures a row, each of ``blocks``
    actions held for ``hold`` steps, keeps the best ``elite`` and draws anew around them, ``rounds``
    times. Futures are scored by ``reward`` of the imagined states, until one ends the episode, with the
    parameters of the model's env: a kind of the system's own, or a function (state, control, next_state,
    params) as true envs take it (see ``physgym.rewards``).

    Raises ``ValueError`` for a model of continuous actions or of pictures, a count out of range, a reward that
    is unknown or fails on a start state, and observations of another shape, or of other rows than before.
    """

    def __init__(
        self,
        model: Any,
        blocks: int = 8,
        hold: int = 5,
        samples: int = 64,
        elite: int = 8,
        rounds: int = 2,
        seed: int = 0,
        reward: str | Reward = "dense",
    ) -> None:
        require("model", model, isinstance(model, WorldModel), "a WorldModel (worldmodels.load)")
        if model.spec.image_size:
            raise ValueError("the planner scores imagined states; this model imagines pictures")
        counts = {"blocks": blocks, "hold": hold, "samples": samples, "rounds": rounds}
        for name, value in {**counts, "elite": elite, "seed": seed}.items():
            least, most = int(name != "seed"), samples if name == "elite" else 2**63 - 1
            require_count(name, converted(int, value, name), least, most)
        if model.spec.action_kind != "discrete":
            raise ValueError("the planner chooses among discrete actions; this model has others")
        self.model = model.eval()
        self.system = physgym.get_system(model.spec.env_name)
        self.reward = check_reward(reward)
        if callable(self.reward):
            check_at_starts(
                Task(self.system.name, **{**model.spec.env_kwargs, "reward": reward}), np.asarray
            )
        self.params = self.system.check_params(model.spec.env_kwargs.get("params"))
        self.blocks, self.hold, self.samples = blocks, hold, samples
        self.elite, self.rounds = elite, rounds
        self._rng = np.random.default_rng(seed)
        self._likely: np.ndarray | None = None
        self._actions = np.zeros(0, np.int64)
        self._step = 0

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Actions (N,) for observations (N, D)."""
        self._check(np.asarray(observations))
        if self._step % self.hold == 0:
            self._actions = self._plan(np.asarray(observations, np.float64))
        self._step += 1
        return self._actions

    def _check(self, observations: np.ndarray) -> None:
        size, rows = self.system.state_size, None if self._likely is None else len(self._likely)
        fits = observations.ndim == 2 and observations.shape[1] == size
        if not fits or (rows is not None and len(observations) != rows):
            raise ValueError(
                f"observations of shape {observations.shape} are not valid: expected "
                f"({'N' if rows is None else rows}, {size}), the states of the same rows at every step"
            )
        if not np.isfinite(observations).all():
            raise ValueError(f"observations {shown(observations.tolist())} are not all finite")

    def _plan(self, states: np.ndarray) -> np.ndarray:
        rows, choices = len(states), len(self.system.discrete_actions)
        flat = np.full((rows, self.blocks, choices), 1.0 / choices)
        likely = flat
        if self._likely is not None:
            likely = np.concatenate([self._likely[:, 1:], flat[:, :1]], axis=1)
        for _ in range(self.rounds):
            likely = 0.9 * likely + 0.1 * flat
            plans = self._draw(likely)
            best = np.argsort(-self._score(states, plans), axis=1)[:, : self.elite]
            chosen = np.take_along_axis(plans, best[:, :, None], axis=1)
            likely = np.eye(choices)[chosen].mean(axis=1)
        self._likely = likely
        return chosen[:, 0, 0]

    def _draw(self, likely: np.ndarray) -> np.ndarray:
        """Plans (N, samples, blocks) of actions, drawn from ``likely`` (N, blocks, n)."""
        rows, blocks, _ = likely.shape
        dice = self._rng.random((rows, self.samples, blocks, 1))
        above = dice > likely.cumsum(axis=2)[:, None]
        return np.minimum(above.sum(axis=3), likely.shape[2] - 1)

    def _score(self, states: np.ndarray, plans: np.ndarray) -> np.ndarray:
        """Sum of imagined rewards (N, samples)."""
        rows, samples, blocks = plans.shape
        actions = np.repeat(plans.reshape(-1, blocks), self.hold, axis=1)
        starts = np.repeat(states, samples, axis=0)
        names = self.model.spec.param_names
        told = np.tile([float(getattr(self.params, name)) for name in names], (len(starts), 1))
        futures = forecast(self.model, starts[:, None], actions, told, self.model.spec.dt)
        before = np.concatenate([starts[:, None], futures[:, :-1]], axis=1)
        controls = self.system.control(self.system.discrete_actions[actions], self.params)
        with np.errstate(all="ignore"):
            rewards = self._rewards(before, controls, futures)
            ends = np.asarray(self.system.terminated(futures, self.params), np.bool_)
        ends = ends | ~np.isfinite(rewards)
        going = np.cumsum(ends, axis=1) - ends == 0  # the step that ends an episode still counts
        total = np.where(going & np.isfinite(rewards), rewards, 0.0).sum(axis=1)
        return total.reshape(rows, samples)

    def _rewards(self, before: np.ndarray, controls: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Rewards (K, T) of transitions (K, T, D)."""
        if not callable(self.reward):
            return np.asarray(self.system.reward(before, controls, after, self.params, self.reward))
        state, control, reached = (
            each.reshape(-1, each.shape[-1]).T for each in (before, controls, after)
        )
        rewards = earned(self.reward, state, control, reached, self.params)
        return rewards.reshape(after.shape[:2])
