"""A dataset in memory: states, actions and what was measured, episode by episode.

Legend: N episodes, T steps at most, D state size, A action size, P parameters.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require
from worldmodels.data import store
from worldmodels.data.store import SPLITS, DatasetError, Shard

_SCALARS = ("seeds", "lengths", "behaviours")


class Pixels:
    """The pictures of a dataset, read when asked for: `pixels[rows]` is (n, T+1, H, W, 3) uint8.

    `pixels[row]` of one episode is (T+1, H, W, 3). Safe across processes: each opens its own files.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], rows: np.ndarray | None = None):
        self._folder = folder
        self._shards = list(shards)
        counts = [shard.episodes for shard in self._shards]
        self._starts = np.cumsum([0, *counts])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows
        self._files: dict[tuple[int, str], h5py.File] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: np.ndarray) -> Pixels:
        """The pictures of some episodes, still unread."""
        return Pixels(self._folder, self._shards, self._rows[rows])

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = self._rows[rows]
        if np.ndim(chosen) == 0:
            return self._read(int(chosen))
        return np.stack([self._read(int(row)) for row in chosen])

    def _read(self, row: int) -> np.ndarray:
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        key = (os.getpid(), self._shards[index].file)
        if key not in self._files:
            self._files[key] = h5py.File(self._folder / key[1], "r")
        return self._files[key]["pixels"][row - int(self._starts[index])]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


@dataclass(frozen=True)
class Dataset:
    """Episodes of one env. After `lengths` steps an episode's states and energy repeat the last
    value, and its actions, rewards and flags are zero."""

    states: np.ndarray
    """(N, T+1, D) float64, physical; angles unwrapped."""
    actions: np.ndarray
    """(N, T) int64, or (N, T, A) float32."""
    rewards: np.ndarray
    """(N, T) float64."""
    terminated: np.ndarray
    """(N, T) bool."""
    truncated: np.ndarray
    """(N, T) bool."""
    energy: np.ndarray
    """(N, T+1) float64, joule."""
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
    """Name in `physgym.SYSTEMS`."""
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

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the physical parameters, in the order of the system's own."""
        return tuple(self.params)

    @property
    def param_array(self) -> np.ndarray:
        """(N, P) float64, columns as `param_names`."""
        return np.stack(list(self.params.values()), axis=1)

    @property
    def mask(self) -> np.ndarray:
        """(N, T) bool: the steps that belong to an episode."""
        return np.arange(self.actions.shape[1]) < self.lengths[:, None]

    def take(self, rows: np.ndarray | Sequence[int]) -> Dataset:
        """The dataset of some rows alone, without splits."""
        chosen = np.asarray(rows, dtype=np.int64)
        names = ("states", "actions", "rewards", "terminated", "truncated", "energy", "episodes")
        arrays = {name: getattr(self, name)[chosen] for name in (*names, *_SCALARS)}
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

    `path`: its folder, or its name under `root`, as `find_dataset` takes it. `partial`: take a dataset whose
    collection has not ended, as far as it goes. Raises DatasetError: unknown, damaged, empty,
    incomplete, or holding values that are not finite.
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
    parts = [store.read_shard(folder, shard, header, verify) for shard in shards]
    arrays = {
        name: np.concatenate([part[name] for part in parts])
        for name in header["schema"]
        if name != "pixels"
    }
    episodes = np.concatenate([np.arange(s.first, s.first + s.episodes) for s in shards])
    return _assemble(folder, header, arrays, episodes, shards)


def _assemble(
    folder: Path,
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    episodes: np.ndarray,
    shards: list[Shard],
) -> Dataset:
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
        pixels=Pixels(folder, shards) if "pixels" in header["schema"] else None,
    )


def find_dataset(name: str | Path, root: str | Path = "datasets", env: str | None = None) -> Path:
    """The folder meant by a path, by `<env>/<name>`, or by `<name>`: of `env`, or of the only env that has it.

    Names are looked up under `root`. Raises DatasetError, with close matches, for what is not there, and
    for a `<name>` that several envs have.
    """
    text = str(name).strip().rstrip("/")
    if not text or "\0" in text:
        raise DatasetError(f"dataset={str(name)!r} is not valid: expected a name or a folder")
    own = [*([] if env is None else [Path(root) / env / name]), Path(root) / name]
    for sign in (store.HEADER, "shard-00000.h5", "."):  # a damaged one is found too, to be named
        for folder in (*own, Path(name)):
            if (folder / sign).exists():
                return folder
    known = sorted(str(p.parent.relative_to(root)) for p in Path(root).glob(f"*/*/{store.HEADER}"))
    same = [path for path in known if path.endswith(f"/{text}")]
    if len(same) > 1:
        raise DatasetError(f"dataset {text!r} could be {' or '.join(same)}: say which")
    if same and env is None:
        return Path(root) / same[0]
    short = {path.partition("/")[2]: path for path in known}
    close = difflib.get_close_matches(text[:100], [*known, *short], n=3, cutoff=0.5)
    meant = dict.fromkeys([*same, *(short.get(match, match) for match in close)])
    hint = f"did you mean {', '.join(meant)}? " if meant else ""
    listing = ", ".join(known) or f"none in {root}; scripts/collect.py makes one"
    raise DatasetError(f"no dataset {text!r}. {hint}Known: {listing}")
