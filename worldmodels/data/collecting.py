"""Collect a dataset: shard by shard, resumable after any death, in one process or several."""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import physgym
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.policies import GIVEN, is_users
from worldmodels.configs.schema import converted, require
from worldmodels.data import foreign, store
from worldmodels.data.beginning import new_header
from worldmodels.data.config import CollectConfig
from worldmodels.data.header import shard_bytes
from worldmodels.data.policies import Policy, load_function
from worldmodels.data.progress import Progress
from worldmodels.data.rollouts import Tick, pictures, roll_out
from worldmodels.data.store import DatasetError, Shard
from worldmodels.data.workers import require_main_guard, run_jobs
from worldmodels.storage import files as storage
from worldmodels.storage.reading import MAX_SHARD_BYTES


@known_keywords
def collect(
    config: CollectConfig,
    root: str | Path = "datasets",
    workers: int = 1,
    progress: bool = True,
    repair: bool = False,
    report: Callable[[str], object] = print,
    policy: Callable[[], Policy] | None = None,
) -> Path:
    """Collect `config` into `<root>/<env>/<name>/` and return that folder.

    Goes on where a killed collection stopped, and writes nothing where all is there (which may then
    lie in a place that cannot be written); the bytes do not depend on interruptions or on `workers`
    (processes, each collecting whole shards).
    `repair`: drop damaged shards first (`report` is told which) and collect them again.
    `policy`: a function without arguments (that can be pickled, with `workers`) that makes what acts,
    for a `config.policy` that is neither a name of this package nor module:function.
    Raises DatasetError: unknown env, another config in the folder, a damaged shard, a full disk,
    too little memory; LockedError where another process collects into the folder; ValueError for
    bad arguments.
    """
    require("config", config, isinstance(config, CollectConfig), "a worldmodels.CollectConfig")
    workers = converted(int, workers, "workers")
    require("workers", workers, workers >= 1, "at least 1")
    system = _system(config)
    config = replace(config, env=system.name)
    folder = Path(root) / system.folder / config.name
    header = new_header(config, system)
    _check_size(config, header)
    if not repair and _is_complete(folder, header):
        return folder  # there is nothing to write, so the place may be one that cannot be written
    make_policy = policy_of(config, policy)
    if workers > 1:
        require_main_guard()
    with storage.RunLock(folder):
        storage.remove_orphans(folder)
        header = _continue(folder, header, repair, report)
        listed = {shard.first for shard in store.shards_of(header)}
        todo = [job for job in _jobs(config) if job[1] not in listed]
        if header.get("appended"):
            _check_whole(folder, config, header)
            todo = []
        done = config.episodes - sum(count for _, _, count in todo)
        with Progress(f"collecting {system.name}", config.episodes, progress) as bar:
            bar.reach(done)
            for shard in shards(config, folder, todo, workers, bar.part, make_policy):
                entries = [*header["shards"], asdict(shard)]
                header = {**header, "shards": sorted(entries, key=lambda entry: entry["first"])}
                store.write_header(folder, header)
                done += shard.episodes
                bar.reach(done)
    return folder


def _system(config: CollectConfig) -> Any:
    try:
        return physgym.get_system(config.env, config.make_kwargs)
    except KeyError as error:
        raise DatasetError(str(error.args[0])) from error


def policy_of(
    config: CollectConfig, given: Callable[[], Policy] | None
) -> Callable[[], Policy] | None:
    """What makes the user's policy; None where `config` names one of this package."""
    if config.policy == GIVEN:
        raise DatasetError(
            "policy='given' is of episodes that were brought: Dataset.from_episodes or physgym convert writes "
            "them, and nothing can be collected again"
        )
    if not is_users(config.policy):
        require("policy", given, given is None, f"None beside the policy {config.policy!r}")
        return None
    if given is not None:
        return given
    if config.policy.endswith(".zip"):
        raise DatasetError(
            f"policy={config.policy!r} is an agent's file: give collect(..., policy=...) what makes it, "
            "functools.partial(worldmodels.load_policy, path); physgym collect does"
        )
    load_function(config.policy)  # what cannot be found is said before the work
    return functools.partial(load_function, config.policy)


def _check_size(config: CollectConfig, header: dict[str, Any]) -> None:
    """Raise DatasetError for shards larger than a reader takes, before anything is collected."""
    episodes = min(config.episodes_per_shard, config.episodes)
    one = shard_bytes(header["schema"], 1)
    if one * episodes > MAX_SHARD_BYTES:
        raise DatasetError(
            f"a shard of {episodes} episodes of {header['steps']} steps takes "
            f"{one * episodes / 2**30:.0f} GiB, and at most {MAX_SHARD_BYTES / 2**30:.0f} are "
            f"allowed: --shard-episodes {max(1, MAX_SHARD_BYTES // one // 2)}, or fewer --steps"
        )


def _is_complete(folder: Path, fresh: dict[str, Any]) -> bool:
    """Whether `folder` holds all that is to be collected. Raises DatasetError as `_continue`."""
    if not (folder / store.HEADER).is_file():
        return False
    header = store.read_header(folder)
    if not header["shards"]:
        return False
    _same_config(folder, header["config"], fresh["config"])
    if sum(shard.episodes for shard in store.shards_of(header)) < fresh["config"]["episodes"]:
        return False
    _tell_other_versions(folder, header, fresh)
    _refuse_damage(folder, header)
    return True


def _check_whole(folder: Path, config: CollectConfig, header: dict[str, Any]) -> None:
    """Raise DatasetError where an episode of a buffer that was appended to is missing: no one policy made it."""
    found = sum(shard.episodes for shard in store.shards_of(header))
    if found < config.episodes:
        raise DatasetError(
            f"{folder} was appended to, and holds {found} of its {config.episodes} episodes: what was dropped "
            "cannot be collected by one policy again; append as many anew, or start another buffer"
        )


