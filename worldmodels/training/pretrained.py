"""Weights of another run where names and shapes fit: swap the predictor, keep the VAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from worldmodels.storage.checkpoint import (
    CheckpointError,
    check_finite,
    find_checkpoint,
    load_checkpoint,
    warn_of_another,
)


class Fitting(NamedTuple):
    """What became of the tensors of a checkpoint."""

    source: Path
    """The checkpoint folder."""
    loaded: tuple[str, ...]
    """Names of tensors that were taken over."""
    skipped: dict[str, str]
    """Names that were not, of either side, and why."""

    def lines(self) -> list[str]:
        """A table for people: parts taken over whole in one line, the rest by name."""
        lines = [f"weights from {self.source}"]
        parts: dict[str, list[str]] = {}
        for name in (*self.loaded, *self.skipped):
            parts.setdefault(name.partition(".")[0], []).append(name)
        for part, names in parts.items():
            kept = [name for name in names if name in self.loaded]
            lines.append(f"  {part}: {len(kept)} of {len(names)} tensors loaded")
            lines += [f"    skipped {n}: {self.skipped[n]}" for n in names if n in self.skipped]
        return lines


def sound_tensors(run: str | Path) -> tuple[Path, dict[str, Tensor]]:
    """The checkpoint folder that ``run`` means, and its tensors.

    Raises ``CheckpointError`` where there is none, it is damaged, or a tensor is not finite.
    """
    folder = find_checkpoint(run)
    _, tensors, _ = load_checkpoint(folder)
    check_finite(folder, tensors)
    return folder, tensors


def load_fitting(model: nn.Module, run: str | Path) -> Fitting:
    """Take the tensors of ``run``'s best checkpoint into ``model`` where name and shape agree.

    Raises ``CheckpointError`` where there is no sound checkpoint, a tensor of it is not finite, or
    nothing in it fits.
    """
    folder, tensors = sound_tensors(run)
    warn_of_another(folder, run)
    fitting = _fitting(folder, model.state_dict(), tensors)
    if not fitting.loaded:
        raise CheckpointError(
            f"nothing in {folder} fits this model: train a model of the same kind and sizes first"
        )
    model.load_state_dict({name: tensors[name] for name in fitting.loaded}, strict=False)
    return fitting


def _fitting(folder: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Fitting:
    loaded, skipped = [], {}
    for name, tensor in found.items():
        if name not in own:
            skipped[name] = "this model has no such tensor"
        elif own[name].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)} there, {tuple(own[name].shape)} here"
            skipped[name] = f"its shape is {shapes}"
        else:
            loaded.append(name)
    skipped.update({name: "not in the checkpoint" for name in own if name not in found})
    return Fitting(folder, tuple(loaded), skipped)
