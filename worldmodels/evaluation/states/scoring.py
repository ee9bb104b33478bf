"""Open-loop evaluation: models, baselines and oracles against the truth, over states.

Everything is scored in float64 on the same problems. Diverging counts as an
infinite error, and the share that stays finite is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import physgym
from worldmodels.evaluation import problems
from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.states import metrics
from worldmodels.evaluation.statistics import (
    EXAMPLES,
    at_horizon,
    at_horizons,
    curve,
    energy_error,
    plain,
    span,
    valid_time,
)

HORIZONS = (1, 10, 50, 100)
"""Steps at which errors are reported."""
VALID_THRESHOLD = 0.09
"""A prediction is valid until its normalised MSE first exceeds this: off by 0.3 of a scale."""


class Entry(NamedTuple):
    """One row of a comparison."""

    predict: Callable[[Problems], np.ndarray]
    """States (B, T, D) of problems."""
    any_dt: bool = True
    """Whether it can be asked for a step length it was not made for."""
    kind: str = "model"
    """model, baseline or oracle."""
    model_name: str = ""
    """Structure of a model; decides its colour in plots."""


class Scale(NamedTuple):
    """What errors are divided by."""

    state: np.ndarray
    """(D,) standard deviation of each state component."""
    energy: float
    """Standard deviation of the true energy [J]."""


def scale_of(dataset: Any, angles: Sequence[int] | None = None) -> Scale:
    """Scales of the episodes of ``dataset``; what never varies, or nobody knows, counts as 1.

    ``angles``: components that turn; None: those of the env.
    """
    angles = physgym.system_of(dataset).angles if angles is None else angles
    valid = np.arange(dataset.energy.shape[1]) <= dataset.lengths[:, None]
    energy = float(dataset.energy[valid].std())
    return Scale(metrics.state_scale(dataset, angles), energy if energy > 1e-9 else 1.0)


def score(
    entries: Mapping[str, Entry],
    tasks: Problems,
    scale: Scale,
    horizons: Sequence[int] = HORIZONS,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Score every entry on ``tasks``: a report of JSON types, None for what is not finite.

    ``horizons`` beyond the problems are left out; ``advance()`` is called after each entry.
    """
    kept = sorted({h for h in (*horizons, tasks.steps) if 1 <= h <= tasks.steps})
    energy = tasks.energy(tasks.states)
    rows: dict[str, Any] = {}
    for name, entry in entries.items():
        began = time.perf_counter()
        predicted = entry.predict(tasks)
        seconds = time.perf_counter() - began
        rows[name] = {"kind": entry.kind, "model": entry.model_name, "seconds": seconds}
        rows[name].update(scores(tasks, predicted, energy, scale, kept))
        advance()
    return plain(
        {
            "env": tasks.system.name,
            "dt": tasks.dt,
            "steps": tasks.steps,
            "problems": len(tasks.states),
            "problems_at": {str(h): int(tasks.valid[:, h - 1].sum()) for h in kept},
            "horizons": kept,
            "valid_threshold": VALID_THRESHOLD,
            "state_scale": scale.state,
            "energy_scale": scale.energy,
            "true_energy": energy[:EXAMPLES],
            "true_power_residual": power_residual(tasks, tasks.states, scale.energy),
            "rows": rows,
        }
    )


def scores(
    tasks: Problems,
    predicted: np.ndarray,
    energy: np.ndarray,
    scale: Scale,
    horizons: Sequence[int],
) -> dict[str, Any]:
    """What ``predicted`` states (B, T, D) are worth; ``energy`` (B, T+1) is the true one."""
    errors = errors_of(tasks, predicted, scale)
    states = np.concatenate([tasks.states[:, :1], predicted], axis=1)
    own_energy = tasks.energy(states)
    energy_errors = energy_error(energy, own_energy)[:, 1:] / scale.energy
    if "energy" not in tasks.system.knows:
        energy_errors = np.full_like(energy_errors, np.nan)
    return {
        "nmse": at_horizons(errors, tasks.valid, horizons),
        "energy_error": at_horizons(energy_errors, tasks.valid, horizons),
        "valid_time": valid_time(errors, tasks.valid, tasks.dt, VALID_THRESHOLD),
        "power_residual": power_residual(tasks, states, scale.energy),
        "nmse_curve": curve(errors, tasks.valid),
        "energy_curve": curve(energy_errors, tasks.valid),
        "energy": own_energy[:EXAMPLES],
    }


def errors_of(tasks: Problems, predicted: np.ndarray, scale: Scale) -> np.ndarray:
    """Normalised squared error (B, T) of ``predicted`` states (B, T, D)."""
    return metrics.normalised_mse(tasks.states[:, 1:], predicted, scale.state, tasks.angles)


def power_residual(tasks: Problems, states: np.ndarray, energy_scale: float) -> float:
    """Median energy that comes from nowhere along ``states`` (B, T+1, D), per step and normalised.

    |E(t+dt) - E(t) - (input power - dissipation) dt|, the power by Simpson's rule over the cubic
    with the positions and velocities of both ends. The truth's own value is this rule's floor. NaN where
    nobody knows the energy.
    """
    if "energy" not in tasks.system.knows:
        return float("nan")
    system, params, dt = tasks.system, problems.columns(tasks.params), tasks.dt
    half = states.shape[2] // 2
    before, after = states[:, :-1], states[:, 1:]
    q0, v0, q1, v1 = before[..., :half], before[..., half:], after[..., :half], after[..., half:]
    with np.errstate(all="ignore"):
        middle_q = 0.5 * (q0 + q1) + dt / 8 * (v0 - v1)
        middle_v = 1.5 / dt * (q1 - q0) - 0.25 * (v0 + v1)
        middle = np.concatenate([middle_q, middle_v], axis=-1)

        def net(state: np.ndarray) -> np.ndarray:
            gained = np.asarray(system.power(state, tasks.controls, params))
            return gained - np.asarray(system.dissipation(state, params))

        work = dt / 6 * (net(before) + 4 * net(middle) + net(after))
        gain = np.asarray(system.energy(after, params) - system.energy(before, params))
        residual = np.abs(gain - work)[tasks.valid] / energy_scale
    residual = np.where(np.isfinite(residual), residual, np.inf)
    return float(np.quantile(residual, 0.5, method="inverted_cdf"))


def over_step_lengths(
    entries: Mapping[str, Entry],
    tasks: Problems,
    scale: Scale,
    dt_values: Sequence[float],
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Error after equal physical time under equal held actions, for several step lengths.

    Actions are held for the longest of ``dt_values``, which the others must divide. An entry that
    cannot be asked for another step length than the problems' own has None there.
    """
    hold, seconds = span(tasks, dt_values)
    rows: dict[str, Any] = {name: {} for name in entries}
    for dt in dt_values:
        asked = problems.at_step_length(tasks, dt, hold, seconds)
        for name, entry in entries.items():
            able = entry.any_dt or abs(dt - tasks.dt) < 1e-9
            rows[name][f"{dt:g}"] = None
            if able:
                errors = errors_of(asked, entry.predict(asked), scale)
                rows[name][f"{dt:g}"] = at_horizon(errors, asked.valid, asked.steps)
            advance()
    return plain({"seconds": seconds, "hold": hold, "dt_values": list(dt_values), "rows": rows})
