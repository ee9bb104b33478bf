"""What models of states are compared with: untrained predictors, and the oracle that none can exceed.

A baseline is called as ``predict(states0, actions, dt, params)`` with ``states0`` (B, K, D) the true states up
to the start (the last counts), ``actions`` (B, T) or (B, T, A), ``params`` (B, P) or None, and returns (B, T, D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

import physgym
from worldmodels.configs.structures import FIXED_STEP
from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.states.scoring import Entry
from worldmodels.imagination import forecast


class Predictor(Protocol):
    """States (B, T, D) that follow from true states and actions."""

    def __call__(
        self,
        states0: np.ndarray,
        actions: np.ndarray,
        dt: float,
        params: np.ndarray | None = None,
    ) -> np.ndarray: ...


def copy_last(
    states0: np.ndarray, actions: np.ndarray, dt: float, params: np.ndarray | None = None
) -> np.ndarray:
    """Nothing ever changes."""
    return np.repeat(states0[:, -1:], actions.shape[1], axis=1)


def constant_velocity(
    states0: np.ndarray, actions: np.ndarray, dt: float, params: np.ndarray | None = None
) -> np.ndarray:
    """Positions go on at the last velocities, which stay."""
    positions, velocities = np.split(states0[:, -1:], 2, axis=2)
    times = dt * np.arange(1, actions.shape[1] + 1)[None, :, None]
    moved = positions + times * velocities
    return np.concatenate([moved, np.broadcast_to(velocities, moved.shape)], axis=2)


def linear_fit(dataset: Any, angles: Sequence[int] = (), ridge: float = 1e-6) -> Predictor:
    """Change in one step as a linear function of state, (cos, sin) of angles and action.

    Fitted by ridge regression to the transitions of ``dataset`` (its train split); knows the dt of the
    buffer only. Exact for a linear system.
    """
    lengths = np.asarray(dataset.lengths)
    valid = np.arange(dataset.actions.shape[1])[None, :] < lengths[:, None]
    states, following = dataset.states[:, :-1][valid], dataset.states[:, 1:][valid]
    actions = dataset.actions[valid]
    count = int(actions.max(initial=0)) + 1 if actions.ndim == 1 else 0
    inputs = _linear_inputs(states, actions, angles, count)
    scale = np.maximum(np.sqrt((inputs**2).mean(0)), 1e-12)
    scaled = inputs / scale
    gram = scaled.T @ scaled + ridge * np.eye(scaled.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (following - states)) / scale[:, None]

    def predict(
        states0: np.ndarray, actions: np.ndarray, dt: float, params: np.ndarray | None = None
    ) -> np.ndarray:
        state, predicted = states0[:, -1].astype(np.float64), []
        for t in range(actions.shape[1]):
            with np.errstate(all="ignore"):
                state = state + _linear_inputs(state, actions[:, t], angles, count) @ weights
            predicted.append(state)
        return np.stack(predicted, axis=1)

    return predict


def _linear_inputs(
    states: np.ndarray, actions: np.ndarray, angles: Sequence[int], count: int
) -> np.ndarray:
    parts = [states, np.ones((len(states), 1))]
    for index in angles:  # the angle itself would grow without bound
        angle = states[:, index : index + 1]
        parts += [np.cos(angle), np.sin(angle)]
    if angles:
        parts[0] = np.delete(states, list(angles), axis=1)
    parts.append(np.eye(count)[np.minimum(actions, count - 1)] if count else actions)
    return np.concatenate(parts, axis=1)


def oracle(system: Any, integrator: str | None = None) -> Predictor:
    """The true system itself through ``integrator`` (None: its own): what a perfect model scores.

    ``params`` are (B, P) in the order of ``system.Params``; None: the defaults.
    """

    def predict(
        states0: np.ndarray, actions: np.ndarray, dt: float, params: np.ndarray | None = None
    ) -> np.ndarray:
        named = system.Params() if params is None else system.Params(*np.asarray(params).T)
        state, predicted = states0[:, -1].astype(np.float64), []
        for t in range(actions.shape[1]):
            action = actions[:, t]
            levels = system.discrete_actions[action] if action.ndim == 1 else action
            with np.errstate(all="ignore"):
                state = system.step(state, system.control(levels, named), named, dt, integrator)
            predicted.append(state)
        return np.stack(predicted, axis=1)

    return predict


def baselines_of(
    dataset: Any, angles: Sequence[int] = (), velocities: bool = True
) -> dict[str, Callable[..., np.ndarray]]:
    """The three by name; the linear one fitted to ``dataset``. Without ``velocities`` in the states, two."""
    moving = {"constant-velocity": constant_velocity} if velocities else {}
    return {
        "copy-last-state": copy_last,
        **moving,
        "linear-fit": linear_fit(dataset, angles),
    }


def model_entry(model: Any, model_name: str = "") -> Entry:
    """Row of a world model: it sees the true start and the actions, and nothing after."""

    def predict(tasks: Problems) -> np.ndarray:
        told = tasks.param_array(model.spec.param_names)
        return forecast(model, tasks.states[:, :1], tasks.actions, told, tasks.dt)

    return Entry(predict, bool(getattr(model, "any_dt", False)), "model", model_name)


def oracle_entry(integrator: str | None, substeps: int | None) -> Entry:
    """Row of the true right-hand side through ``integrator`` with ``substeps`` a step.

    It is what a perfect model with that integrator would score; None: the system's own.
    """

    def predict(tasks: Problems) -> np.ndarray:
        method = integrator or tasks.integrator
        state, states = tasks.states[:, 0], []
        for t in range(tasks.steps):
            control, dt = tasks.controls[:, t], tasks.dt
            with np.errstate(all="ignore"):
                state = tasks.system.step(state, control, tasks.params, dt, method, substeps)
            states.append(state)
        return np.stack(states, axis=1)

    return Entry(predict, True, "oracle")


def oracles_of(models: Mapping[str, Any], serving: Sequence[str] = FIXED_STEP) -> dict[str, Entry]:
    """One oracle row for each fixed-step integrator and number of sub-steps among ``models``, of those that
    are ``serving`` the true system; by its own where there is none.
    """
    rows = {}
    for model in models.values():
        method = getattr(model.config, "method", getattr(model.config, "integrator", None))
        if method in FIXED_STEP and method in serving:
            count = model.config.substeps
            rows[f"oracle ({method} x {count})"] = oracle_entry(method, count)
    return rows or {"oracle (own integrator)": oracle_entry(None, None)}


def baseline_entries(dataset: Any, angles: Sequence[int] | None = None) -> dict[str, Entry]:
    """Rows of ``baselines_of``; the linear one fitted to ``dataset``, and bound to its dt.

    ``angles``: components that turn; None: those of the env.
    """
    system = physgym.system_of(dataset)
    turning = system.angles if angles is None else angles
    found = baselines_of(dataset, turning, "equations" in system.knows)

    def entry(name: str, untrained: Predictor) -> Entry:
        def predict(tasks: Problems) -> np.ndarray:
            return untrained(tasks.states[:, :1], tasks.actions, tasks.dt)

        return Entry(predict, name != "linear-fit", "baseline")

    return {name: entry(name, untrained) for name, untrained in found.items()}
