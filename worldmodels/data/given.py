"""Episodes from elsewhere as a buffer: arrays, NumPy archives and Minari sets; and a buffer as these.

What is brought is checked once, written as a collected buffer is, and then serves every command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import physgym
from worldmodels.data import store
from worldmodels.data.beginning import new_header
from worldmodels.data.config import CollectConfig
from worldmodels.data.dataset import Dataset, load_dataset
from worldmodels.data.policies import BEHAVIOURS
from worldmodels.data.store import DatasetError
from worldmodels.storage import files as storage

ARRAYS = ("observations", "actions", "rewards", "terminated", "truncated")
"""What an episode of T steps is made of: (T+1, D), (T[, A]), and three of (T,)."""


class Episode(NamedTuple):
    """One episode of T steps, as the env gave it."""

    observations: np.ndarray
    """(T+1, D) float64."""
    actions: np.ndarray
    """(T,) integers or (T, A) numbers, as the env takes them."""
    rewards: np.ndarray
    """(T,) float64."""
    terminated: np.ndarray
    """(T,) bool."""
    truncated: np.ndarray
    """(T,) bool."""


def from_episodes(
    observations: Sequence[Any],
    actions: Sequence[Any],
    rewards: Sequence[Any],
    terminated: Sequence[Any],
    truncated: Sequence[Any],
    *,
    env: str,
    name: str,
    root: str | Path = "datasets",
    make_kwargs: Mapping[str, Any] | None = None,
    dt: float | None = None,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> Dataset:
    """Write episodes as the buffer ``<root>/<env>/<name>``, and return it as `load_dataset` does.

    Args:
        observations: one array (T+1, D) an episode, the last observation included; of a system of PhysGym,
            states. T may differ.
        actions: (T,) integers or (T, A) numbers, as the env takes them.
        rewards: (T,).
        terminated: (T,) truth values; only the last may be true.
        truncated: the same.
        env: id of the env that they are of, which a learned env takes its spaces, starts and time limit from.
        name: of the buffer; it must be free.
        root: folder of all datasets.
        make_kwargs: of ``gymnasium.make``, for an env that is not of PhysGym.
        dt: seconds a step; None: the env's own.
        seed: of the split; ``val_fraction`` and ``test_fraction`` are its shares.

    Raises:
        DatasetError: no episode, one without a step, arrays of unequal lengths or of another shape than the
            env's spaces, values that are not finite or lie outside the action space, an end before the last
            step, a name that is taken. The message names the episode.
    """
    rows = _rows((observations, actions, rewards, terminated, truncated))
    system = physgym.get_system(env, make_kwargs)
    episodes = [checked(index, row, system) for index, row in enumerate(rows)]
    config = CollectConfig(
        env=env,
        name=name,
        episodes=len(episodes),
        steps=max(len(episode.rewards) for episode in episodes),
        policy="given",
        action_mode="discrete" if episodes[0].actions.ndim == 1 else "continuous",
        make_kwargs=None if make_kwargs is None else dict(make_kwargs),
        dt=dt,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    return write(config, system, episodes, Path(root))


def _rows(columns: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The columns of ``ARRAYS`` by episode. Raises DatasetError where their numbers differ, or for none."""
    counts = {name: len(values) for name, values in zip(ARRAYS, columns, strict=True)}
    if len(set(counts.values())) != 1 or not counts["actions"]:
        raise DatasetError(
            f"there are {counts} episodes: expected as many of each, and at least one"
        )
    return list(zip(*columns, strict=True))


def checked(index: int, parts: Sequence[Any], system: Any) -> Episode:
    """One episode as arrays. Raises DatasetError naming what is wrong with episode ``index``."""
    where = f"episode {index}"
    try:
        seen, acts, rewards = (np.asarray(part) for part in parts[:3])
        flags = [np.asarray(part) for part in parts[3:]]
        seen, rewards = seen.astype(np.float64), rewards.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where} is not made of numbers: {error}") from error
    steps = len(rewards)
    if rewards.ndim != 1 or steps < 1:
        raise DatasetError(
            f"{where} has rewards of shape {rewards.shape}: expected (T,), T at least 1"
        )
    size = system.state_size
    if seen.shape != (steps + 1, size):
        raise DatasetError(
            f"{where} has observations of shape {seen.shape} for {steps} rewards: expected {(steps + 1, size)}, "
            f"one more than there are steps, as {system.env_id} gives them"
        )
    discrete = acts.dtype.kind in "iu" and acts.ndim == 1
    wanted = (steps,) if discrete else (steps, max(system.action_size, 1))
    fits = getattr(system, "discrete", discrete) == discrete
    if acts.shape != wanted or not fits or acts.dtype.kind not in "iuf":
        raise DatasetError(
            f"{where} has actions of shape {acts.shape} and type {acts.dtype} for {steps} rewards: expected one "
            f"a step, as {system.env_id} takes them"
        )
    for name, values in (("observations", seen), ("actions", acts), ("rewards", rewards)):
        if not np.isfinite(values).all():
            at = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DatasetError(
                f"{where}: {name} at step {at} are not finite; leave that episode out"
            )
    for name, flag in zip(("terminated", "truncated"), flags, strict=True):
        if flag.shape != (steps,) or flag.dtype.kind not in "bui":
            raise DatasetError(
                f"{where} has {name} of shape {flag.shape}: expected ({steps},) truth values"
            )
        if flag[:-1].any():
            at = int(np.flatnonzero(flag[:-1])[0])
            raise DatasetError(
                f"{where} is {name} at step {at}, before its last, {steps - 1}: split it there"
            )
    return Episode(seen, _inside(where, acts, system), rewards, *(f.astype(bool) for f in flags))


