"""What `run.json` may say: a schema of its fields, like those of the configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from worldmodels.configs.schema import merge, require


@dataclass(frozen=True)
class Origin:
    """Which dataset a run learned from: the hash says which, the paths are where it was seen."""

    path: str = ""
    """Its folder, absolute."""
    sha256: str = ""
    """What stands for its every byte."""
    from_run: str | None = None
    """Its folder, seen from the run's: both may have moved together."""


@dataclass(frozen=True)
class Record:
    """The fields of `run.json`; a file may lack any of them, and hold others beside."""

    status: Literal["created", "running", "done", "interrupted", "failed"] = "created"
    """How far the run is, or how it ended."""
    error: str | None = None
    """Why it failed."""
    argv: tuple[str, ...] = ()
    """The command line that began it."""
    resumed: tuple[tuple[str, ...], ...] = ()
    """The command lines that went on with it."""
    started: str = ""
    """When, in ISO 8601."""
    ended: str = ""
    """When, in ISO 8601."""
    wandb_id: str | None = None
    """The run's name at Weights & Biases."""
    dataset: Origin = field(default_factory=Origin)
    """What it learned from."""
    git_commit: str | None = None
    """Of this package's checkout, where there is one."""
    git_dirty: bool | None = None
    """Whether that had been changed."""
    python: str = ""
    """Version."""
    platform: str = ""
    """System and machine."""
    versions: dict[str, str | None] = field(default_factory=dict)
    """Of the packages that numbers depend on; None: not installed."""
    plugins: tuple[str, ...] = ()
    """Files and modules that had registered systems or structures of the user's own."""


def check_record(values: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first field of `values` whose type is not `Record`'s."""
    known = {each.name for each in fields(Record)}
    merge(Record(), {name: _frozen(values[name]) for name in values if name in known}, "run")
    dataset = values.get("dataset")
    if dataset is not None:
        for name in ("path", "sha256"):
            require(f"run.dataset.{name}", dataset.get(name), bool(dataset.get(name)), "text")


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that frozen dataclasses hold."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
