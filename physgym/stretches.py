"""Stretches of many steps in which no episode ends, by machine code, with no Python between the steps."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction

from physgym.autoreset import AutoresetVectorEnv
from physgym.compile.native import NativeRows

MOST_NUMBERS = 2**22
"""Numbers that a stretch may hold [32 MiB]."""
_FIRST, _GROWTH = 16.0, 1.1


class Stretches:
    """Takes steps of a `PhysicsVectorEnv` ahead, as many as it thinks will be quiet: more after those that
    were, fewer after those that were not.
    """

    def __init__(self, step: NativeRows, task: Any) -> None:
        self._step, self._task = step, task
        self._reach = _FIRST

    def length(self, wanted: int, left: int | None, rows: int) -> int:
        """How many of `wanted` steps to try; `left` of them there are before an episode's time is up. 0 where
        a single step is the better choice.
        """
        self._reach *= _GROWTH
        most = MOST_NUMBERS // (rows * (self._task.system.state_size + 3))
        count = min(wanted, int(self._reach), most, *(() if left is None else (left,)))
        return count if count > 1 else 0

    def controls(self, actions: Any, table: Any, params: Any, rows: int) -> np.ndarray | None:
        """(T, U, N) of T `actions`; None where one is bad, which a single step will say."""
        task, count = self._task, len(actions)
        try:
            batch = np.asarray(actions)
            flat = batch.reshape(count * rows, *batch.shape[2:]) if batch.ndim > 1 else batch
            parsed = task.actions.rows(flat, count * rows)
        except (InvalidAction, ValueError):
            return None
        if batch.shape[1] != rows:
            return None
        unit = table[:, parsed] if task.discrete else parsed.T
        parts = task.system.control_of(tuple(u.reshape(count, rows) for u in unit), params)
        controls = np.empty((count, len(parts), rows))
        for i, part in enumerate(parts):
            controls[:, i] = part
        return controls

    def take(self, state: np.ndarray, controls: np.ndarray, constants: Any) -> np.ndarray:
        """(T, D + 2, N): states, rewards and energies of the steps from `state` (D, N) before the first at
        which a row leaves its bounds or meets an event.
        """
        task, size = self._task, len(state)
        found = self._step.many(state, controls, constants, task.dt, task.count)
        over = (found[:, size + 2 :] != 0.0).any(axis=(1, 2))
        quiet = int(over.argmax()) if over.any() else len(found)
        self._reach = 2.0 * self._reach if quiet == len(found) else max(1.0, 0.5 * quiet)
        return found[:quiet, : size + 2]


class StretchingVectorEnv(AutoresetVectorEnv, ABC):
    """What of `PhysicsVectorEnv` takes many steps of a rollout at once."""

    _arrays: Any
    _task: Any
    _transition: Any
    _constants: Any
    _table: Any
    _tensors: bool
    _named_params: Any
    _params: Any
    _event_names: tuple[str, ...]
    _calm: tuple[Any, Any]
    """Ends of a step that ends nothing."""
    _stretches: Stretches | None

    def quiet_steps(self, actions: Any) -> Sequence[tuple[Any, Any, Any, Any]]:
        """By machine code, where no gradient, picture or reward of the user's is asked for."""
        step = getattr(self._transition, "machine_code", lambda _: None)(self._state)
        if step is None or self._any_done or self._task.obs_mode not in ("state", "embedded"):
            return ()
        if self._stretches is None:
            self._stretches = Stretches(step, self._task)
        limit = self.max_episode_steps
        left = None if limit is None else limit - 1 - int(self.elapsed.max())
        given = actions[: self._stretches.length(len(actions), left, self.num_envs)]
        if not len(given) or any(getattr(row, "requires_grad", False) for row in given):
            return ()
        lent = self._arrays.lent
        table, params = lent(self._table), self._task.base._make(map(lent, self._named_params()))
        controls = self._stretches.controls([*map(lent, given)], table, params, self.num_envs)
        if controls is None:
            return ()
        constants = self._constants
        if self._tensors:
            constants = tuple(map(lent, constants))
        found = self._stretches.take(lent(self._state), controls, constants)
        return self._taken(found, controls) if len(found) else ()

    def _taken(self, found: np.ndarray, controls: np.ndarray) -> Any:
        """The steps that were taken ahead, as those of the env."""
        (count, lines, rows), array = found.shape, self._arrays.array
        self._state, self._energy = array(found[-1, :-2].copy()), array(found[-1, -1].copy())
        self._control = tuple(map(array, controls[count - 1]))
        self._outside, self._any_outside = self.blank(np.bool_), False
        self._events = [self.blank(np.bool_) for _ in self._event_names]
        self.elapsed += count
        columns = array(np.ascontiguousarray(found[:, :-1].transpose(1, 0, 2)))
        seen = self._task.features(tuple(columns[:-1].reshape(lines - 2, -1)))
        if self._task.observe_params:
            seen += [self._arrays.repeated(p, count) for p in self._params]
        batch = self._arrays.vectors(seen).reshape(count, rows, -1)
        return [(columns[-1, i], *self._calm, batch[i]) for i in range(count)]
