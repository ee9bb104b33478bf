"""Checkpoints: a folder with `config.json`, `model.safetensors` and, to go on, `train_state.pt`.

`config.json` is sealed (its last field is its own SHA-256) and holds the SHA-256 and size of the
other files, so a flipped bit, a torn write or a file of another run is always noticed; the
generation before is kept beside it as `<name>.previous`, and readers fall back to it with a
warning. Nothing that is read can name code: no pickle beyond `weights_only=True`, no import paths;
models come from the closed registry. torch is imported when a function needs it.
"""

from __future__ import annotations

import math
import os
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import physgym
from worldmodels import plugins
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require, require_name, shown
from worldmodels.configs.training import KINDS, PREDICTORS
from worldmodels.storage import files as storage
from worldmodels.storage import tensors as tensor_files
from worldmodels.storage.files import LockedError, RunLock, StorageError, atomic_write
from worldmodels.storage.locating import find_checkpoint, warn_of_another
from worldmodels.storage.reading import MAX_STATE_BYTES, MAX_WEIGHTS_BYTES, AccessError
from worldmodels.storage.verification import (
    CONFIG,
    CONFIG_KEYS,
    FORMAT_VERSION,
    OWN_KEYS,
    STATE,
    WEIGHTS,
    CheckpointError,
    OutdatedError,
    check_document,
    check_finite,
    check_tensors,
    not_finite,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from worldmodels.interface import WorldModel

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "LockedError",
    "RunLock",
    "atomic_write",
    "check_finite",
    "check_tensors",
    "find_checkpoint",
    "load",
    "load_checkpoint",
    "not_finite",
    "resume_checkpoint",
    "save_checkpoint",
]

_LIMITS = {WEIGHTS: MAX_WEIGHTS_BYTES, STATE: MAX_STATE_BYTES}


class Checkpoint(NamedTuple):
    """Everything in one checkpoint folder; `train_state` is {} unless it was asked for."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    train_state: dict[str, Any]


def save_checkpoint(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    train_state: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Publish a checkpoint as the folder `folder`, whole or not at all.

    `config`: exactly {"spec": dict, "model_name": str, "model": dict} of JSON values.
    `tensors`: the model's state dict. `train_state`: numbers, strings, tensors and containers of
    them. `meta`: JSON values beside them (step, metrics ...); a number that is not finite becomes
    null. Raises CheckpointError, and then the checkpoint that was there is untouched.
    """
    document = _document(config, meta or {})
    try:
        files = {WEIGHTS: tensor_files.tensors_to_bytes(tensors)}
        if train_state is not None:
            files[STATE] = tensor_files.state_to_bytes(train_state)
        for name, raw in files.items():
            if len(raw) > _LIMITS[name]:
                raise ValueError(f"{name} has {len(raw)} bytes; at most {_LIMITS[name]} are read")
        document["sha256"] = {name: storage.fingerprint(raw) for name, raw in files.items()}
        files[CONFIG] = storage.seal(document)
        storage.publish_folder(folder, files)
    except (OSError, MemoryError, StorageError, TypeError, ValueError) as error:
        reason = storage.explain(error)
        raise CheckpointError(
            f"cannot write the checkpoint {folder}: {reason}; the one before is untouched"
        ) from error


