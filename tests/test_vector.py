"""`PhysicsVectorEnv`: equal to `SyncVectorEnv` over single envs to the bit, on NumPy; to 1e-12 on torch."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from system_cases import NAMES
from vector_cases import (
    IDS,
    KWARGS,
    LIMIT,
    MODES,
    assert_same,
    kwargs_of,
    native,
    run_beside,
    synchronous,
)

from physgym import SYSTEMS
from physgym.vector import PhysicsVectorEnv

SLOW_KWARGS: dict[str, dict[str, Any]] = {
    "pixels": {"obs_mode": "state_pixels", "image_size": 24},
    "accurate": {"integrator": "dop853"},
}


@pytest.mark.parametrize("variant", KWARGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_e25_equals_sync_vector_env(name: str, mode: str, variant: str) -> None:
    kwargs = kwargs_of(name, variant)
    ours = native(name, autoreset_mode=mode, **kwargs)
    theirs = synchronous(name, autoreset_mode=mode, **kwargs)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    seen = run_beside(ours, theirs, 40, seed=3)
    assert seen["truncated"] > 0


@pytest.mark.parametrize("variant", SLOW_KWARGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_e25_equals_sync_vector_env_in_slow_modes(name: str, mode: str, variant: str) -> None:
    kwargs = {**SLOW_KWARGS[variant], "max_episode_steps": 4}
    ours = native(name, 2, autoreset_mode=mode, **kwargs)
    run_beside(ours, synchronous(name, 2, autoreset_mode=mode, **kwargs), 10, seed=3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["spaceship", "three_body"])
def test_e25_equal_through_collisions_and_escapes(name: str, mode: str) -> None:
    """Ends by the motion itself, at different times in different rows."""
    kwargs: dict[str, Any] = {"max_episode_steps": 200, "dt": 0.25}
    if name == "three_body":
        kwargs["start"] = "random"
    else:
        kwargs["params"] = {"escape_radius": 4.5, "crash_radius": 1.4, "thrust": 2.0}
    ours = native(name, 6, autoreset_mode=mode, **kwargs)
    seen = run_beside(ours, synchronous(name, 6, autoreset_mode=mode, **kwargs), 60, seed=1)
    assert seen["terminated"] > 5


@pytest.mark.parametrize("mode", MODES)
def test_e25_equal_when_out_of_bounds(mode: str) -> None:
    """Truncation from inside the env, with its flag, and clipped observations."""
    kwargs = {"params": {"force_limit": 300.0}, "max_episode_steps": 200}
    ours = native("oscillator", 4, autoreset_mode=mode, **kwargs)
    seen = run_beside(ours, synchronous("oscillator", 4, autoreset_mode=mode, **kwargs), 80, seed=1)
    assert seen["truncated"] > 3


def test_e25_equal_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHYSGYM_NATIVE", "0")
    for name in NAMES:
        ours, theirs = native(name, 3, randomize=True), synchronous(name, 3, randomize=True)
        run_beside(ours, theirs, 25, seed=3)


@pytest.mark.parametrize("name", NAMES)
def test_e25_row_is_single_env_with_its_own_seed(name: str) -> None:
    batch = native(name, 4, max_episode_steps=500)
    obs, info = batch.reset(seed=100)
    for i in range(4):
        single = gym.make(IDS[name])
        alone, its_info = single.reset(seed=100 + i)
        assert np.array_equal(alone, obs[i])
        assert np.array_equal(its_info["state"], info["state"][i])
    actions = np.array([1, 2, 0, 1])
    obs, rewards, *_ = batch.step(actions)
    last = single.step(int(actions[3]))
    assert np.array_equal(last[0], obs[3])
    assert last[1] == rewards[3]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_e25_equals_async_vector_env(mode: str) -> None:
    theirs = gym.vector.AsyncVectorEnv(
        [lambda: gym.make("physgym:PhysGym/Pendulum-v0", max_episode_steps=7)] * 2,
        autoreset_mode=AutoresetMode(mode),
    )
    try:
        run_beside(
            native("pendulum", 2, autoreset_mode=mode, max_episode_steps=7), theirs, 20, seed=5
        )
    finally:
        theirs.close()


# -- resets ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_e26_seeds(name: str) -> None:
    ours, theirs = native(name, 3), synchronous(name, 3)
    for seed in (0, [5, 5, 9], [2**40, None, 3], None):
        if seed is not None:
            ours.reset(seed=0)
            theirs.reset(seed=0)
        assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
    obs, _ = ours.reset(seed=[5, 5, 9])
    assert np.array_equal(obs[0], obs[1])
    assert not np.array_equal(obs[0], obs[2])
    a, _ = native(name, 3).reset()
    b, _ = native(name, 3).reset()
    assert not np.array_equal(a, b), "no seed draws from the operating system"


@pytest.mark.parametrize("name", NAMES)
def test_e26_reset_mask_leaves_other_rows_alone(name: str) -> None:
    ours, theirs = native(name, 4), synchronous(name, 4)
    run_beside(ours, theirs, 5, seed=2)
    before, _ = ours.step(np.ones(4, dtype=np.int64))[0], theirs.step(np.ones(4, dtype=np.int64))
    mask = np.array([False, True, False, True])
    x = ours.reset(options={"reset_mask": mask.copy()}, seed=[1, 2, 3, 4])
    y = theirs.reset(options={"reset_mask": mask.copy()}, seed=[1, 2, 3, 4])
    assert_same(x, y)
    assert np.array_equal(x[0][~mask], before[~mask])
    assert not np.array_equal(x[0][mask], before[mask])
    actions = np.zeros(4, dtype=np.int64)
    for _ in range(15):
        assert_same(ours.step(actions), theirs.step(actions))


@pytest.mark.parametrize("name", NAMES)
def test_options_for_all_rows_and_for_each(name: str) -> None:
    ours, theirs = native(name, 3), synchronous(name, 3)
    state = theirs.reset(seed=8)[1]["state"][0]
    ours.reset(seed=8)
    field = next(iter(SYSTEMS[name].ranges))
    options = {"state": state, "params": {field: SYSTEMS[name].ranges[field][0]}}
    assert_same(ours.reset(options=dict(options)), theirs.reset(options=dict(options)))
    assert_same(ours.reset(options={"randomize": True}), theirs.reset(options={"randomize": True}))
    actions = np.array([0, 1, 2])
    for _ in range(LIMIT + 2):  # past an autoreset, which knows no options
        assert_same(ours.step(actions), theirs.step(actions))
    states = np.array([gym.make(IDS[name]).reset(seed=s)[1]["state"] for s in range(3)])
    _, info = ours.reset(options={"state": states})
    assert np.array_equal(info["state"], states)


def test_bad_options_change_nothing() -> None:
    ours, twin = native("pendulum", 3), native("pendulum", 3)
    ours.reset(seed=1)
    twin.reset(seed=1)
    for bad in (
        {"state": np.zeros((2, 2))},
        {"state": [0.0, np.nan]},
        {"params": {"mass": -1.0}},
        {"sate": [0.0, 0.0]},
        {"state": np.array([[0.0, 0.0], [0.0, 0.0], [0.0, np.inf]])},
    ):
        with pytest.raises(ValueError):
            ours.reset(options=bad, seed=9)
    for _ in range(LIMIT + 2):
        assert_same(ours.step([0, 1, 2]), twin.step([0, 1, 2]))


# -- ends --------------------------------------------------------------------------------


def test_same_step_hands_over_the_end() -> None:
    """What TorchRL's wrapper and off-policy learners read: `final_obs` and `final_info` of ended rows."""
    env = native("pendulum", 3, autoreset_mode="SameStep", max_episode_steps=5)
    single = gym.make(IDS["pendulum"], max_episode_steps=5)
    env.reset(seed=4)
    single.reset(seed=5)
    for _ in range(5):
        obs, _, _, truncated, info = env.step([1, 1, 1])
        last = single.step(1)
    assert truncated.all()
    assert info["final_obs"].dtype == object
    assert info["_final_obs"].all()
    assert np.array_equal(info["final_obs"][1], last[0])
    assert not np.array_equal(obs[1], last[0])
    assert np.array_equal(info["final_info"]["state"][1], last[4]["state"])
    assert info["final_info"]["params"]["mass"].tolist() == [1.0] * 3
    assert np.array_equal(obs[1], single.reset()[0])


def test_disabled_mode_refuses_to_step_an_ended_row() -> None:
    env = native("pendulum", 2, autoreset_mode="Disabled", max_episode_steps=2)
    env.reset(seed=0)
    env.step([0, 0])
    env.step([0, 0])
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.step([0, 0])
    env.reset(options={"reset_mask": np.array([True, True])})
    env.step([0, 0])


def test_metadata_belongs_to_the_instance() -> None:
    envs = {mode: native("pendulum", 1, autoreset_mode=mode) for mode in MODES}
    for mode, env in envs.items():
        assert env.metadata["autoreset_mode"] is AutoresetMode(mode)
    assert PhysicsVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("name", NAMES)
def test_e21_returned_arrays_are_fresh(name: str) -> None:
    env, twin = native(name, 3), native(name, 3)
    said = [env.reset(seed=0), twin.reset(seed=0)]
    for action in (1, 0, 2):
        said = [env.step(np.full(3, action)), twin.step(np.full(3, action))]
        assert_same(*said)
        for thing in (*said[0], *said[0][4].values(), *said[0][4]["params"].values()):
            if isinstance(thing, np.ndarray):
                thing[...] = 1
    assert_same(env.step([0, 0, 0]), twin.step([0, 0, 0]))
