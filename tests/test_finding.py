"""Which dataset is meant: a name, a path, or a hash whatever became of the path."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from data_cases import SMALL, content

from worldmodels.data import DatasetError, collect, find_dataset, load_dataset
from worldmodels.storage import files as storage

TINY = replace(SMALL, episodes=3, steps=2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`datasets` in the working folder, with spaceship/small and a pendulum's `own`."""
    monkeypatch.chdir(tmp_path)
    collect(TINY, "datasets", progress=False)
    collect(replace(TINY, env="pendulum", name="own"), "datasets", progress=False)
    return Path("datasets")


@pytest.mark.parametrize(
    "name",
    [
        "small", "small/", "spaceship/small", "spaceship/small/", "datasets/spaceship/small",
        "./datasets/spaceship/small/", "datasets/spaceship/small/dataset.json",
    ],
)  # fmt: skip
def test_every_way_to_name_a_dataset(root: Path, name: str) -> None:
    wanted = (root / "spaceship" / "small").resolve()
    assert find_dataset(name).resolve() == wanted
    assert find_dataset(name, env="spaceship").resolve() == wanted
    assert load_dataset(name).path.resolve() == wanted
    assert find_dataset(str(wanted)) == wanted


def test_a_name_of_two_envs_asks_which(root: Path) -> None:
    collect(replace(TINY, env="pendulum"), root, progress=False)
    with pytest.raises(DatasetError, match=r"several.*pendulum/small, spaceship/small"):
        find_dataset("small")
    assert find_dataset("small", env="pendulum") == root / "pendulum" / "small"
    assert find_dataset("own", env="spaceship") == root / "pendulum" / "own"


@pytest.mark.parametrize("name", ["smal", "", " ", "a\0b", "/", "..", "x" * 5000])
def test_no_such_dataset(root: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="dataset"):
        load_dataset(name)


def test_a_folder_that_is_no_dataset_does_not_hide_one(root: Path) -> None:
    Path("small").mkdir()
    assert find_dataset("small") == root / "spaceship" / "small"


@pytest.mark.parametrize(
    "moved", ["datasets/spaceship/other", "elsewhere/small", "datasets/pendulum/own2", "small"]
)
def test_a_dataset_is_known_by_its_hash(root: Path, moved: str) -> None:
    old = root / "spaceship" / "small"
    known = load_dataset(old).hash
    assert find_dataset(str(old), sha256=known) == old
    Path(moved).parent.mkdir(parents=True, exist_ok=True)
    old.rename(moved)
    found = find_dataset(str(old), sha256=known, places=["elsewhere", "."])
    assert found.samefile(moved)
    with pytest.raises(DatasetError, match=r"no longer there.*--dataset"):
        find_dataset(str(old), sha256="0" * 64)


def test_another_dataset_at_the_old_path_is_not_taken(root: Path) -> None:
    old = root / "spaceship" / "small"
    known = load_dataset(old).hash
    old.rename(root / "spaceship" / "kept")
    shutil.copytree(root / "pendulum" / "own", old)
    assert find_dataset(str(old), sha256=known) == root / "spaceship" / "kept"
    shutil.rmtree(root / "spaceship" / "kept")
    with pytest.raises(DatasetError, match="another one now"):
        find_dataset(str(old), sha256=known)


def test_a_complete_dataset_needs_no_place_to_write(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(root / "spaceship" / "small")

    def refuse(*_: object) -> None:
        raise storage.StorageError("cannot write to the folder: Read-only file system")

    monkeypatch.setattr(storage.RunLock, "acquire", refuse)
    assert collect(TINY, root, progress=False) == root / "spaceship" / "small"
    assert content(root / "spaceship" / "small") == before
    with pytest.raises(storage.StorageError, match="Read-only"):
        collect(replace(TINY, name="new"), root, progress=False)


def test_a_dataset_is_shown_in_a_line(root: Path) -> None:
    data = load_dataset("small")
    text = str(data)
    assert text == repr(data)
    assert "spaceship: 3 episodes" in text
    assert len(text) < 200
    assert len(f"{data.subset('train')} {[data]}") < 500


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do all")
def test_a_folder_without_permission_is_no_missing_one(root: Path) -> None:
    (root / "spaceship").chmod(0)
    try:
        with pytest.raises(DatasetError, match="Permission denied"):
            find_dataset("spaceship/small")
    finally:
        (root / "spaceship").chmod(0o755)
