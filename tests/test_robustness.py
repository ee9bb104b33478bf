"""Bad input and hard starts: named errors that change nothing, and motion that is never silently wrong.

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
from gymnasium.error import Error, InvalidAction, NameNotFound, ResetNeeded, VersionNotFound
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import given, settings
from hypothesis import strategies as st
from system_cases import NAMES, SMOOTH, digest

from physgym import SYSTEMS, get_system
from physgym.vector import PhysicsVectorEnv

IDS = {name: SYSTEMS[name].env_id for name in NAMES}
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
    assert result.stdout == f"{4 * (4 + 9 + 5 + 5)}\n", result.stdout + result.stderr


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


# -- construction ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dt", [0, 0.0, -0.1, float("nan"), float("inf"), 1e9, "0.1", [0.1]], ids=repr
)
def test_e12_bad_dt(dt: Any) -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match="dt="):
            gym.make(IDS[name], dt=dt)
        with pytest.raises(ValueError, match="dt="):
            SYSTEMS[name].step(
                SMOOTH[name], (0.0,) * SYSTEMS[name].control_size, SYSTEMS[name].Params(), dt
            )
    with pytest.raises(ValueError, match="dt="):
        PhysicsVectorEnv("pendulum", 2, dt=dt)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", None, [1.0]], ids=repr)
@pytest.mark.parametrize(
    ("name", "field"), [(n, f) for n in NAMES for f in SYSTEMS[n].Params._fields]
)
def test_e13_bad_parameter(name: str, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        gym.make(IDS[name], params={field: value})
    with pytest.raises(ValueError, match=field):
        gym.make(IDS[name], randomize={field: (value, value)})


@pytest.mark.parametrize(
    ("name", "field"), [(n, f) for n in NAMES for f in SYSTEMS[n].Params._fields]
)
def test_e13_zero_only_where_it_makes_sense(name: str, field: str) -> None:
    if field in SYSTEMS[name].non_negative:
        env = gym.make(IDS[name], params={field: 0.0})
        env.reset(seed=0)
        assert np.isfinite(env.step(1)[0]).all()
    else:
        with pytest.raises(ValueError, match=f"{field}=0.0 .* more than 0"):
            gym.make(IDS[name], params={field: 0.0})


def test_e13_unknown_and_too_many_parameters() -> None:
    with pytest.raises(ValueError, match="unknown parameter 'mass_3'.*mass_0, mass_1, mass_2"):
        gym.make(IDS["three_body"], params={"mass_3": 1.0})
    for bad in ([1.0], "mass", 3):
        with pytest.raises((ValueError, TypeError)):
            gym.make(IDS["pendulum"], params=bad)


@given(
    st.dictionaries(st.sampled_from(SYSTEMS["pendulum"].Params._fields), st.floats(), min_size=1)
)
@settings(max_examples=60, deadline=None)
def test_e13_any_float_is_taken_or_refused(params: dict[str, float]) -> None:
    system = SYSTEMS["pendulum"]
    good = all(
        np.isfinite(v) and (v > 0.0 or (v == 0.0 and k in system.non_negative))
        for k, v in params.items()
    )
    if good:
        assert system.check_params(params)._asdict().items() >= params.items()
    else:
        with pytest.raises(ValueError, match="parameter"):
            system.check_params(params)


@pytest.mark.parametrize("substeps", [0, -1, 2.5, 10**9, "3", True], ids=repr)
def test_e14_bad_substeps(substeps: Any) -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match="substeps="):
            gym.make(IDS[name], substeps=substeps)


@pytest.mark.parametrize("name", NAMES)
def test_e14_unknown_integrator_lists_the_choices(name: str) -> None:
    for bad in ("rk5", "", 4, "exact" if name != "oscillator" else "Exact"):
        with pytest.raises(ValueError, match="leapfrog, rk4, yoshida4"):
            gym.make(IDS[name], integrator=bad)


@pytest.mark.filterwarnings("ignore:.*initialised with render_mode")
@pytest.mark.parametrize("argument", ["obs_mode", "action_mode", "reward", "start", "render_mode"])
def test_e14_unknown_mode_lists_the_choices(argument: str) -> None:
    for bad in ("upside_down", "State"):
        with pytest.raises(ValueError, match=f"{argument}=.*choose one of"):
            gym.make(IDS["three_body"], **{argument: bad}).unwrapped.reset()


@pytest.mark.parametrize("size", [0, -64, 15, 10**6, 64.0, "64", None, True], ids=repr)
def test_e14_bad_image_size(size: Any) -> None:
    with pytest.raises(ValueError, match="image_size="):
        gym.make(IDS["pendulum"], obs_mode="pixels", image_size=size)


def test_e15_unknown_names_come_with_a_suggestion() -> None:
    with pytest.raises(NameNotFound, match="Oscillator"):
        gym.make("PhysGym/Oscilator-v0")
    with pytest.raises(VersionNotFound):
        gym.make("PhysGym/Oscillator-v7")
    with pytest.raises(KeyError, match="did you mean 'oscillator'"):
        get_system("oscilator")
    with pytest.raises(KeyError, match="did you mean 'three_body'"):
        get_system("ThreeBody")
    with pytest.raises(KeyError, match="choose one of oscillator, pendulum, spaceship, three_body"):
        get_system("qqqq")
    with pytest.raises(TypeError):
        gym.make(IDS["pendulum"], no_such_argument=1)


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
