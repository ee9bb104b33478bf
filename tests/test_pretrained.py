"""Weights of another run: of the same system only, and never with the scales of its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from worldmodels.configs.training import DataConfig, EnvConfig, TrainConfig, default_config
from worldmodels.storage.checkpoint import CheckpointError, load
from worldmodels.training import experiment
from worldmodels.training.pretrained import check_source


def tiny(system: str = "pendulum", model: str = "newtonian", **changes: Any) -> TrainConfig:
    """The shortest training there is."""
    config = default_config(system, model)
    config = replace(config, epochs=1, validation_steps=10, data=DataConfig(episodes=6))
    return replace(config, optim=replace(config.optim, steps_per_epoch=2), **changes)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the pendulum."""
    folder = tmp_path_factory.mktemp("light")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        experiment.train(tiny(out=str(folder / "run")), progress=False)
    return folder / "run"


def test_the_scales_are_those_of_the_new_data(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    config = tiny(env=EnvConfig(params={"length": 2.0}), out="own")
    experiment.train(config, progress=False)
    config = replace(config, optim=replace(config.optim, lr=1e-12), out="begun", pretrained=light)
    experiment.train(config, progress=False, announce=said.append)
    own, begun, source = (load(path) for path in ("own", "begun", light))
    for name, value in dict(begun.named_buffers()).items():
        assert torch.equal(value, own.get_buffer(name)), name
    assert not torch.equal(begun.get_buffer("reach"), source.get_buffer("reach"))
    for name, value in begun.named_parameters():
        torch.testing.assert_close(value, source.get_parameter(name), atol=1e-6, rtol=1e-4)
    text = "\n".join(said)
    assert "kept as fitted to the new data: shift, scale, time_scale" in text
    assert "env.params.length was 1.0 there, and is 2.0 here" in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (tiny("oscillator"), "it has env='pendulum', and this run has env='oscillator'"),
        (tiny(env=EnvConfig("continuous")), "it has actions='discrete', .*'continuous'"),
        (default_config("pendulum", "visual", size="tiny"), "it has medium='states'.*'pictures'"),
    ],
)
def test_another_system_or_space_is_refused_before_anything_is_made(
    light: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: TrainConfig,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        check_source(light, config)
    with pytest.raises(CheckpointError, match=words):
        experiment.train(replace(config, pretrained=str(light)), progress=False)
    assert not list(tmp_path.iterdir())
