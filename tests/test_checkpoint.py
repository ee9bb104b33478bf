"""Checkpoints: what a crash, a bad disk or a bad file can do to them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_cases import (
    CONFIG,
    FILES,
    fail_at,
    forge,
    in_child,
    needs_fork,
    raise_no_space,
    save,
    step_of,
    tensors,
    unchanged,
)

from worldmodels.storage import files as storage
from worldmodels.storage.checkpoint import (
    CheckpointError,
    RunLock,
    find_checkpoint,
    load_checkpoint,
    resume_checkpoint,
    save_checkpoint,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of step 2 that keeps the one of step 1."""
    path = tmp_path / "run" / "checkpoints" / "last"
    save(path, 1)
    save(path, 2)
    return path


# Round trips


def test_everything_comes_back_equal(folder: Path) -> None:
    config, loaded, meta, train_state = resume_checkpoint(folder)
    assert config == CONFIG
    assert meta == {"step": 2}
    assert loaded.keys() == tensors(2).keys()
    assert all(torch.equal(value, tensors(2)[name]) for name, value in loaded.items())
    again = np.random.default_rng(0)
    again.bit_generator.state = train_state["rng"]["numpy"]
    assert again.random() == np.random.default_rng(2).random()
    restored = random.Random()
    restored.setstate(train_state["rng"]["python"])
    assert restored.random() == random.Random(2).random()


def test_meta_is_made_plain_and_config_must_be(tmp_path: Path) -> None:
    meta = {"metrics": {"a": float("nan"), "b": np.float32(0.5), "c": torch.tensor(2)}, "t": (1, 2)}
    save_checkpoint(tmp_path / "c", CONFIG, tensors(0), None, meta)
    assert load_checkpoint(tmp_path / "c")[2] == {
        "metrics": {"a": None, "b": 0.5, "c": 2},
        "t": [1, 2],
    }
    for bad in ({**CONFIG, "model": {"lr": float("nan")}}, {**CONFIG, "extra": 1}, {"spec": {}}):
        with pytest.raises(CheckpointError):
            save_checkpoint(tmp_path / "c", bad, tensors(0))
    with pytest.raises(CheckpointError, match="sha256"):
        save_checkpoint(tmp_path / "c", CONFIG, tensors(0), None, {"sha256": 1})


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    shared = torch.ones(4)
    save_checkpoint(tmp_path / "c", CONFIG, {"a": shared, "b": shared[:2]})
    assert torch.equal(load_checkpoint(tmp_path / "c")[1]["b"], torch.ones(2))


def test_train_state_that_needs_pickle_is_refused_at_saving(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="without running code"):
        save_checkpoint(folder, CONFIG, tensors(3), {"step": Path("x")})
    assert step_of(folder) == 2


def test_only_the_best_or_last_checkpoint_is_needed(folder: Path) -> None:
    run = folder.parents[1]
    (run / "config.json").write_text("{}")  # a run's own config is not a checkpoint's
    assert find_checkpoint(run) == find_checkpoint(run, "last") == find_checkpoint(folder) == folder
    with pytest.raises(CheckpointError, match="did you mean run"):
        find_checkpoint(run.with_name("runn"))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(folder.parents[2])


# C1, C2, C3: a crash or a full disk while saving


