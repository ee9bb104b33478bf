"""The dataset of a training run: the one it names, or one collected once for its config."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.data.collecting import collect
from worldmodels.data.config import CollectConfig
from worldmodels.data.dataset import Dataset, load_dataset
from worldmodels.data.finding import find_dataset
from worldmodels.data.store import DatasetError
from worldmodels.storage.files import LockedError

if TYPE_CHECKING:
    from worldmodels.configs.training import TrainConfig

LONGEST_WAIT = 3600.0
"""Seconds for which a run waits while another process collects the dataset both need."""


def dataset_for(
    config: TrainConfig, root: str | Path = "datasets", workers: int = 1, progress: bool = True
) -> Dataset:
    """The dataset that `config` trains on.

    With `config.dataset`, that one: a folder, `<env>/<name>`, or `<name>` of the config's env.
    Without, it is collected as `config.env` and `config.data` say, once, into
    `<root>/<env>/auto-<hash of these>`. Raises DatasetError: unknown, damaged, or of another env,
    action mode or dt than the config's.
    """
    wanted = collect_config(config)
    if config.dataset is not None:
        dataset = load_dataset(find_dataset(config.dataset, root, wanted.env), root)
        _check_match(dataset, config)
        return dataset
    return load_dataset(_collect_once(wanted, root, workers, progress), root)


def collect_config(config: TrainConfig) -> CollectConfig:
    """What a run collects where it names no dataset; the name is `auto-<hash>`."""
    import physgym

    try:
        env = physgym.get_system(config.env_name).name
    except KeyError as error:
        raise DatasetError(str(error.args[0])) from error
    pixels = config.model_name == "visual"
    made = CollectConfig(env=env, pixels=pixels, **asdict(config.env), **asdict(config.data))
    return replace(made, name=f"auto-{made.content_hash()}")


def _collect_once(config: CollectConfig, root: str | Path, workers: int, progress: bool) -> Path:
    """Collect, or wait until the process that already does is done."""
    end = time.monotonic() + LONGEST_WAIT
    told = False
    while True:
        try:
            return collect(config, root, workers, progress)
        except LockedError as error:
            if time.monotonic() > end:
                raise
            if not told:
                print(f"waiting: {error}", file=sys.stderr, flush=True)
                told = True
            time.sleep(0.2)


def _check_match(dataset: Dataset, config: TrainConfig) -> None:
    import physgym

    collected = dataset.metadata["config"]
    wanted: dict[str, tuple[Any, Any]] = {
        "env": (dataset.env_name, physgym.get_system(config.env_name).name),
        "action_mode": (collected["action_mode"], config.env.action_mode),
    }
    if config.env.dt is not None:
        wanted["dt"] = (dataset.dt, config.env.dt)
    for name, (found, asked) in wanted.items():
        if found != asked:
            raise DatasetError(
                f"{dataset.path} has {name}={found!r}, but the run asks for {asked!r}: give that "
                "value, or name another dataset"
            )
