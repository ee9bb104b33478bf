"""Plots of reports, in one style: a structure has one colour everywhere, safe for all eyes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.configs.training import MODELS
from worldmodels.storage.files import atomic_write, make_parent

MODEL_COLORS = {
    "jump": "#E69F00",
    "lstm": "#CC79A7",
    "first_order": "#56B4E9",
    "newtonian": "#009E73",
    "velocity": "#A6761D",
    "port_hamiltonian": "#0072B2",
}
"""Okabe and Ito's colours, by structure."""
TRUTH = {"color": "#c8c8c8", "linewidth": 6.0}
ORACLE = {"color": "#555555", "linewidth": 1.4}
BASELINE_COLOR = "#8a8a8a"
BASELINE_DASHES = ((0, (6, 2)), (0, (4, 2, 1, 2)), (0, (2, 2)), (0, (8, 2, 1, 2, 1, 2)))
SPARE_COLORS = (
    "#D55E00",
    "#7F3C8D",
    "#4B4B9B",
    "#8C564B",
    "#B8005C",
    "#5B7F00",
    "#00868B",
    "#A0522D",
)
"""Of structures from elsewhere, see ``color_of``."""
TINY = 1e-16
"""Errors up to here are those of rounding, and are not drawn."""
MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "figure.dpi": 120,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


def color_of(structure: str) -> str:
    """Colour of a structure, the same in every picture; one from elsewhere has a spare one by its name.

    Spare colours are those of all structures that are known at the moment, in the order of their names, so that
    two of them differ (up to the number of spare colours).
    """
    if structure in MODEL_COLORS:
        return MODEL_COLORS[structure]
    taken: dict[int, str] = {}
    for name in sorted({*MODELS, structure} - set(MODEL_COLORS)):
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        free = [(place + step) % len(SPARE_COLORS) for step in range(len(SPARE_COLORS))]
        at = next((index for index in free if index not in taken), free[0])
        taken[at] = name
        if name == structure:
            break
    return SPARE_COLORS[at]


