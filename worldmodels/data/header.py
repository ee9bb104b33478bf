"""What `dataset.json` says, as a schema: every field of its type, and all of them of one dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from worldmodels.configs.schema import record
from worldmodels.data.config import CollectConfig
from worldmodels.storage.hdf5 import Layout
from worldmodels.storage.reading import MAX_SHARD_BYTES

HEADER = "dataset.json"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Shard:
    """One file of a dataset, as `dataset.json` lists it."""

    file: str
    """Name inside the dataset's folder."""
    first: int
    """Index of its first episode."""
    episodes: int
    """Number of its episodes."""
    sha256: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file."""

    def __post_init__(self) -> None:
        if PurePath(self.file).name != self.file or "\\" in self.file or "\0" in self.file:
            raise ValueError(f"{self.file!r} lies outside the dataset")
        if self.first < 0 or self.episodes < 1:
            raise ValueError(f"first={self.first}, episodes={self.episodes} are no episodes")
        if not 0 < self.bytes <= MAX_SHARD_BYTES:
            raise ValueError(f"a shard has 1 to {MAX_SHARD_BYTES} bytes, not {self.bytes}")


@dataclass(frozen=True)
class Array:
    """Type and shape of one episode's array."""

    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class SpaceRecord:
    """A Gymnasium space: Discrete with `n`, or Box with the other fields."""

    kind: str
    n: int | None = None
    shape: list[int] | None = None
    dtype: str | None = None
    low: Any = None
    high: Any = None


@dataclass(frozen=True)
class SpacesRecord:
    """The spaces of the env that was collected from."""

    observation: SpaceRecord
    action: SpaceRecord


@dataclass(frozen=True)
class Part:
    """Episodes that were appended to a buffer."""

    first: int
    """Index of the first of them."""
    episodes: int
    policy: str
    seed: int


@dataclass(frozen=True)
class Splits:
    """Episodes of each split."""

    train: list[int]
    val: list[int]
    test: list[int]


@dataclass(frozen=True)
class Header:
    """`dataset.json`."""

    format_version: int
    env_id: str
    env_name: str
    env_kwargs: dict[str, Any]
    dt: float
    steps: int
    state_names: list[str]
    param_names: list[str]
    behaviours: list[str]
    spaces: SpacesRecord
    config: CollectConfig
    schema: dict[str, Array]
    versions: dict[str, str | None]
    splits: Splits
    shards: list[Shard]
    seal: str
    appended: list[Part] = field(default_factory=list)


def checked(values: Any) -> Header:
    """`values`, the content of a `dataset.json`, as a Header. Raises ValueError where it is none."""
    header = record(Header, values, HEADER)
    config = header.config
    told = {"state_names": header.state_names, "param_names": header.param_names}
    for key, found in {**told, "behaviours": header.behaviours}.items():
        _require(len(set(found)) == len(found) and (found or key == "param_names"), key, found)
    _require(math.isfinite(header.dt) and header.dt > 0, "dt", header.dt)
    _require(config.dt in (None, header.dt), "config.dt", config.dt)
    _require(0 < header.steps <= 1_000_000, "steps", header.steps)
    _require(config.steps in (None, header.steps), "config.steps", config.steps)
    _require(header.env_kwargs == config.env_kwargs, "env_kwargs", header.env_kwargs)
    _require(config.env in (header.env_name, header.env_id), "config.env", config.env)
    actions = _action_shape(header)
    names = header.param_names
    known = "energy" in header.schema
    expected = schema_of(config, header.steps, len(header.state_names), actions, names, known)
    _require(values["schema"] == expected, "schema", values["schema"])
    _check_splits(header)
    _check_shards(header.shards, config.episodes)
    return header


def _require(valid: object, name: str, value: Any) -> None:
    if not valid:
        text = repr(value)
        raise ValueError(f"{HEADER}: {name}={text[:80]} does not fit the rest of the file")


def _action_shape(header: Header) -> list[int] | None:
    """Shape of one action, None for a discrete one."""
    space = header.spaces.action
    if space.kind == "Discrete":
        _require(space.n and 0 < space.n < 2**31, "spaces.action.n", space.n)
        return None
    _require(space.kind == "Box" and space.shape, "spaces.action", space)
    bounds = action_bounds(space)
    _require(all(b.shape == tuple(space.shape or ()) for b in bounds), "spaces.action", space)
    _require((bounds[0] <= bounds[1]).all(), "spaces.action", space)
    return space.shape


def action_bounds(space: SpaceRecord) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest actions that a space holds. Raises ValueError where it says none."""
    if space.kind == "Discrete":
        return np.array(0), np.array((space.n or 1) - 1)
    try:
        low, high = (np.array(bound, dtype=np.float64) for bound in (space.low, space.high))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{HEADER}: spaces.action has no bounds: {error}") from error
    return low, high


def schema_of(
    config: CollectConfig,
    steps: int,
    state_size: int,
    action_shape: Sequence[int] | None,
    param_names: Iterable[str],
    energy: bool = True,
) -> dict[str, dict[str, Any]]:
    """Type and shape of every array of one episode, as `dataset.json` holds them.

    `action_shape`: None for discrete actions. `energy`: whether anybody knows it.
    """
    discrete = action_shape is None
    shapes: dict[str, tuple[str, list[int]]] = {
        "states": ("float64", [steps + 1, state_size]),
        "actions": ("int64", [steps]) if discrete else ("float32", [steps, *(action_shape or ())]),
        "rewards": ("float64", [steps]),
        "terminated": ("bool", [steps]),
        "truncated": ("bool", [steps]),
        "energy": ("float64", [steps + 1]),
        "lengths": ("int64", []),
        "seeds": ("int64", []),
        "behaviours": ("int8", []),
        **{f"params/{name}": ("float64", []) for name in param_names},
    }
    if not energy:
        del shapes["energy"]
    if config.pixels:
        shapes["pixels"] = ("uint8", [steps + 1, config.image_size, config.image_size, 3])
    return {name: {"dtype": kind, "shape": shape} for name, (kind, shape) in shapes.items()}


def layouts(schema: Mapping[str, Mapping[str, Any]], episodes: int) -> dict[str, Layout]:
    """The arrays of a shard of so many episodes."""
    return {
        name: Layout(array["dtype"], (episodes, *array["shape"])) for name, array in schema.items()
    }


def shard_bytes(schema: Mapping[str, Mapping[str, Any]], episodes: int) -> int:
    """Memory that the arrays of so many episodes take, pictures excepted."""
    return sum(
        np.dtype(layout.dtype).itemsize * math.prod(layout.shape)
        for name, layout in layouts(schema, episodes).items()
        if name != "pixels"
    )


def _check_splits(header: Header) -> None:
    episodes = [e for name in SPLITS for e in getattr(header.splits, name)]
    inside = all(0 <= episode < header.config.episodes for episode in episodes)
    _require(inside and len(set(episodes)) == len(episodes), "splits", header.splits)


def _check_shards(shards: Sequence[Shard], episodes: int) -> None:
    ordered = sorted(shards, key=lambda shard: shard.first)
    ends = [shard.first + shard.episodes for shard in ordered]
    overlap = any(end > after.first for end, after in zip(ends, ordered[1:], strict=False))
    if overlap or len({shard.file for shard in shards}) < len(shards):
        raise ValueError(f"{HEADER} lists an episode or a file twice")
    _require(not ends or ends[-1] <= episodes, "shards", ordered[-1:])
