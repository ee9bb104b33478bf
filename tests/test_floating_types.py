"""Floating types: models do not depend on torch's default, and serve envs in any type or say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import make_pixel_spec, make_spec, small_model, visual_model
from visual_cases import KEYPOINTS, open_eyes, tiny_model

import worldmodels
from worldmodels.configs.training import MODELS, PREDICTORS, to_dict
from worldmodels.envs.single import make_env, make_truth
from worldmodels.storage.checkpoint import save_checkpoint

KINDS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(name: str) -> Any:
    """A model of states by its structure's name, or of pictures by its predictor's."""
    if name in MODELS:
        return small_model(name, make_spec("pendulum"))
    if name in KEYPOINTS:
        model = tiny_model(name, make_pixel_spec("pendulum", 32))
        frames = make_truth(model.spec, num_envs=8, obs_mode="pixels").reset(seed=0)[0]
        open_eyes(model, torch.from_numpy(frames))
        return model
    return visual_model("pendulum", name, spec=make_pixel_spec("pendulum", 32))


def save(model: Any, folder: Path) -> None:
    name = "visual" if model.spec.image_size else model.config.name
    config = {"spec": model.spec.to_dict(), "model_name": name, "model": to_dict(model.config)}
    save_checkpoint(folder, config, model.state_dict(), meta={"step": 1})


def walk(model: Any) -> list[np.ndarray]:
    env = make_env(model, num_envs=3)
    observations = [env.reset(seed=0)[0]]
    for action in (0, 1, 2):
        observation, *_, info = env.step(np.full(3, action))
        assert not info["diverged"].any()
        observations.append(observation)
    return observations


@pytest.mark.parametrize("name", [*MODELS, *PREDICTORS])
def test_models_are_float32_whatever_the_default_is(name: str, doubles: None) -> None:
    model = made(name)
    kinds = {x.dtype for x in model.state_dict().values() if x.is_floating_point()}
    assert kinds == {torch.float32}


@pytest.mark.parametrize("name", ["newtonian", "lstm", "spatial_jump"])
def test_a_checkpoint_loads_and_steps_the_same_under_any_default(name: str, tmp_path: Path) -> None:
    save(made(name), tmp_path / "saved")
    expected = walk(worldmodels.load(tmp_path / "saved"))
    torch.set_default_dtype(torch.float64)
    try:
        found = walk(worldmodels.load(tmp_path / "saved"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["newtonian", "spatial_jump"])
def test_a_checkpoint_keeps_the_type_it_was_saved_in(
    name: str, kind: torch.dtype, tmp_path: Path
) -> None:
    model = made(name).to(kind)
    save(model, tmp_path / "saved")
    loaded = worldmodels.load(tmp_path / "saved")
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)
        assert loaded.state_dict()[key].dtype == tensor.dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*MODELS, *PREDICTORS])
def test_a_model_of_any_floating_type_makes_an_env(name: str, kind: torch.dtype) -> None:
    start, *after = walk(made(name).to(kind))
    reference = walk(made(name))
    room = {torch.float64: 1e-4, torch.float32: 0.0}.get(kind, 0.1)
    if start.dtype == np.uint8:
        room = 255 * room + 1.0 * (room > 0)
        if name in KEYPOINTS and kind is torch.bfloat16:
            room = 50.0  # 8 bits of a place are a quarter of a pixel, which an edge shows
    assert np.array_equal(start, reference[0])
    for one, other in zip(after, reference[1:], strict=True):
        assert np.abs(one.astype(float) - other).max() <= room


def test_a_type_that_a_structure_cannot_step_in_is_named() -> None:
    spec = make_spec("three_body")
    model = small_model("port_hamiltonian", spec, mass="full", integrator="rk4")
    with pytest.raises(ValueError, match=r"bfloat16.*model\.float\(\)"):
        make_env(model.to(torch.bfloat16))
