"""The card of a model of keypoints: what it draws, what it reads, what it thinks will happen, and its energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodels.evaluation.plots import STYLE, TRUTH, color_of
from worldmodels.evaluation.tables import share
from worldmodels.films.energy import affine_fit, learned_energy
from worldmodels.films.mosaics import figure_at
from worldmodels.films.scenes import Scenes
from worldmodels.imagination import device_of, evaluating, imagine_latents, read
from worldmodels.interface import Latent

BODIES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Colours of bodies in a card; theirs in the picture may be any."""
PLACES = {"line": "on a line", "circle": "on a circle", "plane": "in the plane"}
COORDINATES = 4
"""Coordinates that are shown over time."""
GRID = 81
"""Points a side of a landscape."""


class Track(NamedTuple):
    """One scene as a model of keypoints reads and imagines it; T+1 moments, n coordinates."""

    frames: np.ndarray
    """(T+1, S, S, 3) uint8."""
    points: np.ndarray
    """(T+1, K, 2) that are read, in pixels."""
    read: np.ndarray
    """(T+1, n) coordinates that are read, angles unwrapped."""
    imagined: np.ndarray
    """(T+2-L, 2n) coordinates and rates that are imagined, from the last frame seen on."""
    dt: float


def model_card(model: Any, scenes: Scenes, windows: Scenes, path: str | Path) -> Path:
    """Draw the card of ``model`` (a ``KeypointWorldModel``) over the first of ``scenes``.

    The true energy of ``windows`` is what the learned one is held against, by a line a H + b.
    """
    track, color = _track(model, scenes), color_of(model.config.structure)
    with figure_at(path, figsize=(14.0, 8.6), layout="constrained") as figure:
        (drawn, seen, over_time), (phase, landscape, energy) = figure.subplots(2, 3)
        _sprites(drawn, model)
        _tracks(seen, model, track)
        _coordinates(over_time, model, track)
        _phase(phase, model, track, color)
        if model.has_energy:
            _landscape(figure, landscape, model, scenes, track)
            if "energy" in scenes.problems.system.knows:
                _energies(energy, model, windows, color)
            else:
                energy.set_axis_off()
        else:
            _distance(landscape, model, track, color)
            energy.set_axis_off()
        chart = "; ".join(f"body {k + 1}: {kind}" for k, kind in enumerate(model.sight.chart.kinds))
        figure.suptitle(
            f"{scenes.problems.system.name}, {model.config.predictor}: {model.context_frames} frames are seen, "
            f"then the actions alone are told "
            f"({chart}){_damping(model)}",
            x=0.01, ha="left", fontsize=STYLE["axes.titlesize"],
        )  # fmt: skip
    return Path(path)


def _damping(model: Any) -> str:
    """The learned damping in words, where the structure has one that is the same everywhere."""
    structure, told = model.dynamics, model.own.param_shift.numel()
    if not hasattr(structure, "dissipation") or told:
        return ""
    rates = structure.dissipation()
    if rates is None:
        return ""
    seconds = (rates / model.own.time_scale).tolist()
    return "\nlearned damping " + ", ".join(f"{rate:.3g}" for rate in seconds) + " / s"


def _track(model: Any, scenes: Scenes) -> Track:
    many, tasks, chart = model.context_frames, scenes.problems, model.sight.chart
    frames, told = scenes.frames[:1], scenes.told(model)[:1]
    device = device_of(model)
    with evaluating(model):
        points = model.look(torch.as_tensor(frames, device=device)).points[0]
        found = chart.coordinates(points).cpu().double().numpy()
        latent = read(model, frames[:, :many], tasks.actions[:1, : many - 1], told)
        actions = torch.as_tensor(tasks.actions[:1, many - 1 :], device=device)
        moved = [model.coordinates(z) for z in imagine_latents(model, latent, actions, tasks.dt)]
        imagined = torch.stack(moved, 1)[0].cpu().double().numpy()
    for index in chart.angles:
        found[:, index] = np.unwrap(found[:, index])
        turns = np.round((found[many - 1, index] - imagined[0, index]) / (2.0 * np.pi))
        imagined[:, index] += 2.0 * np.pi * turns
    pixels = (points.cpu().numpy() + 1.0) * 0.5 * model.spec.image_size - 0.5
    return Track(frames[0], pixels, found, imagined, tasks.dt)


