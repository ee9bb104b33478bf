"""More episodes for a buffer that is there, by the same or another policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import physgym
from worldmodels.configs.schema import require
from worldmodels.data import store
from worldmodels.data.beginning import split_episodes
from worldmodels.data.collecting import policy_of, shards
from worldmodels.data.config import CollectConfig
from worldmodels.data.policies import Policy
from worldmodels.data.progress import Progress
from worldmodels.data.store import DatasetError
from worldmodels.storage import files as storage

FREE = (
    "name",
    "episodes",
    "policy",
    "seed",
    "shard_episodes",
    "val_fraction",
    "test_fraction",
    "steps",
)
"""What appended episodes may have of their own."""


def append(
    config: CollectConfig,
    root: str | Path = "datasets",
    workers: int = 1,
    progress: bool = True,
    policy: Callable[[], Policy] | None = None,
) -> Path:
    """Grow the buffer of ``config``'s env and name by ``config.episodes`` episodes; returns its folder.

    They are collected as `collect` does, by ``config.policy`` from ``config.seed`` on, each by a draw of its
    own, and belong to the buffer once all of them are there: a collection that is killed leaves it as it was.
    Its splits keep their episodes, and take their shares of the new ones. The buffer's hash is another one
    then: runs that learned from it before name what no longer exists.

    Raises:
        DatasetError: no such buffer, one that is not whole, or one of another env, step, action mode or kind
            of pictures; and as `collect`.
    """
    require("config", config, isinstance(config, CollectConfig), "a worldmodels.CollectConfig")
    system = physgym.get_system(config.env, config.make_kwargs)
    folder = Path(root) / system.folder / config.name
    make_policy = policy_of(config, policy)
    with storage.RunLock(folder):
        storage.remove_orphans(folder)
        header = store.read_header(folder)
        old = CollectConfig(**header["config"])
        _check_same(folder, old, config)
        first, known = old.episodes, store.shards_of(header)
        if sum(shard.episodes for shard in known) < first:
            raise DatasetError(f"{folder} is not whole: run its collect command to its end first")
        asked = replace(config, steps=header["steps"], name=old.name)
        size = asked.episodes_per_shard
        jobs = [
            (len(known) + at, first + start, min(size, config.episodes - start))
            for at, start in enumerate(range(0, config.episodes, size))
        ]
        new: list[dict[str, Any]] = []
        with Progress(f"appending to {system.name}", config.episodes, progress) as bar:
            for shard in shards(asked, folder, jobs, workers, bar.part, make_policy):
                new.append(asdict(shard))
                bar.reach(sum(entry["episodes"] for entry in new))
        store.write_header(folder, _grown(header, config, first, new))
    return folder


def _check_same(folder: Path, old: CollectConfig, new: CollectConfig) -> None:
    for name, value in old.to_dict().items():
        other = new.to_dict()[name]
        if name not in FREE and other != value:
            raise DatasetError(
                f"{folder} was collected with {name}={value!r}, and what is appended with {other!r}: give "
                f"that value; only {', '.join(FREE)} may differ"
            )


def _grown(
    header: dict[str, Any], config: CollectConfig, first: int, new: list[dict[str, Any]]
) -> dict[str, Any]:
    """`header` with the new episodes in its shards, splits and parts."""
    more = {
        name: [first + episode for episode in episodes]
        for name, episodes in split_episodes(config).items()
    }
    part = {
        "first": first,
        "episodes": config.episodes,
        "policy": config.policy,
        "seed": config.seed,
    }
    return {
        **header,
        "config": {**header["config"], "episodes": first + config.episodes},
        "splits": {name: [*header["splits"][name], *more[name]] for name in header["splits"]},
        "shards": sorted([*header["shards"], *new], key=lambda entry: entry["first"]),
        "appended": [*header.get("appended", []), part],
    }
