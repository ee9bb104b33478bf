"""What published experiments share: trainings that go on where they were ended, and a page of what has run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import experiments
import hwm
import hwm_protocol
import published_tables
import pytest
import torch

from worldmodels.commands import report
from worldmodels.configs.training import TrainConfig, default_config
from worldmodels.data import CollectConfig, collect
from worldmodels.evaluation.experiments import EXPERIMENT, read_experiment
from worldmodels.storage.files import StorageError
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


def test_an_experiment_makes_a_page_of_what_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"env": "acrobot", "model": "jump", "seed": 0, "drift": 0.5, "diverged": 0}
    row |= {f"{band}_{h}": 1e-3 * h for band in ("seen", "unseen") for h in hwm_protocol.HORIZONS}
    row |= {"parameters": 123, "updates": 10, "cpu_seconds": 1.0}
    page = experiments.Page(hwm.__doc__ or "", "scores", published_tables.hwm, hwm.curves)
    experiments.write_page(tmp_path / "hwm", page, [row], hwm.verdicts([row]))
    monkeypatch.setattr(sys, "argv", ["physgym report", str(tmp_path / "hwm")])
    report.main()
    folder = tmp_path / "hwm/report"
    assert str(folder / "report.html") in capsys.readouterr().out
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "acrobot" in html and "2.42 (best mean)" in html and "unseen against jump" in html
    assert html.count("<img") == 2 and "- intervals:" in html and "<script" not in html
    assert {path.suffix for path in folder.iterdir()} == {".html", ".md", ".tex", ".json", ".png", ".pdf"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "is not valid JSON"), ('{"title": "x"}', "is no experiment")],
)
def test_a_page_of_no_experiment_is_one_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / EXPERIMENT).write_text(text)
    with pytest.raises(StorageError, match=told):
        report.show_experiment(tmp_path / EXPERIMENT, tmp_path / "report")
    assert not (tmp_path / "report").exists() or not list((tmp_path / "report").iterdir())


def test_lines_of_unlike_lengths_are_refused(tmp_path: Path) -> None:
    line = {"name": "jump", "structure": "jump", "x": [1.0, 2.0], "y": [0.1]}
    curve = {"title": "t", "x": "x", "y": "y", "lines": [line]}
    document = {"title": "t", "about": [], "tables": [], "curves": [curve]}
    (tmp_path / EXPERIMENT).write_text(json.dumps(document))
    with pytest.raises(StorageError, match="jump has 2 x and 1 y"):
        read_experiment(tmp_path / EXPERIMENT)
