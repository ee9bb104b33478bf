"""Hard starts, long runs, other processes: motion that is never silently wrong.

The number in a test's name is the row of the list of faults that the project promises to survive.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from system_cases import IDS, NAMES, SMOOTH, digest

from physgym import SYSTEMS
from physgym.vector import PhysicsVectorEnv

ACTIONS = {name: len(SYSTEMS[name].discrete_actions) for name in NAMES}


# -- hard motion -------------------------------------------------------------------------


@pytest.mark.parametrize("integrator", [None, "dop853", "rk4", "leapfrog"])
@pytest.mark.parametrize("r", [0.51, 1.0, 3.0, 7.9])
def test_e16_head_on_fall(r: float, integrator: str | None) -> None:
    """A ship at rest falls on the body: it ends there, at the surface, fast, without a warning."""
    env = gym.make(IDS["spaceship"], integrator=integrator)
    vector = PhysicsVectorEnv("spaceship", 2, integrator=integrator, autoreset_mode="Disabled")
    before = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        obs, _ = env.reset(options={"state": [0.0, r, 0.0, 0.0]})
        vector.reset(options={"state": [0.0, r, 0.0, 0.0]})
        terminated, steps = False, 0
        while not terminated:
            assert steps < 300
            obs, reward, terminated, truncated, info = env.step(0)
            rows = vector.step([0, 0])
            assert np.isfinite(obs).all()
            assert np.isfinite(reward)
            assert not truncated
            assert rows[2].tolist() == [terminated] * 2
            steps += 1
    assert time.process_time() - before < 1.0
    assert info["collision"]
    distance = np.hypot(*info["state"][:2])
    assert 0.4 < distance < 0.5
    if integrator == "dop853":
        assert distance == pytest.approx(0.5, abs=1e-9)
        assert info["energy"] == pytest.approx(-10.0 / r, abs=1e-8)


@pytest.mark.parametrize("softening", [0.0, 0.1])
def test_e16_fall_through_a_tiny_centre_is_flagged_or_right(softening: float) -> None:
    env = gym.make(IDS["spaceship"], params={"crash_radius": 1e-6, "softening": softening})
    before = time.process_time()
    obs, _ = env.reset(options={"state": [1.0, 0.0, 0.0, 0.0]})
    over, steps = False, 0
    while not over and steps < 60:
        obs, _, terminated, truncated, info = env.step(0)
        over, steps = terminated or truncated, steps + 1
        assert env.observation_space.contains(obs)
        if not over:
            energy = -10.0 / np.sqrt(1.0 + softening**2)
            assert info["energy"] == pytest.approx(energy, rel=1e-4)
    assert time.process_time() - before < 2.0
    assert over or softening > 0.0


def test_e17_coincident_bodies() -> None:
    state = np.array(SMOOTH["three_body"])
    state[2:4] = state[0:2]
    for softening in (0.0, 0.2):
        env = gym.make(IDS["three_body"], params={"softening": softening})
        with pytest.raises(ValueError, match="collision"):
            env.reset(options={"state": state})
    system = SYSTEMS["three_body"]
    soft = system.Params(softening=0.2)
    assert np.isfinite(system.derivative(state, np.zeros(2), soft)).all()
    assert np.isfinite(system.energy(state, soft))
    assert np.isfinite(system.step(state, np.zeros(2), soft, integrator="rk4", substeps=4)).all()


def test_e18_oscillator_driven_beyond_its_box() -> None:
    env = gym.make(IDS["oscillator"], params={"force_limit": 400.0})
    env.reset(seed=0)
    truncated = False
    while not truncated:
        obs, _, terminated, truncated, info = env.step(2)
        assert env.observation_space.contains(obs)
        assert not terminated
    assert info["out_of_bounds"]
    assert np.abs(info["state"]).max() > 20.0


@pytest.mark.parametrize("name", NAMES)
def test_e18_scripted_thrust_for_long(name: str) -> None:
    """One push for 2,000 steps and more, whatever ends the episodes: every observation in its space."""
    env = gym.make(IDS[name], max_episode_steps=-1)
    obs, info = env.reset(seed=0)
    last = ACTIONS[name] - 1
    for step in range(2000):
        assert env.observation_space.contains(obs), (step, obs)
        obs, _, terminated, truncated, info = env.step(last if step % 700 else 0)
        assert np.isfinite(info["state"]).all()
        if terminated or truncated:
            assert truncated == info["out_of_bounds"]
            assert env.observation_space.contains(obs), (step, obs)
            obs, info = env.reset()


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_e18_state_that_is_not_a_number_is_flagged() -> None:
    """Parameters beyond all reason: the motion is lost, which must not pass for an episode."""
    lost: dict[str, Any] = {"params": {"mass": 1e-7, "damping": 5.0}, "integrator": "rk4"}
    lost["substeps"] = 30
    env = gym.make(IDS["oscillator"], **lost).unwrapped
    vector = PhysicsVectorEnv("oscillator", 2, **lost)
    env.reset(seed=0)
    vector.reset(seed=0)
    _, _, terminated, truncated, info = env.step(1)
    rows = vector.step([1, 1])
    assert not np.isfinite(info["state"]).all()
    assert (terminated, truncated, info["out_of_bounds"]) == (False, True, True)
    assert rows[3].all()
    assert rows[4]["out_of_bounds"].all()


def test_e18_escape_is_a_termination() -> None:
    env = gym.make(IDS["spaceship"])
    env.reset(options={"state": [7.0, 0.0, 30.0, 0.0]})
    obs, _, terminated, truncated, info = env.step(1)
    assert (terminated, truncated) == (True, False)
    assert info["escape"]
    assert not info["collision"]
    assert env.observation_space.contains(obs)
    env.reset(options={"state": [-7.0, 0.0, -39.99, 0.0]})
    assert env.observation_space.contains(env.step(1)[0])


# -- processes ---------------------------------------------------------------------------

HASHES = """
import sys, gymnasium as gym, physgym
sys.path.insert(0, {tests!r})
from system_cases import digest
print(*(digest(gym.make(s.env_id, randomize=True), 25, 3) for s in physgym.SYSTEMS.values()))
"""


@pytest.mark.parametrize(
    ("seed", "threads", "native"), [("0", "1", "1"), ("1", "2", "1"), ("2", "2", "0")]
)
def test_e24_same_seed_in_every_process(seed: str, threads: str, native: str) -> None:
    here = " ".join(digest(gym.make(IDS[n], randomize=True), 25, 3) for n in NAMES)
    surroundings = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "PHYSGYM_NATIVE": native}
    result = subprocess.run(
        [sys.executable, "-c", HASHES.format(tests=os.path.dirname(__file__))],
        env={**os.environ, **surroundings}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.stdout.strip() == here, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_e19_soak(name: str) -> None:
    """A hundred thousand random steps: finite, in the space, no memory and no files kept."""
    import resource

    env = gym.make(IDS[name])
    actions = np.random.default_rng(0).integers(0, ACTIONS[name], 100_000).tolist()
    obs, _ = env.reset(seed=0)
    warm = 0
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for step, action in enumerate(actions):
        obs, _, terminated, truncated, info = env.step(action)
        assert np.isfinite(info["state"]).all()
        if terminated or truncated:
            assert env.observation_space.contains(obs)
            obs, _ = env.reset()
        if step == 20_000:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm < 5_000
    if files:
        assert len(os.listdir("/proc/self/fd")) == files


# -- anything valid ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_p1_any_valid_start_stays_finite_and_balances_energy(
    name: str, data: st.DataObject
) -> None:
    system = SYSTEMS[name]
    drawn = {
        f: data.draw(st.floats(low, high), label=f) for f, (low, high) in system.ranges.items()
    }
    seed = data.draw(st.integers(0, 2**32))
    actions = data.draw(st.lists(st.integers(0, ACTIONS[name] - 1), min_size=1, max_size=8))
    env = gym.make(IDS[name])
    obs, info = env.reset(seed=seed, options={"params": drawn})
    params = system.Params(**info["params"])
    for action in actions:
        state, before = tuple(info["state"].tolist()), info["energy"]
        assert env.observation_space.contains(obs)
        obs, reward, terminated, truncated, info = env.step(action)
        assert 0.0 <= reward <= 1.0
        control = system.control(tuple(system.discrete_actions[action].tolist()), params)
        if terminated or truncated:
            break
        # Work over the step, by Gauss-Legendre on the motion itself.
        nodes, weights = np.polynomial.legendre.leggauss(5)
        work = 0.0
        for x, w in zip(nodes, weights, strict=True):
            s = system.step(state, control, params, 0.5 * system.dt * (1.0 + float(x)))
            rate = system.power(s, control, params) - system.dissipation(s, params)
            work += 0.5 * system.dt * w * rate
        assert info["energy"] - before == pytest.approx(work, abs=2e-6 * (1.0 + abs(before)))
        assert tuple(info["state"].tolist()) == system.step(state, control, params)
