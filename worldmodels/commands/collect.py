"""Collect a buffer of episodes from a true env into datasets/<env>/<name>/.

Killed at any moment, the same command goes on and ends with the same bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.data.config import CollectConfig


@dataclass(frozen=True)
class Arguments:
    """What to collect, where, and how."""

    config: Annotated[CollectConfig, tyro.conf.arg(name="")] = field(default_factory=CollectConfig)
    """What to collect."""
    workers: int = 1
    """Processes; the episodes do not depend on it."""
    root: Path = Path("datasets")
    """Folder of all datasets."""
    repair: bool = False
    """Drop damaged shards (naming them) and collect them again."""


def main() -> None:
    """Collect what the command line names, and say where it lies."""
    arguments = cli.parse(Arguments, description=__doc__)
    config = arguments.config
    if config.image_size != CollectConfig.image_size and not config.pixels:
        raise cli.UsageError(f"--image-size {config.image_size} is of pictures: add --pixels")
    from worldmodels.data.collecting import collect
    from worldmodels.data.store import read_header

    start = time.perf_counter()
    folder = collect(config, arguments.root, arguments.workers, repair=arguments.repair)
    seconds = time.perf_counter() - start
    header = read_header(folder)
    size = sum(shard["bytes"] for shard in header["shards"]) / 1e6
    shards = len(header["shards"])
    print(
        f"{folder}: {config.episodes} episodes of up to {header['steps']} steps, "
        f"{size:.1f} MB in {shards} shards, {seconds:.1f} s"
    )
