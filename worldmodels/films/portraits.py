"""Portraits of a model of states over a plane of states: its flow and its energy beside the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.evaluation.plots import STYLE, TRUTH
from worldmodels.evaluation.problems import part, without_action
from worldmodels.evaluation.tables import share
from worldmodels.films.mosaics import figure_at, signed_colors
from worldmodels.films.subjects import Plane, Subject, plane_of, raised
from worldmodels.imagination import forecast

PATHS, STEPS = 4, 100
"""Trajectories of a phase portrait, and steps of each at most."""
LEVELS = 13
"""Levels of a landscape."""


def phase_portrait(subject: Subject, path: str | Path) -> Path:
    """Draw the flow without control over a plane, true and learned, and how far the accelerations differ."""
    plane = plane_of(subject)
    states, params = plane.living()
    flows = [meter.free_rates(states, params) for meter in (subject.true_meter, subject.meter)]
    truth, learned = _trajectories(subject)
    half = subject.system.state_size // 2
    with figure_at(path, figsize=(12.6, 4.6), layout="constrained") as figure:
        left, middle, right = figure.subplots(1, 3, sharex=True, sharey=True)
        colors = ("#777777", subject.color)
        for axes, flow, color in zip((left, middle), flows, colors, strict=True):
            rates = [
                plane.on_grid(flow[:, at]) for at in (plane.coordinate, half + plane.coordinate)
            ]
            _stream(axes, plane, rates, (color, 0.6))
            _paths(axes, subject, plane, truth, label="true", **TRUTH)
        _paths(middle, subject, plane, learned, label="learned", color=subject.color)
        for axes, title in ((left, "true"), (middle, f"learned, {subject.name}")):
            axes.set_title(title)
        at = half + plane.coordinate
        gap = plane.on_grid((flows[1] - flows[0])[:, at])
        _signed(figure, right, plane, gap, f"[{raised(subject.system.state_units[at] + '/s')}]")
        right.set_title(f"learned − true d/dt {subject.system.state_names[at]}")
        _finish(figure, (left, middle, right), subject, plane)
        middle.legend(loc="upper right", frameon=True, framealpha=1.0, edgecolor="none")
        figure.suptitle(
            f"{subject.system.name}, {subject.name}: phase portrait without control, "
            f"trajectories of {truth.shape[1] - 1} steps{_where(subject, plane)}",
            x=0.01, ha="left", fontsize=STYLE["axes.titlesize"],
        )  # fmt: skip
    return Path(path)


def energy_landscape(subject: Subject, path: str | Path) -> Path:
    """Draw the true energy and the learned H over a plane, their difference, and both at test states.

    H has neither unit nor zero: a line a H + b, fitted at those states, turns it into joule.
    """
    from matplotlib.ticker import MaxNLocator

    energies = subject.energies
    slope, offset, truth = energies.slope, energies.offset, energies.truth
    plane = plane_of(subject)
    alive, told = plane.living()
    true_map = plane.on_grid(np.asarray(subject.system.energy(alive, told), np.float64))
    own_map = plane.on_grid(slope * subject.learned_energy(alive, told) + offset)
    with figure_at(path, figsize=(10.4, 8.2), layout="constrained") as figure:
        (above, beside), (below, scatter) = figure.subplots(2, 2)
        levels = MaxNLocator(LEVELS).tick_values(*_limits(truth))
        for axes, values_of, title in (
            (above, true_map, "true energy [J]"),
            (beside, own_map, "learned a H + b [J]"),
        ):
            shown = axes.contourf(
                plane.position, plane.velocity, values_of, levels, cmap="cividis", extend="both"
            )
            axes.set_title(title)
        figure.colorbar(shown, ax=[above, beside], label="[J]", shrink=0.9)
        _signed(figure, below, plane, own_map - true_map, "[J]")
        below.set_title("learned − true [J]")
        _finish(figure, (above, beside, below), subject, plane)
        _scatter(scatter, truth, slope * energies.learned + offset, subject.color)
        scatter.set_title(f"{len(truth)} test states, R² = {share(_plain(energies.r_squared))}")
        figure.suptitle(
            f"{subject.system.name}, {subject.name}: the learned H as a H + b, a = {slope:.3g} J, "
            f"b = {offset:.3g} J, fitted to the true energy{_where(subject, plane)}",
            x=0.01, ha="left", fontsize=STYLE["axes.titlesize"],
        )  # fmt: skip
    return Path(path)


def _trajectories(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """True and learned states (E, T+1, D) without control from the starts of a few episodes.

    The truth is NaN behind its end, and so is the model there.
    """
    tasks = part(subject.episodes, slice(PATHS))
    steps = min(STEPS, tasks.steps)
    tasks = tasks._replace(
        states=tasks.states[:, : steps + 1],
        actions=tasks.actions[:, :steps],
        controls=tasks.controls[:, :steps],
        valid=tasks.valid[:, :steps],
    )
    free = without_action(tasks, subject.model.spec)
    start = free.states[:, :1]
    moved = forecast(subject.model, start, free.actions, subject.told(free), free.dt)
    gone = np.concatenate([np.zeros_like(free.valid[:, :1]), ~free.valid], axis=1)[..., None]
    pair = free.states, np.concatenate([start, moved], axis=1)
    return np.where(gone, np.nan, pair[0]), np.where(gone, np.nan, pair[1])


def _stream(axes: Any, plane: Plane, rates: list[np.ndarray], color: Any) -> None:
    """Draw lines along a flow, where it is known; ``color`` may carry an opacity."""
    with np.errstate(all="ignore"):
        masked = [np.ma.masked_invalid(rate) for rate in rates]
        axes.streamplot(
            plane.position, plane.velocity, *masked, color=color, linewidth=0.7, density=0.9,
            arrowsize=0.8, zorder=1,
        )  # fmt: skip


def _paths(axes: Any, subject: Subject, plane: Plane, states: np.ndarray, **style: Any) -> None:
    """Draw trajectories (E, T+1, D), seen along all other coordinates; a turn of an angle breaks them."""
    half = subject.system.state_size // 2
    label = style.pop("label")
    for index, row in enumerate(states):
        x, y = row[:, plane.coordinate].copy(), row[:, half + plane.coordinate].copy()
        if plane.coordinate in subject.system.angles:
            x = (x + np.pi) % (2.0 * np.pi) - np.pi
            y[1:][np.abs(np.diff(x)) > np.pi] = np.nan
        axes.plot(x, y, label=None if index else label, zorder=3, **style)
        axes.plot(x[:1], y[:1], "o", color="#333333", markersize=3.5, zorder=4)


def _signed(figure: Any, axes: Any, plane: Plane, values: np.ndarray, label: str) -> None:
    """Draw a difference in colour, white where there is none."""
    known = np.abs(values[np.isfinite(values)])
    limit = max(float(np.quantile(known, 0.9)) if known.size else 0.0, 1e-12)
    shown = axes.pcolormesh(
        plane.position, plane.velocity, values, cmap=signed_colors(), vmin=-limit, vmax=limit,
        shading="nearest", rasterized=True,
    )  # fmt: skip
    figure.colorbar(shown, ax=axes, label=label, extend="both")


def _scatter(axes: Any, truth: np.ndarray, fitted: np.ndarray, color: str) -> None:
    """Draw fitted energies over true ones, and the line where they agree."""
    ends = np.array(_limits(truth))
    axes.plot(ends, ends, **TRUTH)
    axes.scatter(truth, fitted, s=5, color=color, alpha=0.5, linewidths=0, zorder=3)
    axes.set_xlabel("true energy [J]")
    axes.set_ylabel("learned a H + b [J]")


def _finish(figure: Any, panels: tuple[Any, ...], subject: Subject, plane: Plane) -> None:
    """Labels and limits of panels over a plane."""
    half = subject.system.state_size // 2
    for axes in panels:
        axes.set_xlim(plane.position[[0, -1]])
        axes.set_ylim(plane.velocity[[0, -1]])
        axes.set_xlabel(subject.label(plane.coordinate))
        axes.set_ylabel(subject.label(half + plane.coordinate))
        axes.grid(False)


def _where(subject: Subject, plane: Plane) -> str:
    """What the other coordinates of a plane are, for a title."""
    if subject.system.state_size == 2:
        return ""
    return (
        "\nin the plane of one coordinate through the start of a test episode (all others as there)"
    )


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    reach = max(high - low, 1e-6)
    return low - 0.02 * reach, high + 0.02 * reach


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None
