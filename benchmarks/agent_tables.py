"""Rows of the tables of agents and plans in learned envs."""

from __future__ import annotations

from typing import Any

from table_parts import SYSTEMS, Table, spread


def loop(result: dict[str, Any]) -> Table:
    """Returns over true steps until they reach the threshold, with a model and without."""
    head = ["seed", "first episodes", "agent", "true steps: return", "steps to the threshold"]
    table = [head]
    keys = ("first_policy", "seed", "agent")
    for kind in dict.fromkeys(tuple(row[key] for key in keys) for row in result["rows"]):
        rows = [row for row in result["rows"] if tuple(row[key] for key in keys) == kind]
        policy, seed, agent = kind
        reached = rows[0]["steps_to_threshold"]
        asked = [row for row in rows if reached is None or row["true_steps"] <= reached]
        shown = "; ".join(f"{row['true_steps']:,}: {row['return']:.0f}" for row in asked)
        first = f"`{policy}`" if agent == "with a model" else ""
        steps = "not yet" if reached is None else f"{reached:,}"
        table.append([str(seed), first, agent, shown, steps])
    return table


def planning_gap(result: dict[str, Any]) -> Table:
    """Returns of planning in a model and in the truth."""
    table = [["", "model", "planned in it", "in the truth", "chance", "score (95 %)", "verdict"]]
    for row in result["rows"]:
        known = row["score"] is not None
        score = f"{row['score']:.3f} ({row['low']:.3f}, {row['high']:.3f})" if known else "n/a"
        means = [f"{row[name]:.1f}" for name in ("return", "truth", "random")]
        name = SYSTEMS.get(row["env"], row["env"])
        model = f"`{row['model']}`" + (f", {row['rounds']} rounds" if row["rounds"] > 1 else "")
        name += ", for a cost" if row.get("cost") else ""
        table.append([name, model, *means, score, row["verdict"]])
    return table


def never_saw(result: dict[str, Any]) -> Table:
    """Agents that learned in a model alone, in the true env: mean over seeds with a 95 % t-interval."""
    table = [
        [
            "",
            "agent",
            "rounds",
            "true steps",
            "return in the truth",
            "in the model",
            "zoo",
            "its steps",
        ]
    ]
    table[0].append("seeds")
    names = ("env", "agent", "rounds")
    for kind in dict.fromkeys(tuple(row[name] for name in names) for row in result["rows"]):
        rows = [row for row in result["rows"] if tuple(row[name] for name in names) == kind]
        env, agent, rounds = kind
        steps = f"{max(row['true_steps'] for row in rows):,}"
        earned = [spread([row[name] for row in rows]) for name in ("return", "in_model")]
        zoo = [f"{rows[0]['zoo']:.1f}", f"{rows[0]['zoo_steps']:,}", str(len(rows))]
        table.append([env, agent.upper(), str(rounds), steps, *earned, *zoo])
    return table
