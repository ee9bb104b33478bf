"""Rows of the tables that stand beside published figures."""

from __future__ import annotations

from typing import Any

from hwm_protocol import PROBLEMS
from table_parts import Table

NAMES = {
    "pendulum": "pendulum",
    "cart_pole": "cart-pole",
    "acrobot": "acrobot",
    "orbit": "orbit",
}
_NOT = "not run"


def hwm(result: dict[str, Any]) -> Table:
    """Scores of each structure, seed by seed, with what was published in the last rows of a system."""
    from hwm import MODELS

    head = ["", "model", "drift", "nMSE(10), seen", "nMSE(100), seen", "nMSE(100), unseen"]
    table = [[*head, "parameters", "updates", "CPU s"]]
    for env, problem in PROBLEMS.items():
        ran = 0
        for model in MODELS:
            rows = [r for r in result["rows"] if (r["env"], r["model"]) == (env, model)]
            if rows:
                table.append([NAMES[env], f"`{model}`", *_cells(rows)])
                ran += 1
        if not ran:
            table.append([NAMES[env], _NOT, *[""] * 7])
        errors = [problem.published_error, "< 5 M", "30,000", "GPU"]
        table.append([NAMES[env], "published", problem.published_drift, "", "", *errors])
    return table


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    rows = sorted(rows, key=lambda row: row["seed"])

    def all_of(key: str) -> str:
        return ", ".join(_short(row[key]) for row in rows)

    seconds = [row["cpu_seconds"] for row in rows if row["cpu_seconds"] is not None]
    return [
        *(all_of(key) for key in ("drift", "seen_10", "seen_100", "unseen_100")),
        f"{rows[0]['parameters']:,}",
        f"{rows[0]['updates']:,}",
        _span(seconds),
    ]


def _span(seconds: list[float]) -> str:
    if not seconds:
        return "n/a"
    low, high = min(seconds), max(seconds)
    return f"{low:.0f}-{high:.0f}" if len(seconds) > 1 else f"{low:.0f}"


def _short(value: float | None) -> str:
    if value is None:
        return "infinite"
    return (
        f"{value:.2g}"
        if 0.01 <= value < 1000
        else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    )
