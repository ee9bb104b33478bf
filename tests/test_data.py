"""Datasets: what is in them, how they load, and what damage, NaN and short episodes do."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import physgym
from worldmodels import storage
from worldmodels.config import DataConfig, EnvConfig, TrainConfig
from worldmodels.data import (
    CollectConfig,
    Dataset,
    DatasetError,
    collect,
    dataset_for,
    load_dataset,
    repair,
    store,
    window_index,
    windows,
)

SMALL = CollectConfig(
    env="spaceship", name="small", episodes=10, steps=25, policy="mixed", randomize=True,
    shard_episodes=4,
)  # fmt: skip
ARRAYS = ("states", "actions", "rewards", "terminated", "truncated", "energy", "lengths", "seeds")


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


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of every file of a dataset but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


# What is in a dataset


def test_shapes_types_and_padding(original: Path) -> None:
    data = load_dataset(original)
    assert len(data) == 10
    assert data.states.shape == (10, 26, 4)
    assert data.energy.shape == (10, 26)
    assert data.param_array.shape == (10, len(data.param_names)) == (10, 5)
    kinds = {name: getattr(data, name).dtype for name in ARRAYS}
    assert kinds["states"] == kinds["rewards"] == kinds["energy"] == np.float64
    assert kinds["actions"] == kinds["lengths"] == kinds["seeds"] == np.int64
    assert kinds["terminated"] == kinds["truncated"] == np.bool_
    assert data.mask.sum() == data.lengths.sum()
    for row, length in enumerate(data.lengths):
        assert (data.states[row, length:] == data.states[row, length]).all()
        assert (data.energy[row, length:] == data.energy[row, length]).all()
        assert not data.rewards[row, length:].any()
        assert not data.actions[row, length:].any()
        ended = data.terminated[row] | data.truncated[row]
        assert ended.nonzero()[0].tolist() == [length - 1]


@pytest.mark.parametrize("action_mode", ["discrete", "continuous"])
@pytest.mark.parametrize("env", list(physgym.SYSTEMS))
def test_every_episode_is_what_the_single_env_does(
    env: str, action_mode: Any, tmp_path: Path
) -> None:
    config = CollectConfig(
        env=env, episodes=6, steps=40, policy="mixed", randomize=True, action_mode=action_mode,
        seed=5,
    )  # fmt: skip
    data = load_dataset(collect(config, tmp_path, progress=False))
    single = gymnasium.make(
        data.metadata["env_id"], max_episode_steps=config.steps, **data.env_kwargs
    )
    for row, length in enumerate(data.lengths):
        _, info = single.reset(seed=int(data.seeds[row]))
        assert info["params"] == {name: values[row] for name, values in data.params.items()}
        assert np.array_equal(info["state"], data.states[row, 0])
        for step in range(length):
            action = data.actions[row, step]
            _, reward, terminated, truncated, info = single.step(action)
            assert np.array_equal(info["state"], data.states[row, step + 1])
            assert info["energy"] == data.energy[row, step + 1]
            assert reward == data.rewards[row, step]
            assert (terminated, truncated) == (
                data.terminated[row, step],
                data.truncated[row, step],
            )


def test_an_episode_depends_on_seed_and_index_alone(original: Path, tmp_path: Path) -> None:
    whole = load_dataset(original)
    other = replace(SMALL, name="other", episodes=7, shard_episodes=3)
    part = load_dataset(collect(other, tmp_path, progress=False))
    for name in ARRAYS:
        assert np.array_equal(getattr(part, name), getattr(whole, name)[:7])
    seeded = load_dataset(collect(replace(other, seed=1), tmp_path / "s", progress=False))
    assert not (seeded.seeds == part.seeds).any()


def test_equal_configs_give_equal_bytes(original: Path, tmp_path: Path) -> None:
    again = collect(SMALL, tmp_path, progress=False)
    assert content(again) == content(original)
    assert load_dataset(again).hash == load_dataset(original).hash


@pytest.mark.parametrize("policy", ["random", "zero", "bang", "mixed"])
@pytest.mark.parametrize("action_mode", ["discrete", "continuous"])
def test_policies_do_what_they_say(policy: Any, action_mode: Any, tmp_path: Path) -> None:
    config = CollectConfig(
        env="pendulum", episodes=40, steps=60, policy=policy, action_mode=action_mode
    )
    data = load_dataset(collect(config, tmp_path, progress=False))
    levels = physgym.SYSTEMS["pendulum"].discrete_actions[:, 0]
    used = levels[data.actions] if action_mode == "discrete" else data.actions[..., 0]
    names = [data.metadata["behaviours"][index] for index in data.behaviours]
    assert set(names) == (
        {"random", "bang", "zero", "controller"} if policy == "mixed" else {policy}
    )
    for name, row in zip(names, used, strict=True):
        changes = int((np.diff(row) != 0).sum())
        assert np.abs(row).max() <= 1
        if name == "zero":
            assert not row.any()
        elif name == "bang":
            assert set(row) <= {-1.0, 1.0}
            assert changes <= 20
        elif name == "random":
            assert changes > 25
            assert set(np.sign(row)) >= {-1.0, 1.0}


def test_splits_are_disjoint_complete_and_of_the_config_alone() -> None:
    from worldmodels.data.collecting import split_episodes

    for episodes in (1, 2, 3, 10, 101, 1000):
        config = CollectConfig(episodes=episodes)
        splits = split_episodes(config)
        assert sorted(chain(*splits.values())) == list(range(episodes))
        assert splits == split_episodes(replace(config, env="pendulum", policy="bang"))
        sizes = [len(splits[name]) for name in store.SPLITS]
        assert sizes[0] >= 1
        assert sizes[1:] == ([max(1, round(episodes / 10))] * 2 if episodes >= 3 else [0, 0])
    assert split_episodes(CollectConfig(seed=1)) != split_episodes(CollectConfig(seed=2))


def test_subsets_hold_their_episodes(original: Path) -> None:
    data = load_dataset(original)
    parts = [data.subset(name) for name in data.splits]
    assert sorted(np.concatenate([part.episodes for part in parts])) == list(range(10))
    for part in parts:
        assert np.array_equal(part.states, data.states[part.episodes])
        assert np.array_equal(part.param_array, data.param_array[part.episodes])
    with pytest.raises(DatasetError, match=r"'training'.*train"):
        data.subset("training")


def test_one_trajectory_is_a_dataset_without_a_test_split(tmp_path: Path) -> None:
    data = load_dataset(collect(replace(SMALL, episodes=1), tmp_path, progress=False))
    assert len(data.subset("train")) == 1
    with pytest.raises(DatasetError, match="empty"):
        data.subset("test")


def test_pixels_are_those_of_the_env_and_read_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    config = CollectConfig(
        env="pendulum", episodes=5, steps=6, pixels=True, image_size=32, shard_episodes=2
    )
    data = load_dataset(collect(config, tmp_path, progress=False))
    assert data.pixels is not None
    assert len(data.pixels) == 5
    assert data.pixels[:2].shape == (2, 7, 32, 32, 3)
    env = gymnasium.make("PhysGym/Pendulum-v0", obs_mode="pixels", image_size=32)
    picture, _ = env.reset(seed=int(data.seeds[3]))
    for step in range(6):
        assert np.array_equal(data.pixels[3][step], picture)
        picture, *_ = env.step(data.actions[3, step])
    train = data.subset("train")
    copied = pickle.loads(pickle.dumps(train.pixels))
    for row, episode in enumerate(train.episodes):
        assert np.array_equal(copied[row], data.pixels[int(episode)])
    with h5py.File(data.path / "shard-00000.h5") as file:
        assert file["pixels"].chunks == (1, 7, 32, 32, 3)
        assert (file["pixels"].compression, file["pixels"].compression_opts) == ("gzip", 1)


def test_no_torch_is_imported() -> None:
    code = (
        "import sys; from worldmodels.data import CollectConfig, collect, load_dataset, windows;"
        "import tempfile; load_dataset(collect(CollectConfig(episodes=2, steps=2),"
        " tempfile.mkdtemp())); sys.exit(bool({'torch', 'wandb', 'tyro'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
        (bomb, r"shard-00001.h5 claims to hold more"),
        (with_bad_length, r"shard-00001.h5 .*length"),
        (lambda file: file.attrs.update(dt=0.3), r"shard-00001.h5 is of .*0.3"),
        (lambda file: file.attrs.update(env="PhysGym/Pendulum-v0"), r"shard-00001.h5 is of .*Pend"),
        (lambda file: file.pop("rewards"), r"shard-00001.h5 has no rewards"),
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


def test_the_first_format_stays_readable() -> None:
    data = load_dataset(Path(__file__).parent / "golden" / "dataset-v1")
    assert data.hash.startswith("b648fd87")
    assert data.states.shape == (3, 5, 2)
    assert data.states[2, 4].tolist() == [0.8194764781756186, -1.3321391367671325]
    assert [len(rows) for rows in data.splits.values()] == [1, 1, 1]


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


def tiny(lengths: list[int], steps: int = 12) -> Dataset:
    """A dataset whose values say where they come from."""
    count = len(lengths)
    clock = np.arange(count)[:, None] * 1000 + np.arange(steps + 1.0)
    zeros = np.zeros((count, steps))
    return Dataset(
        states=np.stack([clock, -clock], axis=2),
        actions=clock[:, :-1].astype(np.int64),
        rewards=clock[:, 1:],
        terminated=zeros.astype(bool),
        truncated=zeros.astype(bool),
        energy=clock,
        lengths=np.array(lengths),
        params={"mass": np.arange(count) + 0.5},
        seeds=np.arange(count),
        episodes=np.arange(count),
        behaviours=np.zeros(count, dtype=np.int8),
        dt=0.1,
        env_name="oscillator",
        env_kwargs={},
        splits={},
        metadata={},
        path=Path("tiny"),
        hash="",
    )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    length=st.integers(1, 12),
    batch_size=st.integers(1, 40),
)
def test_windows_are_all_there_once_and_cross_no_end(
    lengths: list[int], length: int, batch_size: int
) -> None:
    data = tiny(lengths)
    wanted = {(row, s) for row, n in enumerate(lengths) for s in range(n - length + 1)}
    if not wanted:
        with pytest.raises(DatasetError, match=f"longest of {len(lengths)} has {max(lengths)}"):
            window_index(data, length)
        return
    found = []
    for batch in windows(data, length, np.random.default_rng(0), batch_size):
        assert len(batch.states) <= batch_size
        assert batch.states.dtype == batch.params.dtype == np.float32
        rows, starts = np.divmod(batch.states[:, 0, 0].astype(int), 1000)
        found += list(zip(rows.tolist(), starts.tolist(), strict=True))
        ramp = batch.states[:, :1, 0] + np.arange(length + 1)
        assert np.array_equal(batch.states[..., 0], ramp)
        assert np.array_equal(batch.actions, ramp[:, :-1])
        assert np.array_equal(batch.rewards, ramp[:, 1:])
        assert np.array_equal(batch.params[:, 0], rows + 0.5)
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_windows_are_shuffled_by_their_generator_alone() -> None:
    data = tiny([12] * 5)

    def order(seed: int) -> list[float]:
        batches = windows(data, 3, np.random.default_rng(seed), 7)
        return np.concatenate([batch.states[:, 0, 0] for batch in batches]).tolist()

    assert order(0) == order(0) != order(1)
    for bad in ({"length": 0, "batch_size": 1}, {"length": 1, "batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            next(windows(data, rng=np.random.default_rng(0), **bad))


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
    import threading

    config = training(data=DataConfig(episodes=3))
    path = dataset_for(config, tmp_path, progress=False).path
    lock = storage.RunLock(path).acquire()
    timer = threading.Timer(0.5, lock.release)
    timer.start()
    assert len(dataset_for(config, tmp_path, progress=False)) == 3
    timer.join()
    assert "waiting" in capfd.readouterr().err


@pytest.mark.parametrize(
    "bad",
    [
        {"episodes": 0},
        {"episodes": True},
        {"steps": 0},
        {"seed": -1},
        {"name": "../x"},
        {"name": ""},
        {"name": ".hidden"},
        {"name": "a/b"},
        {"dt": float("nan")},
        {"dt": 0.0},
        {"val_fraction": 0.6},
        {"shard_episodes": 0},
        {"policy": "best"},
        {"image_size": 0},
    ],
)
def test_a_bad_config_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        CollectConfig(**bad)
