"""Bad input: named errors that say what is allowed and change nothing.

The number in a test's name is the row of the list of faults that the project promises to survive.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import Error, InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from system_cases import IDS, NAMES, SMOOTH

from physgym import SYSTEMS
from physgym.vector import PhysicsVectorEnv

ACTIONS = {name: len(SYSTEMS[name].discrete_actions) for name in NAMES}


def twins(name: str, **kwargs: Any) -> tuple[Any, Any]:
    """Two equal envs after `reset(seed=0)`."""
    pair = gym.make(IDS[name], **kwargs), gym.make(IDS[name], **kwargs)
    for env in pair:
        env.reset(seed=0)
    return pair


def assert_still_twins(env: Any, twin: Any, action: Any) -> None:
    """A valid step of both says the same."""
    assert data_equivalence(env.step(action), twin.step(action), exact=True)


# -- order of calls ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_e01_step_before_reset(name: str) -> None:
    with pytest.raises(ResetNeeded):
        gym.make(IDS[name]).step(0)
    with pytest.raises(ResetNeeded, match="reset"):
        gym.make(IDS[name]).unwrapped.step(0)


def test_e02_step_after_termination() -> None:
    env = gym.make(IDS["spaceship"])
    _, info = env.reset(options={"state": [0.6, 0.0, -2.0, 0.0]})
    terminated = False
    while not terminated:
        _, _, terminated, _, info = env.step(0)
    for target in (env, env.unwrapped):
        with pytest.raises(ResetNeeded):
            target.step(0)
    assert info["collision"]
    env.reset()
    env.step(0)


def test_e02_step_after_truncation_inside_the_env() -> None:
    env = gym.make(IDS["oscillator"], params={"force_limit": 1000.0})
    env.reset(seed=0)
    truncated = False
    while not truncated:
        _, _, _, truncated, info = env.step(2)
    assert info["out_of_bounds"]
    with pytest.raises(ResetNeeded):
        env.unwrapped.step(0)


# -- actions -----------------------------------------------------------------------------

NOT_ACTIONS = [
    1.0, np.float32(1), np.float64(0), float("nan"), "1", None, [1], (1,), np.array([1]), np.array([0, 1]),
    np.array(1.0), {}, 1j, b"1", np.datetime64("2020-01-01"),
]  # fmt: skip


@pytest.mark.parametrize("action", ["below", "above", 10**30, -(10**30)])
@pytest.mark.parametrize("name", NAMES)
def test_e03_action_out_of_range(name: str, action: Any) -> None:
    env, twin = twins(name)
    action = {"below": -1, "above": ACTIONS[name]}.get(action, action)
    with pytest.raises(InvalidAction, match=f"0 to {ACTIONS[name] - 1}"):
        env.unwrapped.step(action)
    assert_still_twins(env, twin, 1)


@pytest.mark.parametrize("action", NOT_ACTIONS, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_e04_action_of_a_wrong_type(name: str, action: Any) -> None:
    env, twin = twins(name)
    with pytest.raises(InvalidAction):
        env.unwrapped.step(action)
    assert_still_twins(env, twin, 1)


@pytest.mark.parametrize(
    "action",
    [np.int64(1), np.uint8(1), np.int32(1), np.array(1), np.array(1, np.uint8), True],
    ids=repr,
)
@pytest.mark.parametrize("name", NAMES)
def test_e04_integers_of_any_kind_are_actions(name: str, action: Any) -> None:
    env, twin = twins(name)
    assert data_equivalence(env.unwrapped.step(action), twin.unwrapped.step(1), exact=True)


def test_e04_holds_without_assertions() -> None:
    """Under `python -O` nothing that guards against bad input is gone."""
    code = """
import numpy as np, gymnasium as gym, physgym
from gymnasium.error import Error, InvalidAction, ResetNeeded
caught = 0
def refuse(kind, call, *args, **kwargs):
    global caught
    try:
        call(*args, **kwargs)
    except kind:
        caught += 1
for name in physgym.SYSTEMS:
    refuse(ValueError, gym.make, "PhysGym/Pendulum-v0", dt=0.0)
    env = gym.make(physgym.SYSTEMS[name].env_id).unwrapped
    refuse(ResetNeeded, env.step, 0)
    refuse(Error, env.reset, seed=-1)
    refuse(ValueError, env.reset, options={"sate": 1})
    env.reset(seed=0)
    for bad in (1.0, None, "1", [1], np.array([1]), -1, 99, 10**30, float("nan")):
        refuse(InvalidAction, env.step, bad)
    env = gym.make(physgym.SYSTEMS[name].env_id, action_mode="continuous").unwrapped
    env.reset(seed=0)
    for bad in (np.nan, [np.inf] * env.action_space.shape[0], [0.0] * 5, "x", None):
        refuse(InvalidAction, env.step, bad)
    vector = gym.make_vec(physgym.SYSTEMS[name].env_id, num_envs=2)
    refuse(ResetNeeded, vector.step, [0, 0])
    vector.reset(seed=0)
    for bad in ([0], [0.0, 1.0], [0, 99], None):
        refuse(InvalidAction, vector.step, bad)
