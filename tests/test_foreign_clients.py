"""Stock clients in learned envs that are not of PhysGym: they must not see a difference."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import physgym
import worldmodels
from worldmodels.data import CollectConfig, collect, load_dataset
from worldmodels.envs.single import make_truth

pytestmark = pytest.mark.slow
LEARNED = "WorldModels/Learned-v0"
ENVS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "Pendulum-v1": {},
    "Acrobot-v1": {},
    "LunarLander-v3": {"continuous": True},
}


@pytest.fixture(scope="module", params=ENVS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a model after a short training."""
    name, kwargs = request.param, ENVS[request.param] or None
    if name.startswith("LunarLander") and importlib.util.find_spec("Box2D") is None:
        pytest.skip("Box2D is not installed")
    root = tmp_path_factory.mktemp(name)
    collected = CollectConfig(env=name, name="b", episodes=16, steps=60, make_kwargs=kwargs)
    dataset = load_dataset(collect(collected, root, progress=False))
    base = worldmodels.default_config("CartPole-v1", "jump")
    config = replace(
        base,
        env_name=name,
        env=replace(base.env, make_kwargs=kwargs, action_mode="discrete"),
        optim=replace(base.optim, steps_per_epoch=60, batch_size=64),
        epochs=1,
        validation_steps=5,
        dataset=str(dataset.path),
        out=str(root / "run"),
    )
    worldmodels.train(config, dataset, progress=False)
    return root / "run"


def made(run: Path, **arguments: Any) -> gym.Env:
    """The learned env by its id."""
    return gym.make(LEARNED, checkpoint=str(run), **arguments)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_finds_nothing_wrong(run: Path) -> None:
    env, truth = made(run), make_truth(str(run))
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == truth.observation_space
    assert env.action_space == truth.action_space
    assert env.spec is not None and truth.spec is not None
    assert env.spec.max_episode_steps == truth.spec.max_episode_steps
    assert env.spec.reward_threshold == truth.spec.reward_threshold


def test_rows_are_single_envs(run: Path) -> None:
    rows = worldmodels.make_env(run, num_envs=3)
    sync = gym.vector.SyncVectorEnv([lambda: worldmodels.make_env(run)] * 3)
    assert (rows.reset(seed=4)[0] == sync.reset(seed=4)[0]).all()
    rows.action_space.seed(0)
    for _ in range(25):
        actions = rows.action_space.sample()
        one, two = rows.step(actions), sync.step(actions)
        for left, right in zip(one[:4], two[:4], strict=True):
            assert left == pytest.approx(right, rel=1e-3, abs=1e-3)


def test_stable_baselines_learns(run: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env as check

    env = made(run)
    check(env, warn=False)
    agent = sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, device="cpu")
    agent.learn(64)
    assert env.action_space.contains(agent.predict(env.reset(seed=0)[0])[0])


@pytest.mark.parametrize("native", [False, True])
def test_a_single_file_agent_learns(run: Path, native: bool) -> None:
    """In the manner of CleanRL: thunks in a vector env, statistics of episodes in `infos`, one network."""
    returns, lengths = reinforce(envs_of(run, native), steps=40)
    assert returns and np.isfinite(returns).all() and max(lengths) <= 12


def envs_of(run: Path, native: bool) -> gym.vector.VectorEnv:
    """Four rows whose episodes' statistics are recorded."""
    if native:
        rows = gym.make_vec(
            LEARNED,
            num_envs=4,
            vectorization_mode="vector_entry_point",
            checkpoint=str(run),
            max_episode_steps=12,
        )
        return gym.wrappers.vector.RecordEpisodeStatistics(rows)

    def thunk() -> gym.Env:
        return gym.wrappers.RecordEpisodeStatistics(made(run, max_episode_steps=12))

    return gym.vector.SyncVectorEnv([thunk] * 4)


def reinforce(envs: gym.vector.VectorEnv, steps: int) -> tuple[list[float], list[int]]:
    """Returns and lengths of the episodes that end within ``steps`` steps of a policy that learns by them."""
    space: Any = envs.single_action_space
    discrete = isinstance(space, gym.spaces.Discrete)
    size = int(np.prod(envs.single_observation_space.shape))
    net = torch.nn.Linear(size, int(space.n) if discrete else int(np.prod(space.shape)))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    seen, _ = envs.reset(seed=1)
    returns, lengths, before = [], [], net.weight.detach().clone()
    for _ in range(steps):
        out = net(torch.as_tensor(seen, dtype=torch.float32).flatten(1))
        policy: Any = (
            torch.distributions.Categorical(logits=out)
            if discrete
            else torch.distributions.Normal(out, 1.0)
        )
        action = policy.sample()
        taken = action.numpy() if discrete else np.clip(action.numpy(), space.low, space.high)
        seen, rewards, _, _, infos = envs.step(taken)
        chance = policy.log_prob(action).reshape(len(rewards), -1).sum(1)
        loss = -(chance * torch.as_tensor(rewards, dtype=torch.float32)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if "episode" in infos:
            ended = infos["_episode"]
            returns += np.asarray(infos["episode"]["r"])[ended].tolist()
            lengths += np.asarray(infos["episode"]["l"])[ended].tolist()
    assert (net.weight != before).any()
    envs.close()
    return returns, lengths


@pytest.mark.filterwarnings("ignore")
def test_torchrl_rolls_out(run: Path) -> None:
    envs = pytest.importorskip("torchrl.envs")
    assert envs.GymEnv(LEARNED, checkpoint=str(run)).rollout(3).batch_size == torch.Size([3])
    rows = gym.make_vec(
        LEARNED,
        num_envs=2,
        vectorization_mode="vector_entry_point",
        checkpoint=str(run),
        max_episode_steps=4,
        autoreset_mode="Disabled",
    )
    found = envs.GymWrapper(rows).rollout(10, break_when_any_done=False)
    assert found.batch_size == torch.Size([2, 10])


def test_the_system_is_the_one_that_was_named(run: Path) -> None:
    spec = worldmodels.load(run).spec
    assert physgym.system_of(spec).kwargs == spec.env_kwargs == ENVS[spec.env_name]
