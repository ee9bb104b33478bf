"""Several runs of one model as one row of a report: means and t-intervals over runs.

What comes out has the shape of a report, so that tables and plots need to know of nothing: where a run
has the median of its rollouts, a group has the mean of its runs' medians; where a run has quartiles, a
group has the ends of the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
"""Confidence of the intervals."""
HALVES = "halves"
"""Under this name a group has half the widths of the intervals of its single numbers."""
TINY = 1e-300
"""Errors count as at least this, so that they have a logarithm."""


def grouped(report: Mapping[str, Any], groups: Mapping[str, str]) -> dict[str, Any]:
    """``report`` with one row for each group of ``groups`` (row name to group's), other rows as they are.

    The rows of a report and of everything in it that has the same names are merged, and with a model's row
    those that are named after it ("NAME, reconstruction").
    """
    names = set(report["rows"])
    groups = {
        row: group + row[len(name) :]
        for name, group in groups.items()
        for row in report["rows"]
        if row == name or row.startswith(f"{name}, ")
    }

    def regroup(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if value and set(value) <= names and any(name in groups for name in value):
            return _merged_rows(value, groups)
        return {key: regroup(inner) for key, inner in value.items()}

    merged = {key: regroup(value) for key, value in report.items()}
    parts: dict[str, list[Any]] = {}
    for name, group in groups.items():
        parts.setdefault(group, []).append(report["rows"][name])
    for group, rows in parts.items():
        merged["rows"][group].update({"runs": len(rows), HALVES: _halves(rows)})
    return {**merged, "confidence": CONFIDENCE}


def _halves(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Half the widths of the intervals of what is a single number in a run's row."""
    found = {}
    for key, value in rows[0].items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            half = interval([row.get(key) for row in rows])[1]
            found.update({} if half is None else {key: half})
    return found


def _merged_rows(rows: Mapping[str, Any], groups: Mapping[str, str]) -> dict[str, Any]:
    parts: dict[str, list[Any]] = {}
    for name, row in rows.items():
        parts.setdefault(groups.get(name, name), []).append(row)
    return {
        name: merge(part) if any(groups.get(own) == name for own in rows) else part[0]
        for name, part in parts.items()
    }


def merge(parts: Sequence[Any]) -> Any:
    """One value of the same place in several runs' rows."""
    first = next((part for part in parts if part is not None), None)
    if isinstance(first, Mapping):
        known = [part for part in parts if part is not None]
        if "median" in first:
            return (_curve if isinstance(first["median"], list) else _cell)(known)
        return {key: merge([part.get(key) for part in known]) for key in first}
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return interval(parts)[0]
    return first


def interval(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean, and half the width of its t-interval; None for what is not finite, or of a single value."""
    if any(value is None for value in values):
        return None, None
    found = np.asarray(values, np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return mean, None
    return mean, float(_t(len(found)) * found.std(ddof=1) / np.sqrt(len(found)))


def _t(count: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, count - 1))


def _cell(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mean, half = interval([cell["median"] for cell in cells])
    low, high = (None, None) if mean is None else (mean - (half or 0.0), mean + (half or 0.0))
    finite = [cell["finite"] for cell in cells if cell.get("finite") is not None]
    found = {
        "median": mean,
        "q25": low,
        "q75": high,
        "half": half,
        "finite": float(np.mean(finite)) if finite else None,
        "count": sum(cell["count"] for cell in cells),
    }
    if "at_least" in cells[0]:
        found["at_least"] = any(cell["at_least"] for cell in cells)
    return found


def _curve(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and interval at every step; of the logarithm where nothing is negative, as errors are drawn."""
    values = np.array(
        [[np.nan if x is None else x for x in curve["median"]] for curve in curves], np.float64
    )
    logarithmic = bool((values[np.isfinite(values)] >= 0).all())
    if logarithmic:
        values = np.log(np.maximum(values, TINY))
    middle, half = values.mean(0), np.zeros(values.shape[1])
    if len(values) > 1:
        half = _t(len(values)) * values.std(0, ddof=1) / np.sqrt(len(values))
    ends = {"median": middle, "q25": middle - half, "q75": middle + half}
    with np.errstate(over="ignore"):
        shown = {key: np.exp(end) if logarithmic else end for key, end in ends.items()}
    return {key: [_plain(x) for x in end] for key, end in shown.items()}


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
