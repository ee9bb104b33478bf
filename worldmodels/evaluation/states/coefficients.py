"""How states change, and what damps and feeds them: measured on one step of a model, or of the truth.

Every structure can be asked, whatever it learned inside: a model is stepped, and what comes out is divided
by the time. Legend: N states, D state size, V = D / 2 velocities, U control size, A action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from worldmodels.evaluation.problems import controls_of, idle_actions
from worldmodels.imagination import evaluating, forecast

Advance = Callable[[np.ndarray, np.ndarray, Any, float], np.ndarray]
"""States (N, D), actions (N[, A]), ``Params`` of (N,) arrays and seconds to the states (N, D) after."""
SHORT = 1e-3
"""Share of dt that stands for an instant."""
NUDGE = 1e-3
"""Share of a velocity's spread by which it is moved to measure its damping."""
STEPPERS = ("jump", "lstm")
"""Structures in discrete time: a step length that they never saw says nothing."""


class Meter:
    """Measures a model, or the truth of its env, over the same span.

    Args:
        advance: what steps states.
        system: the ``physgym.System``.
        spec: the model's, for its actions and dt.
        instant: whether it can be asked for a thousandth of a step; else all is the mean over one step.
    """

    def __init__(self, advance: Advance, system: Any, spec: Any, instant: bool) -> None:
        self.advance, self.system, self.spec, self.instant = advance, system, spec, instant

    def rates(self, states: np.ndarray, actions: np.ndarray, params: Any) -> np.ndarray:
        """Time derivative (N, D) of ``states`` under ``actions``; by the first order in the span where instant."""

        def mean(seconds: float) -> np.ndarray:
            with np.errstate(all="ignore"):
                return (self.advance(states, actions, params, seconds) - states) / seconds

        if not self.instant:
            return mean(self.spec.dt)
        return 2.0 * mean(SHORT * self.spec.dt) - mean(2.0 * SHORT * self.spec.dt)

    def free_rates(self, states: np.ndarray, params: Any) -> np.ndarray:
        """``rates`` (N, D) under the action that does nothing."""
        return self.rates(states, idle_actions(self.spec, len(states), 1)[:, 0], params)

    def damping(self, states: np.ndarray, params: Any) -> np.ndarray:
        """-d(dv/dt)/dv (N, V) [1/s] of each velocity, by central differences, without control."""
        half, found = states.shape[1] // 2, []
        spread = states.std(axis=0)
        for index in range(half, 2 * half):
            nudge = np.zeros(2 * half)
            nudge[index] = NUDGE * max(float(spread[index]), 1e-3)
            ends = [self.free_rates(states + sign * nudge, params)[:, index] for sign in (1, -1)]
            found.append((ends[1] - ends[0]) / (2.0 * nudge[index]))
        return np.stack(found, axis=1)

    def gain(self, states: np.ndarray, params: Any) -> np.ndarray:
        """d(dv/dt)/du (N, V, U): least squares over every discrete action, in units of the physical control."""
        rows = self.system.discrete_actions
        choices = np.arange(len(rows)) if self.spec.action_kind == "discrete" else rows
        choices = choices if choices.ndim == 1 else choices.astype(np.float32)
        actions = np.stack([choices] * len(states))
        controls = controls_of(self.system, actions, params)
        half = states.shape[1] // 2
        answers = [self.rates(states, actions[:, k], params)[:, half:] for k in range(len(rows))]
        change = np.stack(answers, axis=1)
        control = controls - controls.mean(axis=1, keepdims=True)
        slopes = np.linalg.pinv(control) @ (change - change.mean(axis=1, keepdims=True))
        return slopes.swapaxes(1, 2)


def meter_of(model: Any, system: Any) -> Meter:
    """What measures ``model``, in float64 whatever its own precision is."""
    twin = copy.deepcopy(model).double()

    def advance(states: np.ndarray, actions: np.ndarray, params: Any, dt: float) -> np.ndarray:
        columns = [np.asarray(getattr(params, name)) for name in twin.spec.param_names]
        told = np.stack(columns, axis=1) if columns else np.zeros((len(states), 0))
        with evaluating(twin):
            return forecast(twin, states[:, None], actions[:, None], told, dt)[:, 0]

    return Meter(advance, system, model.spec, is_instant(model))


def truth_of(model: Any, system: Any, integrator: str | None = None) -> Meter:
    """What measures the true ``system`` over the same span as ``meter_of(model, system)``."""

    def advance(states: np.ndarray, actions: np.ndarray, params: Any, dt: float) -> np.ndarray:
        controls = controls_of(system, actions[:, None], params)[:, 0]
        with np.errstate(all="ignore"):
            return np.asarray(system.step(states, controls, params, dt, integrator))

    return Meter(advance, system, model.spec, is_instant(model))


def is_instant(model: Any) -> bool:
    """Whether ``model`` has a rate at an instant, and not a step of one length alone."""
    return bool(model.any_dt) and getattr(model.config, "name", "") not in STEPPERS


def control_unit(system: Any) -> str:
    """Unit of the physical control: that of the one parameter which scales a full action."""
    params, full = system.Params(), np.ones(system.action_size)
    known = np.asarray(system.control(full, params))
    scales = []
    for name, value in params._asdict().items():
        twice = np.asarray(system.control(full, params._replace(**{name: 2.0 * value})))
        if value and not np.allclose(twice, known):
            scales.append((name, np.allclose(twice, 2.0 * known)))
    return system.param_units[scales[0][0]] if len(scales) == 1 and scales[0][1] else "control"