def _sprites(axes: Any, model: Any) -> None:
    """Every patch on a chequered ground, and the background behind the last."""
    sprites, bodies = model.sight.sprites, len(model.sight.chart.kinds)
    side = sprites.mask.shape[-1]
    columns = int(np.ceil(np.sqrt(bodies + 1)))
    rows = -(-(bodies + 1) // columns)
    checks = np.add.outer(np.arange(rows * side) // 4, np.arange(columns * side) // 4) % 2
    sheet = np.repeat(0.35 + 0.12 * checks[..., None], 3, 2)
    for cell in range(bodies + 1):
        row, column = divmod(cell, columns)
        at = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        name = f"body {cell + 1}" if cell < bodies else "background"
        if cell < bodies:
            mask = torch.sigmoid(sprites.mask[cell]).detach().cpu().permute(1, 2, 0).numpy()
            colour = sprites.colour[cell].detach().cpu().permute(1, 2, 0).numpy()
            sheet[at] = sheet[at] * (1.0 - mask) + mask * colour
        else:
            pixels = np.arange(side) * model.spec.image_size // side
            background = sprites.background.detach().cpu().permute(1, 2, 0).numpy()
            sheet[at] = background[pixels][:, pixels]
        axes.text(column * side + 1, row * side + 4, name, color="white", fontsize=8)
    axes.imshow(sheet.clip(0.0, 1.0), interpolation="nearest")
    axes.set_title(f"sprites, {side} x {side} texels (2 a pixel)")
    axes.set_axis_off()


def _tracks(axes: Any, model: Any, track: Track) -> None:
    """The last frame of the scene, where every body was read, and the curve it lives on."""
    chart, size = model.sight.chart, model.spec.image_size
    axes.imshow(track.frames[-1] // 2, interpolation="nearest")
    for body, kind in enumerate(chart.kinds):
        color = BODIES[body % len(BODIES)]
        origin = (chart.origin[body].cpu().numpy() + 1.0) * 0.5 * size - 0.5
        if kind == "line":
            ends = origin + size * np.array([[-1.0], [1.0]]) * chart.direction[body].cpu().numpy()
            axes.plot(*ends.T, color="white", linewidth=0.8, linestyle=":")
        elif kind == "circle":
            radius = np.median(np.linalg.norm(track.points[:, body] - origin, axis=1))
            turn = np.linspace(0.0, 2.0 * np.pi, 200)
            around = origin + radius * np.stack((np.cos(turn), np.sin(turn)), 1)
            axes.plot(*around.T, color="white", linewidth=0.8, linestyle=":")
        x, y = track.points[:, body].T
        axes.plot(x, y, ".", color=color, markersize=2.5, label=f"body {body + 1}, {PLACES[kind]}")
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_axis_off()
    axes.set_title(f"read from {len(track.frames)} frames")
    axes.legend(loc="lower right", fontsize=7, frameon=True, framealpha=0.8)


def _name(model: Any, index: int) -> str:
    """What a coordinate is called."""
    chart = model.sight.chart
    body = chart.owners[index]
    kind, where = chart.kinds[body], [k for k, b in enumerate(chart.owners) if b == body]
    axis = {"line": "along the line", "circle": "angle"}.get(kind, "xy"[where.index(index)])
    many = f"body {body + 1}, " if len(chart.kinds) > 1 else ""
    return f"{many}{axis} [{'rad' if kind == 'circle' else 'half-widths'}]"


def _coordinates(axes: Any, model: Any, track: Track) -> None:
    """Coordinates that are read (dots) and imagined (lines) over time."""
    first = len(track.read) - len(track.imagined)
    time = track.dt * np.arange(-first, len(track.read) - first)
    axes.axvspan(time[0], 0.0, color="#eeeeee", zorder=0)
    for index in range(min(COORDINATES, track.read.shape[1])):
        color = BODIES[index % len(BODIES)]
        axes.plot(time, track.read[:, index], ".", color=color, markersize=3, alpha=0.6)
        axes.plot(time[first:], track.imagined[:, index], color=color, label=_name(model, index))
    axes.set_xlabel("time since the last frame seen [s]")
    axes.set_title("read (dots) and imagined (lines)")
    axes.legend(fontsize=7)


def _phase(axes: Any, model: Any, track: Track, color: str) -> None:
    """The first coordinate and its rate: of the readings, by differences, and imagined."""
    size = track.read.shape[1]
    rates = np.gradient(track.read[:, 0], track.dt)
    first = len(track.read) - len(track.imagined)
    axes.plot(track.read[first:, 0], rates[first:], label="read, by differences", **TRUTH)
    axes.plot(track.imagined[:, 0], track.imagined[:, size], color=color, label="imagined")
    axes.plot(track.imagined[:1, 0], track.imagined[:1, size], "o", color="#333333", markersize=4)
    axes.set_xlabel(_name(model, 0))
    axes.set_ylabel("its rate a second")
    axes.set_title("phase portrait of the first coordinate")
    axes.legend(fontsize=7)


def _landscape(figure: Any, axes: Any, model: Any, scenes: Scenes, track: Track) -> None:
    """H over the first coordinate and its rate, or over the places of a body that moves in the plane."""
    size = track.read.shape[1]
    plane = model.sight.chart.kinds[0] == "plane"
    across = (0, 1) if plane else (0, size)
    spans = [_span(track.imagined[:, at]) for at in across]
    x, y = (np.linspace(*span, GRID) for span in spans)
    states = np.repeat(track.imagined[:1], GRID * GRID, 0)
    if plane:
        states[:, size:] = 0.0
    states[:, across[0]], states[:, across[1]] = (part.ravel() for part in np.meshgrid(x, y))
    told = np.repeat(scenes.told(model)[:1], len(states), 0)
    with evaluating(model):
        latent = latent_of(model, states, told)
        values = model.energy(latent).cpu().numpy().reshape(GRID, GRID)
    shown = axes.contourf(x, y, values, 15, cmap="cividis")
    axes.contour(x, y, values, 15, colors="white", linewidths=0.3)
    axes.plot(
        track.imagined[:, across[0]], track.imagined[:, across[1]], color="white", linewidth=1
    )
    axes.set_xlabel(_name(model, 0))
    axes.set_ylabel(_name(model, 1) if plane else "its rate a second")
    if plane:
        axes.invert_yaxis()  # as in the picture
    axes.set_title("learned H" + (", at rest" if plane else "") + ", and what is imagined on it")
    figure.colorbar(shown, ax=axes, label="H (no unit)")


def latent_of(model: Any, states: np.ndarray, told: np.ndarray) -> Latent:
    """Latent of coordinates and rates (B, 2n), with the circles of the model's usual radius."""
    device, kind = device_of(model), model.reach.dtype
    values = torch.as_tensor(states[:, None], dtype=kind, device=device)
    latent = model.motion.encode(values, torch.as_tensor(told, dtype=kind, device=device))
    radii = torch.zeros(len(states), len(model.sight.chart.kinds), dtype=kind, device=device)
    return latent._replace(memory=(*latent.memory, radii))


def _span(values: np.ndarray) -> tuple[float, float]:
    """Limits a quarter wider than finite ``values``."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (-1.0, 1.0)
    room = 0.25 * max(high - low, 1e-3)
    return low - room, high + room


def _energies(axes: Any, model: Any, windows: Scenes, color: str) -> None:
    """The learned H, as a H + b, over the true energy of moments whose frames are seen."""
    tasks, first = windows.problems, model.context_frames - 1
    values = learned_energy(model, windows, tasks.actions[:, :0], tasks.dt)
    truth = tasks.energy(tasks.states[:, first : first + 1])
    slope, offset, explained = affine_fit(values, truth)
    ends = np.array([float(truth.min()), float(truth.max())])
    axes.plot(ends, ends, **TRUTH)
    axes.scatter(
        truth, slope * values + offset, s=8, color=color, alpha=0.6, linewidths=0, zorder=3
    )
    axes.set_xlabel("true energy [J]")
    axes.set_ylabel("learned a H + b [J]")
    axes.set_title(f"H of {len(truth)} moments: R² = {share(explained)}")


def _distance(axes: Any, model: Any, track: Track, color: str) -> None:
    """How far the imagined bodies are from where they are read, for a structure without an energy."""
    first = len(track.read) - len(track.imagined)
    size = track.read.shape[1]
    off = np.linalg.norm(track.imagined[:, :size] - track.read[first:], axis=1)
    axes.semilogy(track.dt * np.arange(len(off)), np.maximum(off, 1e-6), color=color)
    axes.set_xlabel("time since the last frame seen [s]")
    axes.set_ylabel("distance in coordinates")
    axes.set_title(f"imagined − read ({model.config.structure} learns no energy)")
