"""Laws of memory: what is collected and trained on may be larger than the memory allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from data_cases import SMALL
from test_training import DATA

from worldmodels.data import batches, collect, load_dataset
from worldmodels.storage import room
from worldmodels.training import beginning

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def most_held(work: str, folder: Path, episodes: int, mib: int = 0) -> float:
    """MiB that a process of its own holds at most for some work, under a limit of ``mib``."""
    words = [str(ROOT / "tests" / "memory_cases.py"), work, str(folder), str(episodes), str(mib)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        timeout=500,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("work", "few"), [("collect-states", 100), ("collect-pictures", 50)])
def test_collecting_holds_no_more_for_a_larger_buffer(work: str, few: int, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    small, large = (
        most_held(work, tmp_path / "few", few),
        most_held(work, tmp_path / "many", 8 * few),
    )
    assert large < small + 8.0


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("work", "episodes"), [("train-states", 2400), ("train-pictures", 800)])
def test_a_buffer_larger_than_the_memory_allowed_is_trained_on(
    work: str, episodes: int, tmp_path: Path
) -> None:
    """Its arrays take some 100 MiB, or its frames as much; 64 MiB are allowed."""
    assert most_held(work, tmp_path, episodes, mib=64) < 64.0


def test_arrays_in_files_hold_what_arrays_in_memory_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = collect(SMALL, tmp_path, progress=False)
    before = load_dataset(path)
    monkeypatch.setattr(room, "is_large", lambda size: size > 0)
    monkeypatch.setattr(room, "CHUNK", 100)
    after = load_dataset(path)
    assert isinstance(after.states, np.memmap)
    for one, other in ((before, after), (before.subset("train"), after.subset("train"))):
        for name in (
            "states",
            "actions",
            "rewards",
            "terminated",
            "truncated",
            "energy",
            "lengths",
        ):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        windows = [batches.OutcomeWindows(own, 3, 4, 0, "cpu") for own in (one, other)]
        for drawn in zip(*(own.batch(2) for own in windows), strict=True):
            if isinstance(drawn[0], torch.Tensor):
                assert torch.equal(*drawn)
    kept = {entry.name for entry in path.parent.iterdir()}
    assert kept == {path.name}, "files without a name"


@pytest.mark.parametrize("length", [1, 3, 20, 100])
def test_windows_are_counted_episode_by_episode(length: int) -> None:
    windows = batches.Windows(DATA, length, 4, 0, "cpu")
    episodes, starts = windows.places(torch.arange(windows.count))
    expected = [
        (row, start)
        for row, steps in enumerate(DATA.lengths)
        for start in range(max(1, steps - windows.length + 1) if steps else 0)
    ]
    assert list(zip(episodes.tolist(), starts.tolist(), strict=True)) == expected


def test_free_memory_is_the_least_of_machine_container_and_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for low in ("_of_machine", "_of_container", "_of_process"):
        for name in ("_of_machine", "_of_container", "_of_process"):
            monkeypatch.setattr(room, name, lambda own=(name == low): 10.0 if own else 1e9)
        assert room.free_memory() == 10.0


def test_scales_of_a_large_buffer_are_those_of_every_nth_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(collect(SMALL, tmp_path, progress=False))
    assert beginning.thinned(dataset) is dataset
    monkeypatch.setattr(beginning, "MOST_BYTES", dataset.states.nbytes // 2 - 1)
    assert beginning.thinned(dataset).episodes.tolist() == [0, 3, 6, 9]