def styles(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Colour and line of every row of a report, by its name.

    Baselines are grey dashes, oracles grey dots, a model has its structure's colour; a second run of
    one structure has the same colour with other dashes.
    """
    chosen: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    baselines = oracles = 0
    for name, row in rows.items():
        if row["kind"] == "baseline":
            dashes = BASELINE_DASHES[baselines % len(BASELINE_DASHES)]
            chosen[name] = {"color": BASELINE_COLOR, "linestyle": dashes, "linewidth": 1.2}
            baselines += 1
        elif row["kind"] == "oracle":
            dots = (0, (1, 1.2 + oracles % 4))
            chosen[name] = {**ORACLE, "linestyle": dots}
            oracles += 1
        else:
            model = row.get("model", "")
            count = seen[model] = seen.get(model, -1) + 1
            line = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))[count % 4]
            chosen[name] = {"color": color_of(model), "linestyle": line}
    return chosen


def stacked(
    chosen: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """``styles`` for lines that may lie on one another: each later model is thinner, and dashed."""
    models = [name for name, row in rows.items() if row["kind"] == "model"]
    drawn = {name: dict(style) for name, style in chosen.items()}
    for index, name in enumerate(models):
        drawn[name] |= {"linewidth": max(3.2 - 0.8 * index, 1.2), "zorder": 3 + 0.01 * index}
        if index:
            drawn[name]["linestyle"] = (2 * index, (3, 2 + index))
    return drawn


def error_over_horizon(
    report: Mapping[str, Any],
    path: str | Path,
    label: str = "normalised squared error",
    seen: str = "state",
) -> Path:
    """Draw the median normalised error over time, with the quartiles of models as bands.

    ``label``: what the error is; ``seen``: what a row last saw of the truth.
    """
    rows, dt = report["rows"], report["dt"]
    time = dt * np.arange(1, report["steps"] + 1)
    with _figure(path, (7.6, 4.4)) as axes:
        for name, style in styles(rows).items():
            curve = {key: _array(values) for key, values in rows[name]["nmse_curve"].items()}
            axes.plot(time, curve["median"], label=_label(name, curve["median"]), **style)
            if rows[name]["kind"] == "model":
                axes.fill_between(
                    time, curve["q25"], curve["q75"], color=style["color"], alpha=0.18, linewidth=0
                )
        axes.set_yscale("log")
        axes.set_ylim(*_log_limits(rows, "nmse_curve"))
        axes.set_xlim(0, time[-1])
        axes.set_xlabel(f"time since the last true {seen} [s]")
        axes.set_ylabel(label)
        what = (
            "mean over runs and its interval" if "confidence" in report else "median and quartiles"
        )
        axes.set_title(f"{report['env']}: open-loop error, {what}")
        _legend(axes)
    return Path(path)


def centroids_over_time(report: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the median error of each body's centroid over time, with the quartiles of models as bands.

    The scale is linear up to one pixel, logarithmic beyond.
    """
    rows, bodies, pixel = report["rows"], report["bodies"], report["meters_per_pixel"]
    time = report["dt"] * np.arange(1, report["steps"] + 1)
    with _figure(path, (7.6, 1.6 + 2.6 * len(bodies)), len(bodies)) as found:
        for body, axes in zip(bodies, np.atleast_1d(found), strict=True):
            for name, style in styles(rows).items():
                curve = {k: _array(v) for k, v in rows[name]["centroid_curve"][body].items()}
                axes.plot(time, curve["median"], label=_label(name, curve["median"]), **style)
                if rows[name]["kind"] == "model":
                    band = {"color": style["color"], "alpha": 0.18, "linewidth": 0}
                    axes.fill_between(time, curve["q25"], curve["q75"], **band)
            axes.axhline(pixel, color="#bbbbbb", linewidth=1.0, zorder=0)
            axes.set_yscale("symlog", linthresh=pixel)
            axes.set_ylim(0.0, report["meters_per_pixel"] * report["image_size"])
            axes.set_xlim(0, time[-1])
            axes.set_ylabel("distance [m] (grey: 1 px)")
            axes.set_title(f"{report['env']}: error of the {body} body's centroid")
        axes.set_xlabel("time since the last true frame [s]")
        _legend(np.atleast_1d(found)[0])
    return Path(path)


def energy_over_time(
    report: Mapping[str, Any], path: str | Path, example: int = 0, seen: str = "state"
) -> Path:
    """Draw energies: of one problem, true and predicted; and the error of all, as a median.

    ``seen``: what a row last saw of the truth.
    """
    truth = _array(report["true_energy"][example])
    time = report["dt"] * np.arange(len(truth))
    rows = {k: row for k, row in report["rows"].items() if row["kind"] != "oracle"}
    with _figure(path, (7.6, 6.4), 2) as (above, below):
        above.plot(time, truth, label="truth", **TRUTH)
        for name, style in stacked(styles(rows), rows).items():
            above.plot(time, _array(rows[name]["energy"][example]), label=name, **style)
            median = _array(rows[name]["energy_curve"]["median"])
            below.plot(time[1:], np.maximum(median, TINY), **style)
        reach = max(float(np.ptp(truth)), 0.05 * report["energy_scale"])
        above.set_ylim(truth.min() - 0.3 * reach, truth.max() + 0.3 * reach)
        above.set_ylabel("energy [J]")
        above.set_title(f"{report['env']}: energy of one test episode, true and predicted")
        below.set_yscale("log")
        below.set_ylim(*_log_limits(rows, "energy_curve"))
        below.set_ylabel("energy error / its spread")
        below.set_title("error against the true energy, median over the test episodes")
        below.set_xlabel(f"time since the last true {seen} [s]")
        for axes in (above, below):
            axes.set_xlim(0, time[-1])
        _legend(above)
    return Path(path)


def error_over_step_length(
    report: Mapping[str, Any], path: str | Path, label: str = "normalised squared error"
) -> Path:
    """Draw the error at one physical time against the step length a model was asked for."""
    study, kinds = report["step_lengths"], report["rows"]
    with _figure(path, (7.6, 4.4)) as axes:
        for index, (name, style) in enumerate(styles(kinds).items()):
            cells = [study["rows"][name][f"{dt:g}"] for dt in study["dt_values"]]
            known = [(dt, c) for dt, c in zip(study["dt_values"], cells, strict=True) if c]
            if all(c["median"] is None for _, c in known):
                continue
            values = {k: _array([c[k] for _, c in known]) for k in ("median", "q25", "q75")}
            below = values["median"] - values["q25"]
            bars = np.nan_to_num(np.stack([below, values["q75"] - values["median"]]))
            at = np.array([dt for dt, _ in known])
            axes.errorbar(
                at, values["median"], yerr=bars, capsize=2, label=_label(name, values["median"]),
                marker=MARKERS[index % len(MARKERS)], markersize=5, **style,
            )  # fmt: skip
        axes.axvline(report["dt"], color="#bbbbbb", linewidth=6, alpha=0.5, zorder=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(study["dt_values"], [f"{dt:g}" for dt in study["dt_values"]])
        axes.minorticks_off()
        axes.set_xlabel("step length [s] (grey: trained with)")
        axes.set_ylabel(f"{label} at {study['seconds']:g} s")
        axes.set_title(f"{report['env']}: other step lengths, actions held {study['hold']:g} s")
        _legend(axes)
    return Path(path)


def lines_over(curve: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the lines of ``curve`` ("title", "x", "y", "lines") over one another, both axes logarithmic.

    A line is "name", "structure", "x" and "y"; of several of one structure, later ones are dashed.
    """
    rows = {line["name"]: {"kind": "model", "model": line["structure"]} for line in curve["lines"]}
    chosen = styles(rows)
    with _figure(path, (7.6, 4.4)) as axes:
        for line in curve["lines"]:
            values = _array(line["y"])
            name = line["name"]
            axes.plot(line["x"], values, label=_label(name, values), marker=".", **chosen[name])
        axes.set(title=curve["title"], xlabel=curve["x"], ylabel=curve["y"])
        axes.set_xscale("log")
        axes.set_yscale("log")
        _legend(axes)
    return Path(path)


@contextmanager
def _figure(path: str | Path, size: tuple[float, float], rows: int = 1) -> Iterator[Any]:
    """Axes of a new figure, saved to ``path`` at the end; matplotlib's state stays as it was."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    make_parent(path)
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.subplots(rows)
        save_figure(figure, path)


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure to ``path``, whole or not at all, and through no link."""
    kind = Path(path).suffix.lstrip(".") or "png"
    atomic_write(path, lambda file: figure.savefig(file, format=kind))


def _legend(axes: Any) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def _label(name: str, values: np.ndarray) -> str:
    """Name of a row in the legend, with the reason where no line is to be seen."""
    known = values[np.isfinite(values)]
    if not len(known):
        return f"{name}: not finite"
    if known.max() <= 0.0:
        return f"{name}: exact"
    return f"{name}: below {TINY:g}" if known.max() <= TINY else name


def _array(values: Any) -> np.ndarray:
    """Numbers of a report; None (not finite) as NaN, which is not drawn."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _log_limits(rows: Mapping[str, Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Limits that show all models and baselines, and of the oracle what is above 1e-16."""
    values = np.concatenate([_array(row[name]["median"]) for row in rows.values()])
    values = values[np.isfinite(values) & (values > TINY)]
    if not len(values):
        return TINY, 10.0
    return max(float(values.min()) / 3, TINY), float(min(max(values.max() * 3, 1.0), 1e4))
