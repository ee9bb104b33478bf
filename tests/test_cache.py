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
    resolve_dataset,
    settled,
    store,
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
    with pytest.raises(DatasetError, match="did you mean .*spaceship/small"):
        load_dataset("spaceship/smal", tmp_path)
    with pytest.raises(DatasetError, match=r"physgym collect makes one"):
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
        params={"mass": 1.0}, action_mode="continuous", dt=0.2, integrator="rk4", start="default",
        reward="none", pixels=True, image_size=32, shard_episodes=3, val_fraction=0.2,
        test_fraction=0.2, energy=(0.1, 0.5),
    )  # fmt: skip
    assert {*changes, "name", "make_kwargs"} == set(asdict(base))
    hashes = {replace(base, **{key: value}).content_hash() for key, value in changes.items()}
    assert len(hashes | {base.content_hash()}) == len(changes) + 1
    assert replace(base, name="x").content_hash() == base.content_hash()
    plain = CollectConfig(env="Pendulum-v1")
    assert replace(plain, make_kwargs={"g": 5.0}).content_hash() != plain.content_hash()


def test_a_named_dataset_must_fit_the_run(folder: Path, tmp_path: Path) -> None:
    def named(**changes: Any) -> TrainConfig:
        return training(data=DataConfig(), **changes)

    for name in ("small", "spaceship/small", str(folder)):
        assert len(dataset_for(named(dataset=name), tmp_path)) == 10
    with pytest.raises(DatasetError, match=r"env='spaceship'.*'pendulum'"):
        dataset_for(named(dataset=str(folder), env_name="pendulum"), tmp_path)
    with pytest.raises(DatasetError, match="action_mode"):
        dataset_for(named(dataset="small", env=EnvConfig("continuous")), tmp_path)
    with pytest.raises(DatasetError, match=r"dt=0\.1"):
        dataset_for(named(dataset="small", env=EnvConfig(dt=0.2)), tmp_path)
    with pytest.raises(DatasetError, match="did you mean"):
        dataset_for(named(dataset="smal"), tmp_path)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"env": EnvConfig(params={"thrust": 9.0})}, r"env.params.thrust=.*asks for 9\.0"),
        ({"env": EnvConfig(integrator="euler")}, "env.integrator='[a-z0-9]+'.*asks for 'euler'"),
        ({"env": EnvConfig("continuous")}, "env.action_mode='discrete'.*asks for 'continuous'"),
        ({"data": DataConfig(episodes=11)}, "data.episodes=10, .*asks for 11"),
        ({"data": DataConfig(policy="zero")}, "data.policy='mixed', .*asks for 'zero'"),
        ({"data": DataConfig(seed=9)}, "data.seed=.*asks for 9.*--dataset None"),
        ({"env_name": "three_body", "env": EnvConfig(start="random")}, "env='spaceship'"),
    ],
)
def test_what_contradicts_the_datasets_own_record_is_refused_with_both_values(
    folder: Path, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    plain = TrainConfig(env_name="spaceship", dataset=str(folder))
    with pytest.raises(DatasetError, match=words):
        dataset_for(replace(plain, **asked), tmp_path)
    dataset = load_dataset(folder)
    with pytest.raises(DatasetError, match=words):  # the same for one that is handed over
        settled(replace(plain, **asked), dataset)


def test_a_default_that_was_asked_for_is_refused_too(folder: Path) -> None:
    config, dataset = TrainConfig(env_name="spaceship", dataset="small"), load_dataset(folder)
    for name in ("data.episodes", "data.policy", "env.randomize"):
        with pytest.raises(DatasetError, match=name):
            settled(config, dataset, {name})


def test_a_run_records_how_its_dataset_was_collected(folder: Path, tmp_path: Path) -> None:
    made = settled(TrainConfig(env_name="spaceship", dataset=str(folder)), load_dataset(folder))
    assert made.env.randomize is SMALL.randomize is True
    assert (made.data.episodes, made.data.policy) == (SMALL.episodes, SMALL.policy)
    assert settled(made, load_dataset(folder)) == made
    named = settled(TrainConfig(env_name="spaceship"), load_dataset(folder))
    assert named.dataset == str(folder), "it would collect another one than it learned from"
    config = training(data=DataConfig(episodes=3))
    assert settled(config, dataset_for(config, tmp_path, progress=False)) == config


def test_parameters_that_agree_are_no_contradiction(tmp_path: Path) -> None:
    wanted = CollectConfig(env="pendulum", name="heavy", episodes=3, steps=4, params={"mass": 3.0})
    dataset = load_dataset(collect(wanted, tmp_path, progress=False))
    base = TrainConfig(env_name="pendulum", dataset="heavy")
    for params in (None, {"mass": 3.0}, {"length": 1.0}):
        made = settled(replace(base, env=EnvConfig(params=params)), dataset)
        assert made.env.params == {"mass": 3.0}
    with pytest.raises(DatasetError, match=r"env.params.mass=3.0, .*asks for 1.0"):
        settled(replace(base, env=EnvConfig(params={"mass": 1.0})), dataset)


def test_a_dataset_goes_by_every_name_it_has(folder: Path, tmp_path: Path) -> None:
    names = ["small", "small/", "spaceship/small", "spaceship/small/", str(folder), f"{folder}/"]
    for name in [*names, folder, "PhysGym/Spaceship-v0/small"]:
        for env in (None, "spaceship", "PhysGym/Spaceship-v0"):
            assert resolve_dataset(name, env, tmp_path).resolve() == folder
    assert len(load_dataset("small", tmp_path)) == 10
    shutil.copytree(folder, tmp_path / "pendulum" / "small")
    assert resolve_dataset("small", "spaceship", tmp_path) == folder
    with pytest.raises(DatasetError, match=r"pendulum/small.*spaceship/small"):
        resolve_dataset("small", None, tmp_path)
    for name in ("", "/", "  "):
        with pytest.raises(DatasetError, match=r"is not valid|no dataset|names no"):
            resolve_dataset(name, "spaceship", tmp_path)
    with pytest.raises(DatasetError, match="did you mean .*spaceship/small"):
        resolve_dataset("smal", None, tmp_path)


def test_two_runs_that_need_one_dataset_collect_it_once(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = training(data=DataConfig(episodes=3))
    path = dataset_for(config, tmp_path, progress=False).path
    header = store.read_header(path)
    store.write_header(path, {**header, "shards": []})  # as while the other one collects
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
    with pytest.raises(DatasetError, match=r"no longer there.*--dataset"):
        dataset_of(run, project / "datasets")
    collect(replace(SMALL, episodes=4), project / "datasets", progress=False)
    with pytest.raises(DatasetError, match=r"holds another one now.*--dataset"):
        dataset_of(run, project / "datasets")
    silent = RunFolder.create({"model_name": "jump"}, project / "silent")
    with pytest.raises(DatasetError, match="does not say what it learned from"):
        dataset_of(silent)


def test_a_run_learns_from_starts_by_energy(tmp_path: Path) -> None:
    """As `physgym collect` spells them; the band is in the spec of what is learned from them."""
    config = TrainConfig(
        env_name="pendulum", env=EnvConfig(energy=(0.1, 0.6)), data=DataConfig(episodes=10)
    )
    dataset = dataset_for(config, tmp_path, progress=False)
    assert dataset.env_kwargs["energy"] == [0.1, 0.6]
    unit = 2 * 9.81
    assert (dataset.energy[:, 0] >= 0.1 * unit).all() and (dataset.energy[:, 0] <= 0.6 * unit).all()
    assert settled(config, dataset) == config
    spelt = replace(config, env=EnvConfig(start="energy", energy=(0.1, 0.6)))
    assert spelt == config, "the band says what start='energy' says"
    for asked in (EnvConfig(energy=(0.7, 0.9)), EnvConfig(start="default")):
        with pytest.raises(DatasetError, match=r"env\.(energy|start)="):
            settled(replace(config, env=asked, dataset=str(dataset.path)), dataset)


@pytest.mark.parametrize(
    ("name", "env", "words"),
    [
        ("pendulum", {"energy": (0.6, 0.1)}, "env.energy=.0.6, 0.1. is not valid.*low <= high"),
        ("pendulum", {"start": "energy"}, "env.start='energy'.*env.energy"),
        ("pendulum", {"start": "default", "energy": (0.1, 0.2)}, "env.start='default'.*energy"),
        ("three_body", {"energy": (0.1, 0.6)}, "three_body has no starts by energy"),
        ("CartPole-v1", {"energy": (0.1, 0.6)}, "no system of PhysGym"),
    ],
)
def test_bands_that_cannot_be_are_refused_before_anything_is_collected(
    name: str, env: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        TrainConfig(env_name=name, env=EnvConfig(**env))
