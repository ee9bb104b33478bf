"""Weights of another run of the same system, where names and shapes fit: swap the predictor, keep the VAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from worldmodels.configs.training import PixelConfig, TrainConfig
from worldmodels.evaluation.conditions import differences
from worldmodels.interface import Spec, WorldModel
from worldmodels.storage.checkpoint import CheckpointError, find_checkpoint, load_checkpoint
from worldmodels.storage.locating import warn_of_another
from worldmodels.storage.verification import check_finite


class Fitting(NamedTuple):
    """What became of the tensors of a checkpoint."""

    source: Path
    """The checkpoint folder."""
    loaded: tuple[str, ...]
    """Names of tensors that were taken over."""
    skipped: dict[str, str]
    """Names that were not, of either side, and why."""
    kept: tuple[str, ...] = ()
    """Names of this model's own numbers, fitted to the data it learns from: scales and offsets."""
    other: dict[str, tuple[Any, Any]] = {}
    """Physics in which the two differ, with the checkpoint's value and this model's."""

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
        if self.kept:
            found = dict.fromkeys("sight" if n.startswith("sight.") else n for n in self.kept)
            lines.append(f"  kept as fitted to the new data: {', '.join(found)}")
        lines += [f"  env.{n} was {a} there, and is {b} here" for n, (a, b) in self.other.items()]
        return lines


def _sound(run: str | Path) -> tuple[Path, Spec, dict[str, Tensor]]:
    """The checkpoint folder that ``run`` means, its spec, and its tensors, all of them finite."""
    folder = find_checkpoint(run)
    saved, tensors, _ = load_checkpoint(folder)
    check_finite(folder, tensors)
    return folder, Spec.from_dict(saved["spec"]), tensors


def check_source(run: str | Path, config: TrainConfig) -> None:
    """Raise ``CheckpointError`` where ``run`` has no sound checkpoint, or none that can serve ``config``.

    To be called before anything is collected or made.
    """
    folder, spec, _ = _sound(run)
    visual = isinstance(config.model, PixelConfig)
    wanted = {"env": config.env_name, "actions": config.env.action_mode, "medium": _medium(visual)}
    _check_same(folder, _described(spec), wanted)


def load_fitting(model: WorldModel, run: str | Path) -> Fitting:
    """Take the weights of ``run``'s best checkpoint into ``model`` where name and shape agree.

    What ``model`` was fitted to its data by (scales and offsets, all buffers) stays. Raises
    ``CheckpointError`` where there is no sound checkpoint, a tensor of it is not finite, where it is of
    another system or other spaces, or where nothing in it fits.
    """
    folder, spec, tensors = _sound(run)
    warn_of_another(folder, run)
    _check_same(folder, _described(spec), _described(model.spec))
    own = dict(model.named_buffers())
    state = model.state_dict()  # what is found in pictures, sprites included, is of these pictures
    own |= {name: tensor for name, tensor in state.items() if name.startswith("sight.")}
    fitting = _fitting(folder, model.state_dict(), tensors, own)
    if not fitting.loaded:
        raise CheckpointError(
            f"nothing in {folder} fits this model: train a model of the same kind and sizes first"
        )
    model.load_state_dict({name: tensors[name] for name in fitting.loaded}, strict=False)
    return fitting._replace(other=differences(spec, model.spec))


def _described(spec: Spec) -> dict[str, Any]:
    """The system and the spaces of a model, by the words of a message."""
    return {
        "env": spec.env_name,
        "actions": spec.action_kind,
        "medium": _medium(spec.image_size > 0),
        "action_size": spec.action_size,
        "state_size": spec.state_size,
        "image_size": spec.image_size,
    }


def _medium(visual: bool) -> str:
    return "pictures" if visual else "states"


def _check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if found[name] != value:
            raise CheckpointError(
                f"{folder} cannot be started from: it has {name}={found[name]!r}, and this run has "
                f"{name}={value!r}; name a run of the same system and spaces"
            )


def _fitting(
    folder: Path,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    fitted: Mapping[str, Tensor],
) -> Fitting:
    loaded, skipped = [], {}
    for name, tensor in found.items():
        if name in fitted:
            continue
        if name not in own:
            skipped[name] = "this model has no such tensor"
        elif own[name].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)} there, {tuple(own[name].shape)} here"
            skipped[name] = f"its shape is {shapes}"
        else:
            loaded.append(name)
    missing = own.keys() - found.keys() - fitted.keys()
    skipped.update({name: "not in the checkpoint" for name in own if name in missing})
    return Fitting(folder, tuple(loaded), skipped, tuple(fitted))
