"""Rows of the tables of speed."""

from __future__ import annotations

from typing import Any

from table_parts import Table

SHOWN = ("single", 16, 1024)
"""Numbers of rows of a learned env that stand in the table; the file has more."""


def imagination(result: dict[str, Any]) -> Table:
    """What a step of a learned env costs, over the model's own step and over the true env."""
    table = [["", "rows", "learned env", "over the bare step", "over the true env"]]
    for row in result["rows"]:
        if row["rows"] not in SHOWN:
            continue
        name = f"`{row['model']}`"
        if row["members"] > 1:
            name += f", {row['members']} members"
        cost = f"{row['env_us']:,.0f} µs"
        table.append(
            [name, str(row["rows"]), cost, f"{row['of_bare']:.2f}", f"{row['of_truth']:.1f}"]
        )
    return table


def training_step(result: dict[str, Any]) -> Table:
    """What a gradient step costs, beside plain loops and its own matrix products."""
    table = [["step", "time", "over its products", "faster than mlp", "faster than hnn"]]
    for row in result["rows"]:
        ratios = [f"{row[name]:.2f}" for name in ("faster_than_mlp", "faster_than_hnn")]
        cost = [f"{row['milliseconds']:.0f} ms", f"{row['over_floor']:.1f}"]
        table.append([row["step"], *cost, *ratios])
    return table


def many_models(result: dict[str, Any]) -> Table:
    """What a step of several trainings costs that go together, over that of one."""
    table = [["model", "size", "seeds", "one alone", "all together", "over one"]]
    for row in result["rows"]:
        costs = [f"{row[name]:.1f} ms" for name in ("alone_ms", "together_ms")]
        kind = [f"`{row['model']}`", row["size"], str(row["members"])]
        table.append([*kind, *costs, f"{row['over_one']:.2f}"])
    return table
