"""A dataset in memory: states, actions and what was measured, episode by episode.

Legend: N episodes, T steps at most, D state size, A action size, P parameters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require
from worldmodels.data import store
from worldmodels.data.finding import find_dataset
from worldmodels.data.header import shard_bytes
from worldmodels.data.pixels import Pixels
from worldmodels.data.store import SPLITS, DatasetError
from worldmodels.storage.room import empty, taken

_SCALARS = ("seeds", "lengths", "behaviours")


@dataclass(frozen=True, repr=False)
class Dataset:
    """Episodes of one env. After `lengths` steps an episode's states and energy repeat the last
    value, and its actions, rewards and flags are zero."""

    states: np.ndarray
    """(N, T+1, D) float64, physical; angles unwrapped. Of an env that is not of PhysGym: its observations."""
    actions: np.ndarray
    """(N, T) int64 from 0, or (N, T, A) float32 in [-1, 1] between the ends of the env's own space."""
    rewards: np.ndarray
    """(N, T) float64."""
    terminated: np.ndarray
    """(N, T) bool."""
    truncated: np.ndarray
    """(N, T) bool."""
    energy: np.ndarray
    """(N, T+1) float64, joule; NaN where nobody knows it."""
    lengths: np.ndarray
    """(N,) int64: valid steps."""
    params: dict[str, np.ndarray]
    """Physical parameters by name, each (N,) float64."""
    seeds: np.ndarray
    """(N,) int64: seed of the env in each episode."""
    episodes: np.ndarray
    """(N,) int64: index of each row's episode in the whole dataset."""
    behaviours: np.ndarray
    """(N,) int8: index into metadata["behaviours"], what acted in each episode."""
    dt: float
    """Seconds a step."""
    env_name: str
    """Name in `physgym.SYSTEMS`, or the id of another env."""
    env_kwargs: dict[str, Any]
    """Arguments of `gymnasium.make` it was collected with."""
    splits: dict[str, np.ndarray]
    """"train", "val", "test": rows of each, disjoint."""
    metadata: dict[str, Any]
    """`dataset.json`."""
    path: Path
    """Folder of the dataset."""
    hash: str
    """SHA-256 that stands for every byte of the dataset."""
    pixels: Pixels | None = None
    """Pictures, read when asked for, where they were collected."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        steps = int(self.lengths.sum())
        pictures = ", with pictures" if self.pixels is not None else ""
        return (
            f"<Dataset {self.env_name}: {len(self)} episodes, {steps} steps of {self.dt:g} s"
            f"{pictures}, in {self.path}, {self.hash[:8]}>"
        )

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the physical parameters, in the order of the system's own."""
        return tuple(self.params)

    @property
    def param_array(self) -> np.ndarray:
        """(N, P) float64, columns as `param_names`."""
        if not self.params:
            return np.zeros((len(self), 0))
        return np.stack(list(self.params.values()), axis=1)

    @property
    def mask(self) -> np.ndarray:
        """(N, T) bool: the steps that belong to an episode."""
        return np.arange(self.actions.shape[1]) < self.lengths[:, None]

    @staticmethod
    def from_episodes(*arrays: Any, **arguments: Any) -> Dataset:
        """The buffer of one's own episodes, written and read: see `worldmodels.data.given.from_episodes`."""
        from worldmodels.data.given import from_episodes

        return from_episodes(*arrays, **arguments)

    def take(self, rows: np.ndarray | Sequence[int]) -> Dataset:
        """The dataset of some rows alone, without splits."""
        chosen = np.asarray(rows, dtype=np.int64)
        names = ("states", "actions", "rewards", "terminated", "truncated", "energy", "episodes")
        arrays: dict[str, Any] = {
            name: taken(getattr(self, name), chosen, self.path.parent)
            for name in (*names, *_SCALARS)
        }
        params = {name: values[chosen] for name, values in self.params.items()}
        pixels = self.pixels.take(chosen) if self.pixels is not None else None
        return replace(self, **arrays, params=params, pixels=pixels, splits={})

    def subset(self, split: str) -> Dataset:
        """The dataset of the split "train", "val" or "test" alone.

        Raises DatasetError where there is no such split or no episode in it.
        """
        if split not in self.splits:
            raise DatasetError(f"no split {split!r} in {self.path}: expected {list(self.splits)}")
        if not len(self.splits[split]):
            raise DatasetError(
                f"the split {split!r} of {self.path} is empty: its {len(self)} episodes are too "
                "few; collect at least 3 with val_fraction and test_fraction above 0"
            )
        return self.take(self.splits[split])


