"""Collect a buffer of episodes from a true env into datasets/<env>/<name>/.

Killed at any moment, the same command goes on and ends with the same bytes.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.data.config import CollectConfig


@dataclass(frozen=True)
class Wanted(CollectConfig):
    """What to collect, in the words of the command line."""

    make_kwargs: Annotated[
        dict[str, bool | int | float | str] | None, tyro.conf.arg(name="env-kwargs")
    ] = None
    """Arguments of gymnasium.make for an env that is not of PhysGym, such as: continuous True."""


@dataclass(frozen=True)
class Arguments:
    """What to collect, where, and how."""

    config: Annotated[Wanted, tyro.conf.arg(name="")] = field(default_factory=Wanted)
    """What to collect."""
    append: bool = False
    """Grow the buffer of that name by so many episodes, by this policy and seed."""
    workers: int = 1
    """Processes; the episodes do not depend on it."""
    root: Path = Path("datasets")
    """Folder of all datasets."""
    repair: bool = False
    """Drop damaged shards (naming them) and collect them again."""


def main() -> None:
    """Collect what the command line names, and say where it lies."""
    arguments = cli.parse(Arguments, description=__doc__)
    values = {f.name: getattr(arguments.config, f.name) for f in fields(CollectConfig)}
    config = CollectConfig(**values)
    if config.image_size != CollectConfig.image_size and not config.pixels:
        raise cli.UsageError(f"--image-size {config.image_size} is of pictures: add --pixels")
    from worldmodels.data.appending import append
    from worldmodels.data.collecting import collect
    from worldmodels.data.store import read_header

    start = time.perf_counter()
    policy = None
    if config.policy.endswith(".zip"):
        from worldmodels.agents.saved import load_policy

        policy = functools.partial(load_policy, config.policy, config.env, config.make_kwargs)
        policy()  # a file that is none is said before the work
    if arguments.append:
        if arguments.repair:
            raise cli.UsageError(
                "--repair collects what was there again, --append more: one at a time"
            )
        folder = append(config, arguments.root, arguments.workers, policy=policy)
    else:
        folder = collect(
            config, arguments.root, arguments.workers, repair=arguments.repair, policy=policy
        )
    seconds = time.perf_counter() - start
    header = read_header(folder)
    size = sum(shard["bytes"] for shard in header["shards"]) / 1e6
    shards = len(header["shards"])
    print(
        f"{folder}: {header['config']['episodes']} episodes of up to {header['steps']} steps, "
        f"{size:.1f} MB in {shards} shards, {seconds:.1f} s"
    )
