"""Work under a limit of memory, in a process of its own: `python memory_cases.py WORK FOLDER EPISODES MIB`.

MIB: what the process may take for data beyond what it holds once everything is imported; 0: no limit. Prints the most
that it held beyond that, in MiB: anonymous memory, as files that are mapped go when memory is short.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from data_cases import Log

from worldmodels.configs.training import TrainConfig, default_config
from worldmodels.data import CollectConfig, collect, load_dataset
from worldmodels.training import beginning
from worldmodels.training.fit import fit

STEPS = 1000
FRAMES = 40


def held(name: str) -> int:
    """Bytes in a row of `/proc/self/status`."""
    with open("/proc/self/status") as table:
        rows = dict(line.split(":", 1) for line in table)
    return int(rows[name].split()[0]) * 1024


class Peak:
    """The most anonymous memory that was held since the beginning, looked at a hundred times a second."""

    def __init__(self) -> None:
        self.first = self.most = held("RssAnon")
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, held("RssAnon"))
            time.sleep(0.01)

    def mib(self) -> float:
        return (self.most - self.first) / 2**20


def states(episodes: int) -> CollectConfig:
    return CollectConfig(
        env="pendulum", name="large", episodes=episodes, steps=STEPS, policy="random", shard_episodes=50
    )  # fmt: skip


def pictures(episodes: int) -> CollectConfig:
    return CollectConfig(
        env="pendulum", name="seen", episodes=episodes, steps=FRAMES, policy="random", shard_episodes=25,
        pixels=True, image_size=32,
    )  # fmt: skip


def small(model: str, *rest: Any) -> TrainConfig:
    config = default_config("pendulum", model, *rest)
    optim = replace(config.optim, batch_size=32, steps_per_epoch=10)
    return replace(config, optim=optim, epochs=1, device="cpu", validation_steps=10)


def train(config: TrainConfig, folder: Path, dataset: Any) -> None:
    fit(config, dataset, SimpleNamespace(checkpoints=folder / "run" / "checkpoints"), Log())


def warm_up(folder: Path) -> None:
    """Have everything imported, and torch's and HDF5's own memory taken."""
    for config, trained in (
        (replace(states(20), name="first"), small("jump")),
        (replace(pictures(20), name="first-seen"), small("visual", "spatial_jump", "tiny")),
    ):
        path = collect(config, folder / "warm", progress=False)
        train(trained, folder / "warm" / config.name, load_dataset(path))


def main() -> None:
    work, folder, episodes, mib = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    beginning.MOST_BYTES = 2**20
    warm_up(folder)
    if mib:
        limit = held("VmData") + mib * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    peak = Peak()
    make = states if work.endswith("states") else pictures
    path = collect(make(episodes), folder, progress=False)
    if work == "train-states":
        train(small("jump"), folder, load_dataset(path))
    if work == "train-pictures":
        train(small("visual", "spatial_jump", "tiny"), folder, load_dataset(path))
    print(f"{peak.mib():.1f}")


if __name__ == "__main__":
    main()
