"""Run folders: one writer, a truthful end, and a record that is what it says or is refused."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoint_cases import needs_fork

from worldmodels.configs.training import TrainConfig, default_config, to_dict
from worldmodels.data import CollectConfig, Dataset, DatasetError, collect, load_dataset
from worldmodels.data.cache import dataset_of
from worldmodels.storage import runs
from worldmodels.storage.files import LockedError
from worldmodels.storage.runs import RunError, RunFolder
from worldmodels.training import experiment
from worldmodels.training import fit as training

CONFIG = to_dict(default_config())
WRONG = (None, "text", 7, -1.5, ["a", 1], {"a": 1}, [[]], 10**40, True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A few short episodes of a pendulum."""
    wanted = CollectConfig(env="pendulum", name="few", episodes=10, steps=20)
    return load_dataset(collect(wanted, tmp_path_factory.mktemp("datasets"), progress=False))


def tiny(out: Path, epochs: int = 2, **changes: Any) -> TrainConfig:
    """A training of a second."""
    config = default_config("pendulum", "jump")
    return replace(
        config,
        model=replace(config.model, hidden=8),
        optim=replace(config.optim, batch_size=16, steps_per_epoch=3),
        **{
            "epochs": epochs,
            "validation_steps": 5,
            "save_seconds": 0.0,
            "out": str(out),
            **changes,
        },
    )


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- being given a folder -------------------------------------------------------------------------


@needs_fork
def test_of_many_that_ask_for_one_folder_one_is_given_it(tmp_path: Path) -> None:
    begin_read, begin_write = os.pipe()
    children = []
    for seed in range(8):
        child = os.fork()
        if child == 0:
            os.close(begin_write)
            os.read(begin_read, 1)  # until the parent lets all go at once
            try:
                RunFolder.create({**CONFIG, "seed": seed}, tmp_path / "run")
                os._exit(0)
            except RunError:
                os._exit(1)
            finally:
                os._exit(9)
        children.append(child)
    os.close(begin_write)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(begin_read)
    assert sorted(ends) == [0, 1, 1, 1, 1, 1, 1, 1]
    assert RunFolder.open(tmp_path / "run").config["seed"] == ends.index(0)


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a letter")
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(CONFIG, tmp_path)
    assert files(tmp_path) == {"mine": b"a letter"}
    with pytest.raises(RunError, match="folder"):
        RunFolder.create(CONFIG, tmp_path / "mine")


def test_what_a_run_leaves_that_was_killed_at_once_is_no_run(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".tmp-0123").write_text("half a config")
    run = RunFolder.create(CONFIG, tmp_path)
    assert sorted(files(run.path)) == [".lock", "config.json", "run.json"]


def test_a_run_is_known_by_any_part_of_it(tmp_path: Path) -> None:
    run = RunFolder.create(CONFIG, tmp_path / "run")
    for name in ("best", "last"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "config.json").write_text("{}")
    inside = ("", "config.json", "run.json", "checkpoints", "checkpoints/best", "checkpoints/last")
    assert {RunFolder.open(run.path / name) for name in inside} == {run}
    assert RunFolder.open(f"{run.path}/") == run
    alone = tmp_path / "best"
    (run.checkpoints / "best").rename(alone)
    (alone / "model.safetensors").write_text("")
    with pytest.raises(RunError, match="without its run"):
        RunFolder.open(alone)


# -- one writer -----------------------------------------------------------------------------------


def test_who_does_not_hold_the_run_changes_nothing(tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(tmp_path / "run")
    run = experiment.start(config)
    before = files(run.path)
    with run.lock():
        with run.lock():  # the same writer again
            pass
        other = RunFolder.open(run.path)
        with pytest.raises(LockedError, match=str(os.getpid())):
            experiment.train(config, dataset, other, progress=False)
        with pytest.raises(LockedError), other.lock():
            pass
    after = files(run.path)
    assert {**before, ".lock": b""} == {**after, ".lock": b""}


def test_temporary_files_of_killed_writers_go_with_the_next(tmp_path: Path) -> None:
    run = RunFolder.create(CONFIG, tmp_path / "run")
    (run.checkpoints / ".tmp-1").mkdir(parents=True)
    (run.checkpoints / ".tmp-1" / "model.safetensors").write_text("half")
    (run.path / ".tmp-2").write_text("half")
    with run.lock():
        assert not list(run.path.rglob(".tmp-*"))


# -- how a run ends -------------------------------------------------------------------------------


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch, heard_signals: None) -> Callable[[int], None]:
    """Has a training get SIGINT in a step."""
    descend = training.Trainer.descend

    def at(stop: int) -> None:
        def run(trainer: training.Trainer) -> None:
            descend(trainer)
            if trainer.progress.step == stop:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(training.Trainer, "descend", run)

    return at


def test_stopped_in_the_middle_it_is_interrupted(
    tmp_path: Path, dataset: Dataset, interrupted_at: Callable[[int], None]
) -> None:
    interrupted_at(5)
    with pytest.raises(KeyboardInterrupt):
        experiment.train(tiny(tmp_path / "run"), dataset, progress=False)
    assert RunFolder.open(tmp_path / "run").record["status"] == "interrupted"


