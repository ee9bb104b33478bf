"""Bad arguments: named errors at construction that say what is allowed.

The number in a test's name is the row of the list of faults that the project promises to survive.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import NameNotFound, VersionNotFound
from hypothesis import given, settings
from hypothesis import strategies as st
from system_cases import IDS, NAMES, SMOOTH

from physgym import SYSTEMS, get_system
from physgym.vector import PhysicsVectorEnv

ACTIONS = {name: len(SYSTEMS[name].discrete_actions) for name in NAMES}


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
    known = "leapfrog, rk4, yoshida4" if SYSTEMS[name].separable else "euler, rk4, dop853"
    for bad in ("rk5", "", 4, "Exact" if SYSTEMS[name].linear else "exact"):
        with pytest.raises(ValueError, match=known):
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
    with pytest.raises(KeyError, match="choose one of acrobot, cart_pole, .*, three_body"):
        get_system("qqqq")
    with pytest.raises(TypeError):
        gym.make(IDS["pendulum"], no_such_argument=1)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("pendulum", {"length": 0.1}),
        ("pendulum", {"length": 0.02, "torque_limit": 0.1}),
        ("pendulum", {"gravity": 1000.0}),
        ("pendulum", {"mass": 0.01}),
    ],
)
def test_parameters_far_from_the_defaults_take_the_sub_steps_they_need(name, params) -> None:
    system = SYSTEMS[name]
    values = system.check_params(params)
    state, control = (2.0, 3.0), system.control((1.0,), values)
    mine = np.array(system.step(state, control, values))
    truth = np.array(system.step(state, control, values, integrator="dop853"))
    assert np.max(np.abs(mine - truth) / np.maximum(1.0, np.abs(truth))) < 1e-5


def test_reset_refuses_parameters_that_the_env_is_too_coarse_for() -> None:
    env = gym.make("PhysGym/Pendulum-v0")
    with pytest.raises(ValueError, match="sub-steps"):
        env.reset(options={"params": {"length": 0.05}})
    env.reset(seed=0, options={"params": {"length": 0.7}})
    made_for_it = gym.make("PhysGym/Pendulum-v0", params={"length": 0.05})
    made_for_it.reset(seed=0, options={"params": {"length": 0.05}})


def test_a_state_that_is_not_a_number_ends_the_episode_inside_the_space() -> None:
    arguments = {"params": {"mass": 1e-7, "damping": 5.0}, "integrator": "rk4", "substeps": 1}
    env = gym.make("PhysGym/Oscillator-v0", **arguments)
    envs = gym.make_vec(
        "PhysGym/Oscillator-v0", num_envs=2, vectorization_mode="vector_entry_point", **arguments
    )
    env.reset(seed=0)
    envs.reset(seed=0)
    for _ in range(40):
        observation, reward, _, truncated, info = env.step(2)
        rows, rewards, _, _, _ = envs.step(np.array([2, 2]))
        assert env.observation_space.contains(observation)
        assert envs.observation_space.contains(rows)
        assert np.isfinite(reward)
        assert np.isfinite(rewards).all()
        if truncated:
            break
    assert truncated
    assert info["out_of_bounds"]


def test_unknown_arguments_are_named_with_the_closest_one() -> None:
    with pytest.raises(TypeError, match="did you mean 'obs_mode'"):
        gym.make(IDS["pendulum"], obsmode="state")
    with pytest.raises(TypeError, match="did you mean 'randomize'"):
        PhysicsVectorEnv("pendulum", 2, randomise=True)
    with pytest.raises(ValueError, match="must be a dict"):
        gym.make(IDS["pendulum"], params=[1])


@pytest.mark.parametrize("device", ["gpu", "cuda"])
def test_devices_that_are_not_there_are_named(device: str) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=f"device='{device}'"):
        PhysicsVectorEnv("pendulum", 2, backend="torch", device=device)


def test_step_takes_parameters_by_name_and_says_what_has_a_wrong_size() -> None:
    system = get_system("pendulum")
    default = system.step((1.0, 0.0), (0.0,), system.Params())
    assert system.step((1.0, 0.0), (0.0,), None) == default
    heavy = system.step((1.0, 0.0), (1.0,), {"mass": 2.0})
    assert heavy == system.step((1.0, 0.0), (1.0,), system.Params(mass=2.0))
    with pytest.raises(ValueError, match="state has 3 components"):
        system.step((1.0, 0.0, 0.0), (0.0,), None)
    with pytest.raises(ValueError, match="control has 2 components"):
        system.step((1.0, 0.0), (0.0, 0.0), None)
