"""The dataset of a training run: the one it names, or one collected once for its config."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.data.collecting import collect
from worldmodels.data.config import CollectConfig
from worldmodels.data.dataset import Dataset, load_dataset
from worldmodels.data.finding import find_dataset
from worldmodels.data.progress import say
from worldmodels.data.store import DatasetError
from worldmodels.storage.files import LockedError
from worldmodels.storage.runs import RunFolder

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
    folder = _collect_once(wanted, root, workers, progress)
    return load_dataset(folder, root)


def dataset_of(run: RunFolder, root: str | Path = "datasets") -> Dataset:
    """The dataset that a run learned from, wherever it lies now.

    Raises DatasetError: the run does not say, or nothing with that hash is found.
    """
    recorded = run.record.get("dataset")
    if not recorded:
        raise DatasetError(f"{run.path} does not say what it learned from: name a --dataset")
    places = _places(recorded, run.path.absolute(), Path(root))
    return load_dataset(
        find_dataset(recorded["path"], root, sha256=recorded["sha256"], places=places)
    )


def find_recorded(
    recorded: Mapping[str, str], run: Path, root: str | Path = "datasets"
) -> Path | None:
    """Folder of the dataset that `run.json` of the run folder `run` records; None: it is nowhere."""
    places = _places(recorded, run.absolute(), Path(root))
    try:
        return find_dataset(recorded["path"], root, sha256=recorded["sha256"], places=places)
    except DatasetError:
        return None


def _places(recorded: Mapping[str, str], run: Path, root: Path) -> list[Path]:
    """Where a dataset may lie that was recorded by a path relative to somewhere: around its run."""
    hint, from_run = Path(recorded["path"]), recorded.get("from_run")
    around = (run, *run.parents)
    return [
        *([run / from_run] if from_run else []),
        *(folder / hint for folder in around),
        *(folder / root.name for folder in around),
    ]


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
                say(f"waiting: {error}")
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
