"""What a buffer or a run is: its config, size, splits and scores, what it came from, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.storage.runs import RunFolder, run_of

Facts = dict[str, Any]


@dataclass(frozen=True)
class InspectConfig:
    """What to look at."""

    path: Annotated[str, tyro.conf.Positional]
    """A run, a checkpoint, or a buffer: its folder or its name."""
    config: bool = False
    """Show every value of its config."""


def main() -> int:
    """Say what lies there; exit status 1 where it is not whole."""
    config = cli.parse(InspectConfig, description=__doc__)
    folder = run_of(Path(config.path))
    if (folder / "run.json").is_file():
        facts, settings, sound = of_run(RunFolder.open(folder))
    else:
        facts, settings, sound = of_buffer(config.path)
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    if config.config:
        for name, value in _flat(settings):
            print(f"  {name} = {value}")
    return 0 if sound else 1


def of_run(run: RunFolder) -> tuple[Facts, Mapping[str, Any], bool]:
    """What a run is, its config, and whether its checkpoints hold what their hashes say."""
    from worldmodels.data.cache import find_recorded

    config, record = run.config, run.record
    facts: Facts = {
        "run": run.path,
        "model": f"{config.get('model_name')} of {config.get('env_name')}, seed {config.get('seed')}",
        "status": record.get("status", "unknown"),
        "begun": record.get("started", "unknown"),
        "ended": record.get("ended", "not yet"),
        "commit": f"{record.get('git_commit')}{' (changed)' if record.get('git_dirty') else ''}",
        "versions": ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items() if v),
    }
    if plugins := record.get("plugins"):
        facts["plugins"] = ", ".join(plugins)
    if error := record.get("error"):
        facts["error"] = error
    dataset = record.get("dataset") or {}
    if dataset:
        found = find_recorded(dataset, run.path)
        facts["learned from"] = f"{dataset['path']} ({dataset['sha256'][:8]})"
        facts["which lies in"] = found or "no place that was looked in: name it with --dataset"
    sound = True
    for name in ("best", "last"):
        if (run.checkpoints / name).is_dir():
            facts[f"checkpoint {name}"], whole = _checkpoint(run.checkpoints / name)
            sound &= whole
    if not any(name.startswith("checkpoint") for name in facts):
        facts["checkpoints"] = "none"
    return facts, config, sound


def _checkpoint(folder: Path) -> tuple[str, bool]:
    from worldmodels.storage.checkpoint import CheckpointError, load_checkpoint

    try:
        _, tensors, meta = load_checkpoint(folder)
    except CheckpointError as error:
        return f"damaged: {error}", False
    count = sum(tensor.numel() for tensor in tensors.values())
    scores = ", ".join(
        f"{name} {value:.3g}" for name, value in meta.items() if isinstance(value, float)
    )
    return (
        f"whole: epoch {meta.get('epoch')}, {count:,} numbers{', ' if scores else ''}{scores}",
        True,
    )


def of_buffer(text: str) -> tuple[Facts, Mapping[str, Any], bool]:
    """What a buffer is, its config, and whether its shards are what its header says."""
    from worldmodels.data import DatasetError, find_dataset, load_dataset, resolve_dataset
    from worldmodels.data.store import read_header

    try:
        folder = resolve_dataset(text)
    except DatasetError as error:
        if Path(text).exists():
            raise cli.UsageError(f"{text} is neither a run nor a buffer: {error}") from None
        raise
    header = read_header(find_dataset(folder))
    config = header["config"]
    size = sum(shard["bytes"] for shard in header["shards"]) / 1e6
    facts: Facts = {
        "buffer": folder,
        "of": f"{config['env']}, {config['episodes']} episodes of up to {header['steps']} steps",
        "size": f"{size:.1f} MB in {len(header['shards'])} shards",
        "pictures": f"{config['image_size']} px" if config["pixels"] else "none",
        "hash": header["seal"],
    }
    try:
        dataset = load_dataset(folder)
    except DatasetError as error:
        return {**facts, "shards": f"damaged: {error}"}, config, False
    splits = ", ".join(f"{name} {len(rows)}" for name, rows in dataset.splits.items())
    facts["splits"] = splits
    facts["transitions"] = f"{int(dataset.lengths.sum()):,}"
    facts["shards"] = "whole: every hash holds"
    return facts, config, True


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
