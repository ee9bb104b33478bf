"""The modality of observations: a learned env of a foreign one, whose rewards and ends are learned, or given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from physgym.env import RENDER_SIZE
from worldmodels.envs import judging
from worldmodels.envs.modality import StateModality
from worldmodels.interface import WorldModel

Judge = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
"""(observations (N, D), actions as the env takes them, next observations (N, D)) to (N,)."""


class ObservationModality(StateModality):
    """A model of a foreign env: observations in and out, reward and end from its heads.

    Args:
        model: a model of states with a ``judge``.
        task: `physgym.foreign.task.ForeignTask` of the env.
        factor: as of every `Modality`.
        reward_fn: what gives the rewards in place of the heads: finite numbers (N,).
        terminated_fn: what says which rows end: truth values (N,).

    Raises:
        ValueError: one of these that is no function, or that answers two start observations with anything else.
    """

    def __init__(
        self,
        model: WorldModel,
        task: Any,
        factor: float,
        reward_fn: Judge | None = None,
        terminated_fn: Judge | None = None,
    ) -> None:
        super().__init__(model, task, factor)
        self.task: Any = task
        self.flags = ()
        self._given = {"reward_fn": reward_fn, "terminated_fn": terminated_fn}
        for name, function in self._given.items():
            if function is not None:
                self._try(name, function)

    def _try(self, name: str, function: Any) -> None:
        if not callable(function):
            raise ValueError(
                f"{name}={function!r} is not valid: expected a function of (observations, actions, next "
                "observations)"
            )
        start = np.array([self.task.sample(np.random.default_rng(0))[0]] * 2)
        low = self.task.system.to_env(self.task.actions.rows(self._first_actions(), 2))
        self._asked(name, start, low, start)

    def _first_actions(self) -> np.ndarray:
        space = self.task.action_space
        return np.array([space.start] * 2 if self.task.discrete else [space.low] * 2)

    def _asked(
        self, name: str, before: np.ndarray, actions: np.ndarray, after: np.ndarray
    ) -> np.ndarray | None:
        """What the function of that name says, as (N,); None where there is none."""
        function = self._given[name]
        if function is None:
            return None
        said = np.asarray(function(before, actions, after))
        wanted = "bool" if name == "terminated_fn" else "finite numbers"
        valid = said.dtype.kind in ("b" if name == "terminated_fn" else "iuf")
        if said.shape != (len(after),) or not valid:
            raise ValueError(
                f"{name} returned {said.dtype} of shape {said.shape} for observations of shape "
                f"{after.shape}: expected {wanted} of shape ({len(after)},)"
            )
        return said

    def judge(
        self,
        latent: Any,
        before: np.ndarray,
        shown: np.ndarray,
        actions: np.ndarray,
        params: Any,
    ) -> judging.Outcome:
        """Rewards, within those that training saw, and ends at a probability above 1/2; or what is given."""
        rewards = terminated = None
        if any(function is not None for function in self._given.values()):
            taken = self.task.system.to_env(actions)
            rewards = self._asked("reward_fn", before, taken, shown)
            terminated = self._asked("terminated_fn", before, taken, shown)
        if rewards is None or terminated is None:
            model: Any = self.model
            with torch.inference_mode():
                reward, logit = model.judge(
                    self.tensor(before), self.actions(actions), self.tensor(shown)
                )
            if rewards is None:
                rewards = reward.double().cpu().numpy()
            if terminated is None:
                terminated = (logit > 0.0).cpu().numpy()
        rewards = np.where(np.isfinite(rewards), rewards, 0.0).astype(np.float64)
        nothing = np.zeros(len(shown), np.bool_)
        return judging.Outcome(rewards, np.array(terminated, np.bool_), nothing, {})

    def judge_tensors(
        self, latent: Any, before: Any, after: Any, actions: torch.Tensor, params: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the heads say. Raises ValueError where a function was given: it passes no gradients."""
        for name, function in self._given.items():
            if function is not None:
                raise ValueError(
                    f"no gradients: {name} is a function of arrays; plan with cost=, written with torch, or "
                    "by another method"
                )
        model: Any = self.model
        reward, logit = model.judge(before, actions, after)
        return reward, logit.detach() > 0.0

    def read(self, observations: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return self.task.system.read(observations), None

    def facts(self, shown: np.ndarray, params: Any) -> dict[str, Any]:
        return {"state": shown.copy()}

    def portrait(
        self, shown: np.ndarray, action: np.ndarray | None, params: Any, caption: str
    ) -> np.ndarray:
        return self.task.portrait(tuple(shown.tolist()), None, params, RENDER_SIZE, caption)
