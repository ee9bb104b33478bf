"""Futures in a world model, of states and of pictures alike: `Modality` says what differs."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.agents.simulators import (
    Cost,
    Moment,
    Seen,
    Simulator,
    check_pays,
    idle_action,
    paid,
    told_params,
)
from worldmodels.envs.modality import Modality
from worldmodels.envs.predictor import DIVERGENCES, Predictor, uncertainty_of
from worldmodels.imagination import map_tensors, small_batch, step_rows
from worldmodels.interface import Latent


class LearnedSimulator(Simulator):
    """A world model: what it predicts is judged as a learned env judges it.

    States earn the system's own reward, pictures what the model's heads say. A future whose prediction is
    not finite, lies far outside the training range or could not be computed is lost.

    Args:
        modality: holds the model, which is put into eval mode, and the task.
        cost: see `Simulator.cost`.
        penalty: reward lost per unit of an ensemble's disagreement, at every step.

    Raises:
        ValueError: nothing to plan for; a model whose verbs do not fit its spec.
    """

    no_gradients = ""

    def __init__(self, modality: Modality, cost: Cost | None = None, penalty: float = 0.0) -> None:
        check_pays(modality.task, cost)
        self.modality, self.model, self.task = modality, modality.model, modality.task
        self.cost, self.penalty, self.length = cost, penalty, modality.length
        self.actions, self.idle = self.task.actions, idle_action(self.task)
        if modality.dtype is np.uint8:
            self.batch = 2**9
        Predictor(modality, 1, self.task.dt)  # tries the verbs, so that a misfit shows here
        self._shows = modality.reads_shown or cost is not None
        self._warned = False

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        system: Any = self.task.system
        if "equations" not in system.knows:
            return system.to_env(actions)
        return super().to_env(actions)

    def read(self, observations: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        shown, told = self.modality.read(observations)
        return shown, told_params(self.task, params, told, len(shown))

    def begin(self, seen: Seen, rows: np.ndarray) -> Any:
        self.model.eval()
        with torch.inference_mode():
            return _Carry(self._encode(seen, rows), seen.context[rows, -1], seen.params[rows])

    def _encode(self, seen: Seen, rows: np.ndarray) -> Latent:
        """Every row is read once, however many futures begin there."""
        wanted, which = np.unique(rows, return_inverse=True)
        names = self.task.system.Params._fields
        told = [names.index(name) for name in self.model.spec.param_names]
        with small_batch(self.model, len(wanted)):
            latent = self.modality.encode(
                seen.context[wanted], seen.actions[wanted], seen.params[wanted][:, told]
            )
        index = torch.as_tensor(which, device=self.modality.device)
        return map_tensors(lambda x: x[index], latent)

    def advance(self, carry: Any, actions: np.ndarray) -> Moment:
        latent, before, params = carry
        modality, count = self.modality, len(actions)
        with torch.inference_mode(), small_batch(self.model, count):
            parsed = modality.actions(actions)
            moved, lost, error = step_rows(
                self.model.step, latent, parsed, self.task.dt, DIVERGENCES
            )
            if error is not None:
                self._warn(error)
            shown, sound = (
                modality.decode(moved) if self._shows else (before, modality.sound(moved))
            )
            named = self.task.system.Params(*params.T)
            with np.errstate(all="ignore"):
                outcome = modality.judge(moved, before, shown, actions, named)
                rewards = outcome.rewards
                if self.cost is not None:
                    rewards = -paid(self.cost, _floats(before), actions, _floats(shown))
            if self.penalty:
                uncertainty = uncertainty_of(self.model, moved, count)
                rewards = rewards - self.penalty * np.minimum(uncertainty, 1e6)
            lost = lost | ~sound
            if lost.any():
                keep = torch.as_tensor(~lost, device=modality.device)
                moved = map_tensors(lambda new, old: _chosen(keep, new, old), moved, latent)
                shown = np.where(_wide(lost, shown), before, shown)
        lost = lost | outcome.out_of_bounds
        return Moment(_Carry(moved, shown, params), rewards, outcome.terminated, lost)

    def begin_tensors(self, seen: Seen, rows: np.ndarray) -> Any:
        self.model.eval()
        shown = self.modality.tensor(_floats(seen.context[rows, -1]))
        return _Carry(self._encode(seen, rows), shown, self.modality.tensor(seen.params[rows]))

    def advance_tensors(self, carry: Any, actions: Tensor) -> Moment:
        latent, before, params = carry
        modality, count = self.modality, len(actions)
        own = actions.to(modality.device, modality.float_type)
        with small_batch(self.model, count):
            try:
                moved, lost, _ = step_rows(self.model.step, latent, own, self.task.dt)
            except RuntimeError as error:
                raise ValueError(
                    f"no gradients: the model cannot be stepped with them ({error}); choose another method"
                ) from error
            after = self.model.decode(moved) if self._shows else before
            named = self.task.system.Params(*params.unbind(-1))
            rewards, ended = modality.judge_tensors(moved, before, after, own, named)
            if self.cost is not None:
                rewards = -paid(self.cost, before, own, after)
            if self.penalty:
                rewards = rewards - self.penalty * self.model.disagreement(moved)  # type: ignore[operator]
        with torch.no_grad():
            lost = lost | ~modality.sound(moved)
        return Moment(_Carry(moved, after, params), rewards, ended, lost)

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            warnings.warn(
                f"The model raised {type(error).__name__} ({error}) while planning; such futures are lost.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._warned = True


class _Carry(NamedTuple):
    latent: Any
    shown: Any
    """(B, *shape) of what the latents look like."""
    params: Any
    """(B, P)."""


def _floats(shown: np.ndarray) -> np.ndarray:
    """States as they are, pictures as floats in [0, 1]."""
    return shown / np.float32(255.0) if shown.dtype == np.uint8 else shown


def _wide(rows: Any, like: Any) -> Any:
    """A mask (B,) that applies to arrays or tensors of `like`'s axes."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def _chosen(keep: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(_wide(keep, new), new, old)
