"""What a step of a learned env costs: beside the true env, and beside the model's own step.

    python benchmarks/imagination.py --env pendulum --rows 1 16 256 1024

Models are as built, with weights of chance: a step costs the same whatever was learned. Contestants take turns in
blocks of one process, on one thread; ratios are medians over the blocks. "bare" is `model.step` and `model.decode`
alone, as somebody's own loop would call them; "code", of a single env, is the machine code of its step, without the
Python around it and without the episodes' beginnings.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import print_table, write_json

HERE = Path(__file__).parent
STRUCTURES = ("jump", "lstm", "first_order", "newtonian", "velocity", "port_hamiltonian")
COLUMNS = (
    "model", "members", "rows", "env_us", "code_us", "bare_us", "truth_us", "of_bare", "of_truth",
)  # fmt: skip


def built(env: str, name: str, members: int, **options: Any) -> Any:
    """A model with the defaults but for `options`, its scales from a small buffer, untrained."""
    import worldmodels
    from worldmodels.data import dataset_for
    from worldmodels.training.trainer import seeded_model

    config = worldmodels.default_config(env, name)
    config = replace(
        config,
        data=replace(config.data, episodes=20),
        model=replace(config.model, ensemble=members, **options),
    )
    return seeded_model(config, dataset_for(config)).eval()


def stepping(env: Any, rows: int) -> Callable[[], None]:
    """A function that does one step, and whatever the end of an episode asks for."""
    space = env.action_space
    space.seed(0)
    actions = [space.sample() for _ in range(64)]
    env.reset(seed=0)
    count = iter(range(10**9))

    def step() -> None:
        result = env.step(actions[next(count) % 64])
        if rows == 0 and (result[2] or result[3]):
            env.reset()

    return step


def bare(model: Any, rows: int) -> Callable[[], None]:
    """The model's own step on as many rows."""
    spec = model.spec
    states = torch.zeros(max(rows, 1), 1, spec.state_size)
    wide = (len(states),) if spec.action_kind == "discrete" else (len(states), spec.action_size)
    actions = torch.zeros(
        wide, dtype=torch.int64 if spec.action_kind == "discrete" else torch.float32
    )
    with torch.inference_mode():
        latent = model.encode(states, torch.ones(len(states), len(spec.param_names)))

    def step() -> None:
        with torch.inference_mode():
            model.decode(model.step(latent, actions))

    return step


def measured(
    contestants: dict[str, Callable[[], None]], blocks: int, least: int = 20
) -> dict[str, np.ndarray]:
    """CPU seconds of a step of each contestant, (blocks,), in turns; a block has ``least`` steps or more."""
    counts = {}
    for name, step in contestants.items():
        began = time.process_time()
        for _ in range(least):
            step()
        counts[name] = max(least, int(0.1 / max((time.process_time() - began) / least, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(blocks):
        for name, step in contestants.items():
            began = time.process_time()
            for _ in range(counts[name]):
                step()
            found[name].append((time.process_time() - began) / counts[name])
    return {name: np.array(values) for name, values in found.items()}


def row_of(arguments: argparse.Namespace, name: str, members: int, rows: int) -> dict[str, Any]:
    """One model at one number of rows; 0: a single env."""
    import worldmodels
    from worldmodels.envs.single import make_truth

    model = built(arguments.env, name, members)
    count = rows or None
    env: Any = worldmodels.make_env(model, count)
    contestants = {
        "env": stepping(env, rows),
        "bare": bare(model, rows),
        "truth": stepping(make_truth(model, count), rows),
    }
    if rows == 0 and env._quick is not None:
        contestants["code"] = env._quick.code
    seconds = measured(contestants, arguments.blocks)
    return {
        "env": arguments.env,
        "model": name,
        "members": members,
        "rows": rows or "single",
        **{f"{key}_us": 1e6 * float(np.median(values)) for key, values in seconds.items()},
        "of_bare": float(np.median(seconds["env"] / seconds["bare"])),
        "of_truth": float(np.median(seconds["env"] / seconds["truth"])),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="pendulum")
    parser.add_argument("--models", nargs="+", choices=STRUCTURES, default=list(STRUCTURES))
    parser.add_argument("--rows", nargs="+", type=int, default=[0, 1, 16, 256, 1024])
    parser.add_argument("--members", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--blocks", type=int, default=7, help="of every contestant, in turns")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "imagination.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for members in arguments.members:
        for name in arguments.models if members == 1 else ("jump", "port_hamiltonian"):
            if name in arguments.models:
                rows += [row_of(arguments, name, members, count) for count in arguments.rows]
    write_json(arguments.out, {"load": list(os.getloadavg()), "rows": rows})
    print_table(rows, COLUMNS, f"a step of a learned {arguments.env}, microseconds of CPU time")


if __name__ == "__main__":
    main()
