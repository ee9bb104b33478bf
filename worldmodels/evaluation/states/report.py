"""Reports of a comparison: every model, floor and oracle scored; tables, JSON and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.evaluation import plots, problems
from worldmodels.evaluation.states import scoring as evaluation
from worldmodels.evaluation.states.baselines import floor_entries, model_entry, oracles_of
from worldmodels.storage.files import atomic_write, make_parent

UNKNOWN = "n/a"


def compare(
    models: Mapping[str, Any],
    dataset: Any,
    horizon: int = 100,
    dt_values: Sequence[float] = (),
    count: int = 256,
    advance: Callable[[], object] = lambda: None,
    origin: str = "",
) -> dict[str, Any]:
    """Score ``models`` by row name, the floors and the oracles on the test split of ``dataset``.

    ``count``: rollouts at most; ``origin``: whose buffer it is, for the header. Returns a report of
    JSON types (see ``evaluation.evaluate``), with ``step_lengths`` where ``dt_values`` are given.
    Raises ``ValueError`` where a model is of another env, action kind or dt than the dataset, or
    episodes are shorter than the horizon.
    """
    for name, model in models.items():
        problems.check_source(name, model.spec, dataset)
    train, test = dataset.subset("train"), dataset.subset("test")
    tasks = problems.from_dataset(test, horizon, count)
    scale = evaluation.scale_of(train)
    entries = {name: model_entry(model, model.config.name) for name, model in models.items()}
    entries |= floor_entries(train)
    entries |= oracles_of(models)
    report = evaluation.evaluate(entries, tasks, scale, advance=advance)
    report["dataset"] = evaluation.source(dataset, origin)
    if dt_values:
        study = evaluation.over_step_lengths(entries, tasks, scale, dt_values, advance)
        report["step_lengths"] = study
    return report


def header(report: Mapping[str, Any]) -> str:
    """One line: the system, its arguments, and whose buffer the rollouts are from."""
    data = report["dataset"]
    return f"{report['env']} ({data['conditions']}); buffer: {data['origin']}"


def legend(report: Mapping[str, Any]) -> str:
    """What the columns of ``table`` mean, for a reader who has nothing else."""
    return (
        "finite: share of rollouts; valid: seconds until the error first exceeds "
        f"{report['valid_threshold']:g}; energy: error of the energy over its spread, after the "
        "last step; power: energy a step from nowhere, in that unit (truth: "
        f"{number(report['true_power_residual'])}); oracle: the true equations through a model's "
        "integrator; copy, velocity, linear: floors"
    )


def table(
    report: Mapping[str, Any], quartiles: bool = True, join: str = " "
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows (strings) of the report's scores; ``join`` stands before quartiles."""
    horizons = report["horizons"]
    head = ["model", *(f"n = {h}" for h in horizons), "finite", "valid [s]", "energy", "power"]
    lines = []
    for name, row in report["rows"].items():
        cells = [spread(row["nmse"][str(h)], quartiles, join) for h in horizons]
        last = str(horizons[-1])
        finite = row["nmse"][last]["finite"]
        lines.append(
            [
                name,
                *cells,
                UNKNOWN if finite is None else f"{100 * finite:.0f} %",
                number(row["valid_time"]["median"], "{:.2f}"),
                number(row["energy_error"][last]["median"]),
                UNKNOWN if row["kind"] == "floor" else number(row["power_residual"]),
            ]
        )
    return head, lines


def step_length_table(
    report: Mapping[str, Any], quartiles: bool = True, join: str = " "
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows (strings) of the errors at other step lengths."""
    study = report["step_lengths"]
    names = [f"{dt:g}" for dt in study["dt_values"]]
    lines = [
        [name, *(spread(cells[dt], quartiles, join) if cells[dt] else UNKNOWN for dt in names)]
        for name, cells in study["rows"].items()
    ]
    return ["model", *(f"dt {dt} s" for dt in names)], lines


def horizon_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the error over horizon of every model, floor and oracle, as numbers."""
    keys = ("median", "q25", "q75")
    lines = [
        [name, round(t * report["dt"], 9), *(row["nmse_curve"][key][t - 1] for key in keys)]
        for name, row in report["rows"].items()
        for t in range(1, report["steps"] + 1)
    ]
    return ["model", "seconds", *keys], lines


def write_texts(report: Mapping[str, Any], lines: Sequence[str], folder: Path) -> list[Path]:
    """Write report.json and, of ``lines``, report.md into ``folder``; returns their paths."""
    make_parent(folder / "report.json")
    atomic_write(folder / "report.json", json.dumps(report, allow_nan=False).encode())
    atomic_write(folder / "report.md", ("\n".join(lines) + "\n").encode())
    return [folder / "report.json", folder / "report.md"]


def write_report(report: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write report.json, report.md and the plots into ``folder``; returns their paths."""
    folder = Path(folder)
    files = write_texts(report, _markdown(report), folder)
    files.append(plots.error_over_horizon(report, folder / "error_over_horizon.png"))
    files.append(plots.energy_over_time(report, folder / "energy_over_time.png"))
    if "step_lengths" in report:
        files.append(plots.error_over_step_length(report, folder / "error_over_step_length.png"))
    return files


def spread(
    cell: Mapping[str, float | None],
    quartiles: bool,
    join: str,
    form: str = "{:.1e}",
    lost: str = "inf",
) -> str:
    """Median and quartiles as text; ``lost`` for what is not finite, ``UNKNOWN`` where nothing counts."""
    if cell.get("count") == 0:
        return UNKNOWN
    middle, low, high = (number(cell[key], form, lost) for key in ("median", "q25", "q75"))
    return f"{middle}{join}({low}, {high})" if quartiles else middle


def number(value: float | None, form: str = "{:.1e}", lost: str = "inf") -> str:
    """A number as text; what is not finite as ``lost``."""
    if value is None:
        return lost
    text = form.format(value)
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _markdown(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"# {report['env']}",
        "",
        f"{header(report)}.",
        "",
        f"{report['problems']} open-loop rollouts of {report['steps']} steps of {report['dt']:g} s "
        "on the test split. Normalised squared error after n steps: median (quartiles); finite: "
        "share of rollouts; valid: median seconds until the error first exceeds "
        f"{report['valid_threshold']:g}; energy: median error of the energy of the predicted state "
        "against the true series, over its standard deviation, after the last step; power: median "
        "energy a step that neither control nor damping accounts for, in the same unit (the truth "
        f"itself scores {number(report['true_power_residual'])}). An oracle is the true right-hand "
        "side through the integrator of a model.",
        "",
        *grid(*table(report)),
    ]
    if "step_lengths" in report:
        study = report["step_lengths"]
        lines += ["", f"Error after {study['seconds']:g} s, actions held {study['hold']:g} s:", ""]
        lines += grid(*step_length_table(report))
    return lines


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]]
