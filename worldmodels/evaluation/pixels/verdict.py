"""The one table that a reader of a report over pixels needs first: how far each model can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldmodels.evaluation.pixels.baselines import COPY_ROW
from worldmodels.evaluation.tables import UNKNOWN, Table, spread

Row = Mapping[str, Any]


def table(report: Mapping[str, Any], join: str = " ") -> Table:
    """One row a model: steps until worse than copying, centroid error, reward R^2, and all of it in words.

    ``join`` stands where a cell may break: a newline keeps the table within 80 columns.
    """
    head = ["model", "steps", f"centroid{join}[px]", f"reward{join}R²", "against copying"]
    lines = []
    for name, row in report["rows"].items():
        if row["kind"] == "model":
            steps, words = against_copying(ahead(report, row), join)
            lines.append([name, steps, places(report, row, join), rewards(report, row), words])
    title = (
        f"steps until no better than copying; centroid and reward at n = {report['horizons'][-1]}"
    )
    return Table(title, head, lines, True)


def definition(report: Mapping[str, Any]) -> str:
    """What the table's columns mean."""
    copied = places(report, report["rows"][COPY_ROW])
    unread = "" if report["bodies"] else " (n/a here)"
    return (
        "Against copying: median normalised image MSE of a model's rollouts, step by step, below that of "
        "repeating the last frame seen; steps: how many before it first is not (>=: the report ends "
        f"before). Centroid{unread}: median error of the worst body at n = {report['horizons'][-1]} "
        f"(copying the last frame: {copied}). Reward R²: of the reward that the model gives its rollout, against "
        "the true one there (1: exact, 0: no better than the mean)."
    )


def ahead(report: Mapping[str, Any], row: Row) -> np.ndarray:
    """(T,) bool: at which steps the median error is below that of copying, as far as it is known."""
    own, copy = (
        _errors(given["nmse_curve"]["median"]) for given in (row, report["rows"][COPY_ROW])
    )
    known = np.flatnonzero(np.isfinite(copy))
    return (own < copy)[: known[-1] + 1 if len(known) else 0]


def against_copying(better: np.ndarray, join: str = " ") -> tuple[str, str]:
    """Steps until a model is no better than copying, and where it is better, in words."""
    if not len(better):
        return UNKNOWN, UNKNOWN
    total, worse = len(better), np.flatnonzero(~better)
    if not len(worse):
        return f">= {total}", f"better than copying{join}to the end ({total} steps)"
    first = int(worse[0])
    if len(worse) == total:
        return "0", f"never better{join}than copying"
    if len(worse) == total - first:
        return str(first), f"no better than copying{join}from step {first + 1} on"
    where = f"at {len(worse)} of {total} steps,{join}first at step {first + 1}"
    return str(first), f"no better than copying{join}{where}"


def places(report: Mapping[str, Any], row: Row, join: str = " ") -> str:
    """Median centroid error [px] of the worst body after the last step, with its name among several."""
    last = str(report["horizons"][-1])
    cells = {name: cells[last] for name, cells in row["centroid_pixels"].items()}
    seen = {name: cell for name, cell in cells.items() if cell["count"]}
    if not seen:
        return UNKNOWN
    worst = max(seen, key=lambda name: _errors([seen[name]["median"]])[0])
    text = spread(seen[worst], False, " ", "{:.2f}")
    return f"{text}{join}({worst})" if len(cells) > 1 else text


def rewards(report: Mapping[str, Any], row: Row) -> str:
    """R^2 of the reward after the last step."""
    scores = row.get("reward_r_squared")
    if scores is None:
        return UNKNOWN
    return spread(scores[str(report["horizons"][-1])], False, " ", "{:.2f}", "-inf")


def _errors(values: Any) -> np.ndarray:
    """Numbers of a report, None (not finite) as infinite."""
    return np.array([np.inf if value is None else value for value in values], np.float64)