print(caught)
"""
    result = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout == f"{len(SYSTEMS) * (4 + 9 + 5 + 5)}\n", result.stdout + result.stderr


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_e05_action_that_is_not_finite(name: str, bad: float) -> None:
    env, twin = twins(name, action_mode="continuous")
    size = SYSTEMS[name].action_size
    action = np.zeros(size, np.float32)
    action[-1] = bad
    with pytest.raises(InvalidAction, match="finite"):
        env.unwrapped.step(action)
    obs = env.unwrapped.step(np.zeros(size, np.float32))
    assert np.isfinite(obs[0]).all()
    assert data_equivalence(obs, twin.unwrapped.step(np.zeros(size, np.float32)), exact=True)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_e06_action_beyond_the_box_acts_as_its_bound(name: str, sign: float) -> None:
    env, twin = twins(name, action_mode="continuous")
    size = SYSTEMS[name].action_size
    for factor in (10.0, 1e30):
        far, bound = np.full(size, sign * factor, np.float32), np.full(size, sign, np.float32)
        assert data_equivalence(env.unwrapped.step(far), twin.unwrapped.step(bound), exact=True)


@pytest.mark.parametrize("shape", [(), (1, 1), (3,), (0,), (1, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_e07_action_of_a_wrong_shape(name: str, shape: tuple[int, ...]) -> None:
    env, twin = twins(name, action_mode="continuous")
    right = np.zeros(SYSTEMS[name].action_size)
    for bad in (np.zeros(shape), np.zeros(shape).tolist()):
        with pytest.raises(InvalidAction, match="shape"):
            env.unwrapped.step(bad)
    assert_still_twins(env, twin, right.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, list])
@pytest.mark.parametrize("name", NAMES)
def test_e08_action_of_another_number_type(name: str, dtype: Any) -> None:
    env, twin = twins(name, action_mode="continuous")
    ones = [1.0] * SYSTEMS[name].action_size
    action = ones if dtype is list else np.array(ones).astype(dtype)
    a, b = env.unwrapped.step(action), twin.unwrapped.step(np.array(ones, np.float32))
    assert data_equivalence(a, b, exact=True)


# -- resets ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [-1, 1.5, "a", [1], np.float64(3)], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_e09_bad_seed(name: str, seed: Any) -> None:
    env, twin = twins(name)
    with pytest.raises(Error, match="seed|Seed"):
        env.unwrapped.reset(seed=seed)
    assert_still_twins(env, twin, 1)
    with pytest.raises((Error, ValueError)):
        PhysicsVectorEnv(name, 2).reset(seed=seed)


def test_e10_large_seeds_are_streams_of_their_own() -> None:
    env = gym.make(IDS["pendulum"]).unwrapped
    vector = PhysicsVectorEnv("pendulum", 1)
    seen = set()
    for seed in (0, 3, 2**32, 2**63, 2**64, 10**40):
        obs, _ = env.reset(seed=seed)
        assert np.array_equal(vector.reset(seed=seed)[0][0], obs)
        seen.add(obs.tobytes())
    assert len(seen) == 6
    for same in (np.int64(3), np.uint8(3)):
        assert np.array_equal(env.reset(seed=same)[0], env.reset(seed=3)[0])
        assert env.np_random_seed == 3


BAD_OPTIONS = [
    ({"sate": [0.0, 0.0]}, "unknown reset option 'sate'; did you mean 'state'"),
    ({"state": [0.0]}, "shape"),
    ({"state": [[0.0, 0.0]]}, "shape"),
    ({"state": [0.0, float("nan")]}, "finite"),
    ({"state": [0.0, float("inf")]}, "finite"),
    ({"state": [0.0, 1e6]}, "outside"),
    ({"state": "upright"}, "state"),
    ({"params": {"mas": 1.0}}, "unknown parameter 'mas'"),
    ({"params": {"mass": 0.0}}, "mass=0.0"),
    ({"params": {"mass": float("nan")}}, "mass"),
    ({"randomize": {"mass": (2.0, 1.0)}}, "low > high"),
    ({"randomize": {"mass": 3.0}}, "low, high"),
    ({"randomize": "all"}, "True, False or a dict"),
]


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS, ids=str)
def test_e11_bad_options(options: dict[str, Any], words: str) -> None:
    env, twin = twins("pendulum")
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        env.reset(options=options)
    assert_still_twins(env, twin, 1)


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("spaceship", [0.3, 0.0, 0.0, 0.0], "collision"),
        ("spaceship", [9.0, 0.0, 0.0, 0.0], "escape"),
        ("spaceship", [3.0, 0.0, 0.0, 41.0], "vy"),
        ("three_body", [4.5, *SMOOTH["three_body"][1:]], "escape"),
        ("three_body", [30.0, *SMOOTH["three_body"][1:]], "outside"),
        ("oscillator", [21.0, 0.0], "x=21"),
    ],
)
def test_e11_start_beyond_an_end(name: str, state: list[float], words: str) -> None:
    env, twin = twins(name)
    with pytest.raises(ValueError, match=words):
        env.reset(options={"state": state})
    assert_still_twins(env, twin, 1)
