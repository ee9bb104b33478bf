"""What stands where a run or a dataset should: links, files for folders, other objects than ours."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import worldmodels
from worldmodels.configs.schema import ConfigError
from worldmodels.data import DatasetError
from worldmodels.storage.checkpoint import WEIGHTS, find_checkpoint
from worldmodels.storage.files import StorageError, check_parent, publish_folder, remove_orphans
from worldmodels.storage.runs import OWN_FILES, RunError, RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small dataset and a run of two steps over it."""
    root = tmp_path_factory.mktemp("made")
    wanted = worldmodels.CollectConfig(env="pendulum", name="d", episodes=12, steps=20)
    dataset = worldmodels.load_dataset(worldmodels.collect(wanted, root, progress=False))
    config = worldmodels.default_config("pendulum", "jump")
    config = replace(config, epochs=1, out=str(root / "run"), dataset=str(dataset.path))
    config = replace(config, optim=replace(config.optim, steps_per_epoch=2))
    worldmodels.train(config, dataset, progress=False)
    return SimpleNamespace(root=root, dataset=dataset, config=config, run=root / "run")


def test_every_file_of_a_run_and_of_a_checkpoint_stands_for_its_folder(made: Any) -> None:
    own = [path for path in sorted(made.run.rglob("*")) if path.name in OWN_FILES]
    assert {path.name for path in own} == set(OWN_FILES)
    for path in own:
        assert RunFolder.open(path).path == made.run
        last = path.parent.name.startswith("last")
        expected = path.parent if path.parent.parent.name == "checkpoints" else None
        assert find_checkpoint(path) == (expected or made.run / "checkpoints" / "best"), last
        assert worldmodels.load(path).spec.env_name == "pendulum"


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/best", "evaluation"])
def test_a_run_is_found_from_inside(
    place: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    (tmp_path / "run" / place).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "run" / place)
    up = "../.." if place.endswith("best") else ".." if place else "."
    given = [up] if place == "evaluation" else [".", up]
    for path in given:
        assert RunFolder.open(path).path.samefile(tmp_path / "run")
        assert worldmodels.load(path).spec.env_name == "pendulum"


@pytest.mark.parametrize("stands", ["folder", "pipe", "link"])
def test_repair_collects_again_what_something_else_stands_for(
    stands: str, made: Any, tmp_path: Path
) -> None:
    shutil.copytree(made.root / "pendulum", tmp_path / "pendulum")
    shard = tmp_path / "pendulum" / "d" / "shard-00000.h5"
    content = shard.read_bytes()
    shard.unlink()
    put = {"folder": shard.mkdir, "link": lambda: shard.symlink_to("nowhere")}
    put.get(stands, lambda: os.mkfifo(shard))()
    wanted = worldmodels.CollectConfig(env="pendulum", name="d", episodes=12, steps=20)
    with pytest.raises(DatasetError, match="shard-00000"):
        worldmodels.collect(wanted, tmp_path, progress=False)
    worldmodels.collect(wanted, tmp_path, progress=False, repair=True, report=str)
    assert shard.read_bytes() == content


@pytest.mark.parametrize("name", [".", "run", "pendulum"])
def test_a_folder_that_is_no_dataset_gets_no_advice_to_repair_it(name: str, made: Any) -> None:
    with pytest.raises(DatasetError, match="is no dataset") as caught:
        worldmodels.load_dataset(made.root / name)
    assert "--repair" not in str(caught.value)


def test_left_over_files_behind_a_link_are_not_removed(made: Any, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(made.run, run)
    os.replace(run / "checkpoints", other)
    (other / ".tmp-0123").write_text("of another program")
    (run / "checkpoints").symlink_to(other)
    with RunFolder.open(run).lock():
        pass
    remove_orphans(run / "checkpoints")
    assert (other / ".tmp-0123").read_text() == "of another program"


@pytest.mark.parametrize("taken", ["last", "last.previous"])
def test_a_link_to_nowhere_makes_room_for_a_checkpoint(taken: str, tmp_path: Path) -> None:
    for step in range(2):
        publish_folder(tmp_path / "last", {"step": str(step).encode()})
    shutil.rmtree(tmp_path / taken)
    (tmp_path / taken).symlink_to(tmp_path / "nowhere")
    publish_folder(tmp_path / "last", {"step": b"2"})
    publish_folder(tmp_path / "last", {"step": b"3"})
    found = {path.name: (path / "step").read_bytes() for path in tmp_path.iterdir()}
    assert found == {"last": b"3", "last.previous": b"2"}


def test_a_link_in_a_run_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "evaluation").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        check_parent(tmp_path / "evaluation" / "report.json")
    check_parent(tmp_path / "pictures" / "report.json")
    assert not (tmp_path / "pictures").exists()
    (tmp_path / "run.json").unlink()  # outside of a run a link is the user's own
    check_parent(tmp_path / "evaluation" / "report.json")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("models", {"models": None}),
        ("models", {"models": []}),
        ("models", {"models": "run"}),
        ("models", {"models": {3: "run"}}),
        ("models", {"models": {"jump": None}}),
        ("dataset", {"dataset": None}),
        ("dataset", {"dataset": "d"}),
        ("horizon", {"horizon": 0}),
        ("horizon", {"horizon": 5.5}),
        ("count", {"count": 0}),
        ("count", {"count": "all"}),
        ("dt_values", {"dt_values": 0.05}),
        ("dt_values", {"dt_values": "0.05"}),
        ("dt_values", {"dt_values": (0.05, float("nan"))}),
        ("dt_values", {"dt_values": (-0.05,)}),
    ],
)
def test_evaluate_names_the_argument_of_another_kind(
    name: str, arguments: dict[str, Any], made: Any
) -> None:
    sound = {"models": {"jump": made.run}, "dataset": made.dataset}
    with pytest.raises(ConfigError, match=name):
        worldmodels.evaluate(**{**sound, **arguments})


def test_evaluate_takes_what_numpy_counts(made: Any) -> None:
    times = np.array([0.05, 0.1])
    report = worldmodels.evaluate(
        {"jump": made.run}, made.dataset, np.int64(4), np.int32(2), dt_values=times
    )
    json.dumps(report, allow_nan=False)
    assert "jump" in report["rows"]


def test_train_never_writes_over_a_run(made: Any) -> None:
    before = (made.run / "checkpoints" / "last" / WEIGHTS).read_bytes()
    with pytest.raises(RunError, match="resume=True"):
        worldmodels.train(made.config, made.dataset, RunFolder.open(made.run), progress=False)
    with pytest.raises(RunError, match="give it as run="):
        worldmodels.train(made.config, made.dataset, resume=True, progress=False)
    for run in (3, "run", made.run):
        with pytest.raises(ConfigError, match="RunFolder"):
            worldmodels.train(made.config, made.dataset, run, progress=False)
    with pytest.raises(ConfigError, match="dataset"):
        worldmodels.train(made.config, worldmodels, progress=False)
    assert (made.run / "checkpoints" / "last" / WEIGHTS).read_bytes() == before
    assert RunFolder.open(made.run).record["status"] == "done"
