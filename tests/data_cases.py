"""A small dataset that several test files read, copy and damage."""

from __future__ import annotations

from pathlib import Path

from worldmodels.data import CollectConfig

SMALL = CollectConfig(
    env="spaceship", name="small", episodes=10, steps=25, policy="mixed", randomize=True,
    shard_episodes=4,
)  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of every file of a dataset but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
