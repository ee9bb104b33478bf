"""What other libraries look for in an env: words, base classes, limits, keys. (Those installed are tried.)"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from model_doubles import make_spec, small_model

import worldmodels  # noqa: F401  (registers the learned env)
from physgym import SYSTEMS, PhysicsEnv, PhysicsVectorEnv
from worldmodels.envs.single import WorldModelEnv, WorldModelVectorEnv, make_env

LEARNED = "WorldModels/Learned-v0"


def model(**env_kwargs: Any) -> Any:
    return small_model("jump", make_spec("pendulum", **env_kwargs))


MAKERS = {
    "single": lambda **k: PhysicsEnv("pendulum", **k),
    "vector": lambda **k: PhysicsVectorEnv("pendulum", 2, **k),
    "made": lambda **k: gym.make("PhysGym/Pendulum-v0", **k),
    "made vector": lambda **k: gym.make_vec(
        "PhysGym/Pendulum-v0", num_envs=2, vectorization_mode="vector_entry_point", **k
    ),
    "learned": lambda **k: WorldModelEnv(model(), **k),
    "learned vector": lambda **k: WorldModelVectorEnv(model(), 2, **k),
    "made learned": lambda **k: gym.make(LEARNED, model=model(), **k),
    "made learned vector": lambda **k: gym.make_vec(LEARNED, num_envs=2, model=model(), **k),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_an_unknown_argument_is_refused_in_pythons_words_and_ours(maker: str) -> None:
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'frameskip'") as told:
        MAKERS[maker](frameskip=4)
    assert "choose of" in str(told.value) and "obs_mode" in str(told.value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'rewad'.*'reward'"):
        MAKERS[maker](rewad="dense")


def test_arguments_that_only_the_truth_has_are_told_from_unknown_ones() -> None:
    with pytest.raises(ValueError, match="integrator='rk4' cannot be chosen for a learned env"):
        make_env(model(), integrator="rk4")


@pytest.mark.parametrize("kind", [PhysicsVectorEnv, WorldModelVectorEnv])
def test_vector_envs_name_gymnasiums_class_as_a_base(kind: type) -> None:
    assert VectorEnv in kind.__bases__


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_infos_are_flat_on_request(learned: bool, mode: str) -> None:
    def made(flat: bool) -> Any:
        options: dict[str, Any] = {
            "flat_info": flat,
            "autoreset_mode": mode,
            "max_episode_steps": 3,
        }
        return MAKERS["learned vector" if learned else "vector"](**options)

    flat, nested = made(True), made(False)
    infos = [[env.reset(seed=0)[1]] for env in (flat, nested)]
    for _ in range(3):
        for env, seen in zip((flat, nested), infos, strict=True):
            seen.append(env.step(np.zeros(2, int))[-1])
    for one, other in zip(*infos, strict=True):
        pairs = [(one, other)]
        if "final_info" in other:
            pairs.append((one["final_info"], other["final_info"]))
        for info, reference in pairs:
            assert "params" not in info and "_params" not in info
            for name, values in reference["params"].items():
                key = f"_params{name}" if name.startswith("_") else f"params_{name}"
                assert np.array_equal(info[key], values)


@pytest.mark.parametrize(
    ("mode", "limit"),
    [
        *(("single", limit) for limit in (None, 3, 300, -1)),
        *(("sync", limit) for limit in (None, 3, 300, -1)),
        *(("spec", limit) for limit in (None, 3, 300)),  # a spec has no word for no limit
    ],
)
def test_the_limit_asked_of_gymnasium_is_the_limit(mode: str, limit: int | None) -> None:
    still, options = model(), {} if limit is None else {"max_episode_steps": limit}
    if mode == "single":
        env = gym.make(LEARNED, model=still, **options)
    elif mode == "sync":
        made: Any = gym.make_vec(
            LEARNED, num_envs=1, vectorization_mode="sync", model=still, **options
        )
        env = made.envs[0]
    else:
        env = gym.make(gym.make(LEARNED, model=still, **options).spec)
    env.reset(options={"state": [0.0, 0.0]})
    wanted = {None: 200, -1: 401}.get(limit, limit)
    steps, over = 0, False
    while steps < 401 and not over:
        *_, terminated, truncated, info = env.step(1)
        steps, over = steps + 1, terminated or truncated
        assert not info["diverged"], "the model must live long enough to tell"
    assert steps == wanted


def played(env: Any, noop: Any = 0) -> list[Any]:
    pygame = pytest.importorskip("pygame")
    from gymnasium.utils.play import play

    actions: list[Any] = []

    def watch(before: Any, after: Any, action: Any, *rest: Any) -> None:
        actions.append(action)
        key = ord("d")
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        if len(actions) > 4:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play(env, callback=watch, seed=0, fps=500, noop=noop)
    return actions


@pytest.mark.parametrize("learned", [False, True])
def test_continuous_actions_are_played_with_keys(
    learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "SDL_VIDEODRIVER", "dummy")
    options = {"render_mode": "rgb_array"}
    if learned:
        env = gym.make(LEARNED, model=model(action_mode="continuous"), **options)
    else:
        env = gym.make("PhysGym/Pendulum-v0", action_mode="continuous", **options)
    actions = played(env)
    assert np.array_equal(actions[0], 0) and np.array_equal(actions[-1], [1.0])


def test_a_bare_zero_is_no_action_where_nobody_plays() -> None:
    env = PhysicsEnv("pendulum", action_mode="continuous")
    env.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction):
        env.step(0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*SYSTEMS, "learned"])
def test_torchrl_makes_every_env(name: str, tmp_path: Path) -> None:
    envs = pytest.importorskip("torchrl.envs")
    if name == "learned":
        env = envs.GymEnv(LEARNED, model=model())
    else:
        env = envs.GymEnv(SYSTEMS[name].env_id)
    assert env.rollout(3).batch_size == torch.Size([3])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{"autoreset_mode": "Disabled"}, {"autoreset_mode": "SameStep", "flat_info": True}]
)
@pytest.mark.parametrize("maker", ["made vector", "made learned vector"])
def test_torchrl_takes_vector_envs(maker: str, options: dict[str, Any]) -> None:
    envs = pytest.importorskip("torchrl.envs")
    env = envs.GymWrapper(MAKERS[maker](max_episode_steps=4, **options))
    assert env.rollout(10, break_when_any_done=False).batch_size == torch.Size([2, 10])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("action_mode", ["discrete", "continuous"])
@pytest.mark.parametrize("learned", [False, True])
def test_skrl_wraps_vector_envs(learned: bool, action_mode: str) -> None:
    skrl = pytest.importorskip("skrl.envs.wrappers.torch")
    if learned:
        env: Any = make_env(model(action_mode=action_mode), num_envs=3)
    else:
        env = PhysicsVectorEnv("pendulum", 3, action_mode=action_mode)
    wrapped = skrl.wrap_env(env, verbose=False)
    assert wrapped.num_envs == 3
    wrapped.reset()
    kind = torch.int64 if action_mode == "discrete" else torch.float32
    observations, rewards, *_ = wrapped.step(torch.zeros(3, 1, dtype=kind))
    assert observations.shape == (3, 2) and rewards.shape == (3, 1)


@pytest.mark.parametrize("obs_mode", ["pixels", "state_pixels"])
@pytest.mark.parametrize("agent", ["dqn", "ppo"])
def test_pictures_too_small_for_stable_baselines_are_named(obs_mode: str, agent: str) -> None:
    pytest.importorskip("stable_baselines3")
    from worldmodels.agents.stable_baselines import SMALLEST_PICTURE, check_pictures, train_agent

    small = PhysicsVectorEnv("pendulum", 2, obs_mode=obs_mode, image_size=SMALLEST_PICTURE - 1)
    with pytest.raises(ValueError, match="35 x 35 pixels are too small .*image_size=64"):
        train_agent(small, agent, steps=16)
    fits = PhysicsVectorEnv("pendulum", 2, obs_mode=obs_mode, image_size=SMALLEST_PICTURE)
    check_pictures(fits.single_observation_space)
    if agent == "ppo":
        train_agent(fits, agent, steps=4, n_steps=2)