def test_stopped_in_the_last_step_it_is_done(
    tmp_path: Path, dataset: Dataset, interrupted_at: Callable[[int], None]
) -> None:
    interrupted_at(6)
    result = experiment.train(tiny(tmp_path / "run"), dataset, progress=False)
    assert result["epochs"] == 2
    assert RunFolder.open(tmp_path / "run").record["status"] == "done"


def test_stopped_after_the_last_step_it_is_done(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "record_best", stop)
    with pytest.raises(KeyboardInterrupt):
        experiment.train(tiny(tmp_path / "run"), dataset, progress=False)
    assert RunFolder.open(tmp_path / "run").record["status"] == "done"


def test_a_signal_to_be_ignored_stays_ignored(
    tmp_path: Path, dataset: Dataset, interrupted_at: Callable[[int], None]
) -> None:
    interrupted_at(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = experiment.train(tiny(tmp_path / "run"), dataset, progress=False)
    assert result["epochs"] == 2
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_run_that_learned_nothing_has_failed(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.Trainer, "_gradients", lambda trainer, step: ({}, False))
    with pytest.raises(training.TrainingError, match="nothing was learned"):
        experiment.train(tiny(tmp_path / "run"), dataset, progress=False)
    record = RunFolder.open(tmp_path / "run").record
    assert record["status"] == "failed"
    assert "nothing was learned" in record["error"]


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_disk_that_fills_under_the_metrics_is_a_failed_run(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        return no_space() if content.startswith(b'{"epoch": 2') else write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RuntimeError, match=r"metrics\.jsonl: No space left .* --resume"):
        experiment.train(tiny(tmp_path / "run"), dataset, progress=False)
    monkeypatch.undo()
    run = RunFolder.open(tmp_path / "run")
    assert run.record["status"] == "failed"
    assert (run.path / "metrics.jsonl").read_bytes().count(b"\n") == 1
    experiment.train(experiment.reopen(run), dataset, run, resume=True, progress=False)
    whole = experiment.train(tiny(tmp_path / "whole"), dataset, progress=False)
    assert run.record["status"] == "done"
    assert "error" not in run.record or run.record["error"] is None
    kept = [(Path(path) / "metrics.jsonl").read_bytes() for path in (run.path, whole["run"])]
    assert kept[0] == kept[1]


def test_the_end_is_written_where_no_second_file_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(CONFIG, tmp_path / "run", ["train.py"])
    run.update(status="running")
    monkeypatch.setattr(runs, "atomic_write", no_space)
    with pytest.raises(RunError, match=r"run\.json: No space left"):
        run.update(status="done")
    size = (run.path / "run.json").stat().st_size
    for error in ("No space left on device", "x" * 5000):
        run.finish("failed", error=error)
        assert run.record["status"] == "failed"
    assert run.record["argv"] == ["train.py"]
    assert (run.path / "run.json").stat().st_size == size


# -- what a record may say ------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a document stands, containers included."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, below in inner:
        yield from leaves(below, (*path, key))


def with_leaf(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with another value at one place."""
    copy = json.loads(json.dumps(document))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return copy


def test_any_value_in_a_record_is_taken_or_named(tmp_path: Path, dataset: Dataset) -> None:
    run = experiment.start(tiny(tmp_path / "run"), ["train.py", "--seed", "1"])
    origin = {"path": str(dataset.path), "from_run": "../x", "sha256": dataset.hash}
    run.update(resumed=[["train.py"]], dataset=origin, wandb_id=None, error=None)
    run.finish("interrupted")
    whole, refused = run.record, 0
    for path in leaves(whole):
        for wrong in WRONG:
            (run.path / "run.json").write_text(json.dumps(with_leaf(whole, path, wrong)))
            with suppress(RunError, DatasetError):
                refused += 1
                assert dataset_of(RunFolder.open(run.path), tmp_path).hash == dataset.hash
                experiment.reopen(run)
                refused -= 1
    assert refused > 100
    (run.path / "run.json").unlink()
    assert run.record == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"status": NaN}', '{"a": 1e999}', "[" * 10**5]
)
def test_a_record_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    run = RunFolder.create(CONFIG, tmp_path / "run")
    (run.path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json"):
        _ = run.record


def test_what_is_recorded_can_be_read_again(tmp_path: Path) -> None:
    run = RunFolder.create(CONFIG, tmp_path / "run")
    with pytest.raises(ValueError, match=r"status='finished'"):
        run.update(status="finished")
    assert run.record["status"] == "created"


def test_another_checkpoint_than_the_best_is_said(tmp_path: Path, dataset: Dataset) -> None:
    import shutil

    import worldmodels

    run = experiment.train(tiny(tmp_path / "run"), dataset, progress=False)["run"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        worldmodels.load(run)
        worldmodels.load(Path(run) / "checkpoints" / "last")
    for kept in (Path(run) / "checkpoints").glob("best*"):
        shutil.rmtree(kept)
    with pytest.warns(RuntimeWarning, match="no checkpoint 'best'.*using 'last'"):
        worldmodels.load(run)
