"""A small checkpoint, and the ways to break it that several test files use."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodels.storage import files as storage
from worldmodels.storage.checkpoint import (
    resume_checkpoint,
    save_checkpoint,
)

CONFIG = {"spec": {"env_name": "pendulum"}, "model_name": "jump", "model": {"hidden": 8}}
FILES = ("config.json", "model.safetensors", "train_state.pt")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child to kill")


def tensors(seed: int, size: int = 50) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"net.weight": torch.randn(size, 20, generator=generator), "net.bias": torch.ones(3)}


def state(step: int) -> dict[str, Any]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()
    rng = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.default_rng(step).bit_generator.state,
        "python": random.Random(step).getstate(),
    }
    return {"optimizer": optimizer, "scheduler": {}, "epoch": 1, "step": step, "rng": rng}


def save(folder: Path, step: int, size: int = 50) -> None:
    save_checkpoint(folder, CONFIG, tensors(step, size), state(step), {"step": step})


def step_of(folder: Path) -> int:
    """Step of what loads, having checked that its weights are of the same step."""
    _, loaded, meta, train_state = resume_checkpoint(folder)
    size = len(loaded["net.weight"])
    assert torch.equal(loaded["net.weight"], tensors(meta["step"], size)["net.weight"])
    assert train_state["step"] == meta["step"]
    return meta["step"]


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child: its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


SYSCALLS = ("open", "fsync", "rename", "replace", "mkdir")


def fail_at(call: int, fail: Callable[[], object], patch: pytest.MonkeyPatch) -> list[str]:
    """Make the call number `call` to any of SYSCALLS fail; returns the calls as they are made."""
    made: list[str] = []

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) == call:
                fail()
            return real(*args, **kwargs)

        patch.setattr(storage.os, name, wrapped)

    for name in SYSCALLS:
        wrap(name)
    return made


def raise_no_space() -> None:
    raise OSError(28, "No space left on device")


def forge(folder: Path, change: Callable[[dict[str, Any]], object], **files: bytes) -> None:
    """Rewrite a checkpoint with every hash right, as an attacker would."""
    document = json.loads((folder / "config.json").read_bytes())
    for name, content in files.items():
        full = next(file for file in FILES if file.startswith(name))
        (folder / full).write_bytes(content)
        document["sha256"][full] = storage.fingerprint(content)
    change(document)
    (folder / "config.json").write_bytes(storage.seal(document))
    shutil.rmtree(storage.previous_of(folder), ignore_errors=True)


def unchanged(document: dict[str, Any]) -> None:
    """Leave the config as it is."""
