"""A small dataset, and a logger, that several test files use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodels.data import CollectConfig

SMALL = CollectConfig(
    env="spaceship", name="small", episodes=10, steps=25, policy="mixed", randomize=True,
    shard_episodes=4,
)  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of every file of a dataset but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


class Log:
    """A logger in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def log(self, values: Any, step: int) -> None:
        self.rows.append((step, dict(values)))

    def rewind(self, step: int) -> None:
        self.rows = [row for row in self.rows if row[0] <= step]
