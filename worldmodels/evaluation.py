"""Open-loop evaluation: models, floors and the oracle against the truth, over states.

Everything is scored in float64 on the same problems. An error that is not finite counts as infinite
in medians and quartiles, and its share is reported, so that diverging never flatters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from worldmodels import problems
from worldmodels.problems import Problems

HORIZONS = (1, 10, 50, 100)
"""Steps at which errors are reported."""
VALID_THRESHOLD = 0.3
"""A prediction is valid until its normalised RMSE exceeds this for the first time."""
EXAMPLES = 3
"""Problems whose energy a report keeps, to be drawn."""


class Entry(NamedTuple):
    """One row of a comparison."""

    predict: Callable[[Problems], np.ndarray]
    """States (B, T, D) of problems."""
    any_dt: bool = True
    """Whether it can be asked for a step length it was not made for."""
    kind: str = "model"
    """model, floor or oracle."""
    model_name: str = ""
    """Structure of a model; decides its colour in plots."""


class Scale(NamedTuple):
    """What errors are divided by."""

    state: np.ndarray
    """(D,) standard deviation of each state component."""
    energy: float
    """Standard deviation of the true energy [J]."""


def scale_of(dataset: Any) -> Scale:
    """Scales of the episodes of ``dataset``; what never varies counts as 1.

    An angle is scaled as one spread evenly over the circle, pi / sqrt(3), however often it turned.
    """
    import physgym

    valid = np.arange(dataset.states.shape[1]) <= dataset.lengths[:, None]
    state = dataset.states[valid].std(axis=0)
    state[list(physgym.get_system(dataset.env_name).angles)] = np.pi / np.sqrt(3.0)
    energy = float(dataset.energy[valid].std())
    return Scale(np.where(state > 1e-9, state, 1.0), energy if energy > 1e-9 else 1.0)


def evaluate(
    entries: Mapping[str, Entry],
    tasks: Problems,
    scale: Scale,
    horizons: Sequence[int] = HORIZONS,
    advance: Callable[..., object] = lambda *_: None,
) -> dict[str, Any]:
    """Score every entry on ``tasks``: a report of plain JSON types, with null for what is not finite.

    ``horizons`` beyond the problems are left out; ``advance(1, name)`` is called after each entry.
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
        advance(1, name)
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
    """What one entry's ``predicted`` states (B, T, D) are worth; ``energy`` (B, T+1) is the true one."""
    errors = squared_errors(tasks, predicted, scale)
    states = np.concatenate([tasks.states[:, :1], predicted], axis=1)
    own_energy = tasks.energy(states)
    with np.errstate(all="ignore"):
        energy_errors = np.abs(own_energy - energy)[:, 1:] / scale.energy
    energy_errors = np.where(np.isfinite(energy_errors), energy_errors, np.inf)
    at = {str(h): h - 1 for h in horizons}
    return {
        "nmse": {h: summary(errors[tasks.valid[:, t], t]) for h, t in at.items()},
        "energy_error": {h: summary(energy_errors[tasks.valid[:, t], t]) for h, t in at.items()},
        "valid_time": summary(valid_times(errors, tasks)),
        "power_residual": power_residual(tasks, states, scale.energy),
        "nmse_curve": curve(errors, tasks.valid),
        "energy_curve": curve(energy_errors, tasks.valid),
        "energy": own_energy[:EXAMPLES],
    }


def squared_errors(tasks: Problems, predicted: np.ndarray, scale: Scale) -> np.ndarray:
    """Normalised squared error (B, T), the mean over components; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        error = predicted - tasks.states[:, 1:]
        for index in tasks.system.angles:
            error[..., index] = np.arctan2(np.sin(error[..., index]), np.cos(error[..., index]))
        squared = ((error / scale.state) ** 2).mean(axis=2)
    return np.where(np.isfinite(squared), squared, np.inf)


def valid_times(errors: np.ndarray, tasks: Problems) -> np.ndarray:
    """Seconds (B,) until the normalised RMSE exceeds ``VALID_THRESHOLD``; the length if it never does."""
    lengths = tasks.valid.sum(axis=1)
    beyond = (errors > VALID_THRESHOLD**2) & tasks.valid
    first = np.where(beyond.any(axis=1), beyond.argmax(axis=1), lengths)
    return first * tasks.dt


def power_residual(tasks: Problems, states: np.ndarray, energy_scale: float) -> float:
    """Median energy that comes from nowhere along ``states`` (B, T+1, D), per step and normalised.

    |E(t+dt) - E(t) - (input power - dissipation) dt|, the power by Simpson's rule over the cubic that
    has the positions and velocities of both ends. The truth's own value is the floor of this rule.
    """
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
    return quantile(np.where(np.isfinite(residual), residual, np.inf), 0.5)


def summary(values: np.ndarray) -> dict[str, float]:
    """Median, quartiles, and the share that is not finite, of values (N,)."""
    lost = float(np.mean(~np.isfinite(values))) if len(values) else float("nan")
    low, middle, high = (quantile(values, q) for q in (0.25, 0.5, 0.75))
    return {"median": middle, "q25": low, "q75": high, "not_finite": lost}


def quantile(values: np.ndarray, q: float) -> float:
    """A quantile that is one of ``values`` (infinities included); NaN of none."""
    return float(np.quantile(values, q, method="inverted_cdf")) if values.size else float("nan")


def curve(values: np.ndarray, valid: np.ndarray) -> dict[str, list[float]]:
    """Median and quartiles of values (B, T) at every step, over the rows that are valid there."""
    columns = [summary(values[valid[:, t], t]) for t in range(values.shape[1])]
    return {key: [column[key] for column in columns] for key in ("median", "q25", "q75")}


def over_step_lengths(
    entries: Mapping[str, Entry],
    tasks: Problems,
    scale: Scale,
    dt_values: Sequence[float],
    advance: Callable[..., object] = lambda *_: None,
) -> dict[str, Any]:
    """Error after equal physical time under equal held actions, for several step lengths.

    Actions are held for the longest of ``dt_values``, which the others must divide. An entry that
    cannot be asked for another step length than the problems' own has None there.
    """
    hold = max(dt_values)
    seconds = max(1, int(tasks.steps * tasks.dt / hold + 1e-9)) * hold
    rows: dict[str, Any] = {name: {} for name in entries}
    for dt in dt_values:
        asked = problems.at_step_length(tasks, dt, hold, seconds)
        for name, entry in entries.items():
            able = entry.any_dt or abs(dt - tasks.dt) < 1e-9
            rows[name][f"{dt:g}"] = None
            if able:
                last = squared_errors(asked, entry.predict(asked), scale)[:, -1]
                rows[name][f"{dt:g}"] = summary(last[asked.valid[:, -1]])
            advance(1, f"{name} dt {dt:g}")
    return plain({"seconds": seconds, "hold": hold, "dt_values": list(dt_values), "rows": rows})


def plain(value: Any) -> Any:
    """``value`` as JSON types: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
