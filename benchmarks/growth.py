"""How costs grow: of true envs with rows and bodies, of learned ones with rows and width, of training with horizon.

    python benchmarks/growth.py

What the other scripts measure at one size (`env_steps.py`, `imagination.py`, `training_step.py`), at several, on one
thread: CPU time of a step, sizes of one kind in turns.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import torch
from env_steps import single, vector
from imagination import built, measured, stepping
from reporting import print_table, write_json
from training_step import batch_of, ours

HERE = Path(__file__).parent
COLUMNS = ("what", "grows_with", "size", "milliseconds", "over_smallest")
ROWS, BODIES = (64, 256, 1024, 4096, 16384), (2, 4, 6, 8)
WIDTHS, HORIZONS = (32, 64, 128, 256), (8, 16, 32, 64)

Steps = dict[int, Callable[[], object]]


def of_envs() -> Iterator[tuple[str, str, Steps]]:
    """Steps of true envs."""
    pendulum, stars = "PhysGym/Pendulum-v0", "PhysGym/NBody-v0"
    yield "true pendulum", "rows", {n: vector(pendulum, n) for n in ROWS}
    yield "true `n_body`, single", "bodies", {n: single(stars, bodies=n) for n in BODIES}
    yield "true `n_body`, 1024 rows", "bodies", {n: vector(stars, 1024, bodies=n) for n in BODIES}


def of_models(name: str) -> Iterator[tuple[str, str, Steps]]:
    """Steps of learned envs."""
    from worldmodels import make_env

    model = built("pendulum", name, 1)
    yield f"learned, `{name}`", "rows", {n: stepping(make_env(model, n), n) for n in ROWS[:-1]}
    steps = {
        n: stepping(make_env(built("pendulum", name, 1, hidden=n), 1024), 1024) for n in WIDTHS
    }
    yield f"learned, `{name}`, 1024 rows", "width", steps


def of_training(name: str) -> Iterator[tuple[str, str, Steps]]:
    """Gradient steps on rollouts, of batches of 256."""
    batches = {n: batch_of(n) for n in HORIZONS}
    steps = {n: ours(batches[n], name, "soap", rollout_steps=n) for n in HORIZONS}
    yield f"gradient, `{name}`, 128 wide", "horizon", steps
    yield (
        f"gradient, `{name}`, 32 steps",
        "width",
        {n: ours(batches[32], name, "soap", hidden=n) for n in WIDTHS},
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["jump", "port_hamiltonian"])
    parser.add_argument("--blocks", type=int, default=5, help="of every size, in turns")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "growth.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    groups = [*of_envs()]
    for name in arguments.models:
        groups += of_models(name)
    groups += of_training("port_hamiltonian")
    rows = []
    for what, dial, steps in groups:
        seconds = measured({str(n): step for n, step in steps.items()}, arguments.blocks, least=2)  # type: ignore[misc]
        costs = {size: float(np.median(seconds[str(size)])) for size in steps}
        least = costs[min(costs)]
        rows += [
            {"what": what, "grows_with": dial, "size": size, "milliseconds": 1000 * cost, "over_smallest": cost / least}
            for size, cost in costs.items()
        ]  # fmt: skip
    write_json(arguments.out, {"load": list(os.getloadavg()), "rows": rows})
    print_table(rows, COLUMNS, "a step, milliseconds of CPU time")


if __name__ == "__main__":
    main()
