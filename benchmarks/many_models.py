"""What a step of several trainings costs that go together, over that of one alone.

    python benchmarks/many_models.py --members 5

Seeds of one structure on the pendulum, one thread; CPU time of a whole step (batch, loss, backward, clip, optimiser),
of one training and of all together, which take turns in blocks of one process. Ratios are medians over the blocks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagination import measured
from reporting import print_table, write_json

HERE = Path(__file__).parent
SIZES: dict[str, tuple[dict[str, Any], int]] = {"default": ({}, 256), "small": ({"hidden": 16}, 32)}
"""Options of the model, and the batch."""
COLUMNS = ("model", "size", "alone_ms", "together_ms", "over_one", "members")


class Unwritten:
    """Neither a run nor a logger."""

    checkpoints = Path("unwritten")


def trainers(name: str, size: str, dataset: Any, members: int) -> list[Any]:
    """Trainings of the first seeds."""
    from worldmodels.configs.training import default_config
    from worldmodels.training.tracking import Unlogged
    from worldmodels.training.trainer import Trainer

    config, (options, batch) = default_config("pendulum", name), SIZES[size]
    config = replace(config, model=replace(config.model, **options))
    config = replace(config, optim=replace(config.optim, batch_size=batch))
    return [
        Trainer(replace(config, seed=seed), dataset, Unwritten(), Unlogged())
        for seed in range(members)
    ]


def compared(name: str, size: str, dataset: Any, members: int, blocks: int) -> dict[str, Any]:
    """Costs of a step of one training, and of several together."""
    from worldmodels.training.together import Joint

    (one,), joint = trainers(name, size, dataset, 1), Joint(trainers(name, size, dataset, members))
    for _ in range(12):  # SOAP's bases have turned once
        one.descend()
        joint.descend()
    seconds = measured({"one": one.descend, "all": joint.descend}, blocks, least=20)
    cost = {key: 1000 * float(np.median(values)) for key, values in seconds.items()}
    ratio = float(np.median(seconds["all"] / seconds["one"]))
    row = {"model": name, "size": size, "members": members, "alone_ms": cost["one"]}
    return {**row, "together_ms": cost["all"], "over_one": ratio}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", default=["jump", "lstm", "first_order", "port_hamiltonian"]
    )
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=7, help="of both, in turns")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "many_models.json")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    torch.set_num_threads(1)
    from worldmodels.configs.training import default_config
    from worldmodels.data import dataset_for

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        config = default_config("pendulum")
        dataset = dataset_for(replace(config, data=replace(config.data, episodes=100)))
        rows = [
            compared(name, size, dataset, arguments.members, arguments.blocks)
            for name in arguments.models
            for size in SIZES
        ]
    write_json(out, {"load": list(os.getloadavg()), "rows": rows})
    print_table(rows, COLUMNS, "a step, milliseconds of CPU time")


if __name__ == "__main__":
    main()
