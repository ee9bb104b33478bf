"""Tables of reports: numbers as text, for terminals and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

UNKNOWN = "n/a"


class Table(NamedTuple):
    """Columns and rows of strings under a title."""

    title: str
    head: list[str]
    rows: list[list[str]]
    brief: bool = False
    """Whether a terminal shows it; the others stand in report.md alone."""


def number(value: float | None, form: str = "{:.1e}", lost: str = "inf") -> str:
    """A number as text; what is not finite as ``lost``."""
    if value is None:
        return lost
    text = form.format(value)
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def spread(
    cell: Mapping[str, float | None],
    quartiles: bool,
    join: str,
    form: str = "{:.1e}",
    lost: str = "inf",
) -> str:
    """Median and quartiles as text; ``lost`` for what is not finite, ``UNKNOWN`` where nothing counts.

    Of several runs: their mean, and half the width of its interval.
    """
    if cell.get("count") == 0:
        return UNKNOWN
    if "half" in cell:
        return between(cell["median"], cell["half"], form, lost)
    middle, low, high = (number(cell[key], form, lost) for key in ("median", "q25", "q75"))
    return f"{middle}{join}({low}, {high})" if quartiles else middle


def between(mean: float | None, half: float | None, form: str = "{:.1e}", lost: str = "inf") -> str:
    """A mean with half the width of its interval, where there is one."""
    text = number(mean, form, lost)
    return text if mean is None or half is None else f"{text} ± {number(half, form)}"


def share(value: float | None, half: float | None = None) -> str:
    """A number up to 1 as text, what is just below it by its distance: 1 - 2e-13."""
    if value is None:
        return UNKNOWN
    if 0.999 < value < 1.0:
        return f"1 - {number(1.0 - value)}"
    return between(value, half, "{:.3f}")


def seconds(cell: Mapping[str, Any]) -> str:
    """A median valid time [s] as text, with a sign before it where it is a lower bound."""
    if cell.get("count") == 0:
        return UNKNOWN
    sign = ">= " if cell.get("at_least") else ""
    return f"{sign}{between(cell['median'], cell.get('half'), '{:.2f}')}"


def averaged(report: Mapping[str, Any], quartiles: bool) -> str:
    """What the cells of a report are, in words."""
    own = f"median{' (quartiles)' if quartiles else ''}"
    if "confidence" not in report:
        return own
    share = f"{100 * report['confidence']:g} %"
    return f"mean over runs ± half its {share} interval; of a single row, {own}"


def costs(report: Mapping[str, Any]) -> Table:
    """Size of every model, and what a step of one rollout takes in a batch of all of them."""
    steps = report["problems"] * report["steps"]
    rows = [
        [name, f"{row['parameters']:,.0f}", number(1e6 * row["seconds"] / steps, "{:.3g}")]
        for name, row in report["rows"].items()
        if row["kind"] == "model" and "parameters" in row
    ]
    title = f"size and cost, {report['problems']} rollouts at once"
    return Table(title, ["model", "parameters", "step [µs]"], rows)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]]


def horizon_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the error over horizon of every row, as numbers."""
    keys = ("median", "q25", "q75")
    lines = [
        [name, round(t * report["dt"], 9), *(row["nmse_curve"][key][t - 1] for key in keys)]
        for name, row in report["rows"].items()
        for t in range(1, report["steps"] + 1)
    ]
    return ["model", "seconds", *keys], lines
