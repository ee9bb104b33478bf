"""One rule for single envs, NumPy rows and torch rows: actions, flags, numbers, time limits."""

from __future__ import annotations

import copy
import math
import pickle
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from system_cases import IDS, NAMES
from vector_cases import assert_same, native

import physgym
from physgym import SYSTEMS, PhysicsEnv, PhysicsVectorEnv
from physgym.observations import frames_per_second
from physgym.validation import real_array, real_number, whole_number

torch = pytest.importorskip("torch")

# -- what an action is -------------------------------------------------------------------


def stepped(name: str, backend: str, mode: str, actions: Any) -> np.ndarray:
    """The states of two rows after one step under `actions`."""
    envs = PhysicsVectorEnv(name, 2, backend=backend, action_mode=mode)
    envs.reset(seed=0)
    return np.asarray(envs.step(actions)[4]["state"])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_integers_of_every_type_are_the_same_actions(name: str, library: str, backend: str) -> None:
    right = stepped(name, backend, "discrete", [2, 1])
    for kind in ("uint8", "int8", "int16", "int32", "int64", "uint16"):
        actions = torch.tensor([2, 1], dtype=getattr(torch, kind))
        if library == "numpy":
            actions = np.array([2, 1], dtype=kind)
        assert np.array_equal(stepped(name, backend, "discrete", actions), right), kind


NOT_INTEGERS = [
    np.array([True, False]), torch.tensor([True, False]), [True, True], torch.tensor([1.0, 0.0]),
    torch.tensor([1j, 0j]), ["1", "1"], np.array([1, 1], object), np.array(["2020-01-01"] * 2, "M8[D]"),
    np.array([1, 1], "m8[s]"), np.array([2**63, 1], np.uint64), [2**70, 1], {"a": 1}, [[1], [1, 2]],
    [None, 1], "11", np.array([1, 9], np.uint8), torch.tensor([1, 9], dtype=torch.uint8),
    torch.tensor([1, -1], dtype=torch.int8),
]  # fmt: skip
NOT_REAL = [
    [["0.5"]] * 2, np.array([[1j]] * 2), torch.ones(2, 1, dtype=torch.bool), np.ones((2, 1), bool),
    torch.ones(2, 1, dtype=torch.complex64), [[0.1], [0.1, 0.2]], np.array([["2020-01-01"]] * 2, "M8[D]"),
    np.ones((2, 1), "m8[s]"), [[None], [1.0]], [["x"]] * 2, torch.full((2, 1), math.nan),
]  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("mode", "actions"),
    [("discrete", a) for a in NOT_INTEGERS] + [("continuous", a) for a in NOT_REAL],
    ids=repr,
)
def test_what_is_no_action_of_rows_is_refused(mode: str, actions: Any, backend: str) -> None:
    envs, twin = (
        PhysicsVectorEnv("pendulum", 2, backend=backend, action_mode=mode) for _ in range(2)
    )
    envs.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(InvalidAction):
        envs.step(actions)
    valid = [1, 1] if mode == "discrete" else [[0.5], [0.5]]
    for a, b in zip(envs.step(valid)[:4], twin.step(valid)[:4], strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("actions", NOT_REAL, ids=repr)
def test_what_is_no_action_of_a_row_is_none_of_a_single_env(actions: Any) -> None:
    env = PhysicsEnv("pendulum", action_mode="continuous")
    env.reset(seed=0)
    one = (
        actions[1]
        if isinstance(actions, list) and len(actions[0]) != len(actions[1])
        else actions[0]
    )
    with pytest.raises(InvalidAction):
        env.step(one)


@pytest.mark.parametrize(
    "action", [np.True_, np.array(True), torch.tensor(True), np.timedelta64(1, "s"), torch.ones(1)]
)
def test_truth_values_and_times_are_no_discrete_action(action: Any) -> None:
    env = PhysicsEnv("pendulum")
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(action)


def test_gradients_do_not_end_unseen_in_numpy_envs() -> None:
    env = PhysicsEnv("pendulum", action_mode="continuous")
    envs = PhysicsVectorEnv("pendulum", 1, action_mode="continuous")
    env.reset(seed=0)
    envs.reset(seed=0)
    push = torch.tensor([0.5], requires_grad=True)
    for step, action in ((env.step, push), (envs.step, push[None])):
        with pytest.raises(InvalidAction, match="detach"):
            step(action)
    assert np.array_equal(env.step(push.detach())[0], envs.step(push.detach()[None])[0][0])


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 1e300])
def test_any_finite_number_is_clipped(value: float) -> None:
    env = PhysicsEnv("pendulum", action_mode="continuous")
    env.reset(seed=0)
    ends = [
        np.asarray(stepped("pendulum", b, "continuous", [[value]] * 2)) for b in ("numpy", "torch")
    ]
    state = env.step([value])[4]["state"]
    assert np.array_equal(ends[0][0], state)
    assert np.abs(ends[1][0] - state).max() < 1e-12


