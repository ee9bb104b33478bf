"""The energy that a world model of pixels learned, beside the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.evaluation.plots import STYLE, TRUTH, color_of
from worldmodels.evaluation.problems import part, without_action
from worldmodels.films.mosaics import figure_at
from worldmodels.films.scenes import Scenes
from worldmodels.imagination import device_of, evaluating, placed, read, unroll

SHOWN = 3
"""Scenes in a picture."""


def energy_over_time(model: Any, scenes: Scenes, windows: Scenes, path: str | Path) -> Path:
    """Draw the true energy of scenes with their actions and without, and the learned one where there is one.

    The learned energy is that of the model's own rollout. It has no unit: a line a H + b, fitted to the true
    energy of the ``windows``, whose frames the model sees, turns it into joule.
    """
    forced = part(scenes.problems, first=model.context_frames - 1)
    tasks = {"with actions": forced, "without action": without_action(forced, model.spec)}
    truth = {name: task.energy(task.states) for name, task in tasks.items()}
    learned: dict[str, np.ndarray] = {}
    title = f"{forced.system.name}, {model.config.predictor}: true energy"
    if model.has_energy:
        slope, offset, explained = fitted_energy(model, windows)
        for name, task in tasks.items():
            learned[name] = slope * learned_energy(model, scenes, task.actions, task.dt) + offset
        title += (
            " and the model's H along its own rollout\n(as a H + b, fitted to the true energy of "
            f"{len(windows.frames)} other moments whose frames it sees, R² = {explained:.2f})"
        )
    else:
        title += f" ({model.config.structure} learns none)"
    color = color_of(model.config.structure)
    _draw(truth, learned, forced.dt, scenes.names, color, title, path)
    return Path(path)


def fitted_energy(model: Any, windows: Scenes) -> tuple[float, float, float]:
    """Slope, offset and R² of the line from the learned energy to the true one, where contexts end."""
    first = model.context_frames - 1
    states = windows.problems.states[:, first : first + 1]
    none = windows.problems.actions[:, :0]
    values = learned_energy(model, windows, none, windows.problems.dt)
    return affine_fit(values, windows.problems.energy(states))


def _draw(
    truth: Mapping[str, np.ndarray],
    learned: Mapping[str, np.ndarray],
    dt: float,
    names: Sequence[str],
    color: str,
    title: str,
    path: str | Path,
) -> None:
    """One row of panels for each of ``truth``, one column for each of the first scenes."""
    shown = min(SHOWN, len(names))
    size = max(3.4 * shown + 1.2, 8.6), 5.4
    with figure_at(path, figsize=size, layout="constrained") as figure:
        panels = figure.subplots(2, shown, sharex=True, sharey="row", squeeze=False)
        for row, (name, energies) in enumerate(truth.items()):
            for column, axes in enumerate(panels[row]):
                time = dt * np.arange(energies.shape[1])
                axes.plot(time, energies[column], label="truth", **TRUTH)
                if learned:
                    axes.plot(time, learned[name][column], color=color, label="learned H, fitted")
                if row == 0:
                    axes.set_title(names[column].replace("\n", " "), fontsize=10)
            reach = max(float(np.ptp(energies[:shown])), 0.05 * float(np.abs(energies).max()), 1e-9)
            low, high = energies[:shown].min(), energies[:shown].max()
            panels[row, 0].set_ylim(low - 0.3 * reach, high + 0.3 * reach)
            panels[row, 0].set_ylabel(f"{name}\nenergy [J]")
        for axes in panels[-1]:
            axes.set_xlabel("time since the context [s]")
        panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        figure.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])


def learned_energy(model: Any, scenes: Scenes, actions: np.ndarray, dt: float) -> np.ndarray:
    """H (E, T+1) along the model's rollout of ``actions`` (E, T[, A]) after the scenes' contexts.

    Where a solver cannot go on, the rest of that row is NaN.
    """
    many = model.context_frames
    with evaluating(model):
        before = scenes.problems.actions[:, : many - 1]
        latent = read(model, scenes.frames[:, :many], before, scenes.told(model))
        told = torch.as_tensor(actions, device=device_of(model))
        values = [model.energy(latent)]
        for moved, going in unroll(model.step, latent, told, dt):
            values.append(placed(model.energy(moved), going, len(told)))
        return torch.stack(values, 1).cpu().double().numpy()


def affine_fit(values: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    """Slope, offset and R² of the line that takes ``values`` to ``target`` best, over what is finite."""
    known = np.isfinite(values) & np.isfinite(target)
    x, y = values[known], target[known]
    if not len(x):
        return float("nan"), float("nan"), float("nan")
    spread = x - x.mean()
    slope = float(spread @ (y - y.mean()) / max(spread @ spread, 1e-300))
    offset = float(y.mean() - slope * x.mean())
    rest = float(((slope * x + offset - y) ** 2).sum())
    return slope, offset, 1.0 - rest / max(float(((y - y.mean()) ** 2).sum()), 1e-300)
