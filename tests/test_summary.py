"""Reports of several runs: means and intervals, and the files that are written of them."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from worldmodels.evaluation import summary
from worldmodels.evaluation.comparison import comparison_of
from worldmodels.evaluation.pages import comma_separated, latex, write_pages
from worldmodels.evaluation.tables import Table


def cell(median: float | None) -> dict[str, Any]:
    return {"median": median, "q25": 0.0, "q75": 9.0, "finite": 1.0, "count": 5}


def row(kind: str, model: str, errors: list[float | None]) -> dict[str, Any]:
    curve = {key: errors for key in ("median", "q25", "q75")}
    return {
        "kind": kind, "model": model, "seconds": 1.0, "parameters": 100,
        "nmse": {"1": cell(errors[0]), "2": cell(errors[1])},
        "energy_error": {"1": cell(errors[0]), "2": cell(errors[1])},
        "valid_time": {**cell(0.1), "at_least": False}, "power_residual": 0.5,
        "energy_r_squared": None, "nmse_curve": curve, "energy_curve": curve,
        "energy": [[1.0, 2.0, 3.0]],
    }  # fmt: skip


def report() -> dict[str, Any]:
    rows = {
        "jump s0": row("model", "jump", [0.1, 0.2]),
        "jump s1": row("model", "jump", [0.3, 0.8]),
        "lstm_x": row("model", "lstm", [0.5, None]),
        "copy-last-state": row("baseline", "", [0.7, 0.9]),
    }
    return {
        "kind": "states", "env": "pendulum", "dt": 0.1, "steps": 2, "problems": 4, "horizons": [1, 2],
        "valid_threshold": 0.09, "energy_scale": 1.0, "true_energy": [[1.0, 2.0, 3.0]],
        "true_power_residual": 1e-9, "rows": rows,
        "dataset": {"path": "p", "sha256": "s", "origin": "o", "conditions": "c"},
    }  # fmt: skip


GROUPS = {"jump s0": "jump", "jump s1": "jump", "lstm_x": "lstm_x"}


def test_intervals_are_students() -> None:
    values = [0.1, 0.4, 0.2]
    mean, half = summary.interval(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert mean is not None and half is not None
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert summary.interval([3.0]) == (3.0, None)
    assert summary.interval([1.0, None]) == (None, None), "one that diverged is not averaged away"


def test_runs_of_one_model_become_one_row() -> None:
    merged = summary.grouped(report(), GROUPS)
    assert list(merged["rows"]) == ["jump", "lstm_x", "copy-last-state"]
    jump = merged["rows"]["jump"]
    assert jump["runs"] == 2 and jump["model"] == "jump" and jump["kind"] == "model"
    assert jump["nmse"]["1"]["median"] == pytest.approx(0.2) and jump["nmse"]["1"]["count"] == 10
    assert jump["nmse"]["1"]["half"] == pytest.approx(12.706 * 0.1, rel=1e-4)
    assert jump["halves"]["power_residual"] == 0.0
    uneven = report()
    uneven["rows"]["jump s1"]["power_residual"] = 0.7
    found = summary.grouped(uneven, GROUPS)
    half = found["rows"]["jump"]["halves"]["power_residual"]
    assert half == pytest.approx(12.706 * 0.1, rel=1e-4)
    assert f"power_residual,0.6,{0.6 - half}" in comma_separated(found)
    (table, *_) = comparison_of("states").tables(found)
    assert "6.0e-1 ± 1.3e0" in table.rows[0], "single numbers have an interval, too"
    assert merged["rows"]["lstm_x"]["nmse"]["2"]["median"] is None
    assert merged["rows"]["copy-last-state"] == report()["rows"]["copy-last-state"]
    assert jump["nmse_curve"]["median"] == pytest.approx([0.3**0.5 * 0.1**0.5, 0.4])
    low, high = jump["nmse_curve"]["q25"][0], jump["nmse_curve"]["q75"][0]
    assert 0 < low < 0.1 and high > 0.3


def test_rows_named_after_runs_are_grouped_with_them() -> None:
    whole = report()
    for name in ("jump s0", "jump s1"):
        whole["rows"][f"{name}, reconstruction"] = row("reconstruction", "jump", [0.1, 0.2])
    rows = summary.grouped(whole, GROUPS)["rows"]
    assert list(rows) == ["jump", "lstm_x", "copy-last-state", "jump, reconstruction"]
    assert rows["jump, reconstruction"]["runs"] == 2 and rows["jump"]["runs"] == 2


def test_pages_stand_alone_and_every_format_is_there(tmp_path: Path) -> None:
    merged = summary.grouped(report(), GROUPS)
    files = write_pages(merged, tmp_path, "a <title>", ["cell b failed: no & such"])
    assert {path.suffix for path in files} == {
        ".html",
        ".md",
        ".csv",
        ".tex",
        ".json",
        ".png",
        ".pdf",
    }
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a &lt;title&gt;" in page and "no &amp; such" in page
    assert "<script" not in page and not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 2 and "prefers-color-scheme: dark" in page
    assert "0.2" in page or "2.0e-1 ± " in page
    assert "<td>7.0e-1<small>(0.0e0, 9.0e0)</small></td>" in page, "quartiles under their median"
    lines = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    (found,) = (x for x in lines if x["row"] == "jump" and x["measure"] == "nmse.2")
    assert float(found["value"]) == pytest.approx(0.5) and found["runs"] == "2"
    assert {x["kind"] for x in lines} == {"model", "baseline"}
    assert comma_separated(report()).count("\n") > 20


def test_latex_is_escaped() -> None:
    text = latex(
        Table("t", ["model", "R² of H"], [["port_hamiltonian", "1.2e-5 ± 3.0e-6"], ["x", "100 %"]])
    )
    assert r"port\_hamiltonian & $1.2\times10^{-5}$ $\pm$ $3.0\times10^{-6}$ \\" in text
    assert (
        latex(Table("t", ["n"], [["1.6e0 ± 2.0e10"]])).count(r"1.6 $\pm$ $2.0\times10^{10}$") == 1
    )
    assert r"R$^2$ of H" in text and r"100 \%" in text and text.count(r"\midrule") == 1
