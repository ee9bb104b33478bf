"""What published experiments share: trainings that go on where they were ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import experiments
import pytest
import torch

from worldmodels.configs.training import TrainConfig, default_config
from worldmodels.data import CollectConfig, collect
from worldmodels.storage.runs import RunFolder
from worldmodels.training import fit


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few short episodes of a pendulum."""
    wanted = CollectConfig(env="pendulum", name="few", episodes=10, steps=20)
    return collect(wanted, tmp_path_factory.mktemp("datasets"), progress=False)


def tiny(buffer: Path, out: Path) -> TrainConfig:
    """A training of a second: six steps, validated after three."""
    config = default_config("pendulum", "jump")
    return replace(
        config,
        model=replace(config.model, hidden=8),
        optim=replace(config.optim, batch_size=16, steps_per_epoch=3),
        dataset=str(buffer),
        epochs=2,
        validation_steps=5,
        out=str(out),
    )


def test_what_was_interrupted_is_trained_to_its_end_before_it_is_scored(
    buffer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seconds = experiments.trained(tiny(buffer, tmp_path / "whole"))
    assert seconds is not None and seconds > 0.0
    descend = fit.Trainer.descend

    def stop(trainer: Any) -> None:
        if trainer.progress.step == 4:
            raise KeyboardInterrupt
        descend(trainer)

    config = tiny(buffer, tmp_path / "parts")
    with monkeypatch.context() as patched:
        patched.setattr(fit.Trainer, "descend", stop)
        with pytest.raises(KeyboardInterrupt):
            experiments.trained(config)
    assert (tmp_path / "parts/checkpoints/best").is_dir()  # of the first half
    model, seconds = experiments.trained(config)
    assert seconds is None
    assert RunFolder.open(tmp_path / "parts").record["status"] == "done"
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    again, _ = experiments.trained(config)
    assert again.state_dict().keys() == model.state_dict().keys()