@needs_fork
@pytest.mark.parametrize("repeats", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_of_saving(folder: Path, repeats: int) -> None:
    delays = random.Random(0)
    step = 2
    for _ in range(repeats):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for number in range(step + 1, step + 10_000):
                save(folder, number, size=20_000)
                os.write(writer, f"{number} ".encode())
        time.sleep(delays.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(writer)
        acknowledged = os.read(reader, 1 << 16).decode().split()
        os.close(reader)
        newest = int(acknowledged[-1]) if acknowledged else step
        step = step_of_quietly(folder)
        assert step in (newest, newest + 1)
    save(folder, step + 1)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["last", "last.previous"]


def step_of_quietly(folder: Path) -> int:
    """As `step_of`, whether or not it has to fall back."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return step_of(folder)


def calls_of_a_save(folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        made = fail_at(-1, raise_no_space, patch)
        save(folder, 2)
    return made


def test_files_are_synced_before_the_renames_and_the_folder_after(folder: Path) -> None:
    made = calls_of_a_save(folder)
    renames = [i for i, name in enumerate(made) if name == "rename"]
    assert made[: renames[0]].count("fsync") == len(FILES) + 1
    assert "fsync" in made[renames[-1] :]


@needs_fork
def test_a_crash_at_every_syscall_leaves_the_old_or_the_new(folder: Path) -> None:
    for call in range(1, len(calls_of_a_save(folder)) + 1):
        save(folder, 2)

        def crash(call: int = call) -> None:
            with pytest.MonkeyPatch.context() as patch:
                fail_at(call, lambda: os._exit(7), patch)
                save(folder, 3)

        assert in_child(crash) == 7
        assert step_of_quietly(folder) in (2, 3)


def test_an_error_at_every_syscall_is_named_and_leaves_no_litter(folder: Path) -> None:
    made = calls_of_a_save(folder)
    published = len(made) - made[::-1].index("rename") + 2  # and the folder is synced
    for call in range(1, len(made) + 1):
        save(folder, 2)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(call, raise_no_space, patch)
            # No matter: the parent folder is there already; the oldest one is deleted next time.
            if call == 1 or call > published:
                save(folder, 3)
            else:
                with pytest.raises(CheckpointError, match="No space left"):
                    save(folder, 3)
        assert step_of(folder) in (2, 3)
        save(folder, 2)  # works again, and cleans up
        assert {path.name for path in folder.parent.iterdir()} == {"last", "last.previous"}


@needs_fork
def test_a_full_disk_keeps_the_old_checkpoint(folder: Path) -> None:
    def fill() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(CheckpointError, match="the one before is untouched"):
            save(folder, 3, size=20_000)
        assert step_of(folder) == 2
        assert not list(folder.parent.glob(".tmp-*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        save(folder, 4, size=20_000)  # there is room again

    assert in_child(fill) == 0
    assert step_of(folder) == 4


# C4: places that cannot be written


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    for place in (occupied / "last", tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "last"):
        with pytest.raises(CheckpointError, match="cannot write"):
            save(place, 1)
    with pytest.raises(storage.StorageError, match="choose another"):
        RunLock(occupied / "run").acquire()
    save(tmp_path / "a place with späces" / "last", 1)
    assert step_of(tmp_path / "a place with späces" / "last") == 1


# C5, C6, C7: damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", ["nothing", "a byte", "half", "all but a byte", "missing"])
def test_a_torn_file_falls_back_with_a_warning(folder: Path, name: str, part: str) -> None:
    path = folder / name
    content = path.read_bytes()
    length = {"nothing": 0, "a byte": 1, "half": len(content) // 2}.get(part, len(content) - 1)
    if part == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:length])
    with pytest.warns(RuntimeWarning, match=r"CHECKPOINT DAMAGED.*step 1"):
        assert step_of(folder) == 1
    shutil.rmtree(storage.previous_of(folder))
    with pytest.raises(CheckpointError, match=name):
        resume_checkpoint(folder)


def test_a_flipped_bit_is_always_noticed(folder: Path) -> None:
    shutil.rmtree(storage.previous_of(folder))
    draw = random.Random(0)
    for trial in range(210):
        path = folder / FILES[trial % 3]
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError):
            resume_checkpoint(folder)
        path.write_bytes(content)
    assert step_of(folder) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_noticed(folder: Path, name: str) -> None:
    shutil.copy(storage.previous_of(folder) / name, folder / name)
    shutil.rmtree(storage.previous_of(folder))
    with pytest.raises(CheckpointError):
        resume_checkpoint(folder)


def test_other_files_in_the_folder_are_ignored(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert step_of(folder) == 2


def test_weights_alone_are_enough_to_use_but_not_to_resume(folder: Path) -> None:
    save_checkpoint(folder, CONFIG, tensors(5), None, {"step": 5})
    assert load_checkpoint(folder)[2] == {"step": 5}
    with pytest.warns(RuntimeWarning, match="can be used, not trained on"):
        assert step_of(folder) == 2
    (storage.previous_of(folder) / "train_state.pt").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.warns(RuntimeWarning, match="model.safetensors"):
        assert load_checkpoint(folder)[2] == {"step": 2}


# C8, C9, C10, C12: files made by someone else


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("forced", [None, "1"])
@pytest.mark.parametrize("file", ["train_state", "model"])
def test_a_pickle_does_not_run(
    folder: Path, file: str, forced: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    torch.save({"step": Touch(marker)}, tmp_path / "zip.pt")
    for payload in (pickle.dumps(Touch(marker)), (tmp_path / "zip.pt").read_bytes()):
        forge(folder, unchanged, **{file: payload})
        with pytest.raises(CheckpointError):
            resume_checkpoint(folder)
        assert not marker.exists()


def test_huge_or_odd_files_are_refused_before_they_are_read(folder: Path) -> None:
    forge(folder, unchanged, model=(2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_checkpoint(folder)
    with (folder / "config.json").open("r+b") as file:
        file.truncate(storage.MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match="at most"):
        load_checkpoint(folder)


def test_a_newer_format_asks_for_an_upgrade_and_does_not_fall_back(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(storage.seal({**document, "format_version": 99}))
    with pytest.raises(CheckpointError, match=r"99.*upgrade"):
        load_checkpoint(folder)


def test_the_first_format_stays_readable() -> None:
    folder = ROOT / "tests" / "golden" / "checkpoint-v1"
    config, loaded, meta, train_state = resume_checkpoint(folder)
    assert (config, meta, train_state["step"]) == (CONFIG, {"step": 1}, 1)
    assert torch.equal(loaded["net.weight"], tensors(1, 4)["net.weight"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("file", ["model", "train_state"])
def test_mutated_files_raise_our_error_or_load(folder: Path, file: str) -> None:
    draw = random.Random(3)
    name = next(name for name in FILES if name.startswith(file))
    content = (folder / name).read_bytes()
    for _ in range(150):
        mutated = bytearray(content)
        for _ in range(draw.randrange(1, 8)):
            start = draw.randrange(len(mutated))
            piece = draw.randbytes(draw.randrange(0, 9))
            mutated[start : start + draw.randrange(0, 9)] = piece
        forge(folder, unchanged, **{file: bytes(mutated)})
        with contextlib.suppress(CheckpointError):
            resume_checkpoint(folder)
