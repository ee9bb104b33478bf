"""Open-loop evaluation in pixels: visual models, their own reconstructions and baselines against the truth.

Every row is asked for the same frames: those after the last of L true ones, under the true actions, on the
test split. Frames that are not finite count as infinite errors. Legend: B problems, T steps, N bodies,
H horizons.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodels.evaluation import problems
from worldmodels.evaluation.pixels import metrics as pixel_metrics
from worldmodels.evaluation.pixels import problems as pixel_problems
from worldmodels.evaluation.pixels.baselines import (
    BACKGROUND_ROW,
    COPY_ROW,
    PixelEntry,
    background_entry,
    conserves,
    copy_entry,
    learned_energies,
    model_entry,
    reconstruction_entry,
)
from worldmodels.evaluation.pixels.probing import Reading
from worldmodels.evaluation.pixels.problems import PixelProblems, PixelWindows
from worldmodels.evaluation.pixels.readout import readout_of
from worldmodels.evaluation.pixels.scores import (
    Ruler,
    Values,
    energy_scores,
    measure,
    row_scores,
    worst_body,
)
from worldmodels.evaluation.states.outcomes import compared
from worldmodels.evaluation.statistics import EXAMPLES, at_horizon, span
from worldmodels.models.backgrounds import Background

HORIZONS = (1, 5, 10, 20, 40, 60, 100, 150, 200)
"""Steps at which errors are reported."""
LEAST_BRIGHTNESS = 0.1
"""A frame's squared brightness counts as at least this share of the mean, for bodies out of sight."""
RECONSTRUCTION = ", reconstruction"
"""What a row is called after its model, where it draws the true frames."""


class PixelTask(NamedTuple):
    """Windows to predict, and what their errors are measured with."""

    windows: PixelWindows
    ruler: Ruler
    background: np.ndarray
    """(S, S, 3) mean frame of the training split, in [0, 1]."""
    energy_scale: float
    """Standard deviation of the true energy over the training split [J]."""


def score(
    models: Mapping[str, Any],
    entries: Mapping[str, PixelEntry],
    task: PixelTask,
    readings: Mapping[str, Reading],
    dt_values: Sequence[float] = (),
    advance: Callable[[float], object] = lambda share: None,
) -> dict[str, Any]:
    """Scores of every entry of a comparison, and of what the ``readings`` found in each model's latents.

    ``dt_values``: other step lengths to ask for, which must divide the longest. ``advance`` is told shares
    of the work as they are done.
    """
    windows, ruler, _, scale = task
    study = _Study(windows.asked, dt_values) if dt_values else None
    tallies, seconds = _measure_all(entries, models, windows, ruler, readings, study, advance)
    report = _facts(windows, ruler, scale)
    report["explained"] = _explained(models, windows)
    report["rows"] = {
        name: {
            "kind": entry.kind,
            "model": entry.model_name,
            "seconds": seconds[name],
            **row_scores(tallies[name], tallies[COPY_ROW], windows.asked, ruler, scale),
        }
        for name, entry in entries.items()
    }
    for name in (name for name, model in models.items() if model.spec.foreign):
        seen, imagined = (
            (tallies[row]["reward"], tallies[row]["end"])
            for row in (f"{name}{RECONSTRUCTION}", name)
        )
        report["rows"][name]["outcomes"] = compared(windows.asked, seen, imagined)
    report |= _learned(readings, tallies, windows, ruler)
    if study is not None:
        report["step_lengths"] = study.scores(entries)
    return report


def entries_of(models: Mapping[str, Any], background: np.ndarray) -> dict[str, PixelEntry]:
    """Every row of a comparison: models, what each makes of the true frames, and baselines."""
    rows = {name: model_entry(model) for name, model in models.items()}
    rows |= {f"{name}{RECONSTRUCTION}": reconstruction_entry(m) for name, m in models.items()}
    return {**rows, COPY_ROW: copy_entry(), BACKGROUND_ROW: background_entry(background)}


def ruler_of(windows: PixelWindows, shared: Background, horizons: Sequence[int]) -> Ruler:
    """What predictions of ``windows`` are measured with; ``shared``: of the frames of the training split.

    Where nobody knows what a picture shows, no body is read in it, and errors are normalised by how much frames
    differ from their mean.
    """
    system, steps = windows.tasks.system, windows.asked.steps
    known = "pictures" in system.knows
    return Ruler(
        readout_of(system, len(shared.mean)) if known else None,
        LEAST_BRIGHTNESS * (shared.brightness if known else shared.spread),
        tuple(sorted({h for h in (*horizons, steps) if 1 <= h <= steps})),
        pixel_metrics.has_ssim(),
        None if known else torch.from_numpy(shared.mean.astype(np.float32)),
    )


def _facts(windows: PixelWindows, ruler: Ruler, energy_scale: float) -> dict[str, Any]:
    """What a report says of the problems and of its measures."""
    tasks = windows.asked
    read = ruler.readout
    return {
        "env": tasks.system.name,
        "dt": tasks.dt,
        "steps": tasks.steps,
        "problems": len(tasks.states),
        "problems_at": {str(h): int(tasks.valid[:, h - 1].sum()) for h in ruler.horizons},
        "context": windows.context,
        "image_size": int(windows.dataset.pixels[0].shape[1]),
        "horizons": list(ruler.horizons),
        "bodies": list(ruler.names),
        "meters_per_pixel": None if read is None else read.meters_per_pixel,
        "valid_threshold": pixel_metrics.VALID_THRESHOLD,
        "ssim_install": None if ruler.similarity else pixel_metrics.SSIM_INSTALL,
        "energy_scale": energy_scale,
        "true_energy": tasks.energy(tasks.states)[:EXAMPLES],
    }


