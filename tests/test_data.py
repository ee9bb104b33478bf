"""What is in a dataset: the episodes of the single env, bit for bit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from data_cases import SMALL, content

import physgym
from worldmodels.data import (
    CollectConfig,
    DatasetError,
    collect,
    load_dataset,
    store,
)

ARRAYS = ("states", "actions", "rewards", "terminated", "truncated", "energy", "lengths", "seeds")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real dataset that no test changes."""
    return collect(SMALL, tmp_path_factory.mktemp("datasets"), progress=False)


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
    from worldmodels.data.beginning import split_episodes

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


def test_the_first_format_stays_readable() -> None:
    data = load_dataset(Path(__file__).parent / "golden" / "dataset-v1")
    assert data.hash.startswith("b648fd87")
    assert data.states.shape == (3, 5, 2)
    assert data.states[2, 4].tolist() == [0.8194764781756186, -1.3321391367671325]
    assert [len(rows) for rows in data.splits.values()] == [1, 1, 1]


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
