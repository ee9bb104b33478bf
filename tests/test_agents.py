"""Stock agents on vector envs: the adapter equals Stable-Baselines3's own, and agents train."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from worldmodels import agents

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv  # noqa: E402

MAKERS = [lambda: gym.make("CartPole-v1", max_episode_steps=12)] * 3


def sync(mode: AutoresetMode = AutoresetMode.SAME_STEP) -> SyncVectorEnv:
    return SyncVectorEnv(MAKERS, autoreset_mode=mode)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_adapter_equals_a_dummy_vec_env(mode: AutoresetMode) -> None:
    ours, theirs = agents.to_sb3_vecenv(sync(mode)), DummyVecEnv(MAKERS)
    assert isinstance(ours, VecEnv)
    for venv in (ours, theirs):
        venv.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.integers(0, 2, 3)
        mine, other = ours.step(actions), theirs.step(actions)
        for a, b in zip(mine[:3], other[:3], strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_array_equal(a, b)
        for a, b in zip(mine[3], other[3], strict=True):
            assert a.keys() == b.keys()
            assert a["TimeLimit.truncated"] == b["TimeLimit.truncated"]
            if "terminal_observation" in a:
                ends += 1
                np.testing.assert_array_equal(a["terminal_observation"], b["terminal_observation"])
    assert ends > 6


def test_the_adapter_speaks_for_the_whole_batch() -> None:
    venv = agents.to_sb3_vecenv(sync())
    assert venv.get_attr("num_envs", [0, 1]) == [3, 3]
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * 3
    with pytest.raises(ValueError, match="one value"):
        venv.set_attr("x", 1, indices=[0])
    with pytest.raises(NotImplementedError, match="reset"):
        venv.env_method("reset")
    with pytest.raises(TypeError, match="VectorEnv"):
        agents.to_sb3_vecenv(gym.make("CartPole-v1"))
    venv.close()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_evaluation_counts_the_first_episode_of_each_env(mode: AutoresetMode) -> None:
    result = agents.evaluate_agent(lambda obs: np.zeros(len(obs), dtype=int), sync(mode))
    lengths = []
    for seed in range(3):
        env = gym.make("CartPole-v1", max_episode_steps=12)
        env.reset(seed=seed)
        lengths.append(next(n for n in range(1, 13) if any(env.step(0)[2:4])))
    np.testing.assert_array_equal(result.returns, lengths)
    assert result.mean == pytest.approx(np.mean(lengths))
    assert result.diverged == 0


@pytest.mark.parametrize("agent", ["dqn", "ppo"])
def test_an_agent_trains_and_acts_reproducibly(agent: str) -> None:
    small: dict[str, Any] = {"n_steps": 16} if agent == "ppo" else {"learning_starts": 20}
    outcomes = []
    for _ in range(2):
        model = agents.train_agent(sync(), agent, steps=96, seed=1, batch_size=16, **small)
        outcomes.append(agents.evaluate_agent(agents.greedy(model), sync(), seed=9).returns)
    np.testing.assert_array_equal(*outcomes)


def test_bad_requests_say_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="dqn, ppo, sac"):
        agents.train_agent(sync(), "a2c")
    with pytest.raises(ValueError, match="continuous"):
        agents.train_agent(sync(), "sac")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(DependencyNotInstalled, match=r"physgym\[agents\]"):
        agents.train_agent(sync(), "ppo")