def load_checkpoint(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """(config, tensors, meta) of a verified checkpoint; the generation before if this one is bad.

    Raises CheckpointError when neither can be trusted.
    """
    return _load(Path(folder), with_state=False)[:3]


def resume_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """As `load_checkpoint`, with `train_state` of the same generation, to train on from."""
    return _load(Path(folder), with_state=True)


@known_keywords
def load(
    run: str | os.PathLike[str], which: str = "best", allow_nonfinite: bool = False
) -> WorldModel:
    """Rebuild the world model of a run from its folder alone, on the CPU and in eval mode.

    `run`: a run folder (its checkpoint `which`, or else the other one) or a checkpoint folder.
    Raises CheckpointError: not found, damaged, tensors that do not fit the model, weights that
    are not finite (unless `allow_nonfinite`).
    """
    require_name("which", which, ("best", "last"))
    named = isinstance(run, (str, os.PathLike)) and bool(os.fspath(run))
    require("run", run, named, "the path of a run or checkpoint folder")
    folder = find_checkpoint(run, which)
    warn_of_another(folder, run, which)
    config, tensors, meta = load_checkpoint(folder)
    if meta.get("epoch") == 0:
        warnings.warn(
            f"{folder} is of a run that stopped before its first epoch: its weights know nothing yet "
            "(physgym train --resume goes on)",
            RuntimeWarning,
            stacklevel=2,
        )
    _require_registered(folder, config)
    try:
        kind = _float_type(tensors)
        shell = _build(config, "meta").to(kind)  # allocates nothing, whatever config asks for
        check_tensors(folder, shell.state_dict(), tensors)
        if not allow_nonfinite:
            check_finite(folder, tensors)
        model = _build(config, "cpu").to(kind)
    except CheckpointError:
        raise
    except MemoryError as error:
        raise CheckpointError(f"not enough memory for the model of {folder}") from error
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no model: {error}") from error
    model.load_state_dict(tensors)
    return model.eval()


def _build(config: Mapping[str, Any], device: str) -> WorldModel:
    import torch

    from worldmodels.models.building import build

    with torch.random.fork_rng(devices=[]), torch.device(device):
        return build(config["spec"], config["model_name"], config["model"])


def _require_registered(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a system or structure that is not known here, with the run's plugins."""
    model, spec = config["model"], config["spec"]
    wanted: list[tuple[str, Any, Any]] = []
    if not spec.get("foreign"):  # a foreign env is asked for where it is needed
        wanted.append(("the system", spec.get("env_name"), physgym.SYSTEMS))
    wanted.append(("the structure", config["model_name"], KINDS))
    if config["model_name"] == "visual" and isinstance(model, dict):
        wanted.append(("the predictor", model.get("predictor", "spatial_jump"), PREDICTORS))
    for what, name, known in wanted:
        if isinstance(name, str) and name not in known:
            raise CheckpointError(
                f"{folder} is of {what} {shown(name)}, which is not registered here (there are "
                f"{', '.join(known)}){plugins.recorded(_record_of(folder))}"
            )


def _record_of(folder: Path) -> Any:
    """`run.json` of the run that a checkpoint is of; None where there is none to be read."""
    for path in (folder.parent.parent / "run.json", folder.parent / "run.json"):
        try:
            return storage.read_json(path)
        except (OSError, StorageError):
            continue
    return None


def _float_type(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """float64 where all weights are (trained under that default of torch), else float32."""
    import torch

    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return torch.float64 if kinds == {torch.float64} else torch.float32


def _document(config: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    if set(config) != set(CONFIG_KEYS):
        raise CheckpointError(
            f"config has the keys {sorted(config)}, but a checkpoint needs {list(CONFIG_KEYS)}; "
            "put anything else into meta"
        )
    if taken := sorted(set(meta) & set(OWN_KEYS)):
        raise CheckpointError(f"meta may not use the keys {taken}: the checkpoint writes them")
    import torch

    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return {
        "format_version": FORMAT_VERSION,
        **{key: config[key] for key in CONFIG_KEYS},
        **_plain(dict(meta)),
        "versions": versions,
    }


def _plain(value: Any) -> Any:
    """`value` in JSON types; floats that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value


def _load(folder: Path, with_state: bool) -> Checkpoint:
    try:
        return _read(folder, with_state)
    except OutdatedError:
        raise
    except AccessError as error:  # it may be sound, so the one before it is no stand-in
        raise CheckpointError(str(error)) from error
    except StorageError as error:
        previous = storage.previous_of(folder)
        if not previous.is_dir():
            raise CheckpointError(f"{error}; no generation before it is kept") from error
        try:
            checkpoint = _read(previous, with_state)
        except StorageError as second:
            raise CheckpointError(f"{error}; and the one before it: {second}") from error
        warnings.warn(
            f"CHECKPOINT DAMAGED: {error}. Using the one before it, {previous}, "
            f"of step {checkpoint.meta.get('step', 'unknown')}.",
            RuntimeWarning,
            stacklevel=3,
        )
        return checkpoint


def _read(folder: Path, with_state: bool) -> Checkpoint:
    document = storage.read_sealed(folder / CONFIG)
    check_document(folder, document)
    files = document["sha256"]
    if WEIGHTS not in files:
        raise CheckpointError(f"{folder / CONFIG} records no hash of {WEIGHTS}")
    tensors = tensor_files.tensors_from_bytes(*_verified(folder, WEIGHTS, files))
    state: dict[str, Any] = {}
    if with_state:
        if STATE not in files:
            raise CheckpointError(f"{folder} has no {STATE}: it can be used, not trained on")
        state = tensor_files.state_from_bytes(*_verified(folder, STATE, files))
    config = {key: document[key] for key in CONFIG_KEYS}
    meta = {key: value for key, value in document.items() if key not in OWN_KEYS}
    return Checkpoint(config, tensors, meta, state)


def _verified(folder: Path, name: str, files: Mapping[str, Any]) -> tuple[bytes, str]:
    content = storage.read_verified(folder / name, files[name], _LIMITS[name])
    return content, str(folder / name)
