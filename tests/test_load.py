"""Whole models from their folder alone, and configs that ask for what they may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_cases import forge

import physgym
from worldmodels.configs.training import MODELS, NewtonianConfig, to_dict
from worldmodels.interface import Spec
from worldmodels.models.building import build
from worldmodels.storage.checkpoint import (
    CheckpointError,
    load,
    load_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A checkpoint of a real model, in a run folder."""
    spec = Spec("pendulum", dt=0.05, angles=(0,), param_names=("mass",)).to_dict()
    config = to_dict(NewtonianConfig(hidden=8, layers=1))
    model = build(spec, "newtonian", config)
    path = tmp_path / "run" / "checkpoints" / "best"
    whole = {"spec": spec, "model_name": "newtonian", "model": config}
    save_checkpoint(path, whole, model.state_dict(), None, {"step": 1})
    return path


def test_a_model_is_rebuilt_bit_for_bit_from_its_folder(model_folder: Path) -> None:
    before = torch.get_rng_state()
    model = load(model_folder.parents[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    saved = load_checkpoint(model_folder)[1]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert load(model_folder).spec == model.spec


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.parametrize("env", list(physgym.SYSTEMS))
@pytest.mark.parametrize("name", list(MODELS))
def test_every_structure_loads_and_steps_bit_for_bit(
    name: str, env: str, ensemble: int, tmp_path: Path
) -> None:
    system = physgym.SYSTEMS[env]
    spec = Spec(env, dt=system.dt, state_size=system.state_size, angles=system.angles).to_dict()
    config = to_dict(MODELS[name](hidden=4, ensemble=ensemble))
    model = build(spec, name, config).eval()
    save_checkpoint(
        tmp_path / "c",
        {"spec": spec, "model_name": name, "model": config},
        model.state_dict(),
    )
    again = load(tmp_path / "c", allow_nonfinite=True)
    context, action = torch.rand(3, 1, system.state_size), torch.tensor([0, 1, 2])
    with torch.no_grad():
        found = [m.decode(m.step(m.encode(context), action)) for m in (model, again)]
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    """Give one tensor another name."""
    tensors["other"] = tensors.pop(next(iter(tensors)))


def reshaped(tensors: dict[str, torch.Tensor]) -> None:
    """Give every tensor another shape."""
    tensors.update({name: torch.zeros(7, 7, 7) for name in tensors})


def retyped(tensors: dict[str, torch.Tensor]) -> None:
    """Give every tensor another type."""
    tensors.update({name: value.to(torch.float16) for name, value in tensors.items()})


def poisoned(tensors: dict[str, torch.Tensor]) -> None:
    """Make every tensor NaN."""
    tensors.update({name: torch.full_like(value, torch.nan) for name, value in tensors.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [(renamed, "missing.*extra"), (reshaped, "needs"), (retyped, "float16"), (poisoned, "NaN")],
)
def test_tensors_that_do_not_fit_are_named(
    model_folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    config, tensors, _ = load_checkpoint(model_folder)
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    change(floating)
    save_checkpoint(model_folder, config, floating)
    with pytest.raises(CheckpointError, match=message):
        load(model_folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name", "os:system"),
        ("model_name", "newtonion"),
        ("model_name", "../../x"),
        ("model_name", ["jump"]),
        ("model", {"_target_": "os.system"}),
        ("model", {"hidden": 10**9}),
        ("model", {"layers": 10**9}),
        ("model", {"hidden": "8"}),
        ("spec", {"env_name": "evil:Env-v0"}),
        ("spec", {"env_name": "pendulum", "state_size": 10**9}),
        ("spec", {"_target_": "os.system"}),
        ("spec", {"env_name": "pendulum", "state_size": "2"}),
        ("spec", {"env_name": "pendulum", "action_size": 10**12}),
    ],
)
def test_a_config_cannot_name_code_or_ask_for_the_moon(
    model_folder: Path, key: str, value: Any
) -> None:
    forge(model_folder, lambda document: document.update({key: value}))
    with pytest.raises(CheckpointError):
        load(model_folder)


def test_a_run_without_checkpoints_is_no_damaged_one(tmp_path: Path) -> None:
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match="ended before the first one.*--resume"):
        load(tmp_path)