@known_keywords
def load_dataset(
    path: str | Path, root: str | Path = "datasets", partial: bool = False, verify: bool = True
) -> Dataset:
    """Read a dataset, verifying every shard; pixels stay on disk.

    `path`: its folder, its name `<env>/<name>` under `root`, or `<name>` alone where one env has
    it. `partial`: take a dataset whose collection has not ended, as far as it goes. Raises
    DatasetError: unknown, damaged, empty, incomplete, refused by the system, or holding values that
    cannot be.
    """
    named = isinstance(path, (str, os.PathLike))
    require("dataset", path, named, "its folder, or its name, as <env>/<name>")
    folder = find_dataset(path, root)
    header = store.read_header(folder)
    shards = store.shards_of(header)
    total = header["config"]["episodes"]
    found = sum(shard.episodes for shard in shards)
    if not found or (found < total and not partial):
        raise DatasetError(
            f"{folder} has {found} of {total} episodes: run its collect command again to go on"
            + (", or load_dataset(..., partial=True)" if found else "")
        )
    try:
        return _assemble(folder, header, *_read(folder, header, found, verify))
    except OSError as error:
        raise DatasetError(
            f"{folder} is larger than the memory that is free, and its arrays find no room in a file: "
            f"{error.strerror or error}"
        ) from error
    except MemoryError as error:
        needed = shard_bytes(header["schema"], found) / 2**30
        raise DatasetError(
            f"not enough memory to load {folder}: its arrays take {needed:.1f} GiB, twice that "
            "while it is read; collect fewer episodes"
        ) from error


def _read(
    folder: Path, header: dict[str, Any], total: int, verify: bool
) -> tuple[dict[str, np.ndarray], list[tuple[Path, Any]]]:
    """Arrays of all shards, in memory or in files, and where the pictures lie; one shard is read at a time."""
    arrays: dict[str, np.ndarray] = {}
    pictures: list[tuple[Path, Any]] = []
    row = 0
    for shard in store.shards_of(header):
        part = store.read_shard(folder, shard, header, verify)
        for name, values in part.arrays.items():
            if name not in arrays:
                arrays[name] = empty((total, *values.shape[1:]), values.dtype, folder.parent)
            arrays[name][row : row + shard.episodes] = values
        row += shard.episodes
        if part.pixels is not None:
            pictures.append((folder / shard.file, part.pixels))
    return arrays, pictures


def _assemble(
    folder: Path,
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    pictures: list[tuple[Path, Any]],
) -> Dataset:
    shards = store.shards_of(header)
    if "energy" not in arrays:
        arrays["energy"] = empty(arrays["states"].shape[:2], np.float64, folder.parent)
        arrays["energy"][...] = np.nan
    episodes = np.concatenate([np.arange(s.first, s.first + s.episodes) for s in shards])
    row_of = {int(episode): row for row, episode in enumerate(episodes)}
    splits = {
        name: np.array([row_of[e] for e in header["splits"][name] if e in row_of], dtype=np.int64)
        for name in SPLITS
    }
    params = {name: arrays.pop(f"params/{name}") for name in header["param_names"]}
    return Dataset(
        **arrays,
        params=params,
        episodes=episodes,
        splits=splits,
        dt=header["dt"],
        env_name=header["env_name"],
        env_kwargs=header["env_kwargs"],
        metadata=header,
        path=folder,
        hash=header["seal"],
        pixels=Pixels(pictures) if pictures else None,
    )
