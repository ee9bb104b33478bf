"""Collect a buffer of episodes from a true env into datasets/<env>/<name>/."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import cli
import tyro

from worldmodels.data.config import CollectConfig


def collect(
    config: Annotated[CollectConfig, tyro.conf.arg(name="")],
    workers: int = 1,
    root: Path = Path("datasets"),
    repair: bool = False,
) -> None:
    """Collect a buffer of episodes from a true env into datasets/<env>/<name>/.

    Killed at any moment, the same command goes on and ends with the same bytes.

    Args:
        config: what to collect.
        workers: processes; the episodes do not depend on it.
        root: folder of all datasets.
        repair: drop damaged shards (naming them) and collect them again.
    """
    from worldmodels.data.collecting import collect
    from worldmodels.data.store import read_header

    start = time.perf_counter()
    folder = collect(config, root, workers, repair=repair)
    seconds = time.perf_counter() - start
    header = read_header(folder)
    size = sum(shard["bytes"] for shard in header["shards"]) / 1e6
    shards = len(header["shards"])
    print(
        f"{folder}: {config.episodes} episodes of up to {header['steps']} steps, "
        f"{size:.1f} MB in {shards} shards, {seconds:.1f} s"
    )


if __name__ == "__main__":
    cli.main_guard(lambda: tyro.cli(collect))
