"""Saved and loaded, a model is the same to the bit."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from worldmodels.checking.failures import advise
from worldmodels.checking.subject import Subject, apart
from worldmodels.configs.training import to_dict
from worldmodels.models.building import build
from worldmodels.storage.checkpoint import load, save_checkpoint


def saving(subject: Subject) -> None:
    """Through a checkpoint, where ``worldmodels.load`` can build such a model; else its state dict alone."""
    model = subject.model
    name = getattr(getattr(model, "config", None), "name", None)
    if not _buildable(model, name):
        advise(
            subject.check, subject.kind, "no config builds this model, so worldmodels.load cannot",
            "Register a structure (worldmodels.register_structure) where you want runs and checkpoints.",
        )  # fmt: skip
        _by_state_dict(subject)
        return
    document = {"spec": model.spec.to_dict(), "model_name": name, "model": to_dict(model.config)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            save_checkpoint(Path(folder) / "best", document, model.state_dict())
            again = load(Path(folder) / "best").to(subject.given.params.device)
        except Exception as error:
            raise subject.fail(
                "state_dict", f"a checkpoint of it cannot be made or read ({error})", "one that loads",
                "Build every tensor in __init__, of the same shape for the same config.",
            ) from error  # fmt: skip
    _compare(subject, again, "loaded from its checkpoint")


def _buildable(model: Any, name: Any) -> bool:
    """Whether ``build`` makes a model of this very kind from the config."""
    try:
        with torch.device("meta"):
            return type(build(model.spec, name, model.config)) is type(model)
    except (AttributeError, KeyError, LookupError, TypeError, ValueError, StopIteration):
        return False


def _by_state_dict(subject: Subject) -> None:
    """A copy whose tensors were all set to 1 is the same model once it has the state dict."""
    saved = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    try:
        again = copy.deepcopy(subject.model)
    except Exception as error:
        raise subject.fail(
            "__deepcopy__", f"copy.deepcopy fails ({error})", "a model that can be copied",
            "Keep no open files, graphs or generators in it.",
        ) from error  # fmt: skip
    with torch.no_grad():
        for tensor in (*again.parameters(), *again.buffers()):
            tensor.fill_(1)
    again.load_state_dict(saved)
    _compare(subject, again, "with its state_dict loaded into a copy")


def _compare(subject: Subject, again: Any, how: str) -> None:
    before = subject.rollout()
    other = copy.copy(subject)
    other.model = again.eval()
    for (verb, one), (_, expected) in zip(other.rollout(), before, strict=True):
        off = apart(one, expected)
        subject.require(
            not off, verb, f"{how}, {off}", "the same bits",
            "Keep every number that training sets in a parameter or a buffer (register_buffer).",
        )  # fmt: skip