# -- numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), torch.tensor(3), np.uint64(3)])
def test_whole_numbers(value: Any) -> None:
    assert whole_number(value) == 3
    assert PhysicsVectorEnv("pendulum", value, max_episode_steps=value).max_episode_steps == 3


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), 3.0, "3", None, [3], np.array([3]), 3j, np.timedelta64(3, "s")]
)  # fmt: skip
def test_what_is_no_whole_number(value: Any) -> None:
    assert whole_number(value) is None
    for name in ("num_envs", "substeps", "image_size", "max_episode_steps"):
        if value is None and name != "num_envs":
            continue
        with pytest.raises(ValueError, match=name):
            PhysicsVectorEnv(**{"system": "pendulum", "num_envs": 2, name: value})


@pytest.mark.parametrize("value", [10**400, True, b"1", "1", 1j, [1.0], np.array([1.0]), math.inf])
def test_what_is_no_real_number(value: Any) -> None:
    assert real_number(value) is None
    for arguments in (
        {"params": {"mass": value}},
        {"randomize": {"mass": (0.5, value)}},
        {"dt": value},
    ):
        with pytest.raises(ValueError, match="mass|dt="):
            PhysicsEnv("pendulum", **arguments)


def test_real_numbers_of_any_type() -> None:
    for value in (1.5, np.float32(1.5), np.array(1.5), torch.tensor(1.5), np.float16(1.5)):
        assert real_number(value) == 1.5
    assert real_array(torch.ones(2, dtype=torch.bfloat16)) is not None
    assert real_array(torch.ones(2, requires_grad=True)) is None


# -- a motion that is lost ---------------------------------------------------------------

LOST: list[tuple[str, dict[str, Any]]] = [
    ("pendulum", {"dt": 10.0, "substeps": 200, "params": {"damping": 200.0}}),
    ("pendulum", {"dt": 10.0, "substeps": 200, "params": {"damping": 200.0}, "obs_mode": "embedded"}),
    ("pendulum", {"params": {"mass": 1e-200, "length": 1e-200}, "substeps": 3}),
    ("pendulum", {"params": {"damping": 1e9}, "integrator": "dop853"}),
    ("oscillator", {"params": {"mass": 1e-7, "damping": 5.0}, "integrator": "rk4", "substeps": 90}),
    ("three_body", {"dt": 10.0, "substeps": 50, "params": {"g": 1e300}}),
    ("spaceship", {"params": {"crash_radius": 1e-300}, "dt": 10.0}),
]  # fmt: skip


@pytest.mark.parametrize("reward", ["dense", "quadratic"])
@pytest.mark.parametrize("machine_code", ["0", "1"])
@pytest.mark.parametrize(("name", "arguments"), LOST)
def test_a_lost_motion_is_flagged_alike(
    name: str, arguments: dict[str, Any], machine_code: str, reward: str, monkeypatch: Any
) -> None:
    """No error and no warning: truncated, flagged, and to the bit what the rows say."""
    monkeypatch.setenv("PHYSGYM_NATIVE", machine_code)
    start = {"state": [1e-9, 0.0, 0.0, 0.0]} if name == "spaceship" else {}
    env, envs = (
        PhysicsEnv(name, reward=reward, **arguments),
        PhysicsVectorEnv(name, 1, reward=reward, **arguments),
    )
    env.reset(seed=0, options=start)
    envs.reset(seed=0, options=start)
    with np.errstate(all="raise"):
        for _ in range(50):
            one, rows = env.step(1), envs.step([1])
            assert np.array_equal(one[0], rows[0][0])
            assert env.observation_space.contains(one[0])
            assert one[1] == rows[1][0]
            assert math.isfinite(one[1])
            assert (one[2], one[3]) == (rows[2][0], rows[3][0])
            for key in ("state", "energy", "out_of_bounds"):
                assert np.array_equal(one[4][key], rows[4][key][0], equal_nan=True), key
            if one[3]:
                break
    assert one[3]
    assert one[4]["out_of_bounds"]


# -- sub-steps ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("pendulum", {"mass": 1e-12}),
        ("pendulum", {"damping": 1e300}),
        ("pendulum", {"mass": 1e-200, "length": 1e-200}),
        ("oscillator", {"damping": 1e300}),
        ("oscillator", {"mass": 1e-300}),
    ],
)
def test_sub_steps_have_one_limit_asked_or_reckoned(name: str, params: dict[str, float]) -> None:
    system = SYSTEMS[name]
    for integrator in system.integrators:
        if integrator == "dop853":
            continue
        for make in (PhysicsEnv, PhysicsVectorEnv):
            with pytest.raises(ValueError, match="100000 sub-steps"):
                make(name, params=params, integrator=integrator)
            env = make(name, integrator=integrator)
            with pytest.raises(ValueError, match="100000 sub-steps"):
                env.reset(seed=0, options={"params": params})
        with pytest.raises(ValueError, match="100000 sub-steps"):
            system.step((0.3, 0.5), (0.2,), params, integrator=integrator)


