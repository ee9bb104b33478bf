"""What an agent that was trained in learned pictures alone earns in the true ones.

    python benchmarks/pixel_agents.py --envs oscillator pendulum

Trains `keypoint_hamiltonian` with the defaults, then PPO on three stacked pictures, once in the model and once in
the truth, on the same budget (`physgym agent --compare`); numbers that are there already are only summed up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting import print_table, train_missing, write_json

HERE = Path(__file__).parent
STEPS = {"oscillator": 80_000, "pendulum": 160_000}
COLUMNS = ("env", "steps", "in the model", "error", "in the truth", "error of it", "ratio")


def numbers_of(arguments: argparse.Namespace, env: str) -> dict[str, Any]:
    """What `physgym agent` wrote of an env, trained now where it is not there."""
    path = arguments.runs / f"agent_{env}.json"
    if not path.exists():
        from worldmodels import default_config

        out = arguments.runs / f"{env}-keypoint_hamiltonian-s0"
        config = default_config(env, "visual", "keypoint_hamiltonian")
        run = train_missing(replace(config, out=str(out)))
        words = ["agent", "--run", run, "--agent", "ppo", "--steps", STEPS[env], "--compare"]
        words += ["--no-film", "--out", path]
        subprocess.run([sys.executable, "-m", "physgym", *map(str, words)], check=True)
    return json.loads(path.read_text())


def row_of(numbers: dict[str, Any], env: str) -> dict[str, Any]:
    """Means and standard errors in the truth, of both agents."""
    earned = {row["trained in"]: row["truth"] for row in numbers["rows"]}
    model, truth = earned["model"], earned["truth"]
    return {
        "env": env,
        "agent": numbers["agent"],
        "steps": numbers["steps"],
        "seed": numbers["seed"],
        "in the model": model["mean"],
        "error": model["standard_error"],
        "in the truth": truth["mean"],
        "error of it": truth["standard_error"],
        "ratio": model["mean"] / truth["mean"],
        "episodes": len(truth["returns"]),
    }


def main() -> None:
    """Sum up what is there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--runs", type=Path, default=Path("outputs/pixel_agents"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pixel_agents.json")
    arguments = parser.parse_args()
    rows = [row_of(numbers_of(arguments, env), env) for env in arguments.envs]
    write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "PPO on pictures: returns in the truth")


if __name__ == "__main__":
    main()
