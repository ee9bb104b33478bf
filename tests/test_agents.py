"""Stock agents on vector envs: the adapter equals Stable-Baselines3's own, and agents train."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from model_doubles import Perfect, make_spec, save_untrained

import physgym
import worldmodels
from worldmodels.agents import returns
from worldmodels.agents import stable_baselines as agents
from worldmodels.commands import agent as train_agent
from worldmodels.commands import terminal as cli
from worldmodels.envs.single import make_truth

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv  # noqa: E402

ROOT = Path(__file__).parent.parent
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
    result = returns.evaluate_agent(lambda obs: np.zeros(len(obs), dtype=int), sync(mode))
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
        outcomes.append(returns.evaluate_agent(returns.greedy(model), sync(), seed=9).returns)
    np.testing.assert_array_equal(*outcomes)


@pytest.mark.parametrize("num_envs", [1, 3, 17, 32, 33, 1009])
def test_ppo_learns_from_batches_of_equal_size(num_envs: int) -> None:
    rollout, most = 64 * num_envs, agents.AGENTS["ppo"]["batch_size"]
    share = agents._even_share(rollout, most)
    assert rollout % share == 0
    assert 64 <= share <= most
    assert agents._even_share(1031, 1024) == 1031, "not batches of one"


def test_td3_explores_and_only_in_training() -> None:
    env = gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")
    agent = agents.start_agent(env, "td3", seed=0, learning_starts=0)
    seen = np.zeros((200, 3), np.float32)
    agent._setup_learn(4)
    agent._last_obs = seen[:2]
    noisy = [agent._sample_action(0, agent.action_noise, 2)[1] for _ in range(100)]
    still, _ = agent.predict(seen, deterministic=True)
    assert np.ptp(still) == 0.0
    assert 0.08 < np.std(noisy) < 0.12  # of actions in [-1, 1]
    quiet = agents.start_agent(env, "td3", seed=0, action_noise=None)
    assert quiet.action_noise is None


def test_one_episode_has_no_standard_error() -> None:
    envs = SyncVectorEnv(MAKERS[:1], autoreset_mode=AutoresetMode.SAME_STEP)
    result = returns.evaluate_agent(lambda obs: np.zeros(len(obs), dtype=int), envs)
    assert str(result).endswith("+- n/a (1 episode)")


def test_bad_requests_say_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="dqn, ppo, sac"):
        agents.train_agent(sync(), "a2c")
    with pytest.raises(ValueError, match="continuous"):
        agents.train_agent(sync(), "sac")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(DependencyNotInstalled, match=r"physgym\[agents\]"):
        agents.train_agent(sync(), "ppo")


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_true_and_learned_envs_serve_alike(name: str) -> None:
    model = Perfect(make_spec(name))
    kwargs: dict[str, Any] = {"max_episode_steps": 7, "vectorization_mode": "vector_entry_point"}
    env_id = physgym.get_system(name).env_id
    venvs = [
        agents.to_sb3_vecenv(gym.make_vec(env_id, num_envs=3, **kwargs)),
        agents.to_sb3_vecenv(worldmodels.make_env(model, num_envs=3, max_episode_steps=7)),
        DummyVecEnv([lambda: gym.make(env_id, max_episode_steps=7)] * 3),
    ]
    for venv in venvs:
        venv.seed(2)
    results = [(venv.reset(),) for venv in venvs]
    for step in range(20):
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_array_equal(results[0][0], results[2][0])
        results = [venv.step(np.full(3, step % 3)) for venv in venvs]
        for ours in results[:2]:
            np.testing.assert_array_equal(ours[2], results[2][2])
            for info, reference in zip(ours[3], results[2][3], strict=True):
                end, expected = (
                    info.get("terminal_observation"),
                    reference.get("terminal_observation"),
                )
                np.testing.assert_array_equal(end, expected)
                assert info["TimeLimit.truncated"] == reference["TimeLimit.truncated"]
                if end is not None:
                    np.testing.assert_array_equal(info["state"], reference["state"])


def test_an_env_on_torch_serves_too() -> None:
    kwargs: dict[str, Any] = {"num_envs": 3, "vectorization_mode": "vector_entry_point"}
    for mode in AutoresetMode:
        env = gym.make_vec(
            "PhysGym/Pendulum-v0",
            backend="torch",
            max_episode_steps=5,
            autoreset_mode=mode,
            **kwargs,
        )
        model = agents.train_agent(env, "ppo", steps=48, n_steps=8, batch_size=24)
        result = returns.evaluate_agent(returns.greedy(model), env)
        assert result.returns.shape == (3,)
        assert isinstance(result.returns, np.ndarray)


def test_continuous_agents_act_in_a_learned_env() -> None:
    model = Perfect(make_spec("pendulum", action_mode="continuous"))
    env = worldmodels.make_env(model, num_envs=4, max_episode_steps=10)
    agent = agents.train_agent(env, "sac", steps=80, learning_starts=20, batch_size=16)
    learned = returns.evaluate_agent(returns.greedy(agent), env)
    truth = make_truth(model, num_envs=4, max_episode_steps=10)
    np.testing.assert_array_equal(
        learned.returns, returns.evaluate_agent(returns.greedy(agent), truth).returns
    )
    with pytest.raises(ValueError, match="discrete"):
        agents.train_agent(env, "dqn")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of an untrained pendulum model."""
    return save_untrained(tmp_path_factory.mktemp("run") / "best")


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/train_agent.py", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT
    )


def test_the_script_reports_both_places(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "agent.json"
    few = ("--steps", "2048", "--num-envs", "32", "--episodes", "2", "--compare", "--no-film")
    done = script("--run", str(run), "--agent", "ppo", *few, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "return in the model" in done.stdout
    assert "return in the truth" in done.stdout
    rows = json.loads(out.read_text())["rows"]
    assert [row["trained in"] for row in rows] == ["model", "truth"]
    assert all(len(row[place]["returns"]) == 2 for row in rows for place in ("model", "truth"))
    assert (tmp_path / "agent-model.zip").exists()


def test_the_script_keeps_the_agent_without_being_asked(run: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(run, whole / "checkpoints" / "best")
    few = ("--steps", "1", "--num-envs", "1", "--episodes", "1", "--no-film")
    for name in ("ppo-seed0", "ppo-seed0-2"):
        done = script("--run", str(whole), *few)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "a warning"
        assert str(whole / "agents" / f"{name}-model.zip") in done.stdout
        rows = json.loads((whole / "agents" / f"{name}.json").read_text())["rows"]
        assert rows[0]["truth"]["standard_error"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "sac"], "continuous"),
        (["--out", "README.md/agent.json"], "README.md is not a folder"),
        (["--out", "docs"], "name a file in it"),
    ],
)
def test_the_script_says_in_a_line_what_is_wrong(
    run: Path, arguments: list[str], message: str
) -> None:
    done = script("--run", str(run), *arguments)
    assert done.returncode == 2, done
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--run", "nowhere"], ["--env", "pendulam"], ["--env", "pendulum", "--steps", "0"]],
)
def test_bad_arguments_are_the_users_errors(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_agent.py", *arguments])
    with pytest.raises(Exception) as caught:
        train_agent.main()
    assert cli.is_user_error(caught.value), caught.value
