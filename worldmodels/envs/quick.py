"""The step of a single learned env of states: as the vector env has it, by one call of machine code.

The next state comes from the model's machine code, reward, energy and ends from the true env's own: what is left is
Python that reads the action, and makes the observation and `info`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worldmodels.envs.native_steps import NativeStep
from worldmodels.envs.served import Served

_INTEGERS = frozenset((int, np.int64))
"""What spaces sample; other types take the longer way through `ActionKind`."""


class QuickRow:
    """Row 0 of a learned vector env, stepped alone. Made by ``quick_row``.

    Args:
        rows: the vector env, whose first episode has begun.
        native: the model's step.
    """

    def __init__(self, rows: Any, native: NativeStep) -> None:
        task, predictor = rows.task, rows.predictor
        self.native, self._rows, self._task, self._predictor = native, rows, task, predictor
        served = self._served = Served(native, predictor.latent, task, predictor.modality.most)
        self._state, self._observed = served.states[0], served.observed[0]
        self._out, self._size = served.out[:, 0], task.system.state_size
        self._names = predictor.modality.flags[1:]
        self._plain = task.obs_mode in ("state", "embedded") and not task.observe_params
        self._moves: dict[int, tuple[Any, ...]] = {}
        self._controls: list[np.ndarray] = []
        self._calls = () if task.discrete else (served.bound(0), served.bound(1))
        self._params: Any = None
        for index in range(task.system.action_count if task.discrete else 0):
            action, control = torch.tensor([index]), np.zeros_like(served.control)
            calls = [served.bound(turn, action, control) for turn in (0, 1)]
            self._moves[index] = (*calls, np.array([index]))
            self._controls.append(control)

    @property
    def code(self) -> Callable[[], int]:
        """The machine code of a step alone, of whatever lies in its rooms: what a step cannot cost less than."""
        calls: tuple[Any, ...] = self._moves[0] if self._moves else self._calls
        return calls[0]

    def begin(self, params: Any) -> None:
        """Go on with the episode that the vector env has begun, of these parameters."""
        self._latent: Any = None  # taken over at the first step
        if params == self._params:
            return
        self._params, task = params, self._task
        self._named_params = {name: float(value) for name, value in params._asdict().items()}
        constants = task.constants(params)
        self._served.constants[: len(constants), 0] = constants
        for control, level in zip(self._controls, task.system.discrete_actions, strict=False):
            control[:, 0] = task.system.control_of(tuple(level.tolist()), params)

    def beginning(self) -> tuple[Any, dict[str, Any]]:
        """What `WorldModelEnv.reset` returns of the episode that has begun."""
        state = tuple(self._predictor.shown[0].tolist())
        energy = self._task.system.energy_of(state, self._params)
        self._state[:] = state
        info, _ = self._info([*state, 0.0, energy, *[0.0] * (1 + len(self._names))], False)
        if self.native.doubts:
            info["uncertainty"] = 0.0
        return self._task.observe(state, self._params), info

    def _adopt(self) -> None:
        """Take over what another hand has done: a reset, or a step of the vector env."""
        served, predictor, rows = self._served, self._predictor, self._rows
        served.adopt(predictor.latent, predictor.shown)
        predictor.latent = self._latent = served.turns[0]
        predictor.shown = served.states
        self._turn, self._elapsed = 0, int(rows.elapsed[0])
        self._limit = math.inf if rows.max_episode_steps is None else rows.max_episode_steps

    def _move(self, action: Any) -> tuple[Any, ...]:
        """Calls of either turn for ``action``, and it as a row of the vector env."""
        kind, served = self._task.actions, self._served
        if self._moves:
            return self._moves[kind.index(action)]
        unit = kind.vector(action)
        served.action[0] = unit
        served.control[:, 0] = self._task.system.control_of(unit, self._params)
        return (*self._calls, np.array([unit]))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]] | None:
        """What `WorldModelEnv.step` returns; None where the model is not what was compiled any more."""
        move = self._moves.get(action) if type(action) in _INTEGERS else None
        move = move or self._move(action)
        if self._predictor.latent is not self._latent:
            self._adopt()
        turn, served = self._turn, self._served
        if not served.taken(move[turn]):
            return None
        told, size = self._out.tolist(), self._size
        lost, outside = told[-2] != 0.0, told[size + 2] != 0.0
        if not lost:
            self._turn = 1 - turn
            self._latent = self._predictor.latent = served.turns[1 - turn]
        info, terminated = self._info(told, lost)
        reward = told[size] if math.isfinite(told[size]) else float(np.nan_to_num(told[size]))
        truncated = lost or outside
        if self.native.doubts:
            cost, doubted, info["uncertainty"] = self._charged(told[-1])
            reward, truncated = reward - cost, truncated or doubted
        self._elapsed += 1
        rows = self._rows
        rows.elapsed[0], rows.taken = self._elapsed, move[2]
        truncated = truncated or self._elapsed >= self._limit
        return self._observation(outside), reward, terminated, truncated, info

    def _info(self, told: list[float], lost: bool) -> tuple[dict[str, Any], bool]:
        """`info` without the uncertainty, and whether one of the events ends the episode."""
        size, terminated = self._size, False
        info: dict[str, Any] = {"state": self._state.copy(), "energy": told[size + 1]}
        if self._named_params:
            info["params"] = self._named_params.copy()
        info["out_of_bounds"] = told[size + 2] != 0.0 and not lost
        for place, name in enumerate(self._names, size + 3):
            info[name] = happened = told[place] != 0.0 and not lost
            terminated = terminated or happened
        info["diverged"] = lost
        return info, terminated

    def _charged(self, doubt: float) -> tuple[float, bool, float]:
        """Reward that a disagreement costs, whether it ends the episode, and it as `info` has it."""
        if not math.isfinite(doubt):
            doubt = float(np.nan_to_num(doubt, nan=np.inf))
        rows = self._rows
        return rows.penalty * min(doubt, 1e6), doubt > rows.uncertainty_limit, doubt

    def _observation(self, outside: bool) -> Any:
        if self._plain and not outside:
            return self._observed.copy()
        return self._task.observe(tuple(self._state.tolist()), self._params)


def quick_row(rows: Any, known: QuickRow | None) -> QuickRow | None:
    """`QuickRow` of a vector env of one row whose episode has just begun, the ``known`` one where it serves still;
    None where it cannot be had.
    """
    native = rows.native_step()
    if rows.flat_info or not isinstance(native, NativeStep):
        return None
    quick = known if known is not None and known.native is native else QuickRow(rows, native)
    quick.begin(rows.params_of(0))
    return quick
