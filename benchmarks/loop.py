"""True steps that a loop of model and agent needs, beside the same agent without a model.

    python benchmarks/loop.py --seeds 0 1 2

Runs `physgym loop` on the pendulum, round by round until the agent's mean return reaches the reward threshold of
its env, and the same agent without a model for `--model-free-steps`; what was killed goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from reporting import kept_rows, print_table, write_json

HERE = Path(__file__).parent
MOST = 4
"""Rounds at most."""
COLUMNS = (
    "env",
    "first_policy",
    "seed",
    "agent",
    "true_steps",
    "return",
    "standard_error",
    "steps_to_threshold",
)


def first_above(rows: list[dict[str, Any]], threshold: float) -> int | None:
    """True steps after which the mean return first reached ``threshold``; None: not yet."""
    return next((row["true_steps"] for row in rows if row["return"] >= threshold), None)


def rows_of(arguments: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Run one loop, and say what both agents earned."""
    import physgym
    from worldmodels.loops.config import LoopConfig
    from worldmodels.loops.loop import run

    config = LoopConfig(
        env=arguments.env, model="port_hamiltonian", agent="sac", rounds=1, first_episodes=3,
        first_policy=arguments.first_policy, episodes=1, imagined_steps=6_000, num_envs=1,
        rollout_steps=200, ensemble=1, first_epochs=30, epochs=10, seed=seed,
    )  # fmt: skip
    threshold = physgym.get_system(arguments.env).reward_threshold
    folder = arguments.runs / f"{arguments.env}-{arguments.first_policy}-s{seed}"
    record = run(config, folder, print)
    while len(record["rows"]) < MOST and first_above(record["rows"], threshold) is None:
        record = run(replace(config, rounds=len(record["rows"]) + 1), folder, print)
    alone = {"rounds": len(record["rows"]), "model_free_steps": arguments.model_free_steps}
    record = run(replace(config, **alone), folder, print)
    found = []
    for agent, rows in (("with a model", record["rows"]), ("without", record["model_free"])):
        reached = first_above(rows, threshold)
        kept = ("true_steps", "return", "standard_error")
        found += [
            {
                "env": arguments.env,
                "first_policy": arguments.first_policy,
                "seed": seed,
                "agent": agent,
                **{k: row[k] for k in kept},
                "steps_to_threshold": reached,
            }
            for row in rows
        ]
    return found


def main() -> None:
    """Run the loops that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="pendulum")
    parser.add_argument("--first-policy", default="bang", choices=["random", "bang"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--model-free-steps", type=int, default=6_000)
    parser.add_argument("--runs", type=Path, default=Path("outputs/loops"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "loop.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    for seed in arguments.seeds:
        done = {(row["env"], row["first_policy"], row["seed"]) for row in rows}
        if (arguments.env, arguments.first_policy, seed) not in done:
            rows += rows_of(arguments, seed)
            write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "returns over true steps")


if __name__ == "__main__":
    main()
