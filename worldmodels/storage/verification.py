"""What a checkpoint must be to be trusted: its document, and tensors that fit a model and are finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.configs.schema import record
from worldmodels.storage.files import StorageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
CONFIG, WEIGHTS, STATE = "config.json", "model.safetensors", "train_state.pt"
CONFIG_KEYS = ("spec", "model_name", "model")
OWN_KEYS = ("format_version", *CONFIG_KEYS, "sha256", "versions", "seal")


class CheckpointError(StorageError):
    """A checkpoint cannot be written, read or trusted; the message names the file and the fix."""


class OutdatedError(CheckpointError):
    """The checkpoint is sound, but of a format this version cannot read: no falling back."""


@dataclass(frozen=True)
class Fingerprint:
    """A file of a checkpoint, as `config.json` records it."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Document:
    """`config.json`; `meta` stands beside these fields."""

    format_version: int
    spec: dict[str, Any]
    model_name: str
    model: dict[str, Any]
    sha256: dict[str, Fingerprint]
    versions: dict[str, str | None]
    seal: str


def check_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Raise OutdatedError for a newer format, CheckpointError for a document of another shape."""
    version = document.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise OutdatedError(
            f"{folder} has format_version {version}, this package reads up to {FORMAT_VERSION}: "
            "upgrade it"
        )
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(f"{folder} has format_version {version!r}, not {FORMAT_VERSION}")
    try:
        record(Document, document, str(folder / CONFIG), others=True)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def check_tensors(
    folder: Path,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> None:
    """Raise CheckpointError unless `found` has the names, shapes and types of `expected`."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit its config: missing {missing[:5]}, extra {extra[:5]}"
        )
    for name, tensor in found.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"but the model needs {wanted.dtype} {tuple(wanted.shape)}"
            )


def check_finite(folder: Path, found: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError naming the first weight or buffer of a checkpoint that is not finite."""
    if name := not_finite(found):
        raise CheckpointError(
            f"{folder / WEIGHTS}: {name} holds NaN or infinite values (did the training diverge?): "
            "take another checkpoint or a new run with a lower --optim.lr; load(..., "
            "allow_nonfinite=True) takes them to look at"
        )


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a value that is not finite, or None.

    How far the data reached (`reach`) is infinite in a model that saw none, and never NaN.
    """
    for name, tensor in tensors.items():
        unbounded = name.rpartition(".")[2] == "reach"
        if not bool((~tensor.isnan() if unbounded else tensor.isfinite()).all()):
            return name
    return None