@pytest.mark.parametrize(
    ("params", "dt"),
    [({"damping": 1000.0}, 10.0), ({"mass": 1e-3, "damping": 1.0}, 5.0), ({"damping": 5e4}, 0.1),
     ({"stiffness": 1e6, "damping": 0.0}, 10.0), ({"mass": 1e-6}, 1.0)],
)  # fmt: skip
def test_exact_steps_are_exact_for_stiff_springs(params: dict[str, float], dt: float) -> None:
    system = SYSTEMS["oscillator"]
    p = system.Params(**params)
    start, force = np.array([0.3, 0.5]), 0.2
    got = np.array(system.step(tuple(start), (force,), params, dt))
    # The closed form by eigenvalues, about the rest position under the force.
    matrix = np.array([[0.0, 1.0], [-p.stiffness / p.mass, -p.damping / p.mass]])
    values, vectors = np.linalg.eig(matrix.astype(complex))
    rest = np.array([force / p.stiffness, 0.0])
    truth = rest + (vectors @ (np.exp(values * dt) * np.linalg.solve(vectors, start - rest))).real
    scale = np.array([1.0, 1.0 + math.sqrt(p.stiffness / p.mass)])
    assert np.abs((got - truth) / scale).max() < 1e-6
    with pytest.raises(ValueError, match='substeps=1 is too few for integrator="exact"'):
        PhysicsEnv("oscillator", params=params, dt=dt, substeps=1)


# -- time limits, frames, names ----------------------------------------------------------


@pytest.mark.parametrize("limit", [-1, None, 7])
def test_time_limits_mean_the_same_in_both_vector_modes(limit: int | None) -> None:
    def first_end(mode: str) -> int | None:
        envs = gym.make_vec(
            IDS["pendulum"], num_envs=1, vectorization_mode=mode, max_episode_steps=limit
        )
        envs.reset(seed=0)
        return next((k for k in range(1, 251) if envs.step(np.array([1]))[3].any()), None)

    assert (
        first_end("vector_entry_point") == first_end("sync") == {-1: None, None: 200, 7: 7}[limit]
    )
    assert PhysicsVectorEnv("pendulum", 1).max_episode_steps is None
    assert PhysicsVectorEnv("pendulum", 1, max_episode_steps=-1).max_episode_steps is None
    for bad in (0, -2, 2.5, "7", True):
        with pytest.raises(ValueError, match="max_episode_steps"):
            PhysicsVectorEnv("pendulum", 1, max_episode_steps=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dt", "rate"),
    [(0.05, 20), (0.1, 10), (0.15, 1 / 0.15), (0.4, 2.5), (3, 1 / 3), (1, 1), (10, 0.1)],
)
def test_frames_are_shown_in_real_time(dt: float, rate: float) -> None:
    env = gym.make(IDS["oscillator"], dt=dt, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(0)
    env.render()
    envs = PhysicsVectorEnv("oscillator", 1, dt=dt)
    for fps in (env.metadata["render_fps"], envs.metadata["render_fps"], frames_per_second(dt)):
        assert fps == pytest.approx(rate)
        assert isinstance(fps, int) == (rate == int(rate))


def test_envs_take_every_reward_that_is_named() -> None:
    for reward in physgym.REWARDS:
        PhysicsEnv("three_body", reward=reward, start="random")
    assert "alive" not in physgym.REWARDS
    assert set(dir(physgym)) == {*physgym.__all__, "__version__"}
    assert all(getattr(physgym, name) is not None for name in physgym.__all__)


# -- copies ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [PhysicsEnv, PhysicsVectorEnv])
def test_copies_are_built_from_what_the_env_was_made_with(make: Any) -> None:
    params, bounds = {"mass": 1.0}, [0.9, 1.1]
    ranges = {"length": bounds}
    env = make(
        "pendulum", params=types.MappingProxyType(params), randomize=ranges, observe_params=True
    )
    params["mass"], bounds[1] = 5.0, 9.0
    ranges["gravity"] = [1.0, 2.0]
    for twin in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        assert twin.observation_space == env.observation_space
        (obs, info), (obs2, info2) = copy.deepcopy(env).reset(seed=0), twin.reset(seed=0)
        assert_same((obs, info), (obs2, info2))


def test_rows_in_a_native_batch_with_a_reset_mask_of_either_kind() -> None:
    for backend in ("numpy", "torch"):
        envs = native("pendulum", 3, backend=backend)
        envs.reset(seed=0)
        for mask in (np.array([True, False, True]), torch.tensor([True, False, True])):
            before = np.asarray(envs.step([1, 1, 1])[4]["state"])
            after = np.asarray(envs.reset(seed=4, options={"reset_mask": mask})[1]["state"])
            assert not (before[0] == after[0]).all()
        for bad in (np.array([1, 0, 1]), [True, False, True], "yes"):
            with pytest.raises(TypeError, match="reset_mask"):
                envs.reset(options={"reset_mask": bad})