def _explained(models: Mapping[str, Any], windows: PixelWindows) -> dict[str, float]:
    """Share of what differs from the background that a model of keypoints draws, of true frames, by name."""
    able = {name: model for name, model in models.items() if hasattr(model, "explained")}
    if not able:
        return {}
    _, batch = next(pixel_problems.batches(windows))
    return {name: float(model.explained(batch.truth[:, -1])) for name, model in able.items()}


def _learned(
    readings: Mapping[str, Reading],
    tallies: Mapping[str, Values],
    windows: PixelWindows,
    ruler: Ruler,
) -> dict[str, Any]:
    """What the latents of each model know, and whether its own energy is kept, where it has one."""
    energies = {
        name: {
            "r_squared": reading.energy_r_squared,
            **energy_scores(
                tallies[name]["learned_energy"],
                reading.energy_spread,
                windows.asked,
                ruler.horizons,
            ),
        }
        for name, reading in readings.items()
        if "learned_energy" in tallies[name]
    }
    probed = {name: reading.scores for name, reading in readings.items()}
    return {"probes": probed, "learned_energy": energies}


class _Study:
    """Errors after equal physical time under equal held actions, batch by batch."""

    def __init__(self, tasks: problems.Problems, dt_values: Sequence[float]) -> None:
        self.dt, self.dt_values = tasks.dt, tuple(dt_values)
        self.hold, self.seconds = span(tasks, dt_values)
        self.tallies: dict[tuple[str, float], dict[str, list[np.ndarray]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, batch: PixelProblems, entries: Mapping[str, PixelEntry], ruler: Ruler) -> None:
        """Ask every entry that can be asked for every step length."""
        for dt in self.dt_values:
            asked = pixel_problems.at_step_length(batch, dt, self.hold, self.seconds)
            for name, entry in entries.items():
                if entry.any_dt or (entry.kind == "model" and abs(dt - self.dt) < 1e-9):
                    values = measure(asked, entry.predict(asked, True).frames, ruler)
                    _extend(self.tallies[name, dt], values)
                    self.tallies[name, dt]["valid"].append(asked.tasks.valid[:, -1:])

    def scores(self, entries: Mapping[str, PixelEntry]) -> dict[str, Any]:
        """Normalised image MSE and centroid error of every entry; None where it cannot be asked."""
        rows: dict[str, Any] = {name: {} for name in entries}
        places: dict[str, Any] = {name: {} for name in entries}
        for name in entries:
            for dt in self.dt_values:
                tally = self.tallies.get((name, dt))
                rows[name][f"{dt:g}"] = places[name][f"{dt:g}"] = None
                if tally:
                    values = _joined(tally)
                    rows[name][f"{dt:g}"] = at_horizon(values["nmse"], values["valid"], 1)
                    worst, valid = worst_body(values, values["valid"])
                    places[name][f"{dt:g}"] = at_horizon(worst, valid, 1)
        return {
            "seconds": self.seconds,
            "hold": self.hold,
            "dt_values": list(self.dt_values),
            "rows": rows,
            "centroid": places,
        }


def _measure_all(
    entries: Mapping[str, PixelEntry],
    models: Mapping[str, Any],
    windows: PixelWindows,
    ruler: Ruler,
    readings: Mapping[str, Reading],
    study: _Study | None,
    advance: Callable[[float], object],
) -> tuple[dict[str, Values], dict[str, float]]:
    """Measures of every entry over all windows, batch by batch, and the seconds each took to predict."""
    tallies: dict[str, Any] = {name: defaultdict(list) for name in entries}
    seconds = dict.fromkeys(entries, 0.0)
    backward = any(e.reversible for e in entries.values() if e.kind == "model")
    for _, batch in pixel_problems.batches(windows):
        backward_batch = pixel_problems.reverse(batch) if backward else None
        for name, entry in entries.items():
            began = time.perf_counter()
            predicted = entry.predict(batch, False)
            seconds[name] += time.perf_counter() - began
            _extend(tallies[name], measure(batch, predicted.frames, ruler, True))
            if predicted.rewards is not None and batch.rewards is not None:
                rewards = {"reward": predicted.rewards, "true reward": batch.rewards}
                _extend(tallies[name], {**rewards, "end": np.asarray(predicted.ends)})
            reading = readings.get(name.removesuffix(RECONSTRUCTION))
            if reading is not None and reading.reads_energy and predicted.latents is not None:
                energy = reading.energy(batch.tasks, predicted.latents)
                _extend(tallies[name], {"energy": energy})
            if backward_batch is not None and entry.reversible:
                values = measure(backward_batch, entry.predict(backward_batch, False).frames, ruler)
                values["valid"] = backward_batch.tasks.valid
                _extend(tallies[name], {f"backward {key}": v for key, v in values.items()})
        for name, model in models.items():
            if conserves(model):
                _extend(tallies[name], {"learned_energy": learned_energies(model, batch)})
        if study is not None:
            study.add(batch, entries, ruler)
        advance(len(batch.truth) / len(windows.rows))
    return {name: _joined(tally) for name, tally in tallies.items()}, seconds


def _extend(tally: dict[str, list[np.ndarray]], values: Values) -> None:
    for name, value in values.items():
        tally[name].append(value)


def _joined(tally: Mapping[str, list[np.ndarray]]) -> Values:
    return {name: np.concatenate(parts) for name, parts in tally.items()}
