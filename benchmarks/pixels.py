"""Pictures a second: our renderers, single and of many rows, beside Gymnasium's Pendulum-v1.

    python benchmarks/pixels.py

A contestant steps the pendulum under random actions and shows every step: the single env renders for people
(480 x 480) or observes pictures, vector envs observe pictures, drawn by OpenCV row after row or by torch all rows at
once. Gymnasium's draws 500 x 500 with pygame. Contestants take turns in blocks of one process, torch on one thread;
ratios are medians over the blocks.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from imagination import measured
from reporting import print_table, write_json

import physgym  # noqa: F401  # its ids

HERE = Path(__file__).parent
ENV_ID, PEER = "PhysGym/Pendulum-v0", "Gymnasium, pygame"
SIZES, ROWS = (32, 64, 128, 256), (1, 16, 256)
COLUMNS = ("what", "rows", "size", "frames_per_second", "microseconds", "of_peer")


def single(env: Any) -> Callable[[], None]:
    """A step, and its picture where the env renders."""
    env.action_space.seed(0)
    actions = itertools.cycle([env.action_space.sample() for _ in range(64)])
    env.reset(seed=0)

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if env.render_mode is not None:
            env.render()
        if terminated or truncated:
            env.reset()

    return step


def vector(rows: int, size: int, renderer: str) -> Callable[[], None]:
    """A step of many rows that observe pictures."""
    given = {"backend": "torch", "renderer": "torch"} if renderer == "torch" else {}
    envs = gymnasium.make_vec(
        ENV_ID,
        num_envs=rows,
        vectorization_mode="vector_entry_point",
        obs_mode="pixels",
        image_size=size,
        **given,
    )
    envs.action_space.seed(0)
    actions = itertools.cycle([envs.action_space.sample() for _ in range(16)])
    envs.reset(seed=0)
    return lambda: envs.step(next(actions)) and None


def contestants() -> dict[tuple[str, int, int], Callable[[], None]]:
    """Steps by (what, rows, width of a picture)."""
    found = {
        (PEER, 1, 500): single(gymnasium.make("Pendulum-v1", render_mode="rgb_array")),
        ("render()", 1, 480): single(gymnasium.make(ENV_ID, render_mode="rgb_array")),
    }
    for size in SIZES:
        env = gymnasium.make(ENV_ID, obs_mode="pixels", image_size=size)
        found["single, OpenCV", 1, size] = single(env)
    for renderer, name in (("opencv", "vector, OpenCV"), ("torch", "vector, torch")):
        sizes = {(rows, 64) for rows in ROWS} | {(16, size) for size in SIZES}
        for rows, size in sorted(sizes):
            found[name, rows, size] = vector(rows, size, renderer)
    return found


def main() -> None:
    """Measure, and print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=7, help="of every contestant, in turns")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pixels.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[Any, np.ndarray] = measured(contestants(), arguments.blocks, least=2)  # type: ignore[arg-type, assignment]
    rows = []
    for (what, count, size), values in seconds.items():
        each = values / count
        row = {
            "what": what,
            "rows": count,
            "size": size,
            "microseconds": 1e6 * float(np.median(each)),
        }
        row["frames_per_second"] = 1e6 / row["microseconds"]
        row["of_peer"] = float(np.median(each / seconds[PEER, 1, 500]))
        rows.append(row)
    write_json(arguments.out, {"load": list(os.getloadavg()), "rows": rows})
    print_table(rows, COLUMNS, "a step with its picture, CPU time")


if __name__ == "__main__":
    main()
