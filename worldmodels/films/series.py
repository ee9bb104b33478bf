"""One true episode of a model of states over time, and its coefficients: predicted beside true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.evaluation.plots import STYLE, TRUTH
from worldmodels.evaluation.problems import Problems, part
from worldmodels.evaluation.states.coefficients import control_unit
from worldmodels.films.mosaics import figure_at
from worldmodels.films.subjects import Subject, params_at, raised
from worldmodels.imagination import forecast

STATES = 128
"""States at which coefficients are measured."""


def series(subject: Subject, path: str | Path) -> Path:
    """Draw every state component of a test episode over time, predicted and true, and the energies."""
    task = part(subject.episodes, slice(1))
    steps = int(task.valid[0].sum())
    start, actions = task.states[:, :1], task.actions[:, :steps]
    moved = forecast(subject.model, start, actions, subject.told(task), task.dt)
    truth, guess = task.states[:, : steps + 1], np.concatenate([start, moved], axis=1)
    system, size = subject.system, subject.system.state_size
    half, known = (size + 1) // 2, "energy" in system.knows
    time = task.dt * np.arange(steps + 1)
    with figure_at(
        path, figsize=(10.4, 1.4 + 1.5 * (half + known)), layout="constrained"
    ) as figure:
        grid = figure.add_gridspec(half + known, 2)
        for index in range(size):
            axes = figure.add_subplot(grid[index % half, index // half])
            axes.plot(time, truth[0, :, index], label="true", **TRUTH)
            axes.plot(time, guess[0, :, index], label="predicted", color=subject.color)
            axes.set_ylabel(subject.label(index))
            _show_range(axes, truth[0, :, index])
            axes.tick_params(labelbottom=index % half == half - 1 or index == size - 1)
            axes.set_xlim(0, time[-1])
        if known:
            axes = figure.add_subplot(grid[half, :])
            _energies(axes, subject, task, time, truth, guess)
            axes.set_xlim(0, time[-1])
        axes.set_xlabel("time [s]")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        figure.suptitle(
            f"{system.name}, {subject.name}: one test episode, told its first state and its actions",
            x=0.01, ha="left", fontsize=STYLE["axes.titlesize"],
        )  # fmt: skip
    return Path(path)


def _energies(
    axes: Any,
    subject: Subject,
    task: Problems,
    time: np.ndarray,
    truth: np.ndarray,
    guess: np.ndarray,
) -> None:
    """Draw the true energy of the true and of the predicted states, and H where it is learned."""
    known = task.energy(truth)[0]
    axes.plot(time, known, label="true", **TRUTH)
    axes.plot(time, task.energy(guess)[0], label="of predicted states", color=subject.color)
    if getattr(subject.model, "has_energy", False):
        values = subject.learned_energy(guess[0], params_at(task.params, np.zeros(len(time), int)))
        line = subject.energies.slope * values + subject.energies.offset
        dots = {"color": "#333333", "linestyle": (0, (1, 2)), "linewidth": 1.4}
        axes.plot(time, line, label="learned a H + b", **dots)
    axes.set_ylabel("energy [J]")
    _show_range(axes, known)


def coefficients(subject: Subject, path: str | Path) -> Path:
    """Draw the learned damping and input gain at test states beside the true ones, in their units."""
    states, params = subject.sample(STATES)
    system, half = subject.system, subject.system.state_size // 2
    names, unit = system.state_names[half:], system.state_units[half]
    pairs = [
        (meter.damping(states, params), meter.gain(states, params).reshape(len(states), -1))
        for meter in (subject.true_meter, subject.meter)
    ]
    inputs = [f"u{k + 1}" for k in range(system.control_size)]
    inputs = inputs if len(inputs) > 1 else ["u"]
    rows = list(names), [f"{name} by {given}" for name in names for given in inputs]
    span = "" if subject.meter.instant else f"\nmean over a step of {subject.model.spec.dt:g} s"
    labels = (
        f"damping −∂(dv/dt)/∂v [1/s]{span}",
        f"input gain ∂(dv/dt)/∂u [({raised(unit + '/s')})/({raised(control_unit(system))})]{span}",
    )
    height = 1.9 + 0.36 * max(map(len, rows))
    with figure_at(path, figsize=(11.4, height), layout="constrained") as figure:
        for k, axes in enumerate(figure.subplots(1, 2)):
            _intervals(axes, rows[k], pairs[0][k], pairs[1][k], subject.color)
            axes.set_xlabel(labels[k])
        figure.suptitle(
            f"{system.name}, {subject.name}: what damps and what feeds each velocity, measured at "
            f"{len(states)} test states (median, 5 to 95 %)",
            x=0.01, ha="left", fontsize=STYLE["axes.titlesize"],
        )  # fmt: skip
    return Path(path)


def _intervals(
    axes: Any, names: list[str], truth: np.ndarray, learned: np.ndarray, color: str
) -> None:
    """Draw a row for each column of ``truth`` and ``learned`` (N, K): medians and 5 to 95 %, and both in words."""
    ends = [0.0]
    for row, (true, own) in enumerate(zip(truth.T, learned.T, strict=True)):
        low, middle, high = _quantiles(true)
        axes.plot([low, high], [row, row], solid_capstyle="round", **TRUTH)
        axes.plot([middle], [row], "|", color="#8a8a8a", markersize=16, markeredgewidth=3)
        least, median, most = _quantiles(own)
        axes.plot([least, most], [row, row], color=color, linewidth=1.4)
        axes.plot([median], [row], "o", color=color, markersize=5)
        ends += [low, high, least, most]
        text = f"{_tidy(median)} (true {_tidy(middle)})"
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    reach = np.array(ends)[np.isfinite(ends)]
    pad = 0.08 * max(float(np.ptp(reach)), 1e-2)
    axes.set_xlim(reach.min() - pad, reach.max() + pad)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.axvline(0.0, color="#bbbbbb", linewidth=0.8, zorder=0)


def _quantiles(values: np.ndarray) -> np.ndarray:
    """5 %, median and 95 % of what is finite."""
    known = values[np.isfinite(values)]
    return np.quantile(known, (0.05, 0.5, 0.95)) if known.size else np.full(3, np.nan)


def _tidy(value: float) -> str:
    """Four figures, and 0 for what is lost in rounding."""
    return "0" if abs(value) < 5e-5 else f"{value:.4g}".replace("-", "−")


def _show_range(axes: Any, values: np.ndarray) -> None:
    """Limits that show the truth: a prediction that leaves it does not squash it."""
    reach = max(float(np.ptp(values)), 1e-3 * float(np.abs(values).max()), 1e-6)
    axes.set_ylim(values.min() - 0.25 * reach, values.max() + 0.25 * reach)
