"""Environments are found, seeded, wrapped, copied and sent to other processes as Gymnasium means it."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import data_equivalence
from system_cases import IDS, NAMES, VARIANTS, digest, run_python

from physgym import SYSTEMS

# -- registration ------------------------------------------------------------------------


def test_made_with_and_without_import() -> None:
    for code in (
        "import gymnasium; e = gymnasium.make('physgym:PhysGym/Pendulum-v0')",
        "import gymnasium, physgym; e = gymnasium.make('PhysGym/Pendulum-v0')",
        "import gymnasium, physgym; e = gymnasium.make('PhysGym/Pendulum')",
        "import gymnasium; e = gymnasium.make_vec('physgym:PhysGym/Pendulum-v0', num_envs=2)",
        "import gymnasium, importlib, physgym; importlib.reload(physgym); "
        "e = gymnasium.make('PhysGym/Pendulum-v0')",
    ):
        result = run_python(f"{code}; e.reset(seed=0); e.close(); print('made')")
        assert result.stdout == "made\n", (code, result.stderr)
        assert "Overriding" not in result.stderr


def test_light_import() -> None:
    """Envs over states need neither torch nor OpenCV, SciPy, matplotlib or llvmlite's compiler at import."""
    code = (
        "import sys, physgym, gymnasium; heavy = {'torch', 'cv2', 'scipy', 'matplotlib', 'h5py', 'PIL'}; "
        "e = gymnasium.make('PhysGym/Spaceship-v0'); e.reset(seed=0); e.step(0); "
        "v = gymnasium.make_vec('PhysGym/Pendulum-v0', num_envs=2); v.reset(); v.step([0, 1]); "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = run_python(code)
    assert result.stdout == "[]\n", result.stdout + result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_spec_survives_json(name: str) -> None:
    env = gym.make(
        IDS[name], params={"thrust": 0.4} if "thrust" in SYSTEMS[name].ranges else None, dt=0.07
    )
    spec = EnvSpec.from_json(env.spec.to_json())
    assert json.loads(env.spec.to_json())["reward_threshold"] == SYSTEMS[name].reward_threshold
    again = gym.make(spec)
    assert digest(again, 20, 3) == digest(env, 20, 3)


@pytest.mark.parametrize("name", NAMES)
def test_stock_wrappers(name: str) -> None:
    from gymnasium import wrappers

    env = gym.make(IDS[name], action_mode="continuous", render_mode="rgb_array")
    env = wrappers.ClipAction(wrappers.RescaleAction(env, -2.0, 2.0))
    env = wrappers.TimeAwareObservation(wrappers.NormalizeObservation(env))
    env = wrappers.RecordEpisodeStatistics(wrappers.NormalizeReward(env))
    env.reset(seed=0)
    over = False
    while not over:
        obs, _, terminated, truncated, info = env.step(env.action_space.sample())
        over = terminated or truncated
    assert info["episode"]["l"] >= 1
    assert env.observation_space.contains(obs.astype(env.observation_space.dtype))
    pixels = wrappers.FrameStackObservation(gym.make(IDS[name], obs_mode="pixels"), 3)
    assert pixels.reset(seed=0)[0].shape == (3, 64, 64, 3)
    flat = wrappers.FlattenObservation(gym.make(IDS[name], obs_mode="state_pixels", image_size=16))
    assert flat.reset(seed=0)[0].shape == (16 * 16 * 3 + SYSTEMS[name].state_size,)


@pytest.mark.parametrize("name", NAMES)
def test_keys_to_play_with(name: str) -> None:
    """What `gymnasium.utils.play.play` asks for: tuples of single keys, one for every action but rest."""
    env = gym.make(IDS[name], render_mode="rgb_array")
    keys = env.unwrapped.get_keys_to_action()
    rest = int(np.abs(SYSTEMS[name].discrete_actions).sum(-1).argmin())
    assert set(keys.values()) == set(range(len(SYSTEMS[name].discrete_actions))) - {rest}
    assert all(isinstance(held, tuple) and all(len(k) == 1 for k in held) for held in keys)
    numbers = gym.make(IDS[name], action_mode="continuous")
    levels = numbers.unwrapped.get_keys_to_action()
    assert levels.keys() == keys.keys()
    for held, level in levels.items():
        assert numbers.action_space.contains(level)
        assert np.array_equal(level, SYSTEMS[name].discrete_actions[keys[held]].astype(np.float32))


# -- chance ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_seed_decides_everything(name: str, variant: str) -> None:
    env = gym.make(IDS[name], **VARIANTS[variant])
    first = digest(env, 30, 7)
    assert digest(env, 30, 7) == first
    assert digest(gym.make(IDS[name], **VARIANTS[variant]), 30, 7) == first
    assert digest(env, 30, 8) != first


@pytest.mark.parametrize("name", NAMES)
def test_reset_without_seed_goes_on(name: str) -> None:
    def starts() -> list[np.ndarray]:
        env = gym.make(IDS[name])
        return [env.reset(seed=1)[1]["state"], *(env.reset()[1]["state"] for _ in range(3))]

    a, b = starts(), starts()
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert len({x.tobytes() for x in a}) == 4


def test_e32_global_generators_are_left_alone() -> None:
    torch = pytest.importorskip("torch")
    before = np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    for name in NAMES:
        env = gym.make(IDS[name], randomize=True)
        env.reset(seed=0)
        for _ in range(50):
            _, _, terminated, truncated, _ = env.step(1)
            if terminated or truncated:
                env.reset()
    after = np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    assert data_equivalence(before[0], after[0])
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


# -- copies and processes ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "cloudpickle"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_e22_copies_in_mid_episode_live_the_same_life(name: str, variant: str, how: str) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    copiers = {
        "pickle": lambda x: pickle.loads(pickle.dumps(x)),
        "deepcopy": copy.deepcopy,
        "cloudpickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
    }
    env = gym.make(IDS[name], **VARIANTS[variant])
    env.reset(seed=3)
    for _ in range(4):
        env.step(env.action_space.sample())
    twin = copiers[how](env)
    env.action_space.seed(1)
    for step in range(12):
        action = env.action_space.sample()
        assert data_equivalence(env.step(action), twin.step(action), exact=True)
        if step == 7:
            assert data_equivalence(env.reset(), twin.reset(), exact=True)


def digest_of(name: str, queue: Any) -> None:
    """In a child process: one digest of an env made by its prefixed id."""
    queue.put(digest(gym.make(f"physgym:{IDS[name]}", randomize=True), 40, 5))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_e23_child_process_sees_the_same(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=digest_of, args=("pendulum", queue))
    child.start()
    theirs = queue.get(timeout=60)
    child.join(30)
    assert theirs == digest(gym.make(IDS["pendulum"], randomize=True), 40, 5)
