"""The step of a single learned env of states in plain floats: as the vector env has it, without its arrays.

The next state comes from the model's machine code, reward, energy and ends from the true env's own compiled program
(a step of no sub-steps), so that a single learned env costs little more than the true one.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from worldmodels.envs.modality import StateModality
from worldmodels.envs.native_row import NativeRow
from worldmodels.envs.native_steps import NativeStep
from worldmodels.envs.predictor import Predictor, knows_uncertainty, uncertainty_of
from worldmodels.envs.task import parse_action


class QuickRow:
    """Row 0 of a learned vector env, stepped alone. Made by ``quick_row`` for each episode.

    Args:
        rows: the vector env.
        native: the model's step.
        params: the episode's.
    """

    def __init__(self, rows: Any, native: NativeStep, params: Any) -> None:
        task, predictor = rows.task, rows.predictor
        self._task, self._predictor, self._params = task, predictor, params
        self._native = NativeRow(native, predictor.latent, task.discrete, task.system.action_size)
        self._limit = predictor.modality.limit.tolist()
        self._transition, self._constants = task.transition("floats"), task.constants(params)
        self._named_params = {name: float(value) for name, value in params._asdict().items()}
        self._flags = predictor.modality.flags
        self._state = predictor.shown[0].tolist()
        self._plain = task.obs_mode in ("state", "embedded") and not task.observe_params
        self._charge = rows.charge if knows_uncertainty(predictor.model) else None
        self._moves: dict[int, tuple[Any, ...]] = {}
        if task.discrete:
            for index, level in enumerate(task.system.discrete_actions.tolist()):
                control = task.system.control_of(tuple(level), params)
                self._moves[index] = np.array([index]), index, control

    def _move(self, action: Any) -> tuple[Any, ...]:
        """(row as the vector env has it, the model's action, the physical control) of ``action``."""
        if self._task.discrete:
            known = self._moves.get(action) if type(action) in (int, np.int64) else None
            return known or self._moves[self._task.actions.index(action)]
        row = parse_action(self._task, action)
        control = self._task.system.control_of(tuple(row[0].tolist()), self._params)
        return row, row[0], control

    def usable(self) -> bool:
        """Whether the model is still what was compiled."""
        return self._native.fits()

    def step(self, action: Any) -> tuple[np.ndarray, Any, float, bool, bool, dict[str, Any]]:
        """(row of the action, observation, reward, terminated, truncated, info), less the time limit."""
        row, given, control = self._move(action)
        predictor = self._predictor
        latent, state = self._native(predictor.latent, given)
        diverged = not all(map(operator.le, map(abs, state), self._limit))
        if not diverged:
            self._state = state
            predictor.latent, predictor.shown = latent, np.array([state])
        state, size = self._state, len(self._state)
        result = self._transition(tuple(state), control, self._constants, 0.0, 0)
        outside, events = bool(result[size + 2]), [bool(event) for event in result[size + 3 :]]
        told = [outside and not diverged, *(event and not diverged for event in events)]
        info = {
            "state": np.array(state),
            "energy": float(result[size + 1]),
            **({"params": self._named_params.copy()} if self._named_params else {}),
            **dict(zip(self._flags, told, strict=True)),
            "diverged": diverged,
        }
        reward = result[size] if math.isfinite(result[size]) else float(np.nan_to_num(result[size]))
        ended = diverged or outside
        if self._charge is not None:
            uncertainty = uncertainty_of(predictor.model, latent, 1)
            (cost,), (doubted,) = self._charge(uncertainty)
            reward, ended = reward - float(cost), ended or bool(doubted)
            info["uncertainty"] = float(uncertainty[0])
        return row, self._observed(outside), reward, any(told[1:]), ended, info

    def _observed(self, outside: bool) -> Any:
        if self._plain and not outside:
            return np.array(self._task.features(tuple(self._state)), np.float32)
        return self._task.observe(tuple(self._state), self._params)


def quick_row(rows: Any, params: Any) -> QuickRow | None:
    """`QuickRow` of a vector env of one row whose episode has just begun; None where it cannot be had.

    None for pictures, foreign envs, a reward that is a function, ``flat_info``, an integrator without a
    compiled program, and models without machine code.
    """
    predictor: Predictor = rows.predictor
    task = rows.task
    if type(predictor.modality) is not StateModality:
        return None
    if callable(task.reward) or task.program is None or rows.flat_info:
        return None
    native = predictor.native_step()
    return QuickRow(rows, native, params) if isinstance(native, NativeStep) else None
