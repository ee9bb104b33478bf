"""The files of a dataset: damage, repair, values that are not finite, readers beside writers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_cases import SMALL, content

from worldmodels.data import (
    DatasetError,
    collect,
    load_dataset,
    repair,
    store,
)
from worldmodels.storage import files as storage


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


# D3, D5: damage


def cut(path: Path) -> None:
    """Truncate a file."""
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def swap(path: Path) -> None:
    """Put the first shard in its place."""
    shutil.copy(path.with_name("shard-00000.h5"), path)


DAMAGES = [cut, flip, swap, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named_dropped_and_collected_again(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    before = content(folder)
    damage(folder / "shard-00001.h5")
    with pytest.raises(DatasetError, match=r"shard-00001.*--repair"):
        load_dataset(folder)
    with pytest.raises(DatasetError, match=r"shard-00001.*--repair"):
        collect(SMALL, tmp_path, progress=False)
    told: list[str] = []
    assert repair(folder, told.append) == ["shard-00001.h5"]
    assert len(told) == 1
    assert "dropped shard-00001.h5, episodes 4 to 7" in told[0]
    with pytest.raises(DatasetError, match="6 of 10 episodes"):
        load_dataset(folder)
    assert load_dataset(folder, partial=True).episodes.tolist() == [0, 1, 2, 3, 8, 9]
    collect(SMALL, tmp_path, progress=False)
    after = content(folder)
    after.pop("shard-00001.h5.damaged", None)
    assert after == before


def test_repair_through_collect_does_both(folder: Path, tmp_path: Path) -> None:
    before = content(folder)
    flip(folder / "shard-00002.h5")
    told: list[str] = []
    collect(SMALL, tmp_path, progress=False, repair=True, report=told.append)
    assert "episodes 8 to 9" in told[0]
    assert {k: v for k, v in content(folder).items() if k in before} == before
    collect(SMALL, tmp_path, progress=False, repair=True, report=told.append)
    assert len(told) == 1


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_header_is_noticed_and_written_anew(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    before = content(folder)
    damage(folder / "dataset.json")
    with pytest.raises(DatasetError, match=r"dataset.json"):
        load_dataset(folder)
    with pytest.raises(DatasetError, match="--repair"):
        collect(SMALL, tmp_path, progress=False)
    told: list[str] = []
    collect(SMALL, tmp_path, progress=False, repair=True, report=told.append)
    assert "anew" in told[0]
    assert content(folder) == before


def test_unlisted_files_are_ignored(folder: Path) -> None:
    shutil.copy(folder / "shard-00000.h5", folder / "shard-00007.h5")
    (folder / ".tmp-left").write_text("x")
    assert len(load_dataset(folder)) == 10


def forge(folder: Path, index: int, change: Callable[[h5py.File], object]) -> None:
    """Change a shard and make its hash right again, as a faulty writer would."""
    path = folder / f"shard-{index:05d}.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    header = store.read_header(folder)
    header["shards"][index].update(storage.fingerprint(path.read_bytes()))
    store.write_header(folder, header)


def as_float32(file: h5py.File) -> None:
    """Store the states in another type."""
    states = file["states"][()].astype(np.float32)
    del file["states"]
    file["states"] = states


def shortened(file: h5py.File) -> None:
    """Store the states of a shorter episode."""
    states = file["states"][:, :-1]
    del file["states"]
    file["states"] = states


def with_nan(file: h5py.File) -> None:
    """Put a NaN into the second episode."""
    file["energy"][1, 3] = np.nan


def bomb(file: h5py.File) -> None:
    """Claim a terabyte that is not there."""
    del file["states"]
    file.create_dataset("states", (4, 2**33, 4), dtype="f8", chunks=(1, 2**10, 4))


def with_bad_length(file: h5py.File) -> None:
    """Claim an episode longer than its arrays."""
    file["lengths"][0] = 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_float32, r"shard-00001.h5: states is float32 .*float64"),
        (shortened, r"shard-00001.h5: states is float64 \[4, 25, 4\]"),
        (with_nan, r"shard-00001.h5: energy of episode 5 is not finite"),
        (bomb, r"shard-00001.h5: states is float64 \[4, 8589934592, 4\]"),
        (with_bad_length, r"shard-00001.h5: lengths of episode 4 lies outside 1 to 25"),
        (lambda file: file.attrs.update(dt=0.3), r"shard-00001.h5 is of .*0.3"),
        (lambda file: file.attrs.update(first_episode=8), r"shard-00001.h5 is of .*8"),
        (lambda file: file.attrs.update(dt="soon"), r"shard-00001.h5 is of .*None"),
        (lambda file: file.pop("rewards"), r"shard-00001.h5: it has no rewards"),
    ],
)
def test_a_shard_unlike_the_others_is_named(
    folder: Path, change: Callable[[h5py.File], object], message: str
) -> None:
    forge(folder, 1, change)
    with pytest.raises(DatasetError, match=message):
        load_dataset(folder)


def test_a_header_cannot_point_elsewhere_or_name_an_episode_twice(folder: Path) -> None:
    header = store.read_header(folder)
    for change in (
        {"file": "../../small/shard-00001.h5"},
        {"first": 2},
        {"unknown": 1},
    ):
        shards = [dict(entry) for entry in header["shards"]]
        shards[1].update(change)
        store.write_header(folder, {**header, "shards": shards})
        with pytest.raises(DatasetError, match=r"dataset\.json"):
            load_dataset(folder)
    store.write_header(folder, {**header, "format_version": 99})
    with pytest.raises(DatasetError, match="upgrade"):
        load_dataset(folder)


# D4: NaN, nothing, too short


def test_values_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    arrays = {"states": np.ones((3, 5, 2)), "lengths": np.full(3, 4)}
    arrays["states"][1, 2, 0] = np.inf
    with pytest.raises(DatasetError, match="episode 11: states"):
        store.write_shard(tmp_path, 0, 10, arrays, {})
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_episodes(folder: Path) -> None:
    header = store.read_header(folder)
    store.write_header(folder, {**header, "shards": []})
    for partial in (False, True):
        with pytest.raises(DatasetError, match="0 of 10 episodes"):
            load_dataset(folder, partial=partial)


# D6: reading while another process writes


def test_a_reader_sees_the_listed_shards_only(folder: Path) -> None:
    header = store.read_header(folder)
    store.write_header(folder, {**header, "shards": header["shards"][:2]})
    with pytest.raises(DatasetError, match="8 of 10"):
        load_dataset(folder)
    part = load_dataset(folder, partial=True)
    assert part.episodes.tolist() == list(range(8))
    rows = np.concatenate(list(part.splits.values()))
    assert sorted(rows) == list(range(8))
