"""Laws of a training by several processes: it is the training that one process does with the whole batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, hear_signals
from rank_cases import CASES, all_of
from test_training import assert_equal, outcome

from worldmodels.training.ranks import Ranks
from worldmodels.training.rows import read_metrics

TRAIN = ("--env", "pendulum", "--model", "jump", "--model.hidden", "8", "--data.episodes", "20")


def torchrun(*words: str, where: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.Popen(
        [
            *command,
            "--master_port",
            "0",
            "--rdzv_backend",
            "c10d",
            "--rdzv_endpoint",
            "localhost:0",
            *words,
        ],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_signals,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left."""
    where = tmp_path_factory.mktemp("pair")
    process = torchrun(str(ROOT / "tests" / "rank_cases.py"), str(where), where=where)
    _, told = process.communicate(timeout=500)
    assert process.returncode == 0, told
    return where


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return all_of(tmp_path_factory.mktemp("alone"), Ranks())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, "unlucky"])
def test_two_processes_have_the_curve_of_one(name: str, pair: Path, alone: dict[str, Any]) -> None:
    """To rounding; SOAP's bases of directions without a gradient are themselves made of rounding."""
    found = json.loads((pair / "curves-0.json").read_text())[name]
    assert len(found) == len(alone[name]) == 3
    for (step, row), (other, expected) in zip(found, alone[name], strict=True):
        assert step == other
        assert row == pytest.approx(expected, rel=2e-3 if name == "soap" else 1e-9)
    assert found[-1][1]["train/skipped"] == (name == "unlucky")


@pytest.mark.slow
def test_the_first_process_alone_logs(pair: Path) -> None:
    assert not any(json.loads((pair / "curves-1.json").read_text()).values())


@pytest.mark.slow
def test_stopped_by_one_process_and_resumed_it_ends_bit_equal(pair: Path) -> None:
    assert_equal(outcome(pair / "resumed" / "whole"), outcome(pair / "resumed" / "parts"))


@pytest.mark.slow
def test_by_torchrun_a_run_is_trained_stopped_and_resumed(tmp_path: Path) -> None:
    words = [*TRAIN, "--optim.steps-per-epoch", "40", "--out", "run", "--save-seconds", "0"]
    process = torchrun("-m", "physgym", "train", *words, "--epochs", "100000", where=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=120)
    assert told.count("dataset datasets") == 1
    assert errors.count("saved; to go on") == errors.count("stopped\n") == 1, errors
    done = len(read_metrics(tmp_path / "run"))
    again = ("--resume", "run", "--epochs", str(done + 2))
    process = torchrun("-m", "physgym", "train", *again, where=tmp_path)
    told, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert told.count("best validation error") == 1
    epochs = [row["epoch"] for row in read_metrics(tmp_path / "run")]
    assert epochs == list(range(1, done + 3))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


def wait_for(met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


FAILING = '''
import os
import torch
import worldmodels
from worldmodels.configs.structures import JumpConfig, ModelConfig
from worldmodels.dynamics.jump import Jump
from dataclasses import dataclass

@dataclass(frozen=True)
class FragileConfig(JumpConfig):
    """Fails in one process."""

@worldmodels.register_structure("fragile", FragileConfig)
class Fragile(Jump):
    """Fails in one process."""

    def step(self, latent, action, dt):
        if self.training and os.environ.get("RANK") == os.environ["FAILS"]:
            if os.environ["HOW"] == "killed":
                os.kill(os.getpid(), 9)
            raise ValueError("no further than here")
        return super().step(latent, action, dt)
'''


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "how"), [("0", "told"), ("1", "told"), ("1", "killed")])
def test_an_error_in_one_process_ends_all_and_is_told_once(
    rank: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile.py").write_text(FAILING)
    monkeypatch.setenv("FAILS", rank)
    monkeypatch.setenv("HOW", how)
    words = ["--plugin", "fragile.py", "--env", "pendulum", "--model", "fragile", "--out", "run"]
    words += ["--data.episodes", "20"]
    process = torchrun("-m", "physgym", "train", *words, where=tmp_path)
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    reason = "no further than here" if how == "told" else "has ended and said nothing"
    assert len(lines) == 1, errors
    assert reason in lines[0]
    assert errors.count("Traceback (most recent call last)") == 1, "that of torchrun itself"
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert reason in record["error"]


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_alone_nothing_is_exchanged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldmodels.training.ranks import joined

    monkeypatch.setenv(name, "1")  # as a cluster may leave it
    with joined() as ranks:
        assert (ranks.first, ranks.count, ranks.portion(3.0)) == (True, 1, 1.0)


def test_other_commands_say_that_they_are_not_for_several_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from worldmodels.commands import _check_alone
    from worldmodels.commands.terminal import UsageError

    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "x", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match="physgym sweep runs in one process"):
        _check_alone("sweep")
    _check_alone("train")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        _check_alone("sweep")