def _jobs(config: CollectConfig) -> Iterator[tuple[int, int, int]]:
    """(index, first episode, episodes) of every shard."""
    size = config.episodes_per_shard
    for index, first in enumerate(range(0, config.episodes, size)):
        yield index, first, min(size, config.episodes - first)


def shards(
    config: CollectConfig,
    folder: Path,
    todo: list[tuple[int, int, int]],
    workers: int,
    part: Tick,
    make_policy: Callable[[], Policy] | None,
) -> Iterator[Shard]:
    """Collect shards, and yield each as soon as its file is in place.

    `part` is told how many episodes of the shards in hand are as good as done.
    """
    jobs = [(config, folder, *job, make_policy) for job in todo]
    try:
        if workers > 1 and len(jobs) > 1:
            _check_sent(config, make_policy, workers)
            yield from run_jobs(_collect_in_worker, jobs, workers, part)
        else:
            for job in jobs:
                yield collect_shard(*job, part)
    except MemoryError as error:
        raise DatasetError(
            f"not enough memory to collect a shard of {todo[0][2]} episodes in {folder}: collect "
            f"fewer in each with --shard-episodes{', or with fewer --workers' * (workers > 1)}"
        ) from error


def _check_sent(
    config: CollectConfig, make_policy: Callable[[], Policy] | None, workers: int
) -> None:
    """Raise DatasetError for what cannot be sent to another process."""
    parts = {
        f"the env {config.env!r} (made with {config.make_kwargs})": config,
        f"the policy {config.policy!r}": make_policy,
    }
    for name, part in parts.items():
        try:
            pickle.dumps(part)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
            raise DatasetError(
                f"{name} cannot be pickled, as {workers} workers need it ({' '.join(str(error).split())}): "
                "collect with --workers 1 (workers=1), or register an env by an id, module:Id-v0, that needs "
                "nothing but plain values"
            ) from error


def _collect_in_worker(config: CollectConfig, folder: Path, *job: Any) -> Shard:
    """`collect_shard` in a process that has imported what the id and the plugins name, and nothing else."""
    try:
        _system(config)
    except (ValueError, DatasetError) as error:
        raise DatasetError(_unknown_to_workers(config, error)) from error
    return collect_shard(config, folder, *job)


def _unknown_to_workers(config: CollectConfig, error: Exception) -> str:
    return (
        f"the env {config.env!r} is registered in this process alone, and workers make it anew ({error}): "
        "collect with --workers 1 (workers=1), or give its id as module:Id-v0, whose module registers it"
    )


def _scaled(tick: Tick, start: float, size: float, share: float) -> None:
    tick(start + size * share)


def collect_shard(
    config: CollectConfig,
    folder: Path,
    index: int,
    first: int,
    count: int,
    make_policy: Callable[[], Policy] | None = None,
    tick: Tick = bool,
) -> Shard:
    """Collect and write one shard; what it holds depends on `config`, `first` and `count` alone.

    `tick` is told how many of its episodes are as good as done.
    """
    system = _system(config)
    half = 0.5 * count if config.pixels else 1.0 * count
    known = "equations" in system.knows
    play, draw = (roll_out, pictures) if known else (foreign.roll_out, foreign.pictures)
    policy = None if make_policy is None else make_policy()
    arrays = play(config, system, first, count, functools.partial(_scaled, tick, 0.0, half), policy)
    frames = None
    if config.pixels:
        frames = draw(config, system, arrays, functools.partial(_scaled, tick, half, half))
    attributes = {"env": system.env_id, "dt": config.dt or system.dt, "first_episode": first}
    return store.write_shard(folder, index, first, arrays, attributes, frames)


def _continue(
    folder: Path, fresh: dict[str, Any], repair: bool, report: Callable[[str], object]
) -> dict[str, Any]:
    """The header to go on with: the one in `folder` if it is of the same config, or `fresh`."""
    try:
        if not (folder / store.HEADER).exists() and not any(folder.glob("shard-*.h5")):
            store.write_header(folder, fresh)
            return fresh
        header = store.read_header(folder)
    except store.DamageError as error:
        if not repair:
            raise
        report(f"wrote {store.HEADER} anew, all shards are collected again: {error}")
        store.write_header(folder, fresh)
        return fresh
    if not header["shards"] and not any(folder.glob("shard-*.h5")):
        # Nothing was collected: another config takes nothing away.
        store.write_header(folder, fresh)
        return fresh
    _same_config(folder, header["config"], fresh["config"])
    _tell_other_versions(folder, header, fresh)
    if repair:
        store.repair(folder, report)
        return store.read_header(folder)
    _refuse_damage(folder, header)
    return header


def _tell_other_versions(folder: Path, header: dict[str, Any], fresh: dict[str, Any]) -> None:
    if header["versions"] != fresh["versions"]:
        warnings.warn(
            f"{folder} was begun with {header['versions']}, and goes on with {fresh['versions']}: "
            "later episodes may differ in their last digits",
            stacklevel=4,
        )


def _refuse_damage(folder: Path, header: dict[str, Any]) -> None:
    for file, problem in store.damaged_shards(folder, header).items():
        raise DatasetError(f"shard {file} is damaged: {problem}")


def _same_config(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted(set(found) | set(wanted)):
        if found.get(name) != wanted.get(name):
            raise DatasetError(
                f"{folder} was collected with {name}={found.get(name)!r}, not "
                f"{wanted.get(name)!r}: give that value, or choose another --name"
            )
