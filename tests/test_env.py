"""`PhysicsEnv` as a citizen of Gymnasium: checkers, registration, seeds, copies, pictures."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from system_cases import IDS, NAMES, STARTS, VARIANTS, run_python

from physgym import SYSTEMS

OBS_MODES = ("state", "embedded", "pixels", "state_pixels")


# -- the contract ------------------------------------------------------------------------


@pytest.mark.parametrize("action_mode", ["discrete", "continuous"])
@pytest.mark.parametrize("obs_mode", OBS_MODES)
@pytest.mark.parametrize("name", NAMES)
def test_e31_check_env_without_a_warning(name: str, obs_mode: str, action_mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(
            IDS[name], obs_mode=obs_mode, action_mode=action_mode, render_mode="rgb_array"
        )
        check_env(env.unwrapped, skip_render_check=True)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
        env.close()


@pytest.mark.parametrize("variant", ["randomized", "accurate"])
@pytest.mark.parametrize("name", NAMES)
def test_e31_check_env_of_variants(name: str, variant: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(IDS[name], **VARIANTS[variant])
        check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("randomize", [False, True], ids=["fixed", "randomized"])
@pytest.mark.parametrize(("name", "start"), STARTS)
def test_everything_said_is_within_its_space(name: str, start: str, randomize: bool) -> None:
    """Random episodes to their end: observations in the space, the terminal one too; keys never change."""
    system = SYSTEMS[name]
    env = gym.make(IDS[name], start=start, randomize=randomize, observe_params=randomize)
    env.action_space.seed(0)
    ended = 0
    for seed in range(4):
        obs, info = env.reset(seed=seed)
        keys, over = set(info), False
        assert {"state", "energy", "params", "out_of_bounds"} <= keys
        while not over:
            assert env.observation_space.contains(obs)
            obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert set(info) == keys
            assert set(info["params"]) == set(system.Params._fields)
            assert type(reward) is float
            assert 0.0 <= reward <= 1.0
            assert (type(terminated), type(truncated)) == (bool, bool)
            assert info["state"].dtype == np.float64
            assert info["state"].shape == (system.state_size,)
            params = system.Params(**info["params"])
            assert info["energy"] == system.energy(tuple(info["state"].tolist()), params)
            assert terminated == bool(system.terminated(tuple(info["state"].tolist()), params))
            over = terminated or truncated
        assert env.observation_space.contains(obs)
        ended += terminated
    assert name not in ("oscillator", "pendulum") or not ended


@pytest.mark.parametrize("name", NAMES)
def test_controlled_episode_lasts_to_the_time_limit(name: str) -> None:
    system = SYSTEMS[name]
    env = gym.make(IDS[name])
    _, info = env.reset(seed=5)
    steps, over, total = 0, False, 0.0
    while not over:
        action = system.controller(info["state"][None], system.Params(), steps)[0]
        _, reward, terminated, truncated, info = env.step(action)
        steps, over, total = steps + 1, terminated or truncated, total + reward
    assert (terminated, truncated, info["out_of_bounds"]) == (False, True, False)
    assert steps == env.spec.max_episode_steps == system.max_episode_steps
    assert total > 0.7 * env.spec.reward_threshold


@pytest.mark.parametrize("name", NAMES)
def test_env_is_its_system(name: str) -> None:
    """A step of the env is `system.step`, and its reward `system.reward`, to the bit."""
    system = SYSTEMS[name]
    for kind in ("dense", "sparse", "quadratic", "none"):
        env = gym.make(IDS[name], reward=kind)
        _, info = env.reset(seed=5)
        params = system.Params(**info["params"])
        state = tuple(info["state"].tolist())
        for action in range(len(system.discrete_actions)):
            control = system.control(tuple(system.discrete_actions[action].tolist()), params)
            after = system.step(state, control, params)
            obs, reward, _, _, info = env.step(action)
            assert tuple(info["state"].tolist()) == after
            assert reward == system.reward(state, control, after, params, kind=kind)
            assert np.array_equal(obs, system.observe(np.array(after)))
            state = after


@pytest.mark.parametrize("name", NAMES)
def test_no_push_is_no_push(name: str) -> None:
    """Discrete actions stand for the rows of `discrete_actions`."""
    table = SYSTEMS[name].discrete_actions
    discrete, continuous = gym.make(IDS[name]), gym.make(IDS[name], action_mode="continuous")
    for k, row in enumerate(table):
        discrete.reset(seed=1)
        continuous.reset(seed=1)
        a, b = discrete.step(k), continuous.step(row)
        assert np.array_equal(a[4]["state"], b[4]["state"])


@pytest.mark.parametrize("name", NAMES)
def test_longer_dt_is_as_accurate(name: str) -> None:
    env, fine = gym.make(IDS[name], dt=0.2), gym.make(IDS[name], dt=0.1)
    assert env.metadata["render_fps"] == 5
    env.reset(seed=4)
    fine.reset(seed=4)
    for _ in range(5):
        a = env.step(1)[4]["state"]
        fine.step(1)
        b = fine.step(1)[4]["state"]
        assert np.abs(a - b).max() <= 1e-5


# -- options -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_reset_to_a_state_and_parameters(name: str) -> None:
    system = SYSTEMS[name]
    env = gym.make(IDS[name])
    _, there = env.reset(seed=2)
    field = next(iter(system.ranges))
    low = system.ranges[field][0]
    _, info = env.reset(options={"state": there["state"], "params": {field: low}})
    assert np.array_equal(info["state"], there["state"])
    assert info["params"] == {**system.Params()._asdict(), field: low}
    params = system.Params(**info["params"])
    control = system.control(tuple(system.discrete_actions[1].tolist()), params)
    state = system.step(tuple(there["state"].tolist()), control, params)
    assert tuple(env.step(1)[4]["state"].tolist()) == state
    assert env.reset()[1]["params"] == system.Params()._asdict(), "options hold for one episode"
    drawn = env.reset(options={"randomize": True})[1]["params"]
    assert all(
        lo <= drawn[k] <= hi and drawn[k] != there["params"][k]
        for k, (lo, hi) in system.ranges.items()
    )
    assert env.reset(options={})[1]["params"] == system.Params()._asdict()


def test_randomize_may_name_its_ranges() -> None:
    env = gym.make(IDS["pendulum"], randomize={"gravity": (1.0, 2.0)}, observe_params=True)
    drawn = [env.reset(seed=s) for s in range(5)]
    for obs, info in drawn:
        assert 1.0 <= info["params"]["gravity"] <= 2.0
        assert info["params"]["mass"] == 1.0
        assert obs[2:] == pytest.approx(list(info["params"].values()))
        assert env.observation_space.contains(obs)


@pytest.mark.parametrize("theta", [1e6, -1e6, 3.0 * np.pi])
def test_e20_huge_angles_are_wrapped_when_observed(theta: float) -> None:
    env = gym.make(IDS["pendulum"])
    obs, info = env.reset(options={"state": [theta, 0.0]})
    for _ in range(50):
        assert env.observation_space.contains(obs)
        assert abs(obs[0]) <= np.pi + 1e-6
        assert abs(info["state"][0] - theta) < 60.0
        obs, _, _, _, info = env.step(2)


@pytest.mark.parametrize("obs_mode", ["state", "state_pixels"])
@pytest.mark.parametrize("name", NAMES)
def test_e21_what_was_returned_may_be_overwritten(name: str, obs_mode: str) -> None:
    def spoil(said: Any) -> None:
        for thing in said.values() if isinstance(said, dict) else [said]:
            if isinstance(thing, dict):
                spoil(thing)
            elif isinstance(thing, np.ndarray):
                thing[...] = 77
        if isinstance(said, dict):
            said.clear()

    env, twin = (gym.make(IDS[name], obs_mode=obs_mode) for _ in range(2))
    pairs = [(env.reset(seed=0), twin.reset(seed=0))]
    for action in (1, 2, 0):
        (obs, info), _ = (pairs[-1][0][0], pairs[-1][0][-1]), None
        spoil(obs)
        spoil(info)
        pairs.append((env.step(action), twin.step(action)))
        assert data_equivalence(*pairs[-1], exact=True)


# -- pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_pixel_observations(name: str) -> None:
    env = gym.make(IDS[name], obs_mode="state_pixels", image_size=96)
    plain = gym.make(IDS[name], obs_mode="pixels")
    obs, _ = env.reset(seed=0)
    small, _ = plain.reset(seed=0)
    assert obs["pixels"].shape == (96, 96, 3)
    assert small.shape == (64, 64, 3)
    assert small.dtype == np.uint8
    assert small.max() > 100
    for _ in range(3):
        moved = plain.step(1)[0]
    assert not np.array_equal(moved, small)


@pytest.mark.parametrize("name", NAMES)
def test_render_for_people_shows_the_action(name: str) -> None:
    pictures = []
    for action in (0, 1, 2):
        env = gym.make(IDS[name], render_mode="rgb_array")
        env.reset(seed=0)
        start = env.render()
        assert start.shape == (480, 480, 3)
        assert start.dtype == np.uint8
        env.step(action)
        picture = env.render()
        assert not np.shares_memory(picture, env.render())
        assert np.array_equal(picture, env.render())
        pictures.append(picture)
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])


def test_render_leaves_chance_alone() -> None:
    seen, unseen = gym.make(IDS["spaceship"], render_mode="rgb_array"), gym.make(IDS["spaceship"])
    for env in (seen, unseen):
        env.reset(seed=0)
        env.step(0)
    seen.render()
    assert data_equivalence(seen.reset(), unseen.reset(), exact=True)


def test_e30_render_before_reset_and_without_mode() -> None:
    env = gym.make(IDS["pendulum"], render_mode="rgb_array").unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    with pytest.warns(UserWarning, match="render_mode"):
        assert gym.make(IDS["pendulum"]).unwrapped.render() is None
    env.close()
    env.close()


def test_e30_missing_opencv_is_explained() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import gymnasium, physgym\n"
        "e = gymnasium.make('PhysGym/Pendulum-v0', obs_mode='pixels').unwrapped\n"
        "try: e.reset(seed=0)\n"
        "except gymnasium.error.DependencyNotInstalled as reason: print('explained', reason)"
    )
    result = run_python(code)
    assert result.stdout.startswith("explained"), result.stderr
    assert "opencv" in result.stdout
