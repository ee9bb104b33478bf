"""Sweeps: what their cells are, and that a cell never costs another one anything."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import worldmodels
from worldmodels.configs.training import TrainConfig, to_dict
from worldmodels.data import CollectConfig, collect, load_dataset
from worldmodels.storage.files import RunLock
from worldmodels.storage.runs import RunError, RunFolder
from worldmodels.training import sweeps
from worldmodels.training.launchers import LauncherError, launch


def tiny(model: str, **options: Any) -> TrainConfig:
    config = worldmodels.default_config("pendulum", model)
    small = replace(config.optim, steps_per_epoch=3, batch_size=16)
    return replace(config, **{"epochs": 1, "optim": small, **options})


def test_a_plan_is_the_product_in_order(tmp_path: Path) -> None:
    settings = {"optim.lr": ["1e-3", "3e-3"], "model.hidden": [8]}
    cells = sweeps.plan({"jump": tiny("jump"), "lstm": tiny("lstm")}, [0, 1], settings, tmp_path)
    assert [cell.name for cell in cells][:3] == [
        "jump-lr1e-3-hidden8-s0", "jump-lr1e-3-hidden8-s1", "jump-lr3e-3-hidden8-s0"
    ]  # fmt: skip
    assert len(cells) == 8 and len({cell.config.out for cell in cells}) == 8
    assert cells[2].config.optim.lr == 3e-3 and cells[2].config.model.hidden == 8
    assert cells[-1].group == "lstm-lr3e-3-hidden8"


@pytest.mark.parametrize(
    ("settings", "seeds", "words"),
    [
        (
            {"optim.lrr": [1]},
            [0],
            r"--set optim.lrr: no such option of jump; did you mean 'optim.lr'",
        ),
        ({"optim.lr": ["fast"]}, [0], "config.optim.lr='fast' is not valid"),
        ({"optim.lr": [1e-3, 1e-3]}, [0], "stands there twice"),
        ({}, [0, 0], "seeds 0 0"),
        ({}, [], "no cell"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    settings: Any, seeds: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        sweeps.plan({"jump": tiny("jump")}, seeds, settings, tmp_path)


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    cells = sweeps.plan({"jump": tiny("jump")}, [0], {}, tmp_path / "a")
    sweeps.write_plan(tmp_path / "a", cells)
    sweeps.write_plan(tmp_path / "a", cells)
    assert sweeps.read_plan(tmp_path / "a") == cells
    assert sweeps.read_plan(tmp_path) is None
    other = sweeps.plan({"jump": tiny("jump", epochs=2)}, [0], {}, tmp_path / "a")
    with pytest.raises(RunError, match="holds another sweep"):
        sweeps.write_plan(tmp_path / "a", other)
    (tmp_path / "a" / sweeps.PLAN).write_text('{"cells": [1]}')
    with pytest.raises(RunError, match="no plan of a sweep"):
        sweeps.read_plan(tmp_path / "a")


def test_the_last_sweep_of_the_same_cells_that_is_not_done_is_found(tmp_path: Path) -> None:
    cells = sweeps.plan({"jump": tiny("jump")}, [0, 1], {}, tmp_path)
    other = sweeps.plan({"jump": tiny("jump")}, [0, 2], {}, tmp_path)
    early, late = tmp_path / "2026-01-01/10-00-00", tmp_path / "2026-01-02/09-00-00"
    assert sweeps.unfinished(cells, tmp_path) is None
    for folder in (early, late):
        sweeps.write_plan(folder, sweeps.moved(cells, folder))
    sweeps.write_plan(tmp_path / "2026-01-03/08-00-00", other)
    assert sweeps.unfinished(cells, tmp_path) == late
    with RunLock(late):
        assert sweeps.unfinished(cells, tmp_path) == early, "somebody is at work there"
    for cell in sweeps.moved(cells, late):
        assert not sweeps.is_done(cell)
        run = RunFolder.create(to_dict(cell.config), cell.config.out)
        run.update(status="done")
    assert sweeps.unfinished(cells, tmp_path) == early
    (early / sweeps.PLAN).write_text("{")
    assert sweeps.unfinished(cells, tmp_path) is None


def test_cells_are_done_once_go_on_and_fail_alone(tmp_path: Path) -> None:
    dataset = load_dataset(
        collect(
            CollectConfig(env="pendulum", name="b", episodes=12, steps=20), tmp_path, progress=False
        )
    )
    base = tiny("jump", dataset=str(dataset.path))
    first, second = sweeps.plan({"jump": base}, [0, 1], {}, tmp_path / "sweep")
    done = sweeps.run_cell(to_dict(first.config))
    assert done["status"] == "done" and done["best_nmse"] > 0
    assert sweeps.run_cell(to_dict(first.config))["status"] == "skipped"
    lost = to_dict(replace(second.config, dataset=str(tmp_path / "gone")))
    failed = sweeps.run_cell(lost)
    assert (
        failed["status"] == "failed" and "gone" in failed["error"] and "\n" not in failed["error"]
    )
    tried = sweeps.run_cell(to_dict(second.config))
    assert tried["status"] == "done", f"what failed is tried again: {tried}"
    run = RunFolder.open(first.config.out or "")
    run.update(status="interrupted")
    again = sweeps.run_cell(to_dict(first.config))
    assert again["status"] == "done", again
    assert again["best_nmse"] == pytest.approx(done["best_nmse"])


def kill_or_answer(index: int) -> dict[str, Any]:
    """What a worker of a test does: cell 1 is killed as by a machine out of memory."""
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"status": "done", "index": index}


def test_a_killed_worker_costs_its_own_cell() -> None:
    found = dict(launch("local", kill_or_answer, [(0,), (1,), (2,)], workers=2, threads=1))
    assert found[0] == {"status": "done", "index": 0} and found[2]["index"] == 2
    assert found[1] == {"status": "failed", "error": "its process ended with SIGKILL"}


@pytest.mark.parametrize("launcher", ["ray", "slurm"])
def test_a_missing_package_is_named(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "submitit"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(LauncherError, match=r'pip install "physgym\[cluster\]"'):
        list(launch(launcher, kill_or_answer, [(0,)], 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ray", "slurm"])
def test_launchers_give_the_same_weights(launcher: Any, tmp_path: Path) -> None:
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}[launcher])
    dataset = load_dataset(
        collect(
            CollectConfig(env="pendulum", name="b", episodes=12, steps=20), tmp_path, progress=False
        )
    )
    weights = {}
    for kind in ("local", launcher):
        folder = tmp_path / kind
        cells = sweeps.plan({"jump": tiny("jump", dataset=str(dataset.path))}, [0, 1], {}, folder)
        given = [(to_dict(cell.config), 1) for cell in cells]
        options: Any = (
            {"slurm": {"cluster": "local"}, "logs": folder / "slurm"} if kind == "slurm" else {}
        )
        results = dict(launch(kind, sweeps.run_cell, given, 2, 1, **options))
        assert {row["status"] for row in results.values()} == {"done"}, json.dumps(results)
        weights[kind] = [
            (Path(cell.config.out or "") / "checkpoints/best/model.safetensors").read_bytes()
            for cell in cells
        ]
    assert weights["local"] == weights[launcher]
