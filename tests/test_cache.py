"""Datasets by name, and the one a training run collects for itself, once."""

from __future__ import annotations

import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from data_cases import SMALL

from worldmodels.configs.training import DataConfig, EnvConfig, TrainConfig
from worldmodels.data import (
    CollectConfig,
    DatasetError,
    collect,
    dataset_for,
    load_dataset,
)
from worldmodels.data.cache import dataset_of
from worldmodels.data.store import read_header
from worldmodels.storage import files as storage
from worldmodels.storage.runs import RunFolder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real dataset that no test changes."""
    return collect(SMALL, tmp_path_factory.mktemp("datasets"), progress=False)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it to damage, where `collect(SMALL, tmp_path)` finds it."""
    path = tmp_path / "spaceship" / "small"
    shutil.copytree(original, path)
    return path


# Finding and caching


def test_unknown_datasets_get_a_suggestion(folder: Path, tmp_path: Path) -> None:
    assert len(load_dataset("spaceship/small", tmp_path)) == 10
    with pytest.raises(DatasetError, match="did you mean spaceship/small"):
        load_dataset("spaceship/smal", tmp_path)
    with pytest.raises(DatasetError, match=r"scripts/collect\.py makes one"):
        load_dataset("x", tmp_path / "nowhere")


def training(**changes: Any) -> TrainConfig:
    """A run on a few short episodes."""
    data = DataConfig(episodes=4)
    return TrainConfig(**{"env_name": "spaceship", "data": data, "env": EnvConfig(), **changes})


def test_a_run_collects_its_dataset_once(tmp_path: Path) -> None:
    config = training(data=DataConfig(episodes=3))
    first = dataset_for(config, tmp_path, progress=False)
    written = (first.path / "shard-00000.h5").stat().st_mtime_ns
    assert first.path.name.startswith("auto-")
    assert first.path.parent == tmp_path / "spaceship"
    again = dataset_for(replace(config, seed=7, epochs=3), tmp_path, progress=False)
    assert again.path == first.path
    assert (first.path / "shard-00000.h5").stat().st_mtime_ns == written
    other = dataset_for(training(data=DataConfig(episodes=3, seed=1)), tmp_path, progress=False)
    assert other.path != first.path
    assert len(list((tmp_path / "spaceship").iterdir())) == 2


def test_every_field_but_the_name_is_in_the_hash() -> None:
    base = CollectConfig()
    changes = dict(
        env="pendulum", episodes=3, steps=3, policy="bang", seed=1, randomize=True,
        params={"mass": 1.0}, action_mode="continuous", dt=0.2, integrator="rk4", start="x",
        reward="none", pixels=True, image_size=32, shard_episodes=3, val_fraction=0.2,
        test_fraction=0.2,
    )  # fmt: skip
    assert {*changes, "name"} == set(asdict(base))
    hashes = {replace(base, **{key: value}).content_hash() for key, value in changes.items()}
    assert len(hashes | {base.content_hash()}) == len(changes) + 1
    assert replace(base, name="x").content_hash() == base.content_hash()


def test_a_named_dataset_must_fit_the_run(folder: Path, tmp_path: Path) -> None:
    for name in ("small", "spaceship/small", str(folder)):
        assert len(dataset_for(training(dataset=name), tmp_path)) == 10
    with pytest.raises(DatasetError, match=r"env='spaceship'.*'pendulum'"):
        dataset_for(training(dataset=str(folder), env_name="pendulum"), tmp_path)
    with pytest.raises(DatasetError, match="action_mode"):
        dataset_for(training(dataset="small", env=EnvConfig("continuous")), tmp_path)
    with pytest.raises(DatasetError, match=r"dt=0\.1"):
        dataset_for(training(dataset="small", env=EnvConfig(dt=0.2)), tmp_path)
    with pytest.raises(DatasetError, match="did you mean"):
        dataset_for(training(dataset="smal"), tmp_path)
    with pytest.raises(DatasetError, match="did you mean 'spaceship'"):
        dataset_for(training(env_name="spaceshop"), tmp_path)


def test_two_runs_that_need_one_dataset_collect_it_once(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = training(data=DataConfig(episodes=3))
    path = dataset_for(config, tmp_path, progress=False).path
    lock = storage.RunLock(path).acquire()
    timer = threading.Timer(0.5, lock.release)
    timer.start()
    assert len(dataset_for(config, tmp_path, progress=False)) == 3
    timer.join()
    assert "waiting" in capfd.readouterr().err


# A run's own dataset


def recorded(folder: Path, path: str | None = None, run: Path | None = None) -> RunFolder:
    """A run that learned from a dataset, recorded as it was when it lay at `path`."""
    made = RunFolder.create({"model_name": "jump"}, run or folder.parents[2] / "outputs" / "run")
    made.update(dataset={"path": path or str(folder), "sha256": read_header(folder)["seal"]})
    return made


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    """A folder with `datasets/spaceship/small` in it."""
    shutil.copytree(original, tmp_path / "project" / "datasets" / "spaceship" / "small")
    return tmp_path / "project"


def test_a_runs_dataset_is_found_by_its_hash(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "datasets" / "spaceship" / "small"
    wanted = load_dataset(folder).hash
    run = recorded(folder, "datasets/spaceship/small")
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    for place in (project, project / "outputs", nowhere):  # whatever the working folder
        monkeypatch.chdir(place)
        assert dataset_of(run).hash == wanted
    renamed = folder.rename(folder.with_name("renamed"))
    assert dataset_of(run).path.samefile(renamed)
    moved = RunFolder.open(project.rename(tmp_path / "moved") / "outputs" / "run")
    assert dataset_of(moved).hash == wanted


def test_a_run_and_its_dataset_may_move_together(project: Path, tmp_path: Path) -> None:
    folder = project / "datasets" / "spaceship" / "small"
    elsewhere = project / "buffers" / "one"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    run = recorded(elsewhere, run=project / "outputs" / "run")
    run.update(dataset={**run.record["dataset"], "from_run": "../../buffers/one"})
    moved = RunFolder.open(project.rename(tmp_path / "moved") / "outputs" / "run")
    assert dataset_of(moved, tmp_path).path.samefile(tmp_path / "moved" / "buffers" / "one")


def test_another_dataset_in_its_place_is_not_taken_for_it(project: Path) -> None:
    folder = project / "datasets" / "spaceship" / "small"
    run = recorded(folder)
    shutil.rmtree(folder)
    with pytest.raises(DatasetError, match=r"is not there any more.*--dataset"):
        dataset_of(run, project / "datasets")
    collect(replace(SMALL, episodes=4), project / "datasets", progress=False)
    with pytest.raises(DatasetError, match=r"has changed since.*--dataset"):
        dataset_of(run, project / "datasets")
    silent = RunFolder.create({"model_name": "jump"}, project / "silent")
    with pytest.raises(DatasetError, match="does not say what it learned from"):
        dataset_of(silent)
