"""Bad input to the batched envs: named errors that change nothing; wrappers, copies and pictures."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from system_cases import NAMES
from vector_cases import IDS, LIMIT, assert_same, native, synchronous

from physgym import SYSTEMS
from physgym.vector import PhysicsVectorEnv

# -- errors ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [0, -1, 2.5, "3"])
def test_e28_bad_number_of_envs(num_envs: Any) -> None:
    with pytest.raises(ValueError, match=r"num_envs=.* must be an integer >= 1"):
        PhysicsVectorEnv("pendulum", num_envs)


@pytest.mark.parametrize(
    "actions",
    [
        [0, 1],
        [0, 1, 2, 0],
        [[0, 1, 2]],
        [0.0, 1.0, 2.0],
        [0, 1, 3],
        [0, -1, 2],
        ["0", "1", "2"],
        None,
        1,
    ],
    ids=str,
)
def test_e28_bad_actions_change_nothing(actions: Any) -> None:
    env, twin = native("pendulum", 3), native("pendulum", 3)
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(actions)
    assert_same(env.step([0, 1, 2]), twin.step([0, 1, 2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_e05_bad_continuous_actions_change_nothing(bad: float) -> None:
    env, twin = (native("pendulum", 2, action_mode="continuous") for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    for actions in ([[0.1], [bad]], [[0.1]], [0.1, 0.2], [[0.1, 0.1]] * 2):
        with pytest.raises(InvalidAction):
            env.step(np.array(actions, dtype=np.float32))
    assert_same(env.step(np.array([[9.0], [0.5]])), twin.step(np.array([[1.0], [0.5]])))


def test_resting_rows_need_no_valid_action() -> None:
    """In NEXT_STEP mode the action of a row about to be reset is ignored, whatever it is."""
    env = native("pendulum", 2, max_episode_steps=2)
    env.reset(seed=0)
    env.step([0, 0])
    env.step([0, 0])
    obs, rewards, _, truncated, _ = env.step([77, -5])
    assert rewards.tolist() == [0.0, 0.0]
    assert not truncated.any()
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"backend": "jax"}, "numpy, torch"),
        ({"device": "cpu"}, 'backend="torch"'),
        ({"render_mode": "human"}, "rgb_array"),
        ({"autoreset_mode": "never"}, "'NextStep'"),
        ({"max_episode_steps": 0}, "must be a whole number >= 1"),
        ({"backend": "torch", "integrator": "dop853"}, "numpy"),
    ],
    ids=str,
)
def test_bad_arguments_say_what_is_allowed(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PhysicsVectorEnv("pendulum", 2, **kwargs)


def test_e01_step_before_reset() -> None:
    with pytest.raises(ResetNeeded):
        PhysicsVectorEnv("pendulum", 2).step([0, 0])


# -- company -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("name", NAMES)
def test_stock_vector_wrappers(name: str, mode: str) -> None:
    from gymnasium.wrappers import vector as wrappers

    def wrapped(env: Any) -> Any:
        return wrappers.RecordEpisodeStatistics(env)

    ours = wrapped(native(name, 3, autoreset_mode=mode))
    theirs = wrapped(synchronous(name, 3, autoreset_mode=mode))
    ours.reset(seed=0)
    theirs.reset(seed=0)
    ended = 0
    for _ in range(40):
        a, b = ours.step(np.array([0, 1, 2]))[4], theirs.step(np.array([0, 1, 2]))[4]
        assert ("episode" in a) == ("episode" in b)
        if "episode" in a:
            ended += int(a["_episode"].sum())
            assert np.array_equal(a["episode"]["r"], b["episode"]["r"])
            assert np.array_equal(a["episode"]["l"], b["episode"]["l"])
    assert ended
    normal = wrappers.NormalizeReward(wrappers.NormalizeObservation(native(name, 3)))
    normal.reset(seed=0)
    assert normal.step(np.array([0, 1, 2]))[0].shape == (3, SYSTEMS[name].state_size)
    listed = wrappers.DictInfoToList(native(name, 3))
    _, infos = listed.reset(seed=0)
    assert infos[2]["params"].keys() == set(SYSTEMS[name].Params._fields)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", NAMES)
def test_e22_copies_live_the_same_life(name: str, how: str, backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    env = native(name, 3, randomize=True, backend=backend)
    env.reset(seed=1)
    actions = np.array([0, 1, 2])
    for _ in range(3):
        env.step(actions)
    twin = pickle.loads(pickle.dumps(env)) if how == "pickle" else copy.deepcopy(env)
    for _ in range(LIMIT + 3):
        for a, b in zip(env.step(actions)[:4], twin.step(actions)[:4], strict=True):
            assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", NAMES)
def test_render_gives_one_picture_a_row(name: str) -> None:
    env = native(name, 2, render_mode="rgb_array")
    single = gym.make(IDS[name], render_mode="rgb_array")
    env.reset(seed=0)
    single.reset(seed=0)
    for _ in range(2):
        pictures = env.render()
        assert isinstance(pictures, tuple)
        assert len(pictures) == 2
        assert np.array_equal(pictures[0], single.render())
        env.step([1, 2])
        single.step(1)
