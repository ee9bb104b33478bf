"""What the true env says of predicted states: reward and ends, by its own equations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.rewards import earned
from physgym.task import Task


class Outcome(NamedTuple):
    """What the true env says of having reached some states; arrays (N,)."""

    rewards: np.ndarray
    terminated: np.ndarray
    out_of_bounds: np.ndarray
    events: dict[str, np.ndarray]


def event_names(task: Task) -> tuple[str, ...]:
    """Names of the events that end an episode; each is a key of `info`."""
    return tuple(task.system.events_of((1.0,) * task.system.state_size, task.base))


def controls_of(task: Task, actions: np.ndarray, params: Any) -> tuple[np.ndarray, ...]:
    """Components (N,) of the physical control that parsed actions stand for."""
    levels = task.system.discrete_actions.take(actions, axis=0) if task.discrete else actions
    return task.system.control(tuple(levels.T), params)


class Judge:
    """Reward and ends of reaching states, by the true env's own program, compiled where it can be.

    What it found out besides of the states that it judged last, it tells of that very array, `inside` and
    `energy`: so that nobody has to compute it again.

    Args:
        task: of PhysGym.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._judged: Any = None
        self._energy: Any = None
        self._inside = False
        quick = getattr(task, "program", None) is not None and not callable(task.reward)
        self._outcome = task.transition("arrays") if quick else None
        self._names = event_names(task) if quick else ()
        self._known: Any = None
        self._constants: Any = None

    def __call__(
        self, before: np.ndarray, states: np.ndarray, control: tuple[np.ndarray, ...], params: Any
    ) -> Outcome:
        """Of going from `before` (N, D) to `states` (N, D) by `control`; `params` are columns (N,), the same
        object for as long as they are the same.
        """
        if self._outcome is None:
            self._judged = None
            return judge(self._task, before, states, control, params)
        if self._known is not params:
            self._known, self._constants = params, self._task.constants(params)
        with np.errstate(all="ignore"):
            result = self._outcome(states.T, control, self._constants, 0.0, 0)
        size = states.shape[1]
        events = dict(zip(self._names, result[size + 3 :], strict=True))
        outcome = _outcome(len(states), result[size], result[size + 2], events)
        self._judged, self._energy = states, _column(len(states), result[size + 1])
        self._inside = not outcome.out_of_bounds.any()
        return outcome

    def inside(self, states: np.ndarray) -> bool:
        """Whether all of `states` are known to be within the true env's bounds."""
        return self._judged is states and self._inside

    def energy(self, states: np.ndarray) -> np.ndarray | None:
        """(N,) true energy of `states`, a fresh array; None where it is not known yet."""
        return np.array(self._energy) if self._judged is states else None

    def __getstate__(self) -> dict[str, Any]:
        return {"_task": self._task}  # machine code is of this process alone

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_task"])  # type: ignore[misc]


def _outcome(count: int, rewards: Any, outside: Any, events: dict[str, Any]) -> Outcome:
    """What the equations say, each a number or (N,), as arrays of ``count`` rows; rewards are finite."""
    named = {name: _column(count, happened) for name, happened in events.items()}
    terminated = np.zeros(count, dtype=np.bool_)
    for happened in named.values():
        terminated |= happened
    earned_now = finite_rewards(_column(count, rewards).astype(np.float64, copy=False))
    return Outcome(earned_now, terminated, _column(count, outside), named)


def finite_rewards(rewards: np.ndarray) -> np.ndarray:
    """Rewards (N,), themselves where all are finite."""
    return rewards if np.isfinite(rewards).all() else np.nan_to_num(rewards)


def _column(count: int, value: Any) -> np.ndarray:
    """A number or (N,) as an array (N,), itself where it is one."""
    array = np.asarray(value)
    return array if array.shape == (count,) else np.full(count, array)


def judge(
    task: Task,
    before: np.ndarray,
    states: np.ndarray,
    control: tuple[np.ndarray, ...],
    params: Any,
) -> Outcome:
    """Reward and ends of going from `before` (N, D) to `states` (N, D) by `control`; rewards are finite."""
    system, components = task.system, tuple(states.T)
    nothing = np.zeros(len(states), dtype=np.bool_)
    with np.errstate(all="ignore"):
        if callable(task.reward):
            rewards = earned(task.reward, before.T, control, components, params)
        else:
            rewards = system.reward(before.T, control, components, params, task.reward)
        events = system.events(components, params)
        outside = ~(system.within_bounds(components, params) | nothing)
    return _outcome(len(states), rewards, outside, events)


def judge_tensors(
    task: Task, before: Tensor, states: Tensor, actions: Tensor, params: Any
) -> tuple[Tensor, Tensor]:
    """Rewards (N,) with their gradients, and ends (N,) bool, of going from `before` (N, D) to `states` (N, D)
    by continuous `actions` (N, A); `params` are floats or columns (N,).
    """
    system, parts = task.system, tuple(states.unbind(-1))
    control, old = system.control_of(tuple(actions.unbind(-1)), params), tuple(before.unbind(-1))
    if callable(task.reward):
        rewards = earned(task.reward, old, control, parts, params)
    else:
        rewards = system.reward(old, control, parts, params, task.reward)
    ended = torch.zeros_like(parts[0], dtype=torch.bool)
    for happened in system.events(parts, params).values():
        ended = ended | happened
    return rewards, ended