def _inside(where: str, acts: np.ndarray, system: Any) -> np.ndarray:
    """Actions as a buffer holds them. Raises DatasetError for one outside the env's space."""
    if "equations" in system.knows:
        low, high = (0, system.action_count - 1) if acts.ndim == 1 else (-1.0, 1.0)
        stored = acts.astype(np.int64 if acts.ndim == 1 else np.float32)
    else:
        space = system.action_space
        low, high = (
            (int(space.start), int(space.start) + system.action_count - 1)
            if system.discrete
            else (space.low - 1e-5, space.high + 1e-5)
        )
        stored = system.from_env(acts).astype(np.int64 if system.discrete else np.float32)
    outside = (acts < low) | (acts > high)
    if outside.any():
        at = int(np.argwhere(outside)[0][0])
        raise DatasetError(f"{where}: action {acts[at]} at step {at} is not in {low} to {high}")
    return stored


def write(config: CollectConfig, system: Any, episodes: Sequence[Episode], root: Path) -> Dataset:
    """Write the buffer of checked ``episodes``. Raises DatasetError where its name is taken."""
    folder = root / system.folder / config.name
    if (folder / store.HEADER).exists() or any(folder.glob("shard-*.h5")):
        raise DatasetError(f"{folder} exists: choose another name, or remove it first")
    header, size = new_header(config, system), config.episodes_per_shard
    with storage.RunLock(folder):
        entries = []
        for index, first in enumerate(range(0, len(episodes), size)):
            part = episodes[first : first + size]
            attributes = {"env": system.env_id, "dt": header["dt"], "first_episode": first}
            arrays = stacked(part, header, system)
            entries.append(asdict(store.write_shard(folder, index, first, arrays, attributes)))
        store.write_header(folder, {**header, "shards": entries})
    return load_dataset(folder)


def stacked(
    episodes: Sequence[Episode], header: Mapping[str, Any], system: Any
) -> dict[str, np.ndarray]:
    """The arrays of a shard, as `store` describes them."""
    count = len(episodes)
    lengths = np.array([len(episode.rewards) for episode in episodes], np.int64)
    arrays: dict[str, np.ndarray] = {
        name: np.zeros((count, *layout["shape"]), layout["dtype"])
        for name, layout in header["schema"].items()
    }
    for row, (episode, length) in enumerate(zip(episodes, lengths.tolist(), strict=True)):
        arrays["states"][row, : length + 1] = episode.observations
        arrays["states"][row, length + 1 :] = episode.observations[-1]
        arrays["actions"][row, :length] = episode.actions
        arrays["rewards"][row, :length] = episode.rewards
        arrays["terminated"][row, :length] = episode.terminated
        arrays["truncated"][row, :length] = episode.truncated
    arrays["lengths"], arrays["behaviours"] = (
        lengths,
        np.full(count, BEHAVIOURS.index("own"), np.int8),
    )
    if "energy" in arrays:
        params = system.check_params(header["config"]["params"])
        for name, value in params._asdict().items():
            arrays[f"params/{name}"][:] = value
        arrays["energy"] = np.asarray(system.energy(arrays["states"], params))
    return arrays


def episodes_of(dataset: Dataset) -> Iterable[Episode]:
    """The episodes of a buffer, with actions as the env takes them."""
    system = physgym.system_of(dataset)
    for row, length in enumerate(dataset.lengths.tolist()):
        acts = dataset.actions[row, :length]
        if "equations" not in system.knows:
            acts = system.to_env(acts)
        flags = (dataset.terminated[row, :length], dataset.truncated[row, :length])
        yield Episode(
            dataset.states[row, : length + 1], acts, dataset.rewards[row, :length], *flags
        )


def from_archive(path: str | Path, **arguments: Any) -> Dataset:
    """A buffer of a NumPy archive: the arrays of ``ARRAYS`` over all episodes behind one another, with
    ``lengths`` (N,) of the episodes; observations have one row more an episode than the others.

    Raises DatasetError for what is no such archive, and as `from_episodes`.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in (*ARRAYS, "lengths") if name in archive}
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no NumPy archive: {error}") from error
    if missing := [name for name in (*ARRAYS, "lengths") if name not in found]:
        raise DatasetError(
            f"{path} lacks {', '.join(missing)}: expected {', '.join(ARRAYS)} and lengths (N,)"
        )
    ends = np.cumsum(found["lengths"])
    total, count = (int(ends[-1]) if len(ends) else 0), len(ends)
    for name in ARRAYS:
        rows = total + (count if name == "observations" else 0)
        if len(found[name]) != rows:
            raise DatasetError(
                f"{path}: {name} has {len(found[name])} rows, and lengths ask for {rows}"
            )
    parts: dict[str, Any] = {name: np.split(found[name], ends[:-1]) for name in ARRAYS[1:]}
    parts["observations"] = np.split(found["observations"], (ends + np.arange(1, count + 1))[:-1])
    return from_episodes(**parts, **arguments)


def to_archive(dataset: Dataset, path: str | Path) -> Path:
    """Write a buffer as the NumPy archive that `from_archive` reads; returns its path."""
    episodes = list(episodes_of(dataset))
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(episode, name) for episode in episodes]) for name in ARRAYS
    }
    path = Path(path)
    storage.make_parent(path)

    def save(file: Any) -> None:
        np.savez_compressed(file, lengths=dataset.lengths, **columns)

    storage.atomic_write(path, save)
    return path
