"""Sweep files: lists of configs in JSON and Python, and the names of their cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worldmodels.commands import sweep
from worldmodels.training.sweep_files import SweepFileError, read_sweep

PYTHON = """
from dataclasses import replace

import worldmodels

base = worldmodels.default_config("pendulum", "jump")
configs = [replace(base, optim=replace(base.optim, lr=lr), seed=seed) for lr in (1e-3, 2e-3) for seed in (0, 1)]
configs.append({"env_name": "pendulum", "model_name": "lstm", "epochs": 3})
"""


def written(folder: Path, value: Any) -> Path:
    path = folder / "cells.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_configs_of_a_file_in_json(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        [
            {"env_name": "pendulum", "model_name": "jump", "epochs": 2},
            {"env_name": "PhysGym/Pendulum-v0", "model_name": "jump", "epochs": 2, "seed": 1},
            {
                "name": "wide",
                "env_name": "pendulum",
                "model_name": "jump",
                "model": {"hidden": 256},
            },
            {"env_name": "pendulum", "model_name": "visual", "model": {"size": "tiny"}},
        ],
    )
    found = read_sweep(path)
    assert [name for name, _ in found] == ["jump", "jump", "wide", "spatial_jump"]
    assert [config.seed for _, config in found] == [0, 1, 0, 0]
    assert found[0][1].epochs == 2 and found[2][1].model.hidden == 256  # type: ignore[union-attr]
    assert found[1][1].env_name == found[0][1].env_name


def test_configs_of_a_file_in_python_are_named_by_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "cells.py"
    path.write_text(PYTHON)
    names = [(name, config.seed) for name, config in read_sweep(path)]
    assert names == [
        ("jump-lr0.001", 0), ("jump-lr0.001", 1), ("jump-lr0.002", 0), ("jump-lr0.002", 1), ("lstm", 0)
    ]  # fmt: skip


JUMP = {"env_name": "pendulum", "model_name": "jump"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "holds no list of configs"),
        ({"a": 1}, "holds no list of configs"),
        ("[", "is no JSON"),
        ('[{"epochs": 1, "epochs": 2}]', "epochs stands there twice"),
        ([JUMP, 3], "config 2: 3 is no config"),
        ([JUMP, {**JUMP, "model_name": "jmp"}], "config 2: .*did you mean 'jump'"),
        ([JUMP, {**JUMP, "optim": {"lrr": 1}}], "config 2: .*lrr"),
        ([JUMP, JUMP], r"configs 1 and 2 are the same \(jump, seed 0\)"),
        ([{**JUMP, "name": "a/b"}], "name='a/b' is not valid"),
    ],
)
def test_a_file_that_cannot_be_is_refused_by_name(tmp_path: Path, value: Any, told: str) -> None:
    with pytest.raises(SweepFileError, match=told) as caught:
        read_sweep(written(tmp_path, value))
    assert "cells.json" in str(caught.value)


def test_a_python_file_that_does_not_run_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cells.py"
    for source, told in (
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "no list"),
        ("exit(3)", "SystemExit"),
    ):
        path.write_text(source)
        with pytest.raises(SweepFileError, match=told):
            read_sweep(path)
    for name in ("nothing.py", "cells.yaml"):
        with pytest.raises(SweepFileError, match=name):
            read_sweep(tmp_path / name)


def test_a_sweep_takes_a_file_and_settings(tmp_path: Path) -> None:
    path = written(tmp_path, [JUMP, {**JUMP, "model_name": "lstm", "seed": 5}])
    config = sweep.SweepConfig(file=path, set=("epochs=1", "optim.lr=1e-3,2e-3"))
    cells = sweep.planned(config, tmp_path)
    assert [cell.name for cell in cells] == [
        "jump-lr1e-3-s0", "jump-lr2e-3-s0", "lstm-lr1e-3-s5", "lstm-lr2e-3-s5"
    ]  # fmt: skip
    assert {cell.config.epochs for cell in cells} == {1}
    seeded = sweep.planned(sweep.SweepConfig(file=path, seeds=(7, 8)), tmp_path)
    assert [cell.name for cell in seeded] == ["jump-s7", "jump-s8", "lstm-s7", "lstm-s8"]
    with pytest.raises(ValueError, match="leave out --env --models"):
        sweep.planned(sweep.SweepConfig(file=path, env="pendulum", models=("jump",)), tmp_path)
    twice = written(tmp_path, [JUMP, {**JUMP, "seed": 1}])
    with pytest.raises(ValueError, match="more than one config"):
        sweep.planned(sweep.SweepConfig(file=twice, seeds=(0,)), tmp_path)


def test_every_model_of_pixels_goes_by_its_predictor(tmp_path: Path) -> None:
    entry = {"env_name": "pendulum", "model_name": "visual"}
    model = {"predictor": "keypoint_jump", "size": "tiny"}
    found = read_sweep(written(tmp_path, [{**entry, "model": model}]))
    assert [name for name, _ in found] == ["keypoint_jump"]
