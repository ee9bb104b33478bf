"""Rows of the tables of speed."""

from __future__ import annotations

from typing import Any

from table_parts import Table

SHOWN = ("single", 16, 1024)
"""Numbers of rows of a learned env that stand in the table; the file has more."""


def imagination(result: dict[str, Any]) -> Table:
    """What a step of a learned env costs, over the model's own step and over the true env."""
    heads = ["over the bare step", "over the true env", "over one member"]
    table = [["", "rows", "learned env", "machine code", *heads]]
    alone = {(row["model"], row["rows"]): row for row in result["rows"] if row["members"] == 1}
    for row in result["rows"]:
        if row["rows"] not in SHOWN:
            continue
        name = f"`{row['model']}`"
        if row["members"] > 1:
            name += f", {row['members']} members"
        costs = [f"{row['env_us']:,.0f} µs", f"{row['code_us']:.1f} µs" if "code_us" in row else ""]
        one = alone.get((row["model"], row["rows"]))
        over = f"{row['env_us'] / one['env_us']:.2f}" if one and row["members"] > 1 else ""
        ratios = [f"{row['of_bare']:.2f}", f"{row['of_truth']:.2f}", over]
        table.append([name, str(row["rows"]), *costs, *ratios])
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


def agent_pace(result: dict[str, Any]) -> Table:
    """Steps a second that an agent learns by, in the truth and in models."""
    table = [["rows", "DQN in", "steps a CPU second", "over the truth"]]
    names = {"truth": "the true env", "nothing": "an env that does nothing"}
    for row in result["rows"]:
        name = names.get(row["env"], f"`{row['env']}`")
        cells = [f"{row['steps_per_second']:,.0f}", f"{row['over_truth']:.2f}"]
        table.append([str(row["rows"]), name, *cells])
    return table


def pixels(result: dict[str, Any]) -> Table:
    """Pictures a second of our renderers and of Gymnasium's."""
    table = [["", "rows", "size", "pictures a CPU second", "over Gymnasium's"]]
    for row in result["rows"]:
        kind = [row["what"], str(row["rows"]), f"{row['size']} px"]
        table.append([*kind, f"{row['frames_per_second']:,.0f}", f"{1 / row['of_peer']:.3g}"])
    return table


def collection(result: dict[str, Any]) -> Table:
    """Steps a second of collecting, beside a plain loop."""
    table = [["", "episodes", "by", "steps a CPU second", "over the loop", "on the disk"]]
    for row in result["rows"]:
        over = "" if row["over_loop"] is None else f"{row['over_loop']:.2f}"
        kind = [row["medium"], str(row["episodes"]), row["how"]]
        pace = f"{row['steps_per_second']:,.0f}"
        table.append([*kind, pace, over, f"{row['megabytes']:.1f} MB"])
    return table


def growth(result: dict[str, Any]) -> Table:
    """Costs at several sizes, one line a thing that grows."""
    table = [["a step of", "grows with", "time at each size", "over that of the smallest"]]
    for what in dict.fromkeys((row["what"], row["grows_with"]) for row in result["rows"]):
        rows = [row for row in result["rows"] if (row["what"], row["grows_with"]) == what]
        costs = [f"{row['size']}: {_three_digits(row['milliseconds'])} ms" for row in rows]
        ratios = [f"{row['over_smallest']:.1f}" for row in rows[1:]]
        table.append([*what, ", ".join(costs), ", ".join(ratios)])
    return table


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
