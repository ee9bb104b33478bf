"""True steps that a loop of model and agent needs, beside the same agent without a model.

    python benchmarks/loop.py --seeds 0 1 2

Runs `physgym loop` on the pendulum, whose reward threshold is that of its env; a loop that was killed goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from reporting import print_table, write_json

HERE = Path(__file__).parent
COLUMNS = ("seed", "agent", "true_steps", "return", "standard_error", "steps_to_threshold")


def first_above(rows: list[dict[str, Any]], threshold: float) -> int | None:
    """True steps after which the mean return first reached ``threshold``; None: not yet."""
    return next((row["true_steps"] for row in rows if row["return"] >= threshold), None)


def rows_of(arguments: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Run one loop, and say what both agents earned."""
    import physgym
    from worldmodels.loops.config import LoopConfig
    from worldmodels.loops.loop import run

    config = LoopConfig(
        env=arguments.env, model="velocity", agent="sac", rounds=6, imagined_steps=20_000,
        rollout_steps=50, ensemble=3, first_epochs=20, epochs=6,
        model_free_steps=arguments.model_free_steps, seed=seed,
    )  # fmt: skip
    record = run(config, arguments.runs / f"{arguments.env}-s{seed}", print)
    threshold = physgym.get_system(arguments.env).reward_threshold
    found = []
    for agent, rows in (("with a model", record["rows"]), ("without", record["model_free"])):
        reached = first_above(rows, threshold)
        kept = ("true_steps", "return", "standard_error")
        found += [
            {
                "seed": seed,
                "agent": agent,
                **{k: row[k] for k in kept},
                "steps_to_threshold": reached,
            }
            for row in rows
        ]
    return found


def main() -> None:
    """Run the loops, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="pendulum")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--model-free-steps", type=int, default=15_000)
    parser.add_argument("--runs", type=Path, default=Path("outputs/loops"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "loop.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for seed in arguments.seeds for row in rows_of(arguments, seed)]
    write_json(arguments.out, {"env": arguments.env, "rows": rows})
    print_table(rows, COLUMNS, f"{arguments.env}: returns over true steps")


if __name__ == "__main__":
    main()
