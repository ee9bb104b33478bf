"""Starts: what reset is given is held to what make was, and no episode begins ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from system_cases import NAMES, STARTS
from vector_cases import KWARGS, assert_same, kwargs_of, native, synchronous

from physgym import SYSTEMS, PhysicsEnv, PhysicsVectorEnv, sampling

MAKERS = [PhysicsEnv, PhysicsVectorEnv]
TOO_MUCH: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("pendulum", {}, {"params": {"damping": 160.0}}, "53 sub-steps"),
    ("pendulum", {}, {"randomize": {"damping": (0.1, 160.0)}}, "53 sub-steps"),
    ("pendulum", {"randomize": True}, {"params": {"length": 0.05}}, "sub-steps"),
    ("oscillator", {}, {"params": {"damping": 5e4}}, "sub-steps"),
    ("oscillator", {}, {"randomize": {"mass": (1e-5, 1.0)}}, "sub-steps"),
    ("pendulum", {"observe_params": True}, {"params": {"length": 3.0}}, "no room"),
    ("pendulum", {"observe_params": True}, {"randomize": {"mass": (1.0, 3.0)}}, "no room"),
    ("spaceship", {"observe_params": True, "obs_mode": "state_pixels"}, {"params": {"gm": 30.0}}, "no room"),
    ("spaceship", {}, {"params": {"escape_radius": 100.0}, "state": [50.0, 0.0, 0.0, 1.0]}, "no room"),
    ("spaceship", {}, {"randomize": {"escape_radius": (8.0, 9.0)}}, "no room"),
    ("spaceship", {}, {"params": {"crash_radius": 7.5}}, "no start"),
    ("spaceship", {}, {"params": {"gm": 1e6}}, "no start"),
    ("spaceship", {}, {"randomize": {"crash_radius": (0.5, 7.5)}}, "no start"),
    ("spaceship", {}, {"params": {"crash_radius": 4.0}, "state": [3.0, 0.0, 0.0, 1.0]}, "collision"),
    ("three_body", {"start": "random"}, {"params": {"g": 1e6}}, "no start"),
    ("pendulum", {}, {"state": [1e20, 0.0]}, "outside"),
    ("pendulum", {}, {"state": ["1", "0"]}, "numbers"),
    ("pendulum", {}, {"state": [1j, 0.0]}, "numbers"),
]  # fmt: skip


@pytest.mark.parametrize("seed", [None, 9])
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("name", "arguments", "options", "words"), TOO_MUCH)
def test_a_refused_reset_changes_nothing(
    name: str, arguments: dict[str, Any], options: dict[str, Any], words: str, make: Any, seed: Any
) -> None:
    """Neither the motion nor the stream of starts, whether a seed was given or not."""
    env, twin = make(name, **arguments), make(name, **arguments)
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(ValueError, match=words):
        env.reset(seed=seed, options=options)
    action = 1 if make is PhysicsEnv else [1]
    assert_same(env.step(action), twin.step(action))
    assert_same(env.reset(), twin.reset())
    assert env.np_random_seed == twin.np_random_seed


def test_a_refusal_in_a_later_row_gives_earlier_rows_their_stream_back() -> None:
    envs, twin = (PhysicsVectorEnv("spaceship", 3, randomize=True) for _ in range(2))
    envs.reset(seed=1)
    twin.reset(seed=1)
    states = np.array([[3.0, 0.0, 0.0, 1.0], [3.0, 0.0, 0.0, 1.0], [0.1, 0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="collision"):
        envs.reset(options={"state": states})
    assert_same(envs.reset(), twin.reset())


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("spaceship", {"params": {"crash_radius": 7.5}}, "no start"),
        ("spaceship", {"params": {"escape_radius": 0.6}}, "no start"),
        ("spaceship", {"randomize": {"gm": (10.0, 1e6)}}, "no start"),
        ("three_body", {"start": "random", "params": {"g": 1e6}}, "no start"),
        ("three_body", {"start": "triangle", "params": {"g": 1e300}}, "no start"),
        ("spaceship", {"params": {"escape_radius": 1e39}}, "no finite bounds"),
        (
            "oscillator",
            {"observe_params": True, "params": {"force_limit": 1e39}},
            "no finite bounds",
        ),
    ],
)
def test_make_refuses_what_no_episode_can_start_with(
    name: str, arguments: dict[str, Any], words: str, make: Any
) -> None:
    with np.errstate(all="raise"), pytest.raises(ValueError, match=words):
        make(name, **arguments)


CROWDED: list[tuple[str, dict[str, Any]]] = [
    ("spaceship", {"params": {"crash_radius": 3.0}}),
    ("spaceship", {"params": {"escape_radius": 2.6}}),
    ("spaceship", {"randomize": {"crash_radius": (0.5, 3.5), "gm": (9.0, 3000.0)}}),
]


@pytest.mark.parametrize(("name", "arguments"), CROWDED)
def test_starts_that_are_ends_are_drawn_again(name: str, arguments: dict[str, Any]) -> None:
    """And row i of a batch still starts where a single env of its seed does, at every reset."""
    envs = PhysicsVectorEnv(name, 40, **arguments)
    single = [PhysicsEnv(name, **arguments) for _ in range(40)]
    for seed in (0, None):
        rows, info = envs.reset(seed=seed)
        for i, env in enumerate(single):
            obs, alone = env.reset(seed=None if seed is None else seed + i)
            assert np.array_equal(obs, rows[i])
            assert np.array_equal(alone["state"], info["state"][i])
            assert env.observation_space.contains(obs)
            params = env.system.Params(**alone["params"])
            assert sampling.can_start(env.system, tuple(alone["state"].tolist()), params)


@pytest.mark.parametrize("randomize", [False, True])
@pytest.mark.parametrize(("name", "start"), STARTS)
def test_many_rows_start_where_single_rows_do(name: str, start: str, randomize: bool) -> None:
    """To the bit: drawn together or one by one, by the env or by the system."""
    envs = PhysicsVectorEnv(name, 60, start=start, randomize=randomize)
    for seed in (3, None):
        info = envs.reset(seed=seed)[1]
        if seed is not None:
            rngs = [np.random.default_rng(seed + i) for i in range(60)]
        for i, rng in enumerate(rngs):
            drawn = SYSTEMS[name].sample_params(rng, randomize)
            assert drawn == tuple(info["params"][field][i] for field in drawn._fields)
            assert tuple(info["state"][i].tolist()) == SYSTEMS[name].sample_state(rng, drawn, start)


# -- what info gave goes back in ---------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_reset_takes_back_what_info_gave(name: str, backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    envs = native(name, 4, randomize=True, backend=backend)
    info = envs.reset(seed=0)[1]
    for _ in range(3):
        info = envs.step([0, 1, 2, 1])[4]
    nxt = envs.step([1, 1, 2, 0])
    bare = {k: v for k, v in info["params"].items() if not k.startswith("_")}
    for params in (bare, info["params"], {k: np.asarray(v).tolist() for k, v in bare.items()}):
        for more in ({}, {"_state": info["_state"], "_params": info["_params"]}):
            again = envs.reset(options={"state": info["state"], "params": params, **more})[1]
            assert np.array_equal(np.asarray(again["state"]), np.asarray(info["state"]))
            for field in bare:
                assert np.array_equal(np.asarray(again["params"][field]), np.asarray(bare[field]))
            for a, b in zip(envs.step([1, 1, 2, 0])[:3], nxt[:3], strict=True):
                assert np.array_equal(np.asarray(a), np.asarray(b))


def test_rows_that_a_mask_leaves_out_are_drawn() -> None:
    envs, plain = native("pendulum", 3, randomize=True), native("pendulum", 3, randomize=True)
    info = envs.reset(seed=0)[1]
    plain.reset(seed=0)
    some = {"mass": info["params"]["mass"] * 1.01, "_mass": np.array([True, False, True])}
    given, drawn = envs.reset(options={"params": some})[1], plain.reset()[1]
    mass, usual = given["params"]["mass"], drawn["params"]["mass"]
    assert (mass == np.where(some["_mass"], some["mass"], usual)).all()
    assert np.array_equal(given["params"]["length"], drawn["params"]["length"])
    state = np.zeros((3, 2))
    masked = {"state": state, "_state": np.array([False, True, False])}
    after = envs.reset(options=masked)[1]["state"]
    assert (after == 0.0).all(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"params": {"mass": [1.0, 1.0]}}, "2 rows for num_envs=3"),
        ({"params": {"mass": [1.0, -1.0, 1.0]}}, "mass=-1.0"),
        ({"params": {"mas": [1.0, 1.0, 1.0]}}, "unknown parameter 'mas'"),
        ({"params": {"length": [1.0, 1.0, 0.01]}}, "sub-steps"),
        ({"state": np.zeros((2, 2))}, "2 rows for num_envs=3"),
        ({"state": np.zeros((3, 3))}, "shape"),
        ({"state": [[0.0, 0.0], [0.0], [0.0, 0.0]]}, "numbers"),
        ([1], "must be a dict"),
    ],
    ids=str,
)
def test_bad_options_by_row_change_nothing(options: Any, words: str) -> None:
    envs, twin = native("pendulum", 3, randomize=True), native("pendulum", 3, randomize=True)
    envs.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=words):
        envs.reset(options=options)
    assert_same(envs.step([0, 1, 2]), twin.step([0, 1, 2]))
    assert_same(envs.reset(), twin.reset())


@pytest.mark.parametrize("variant", KWARGS)
@pytest.mark.parametrize("name", NAMES)
def test_many_rows_restart_together_as_single_envs_do(name: str, variant: str) -> None:
    """More rows than are drawn one by one, through two restarts at the time limit."""
    arguments = {**kwargs_of(name, variant), "max_episode_steps": 3}
    ours, theirs = native(name, 12, **arguments), synchronous(name, 12, **arguments)
    assert_same(ours.reset(seed=5), theirs.reset(seed=5))
    for _ in range(9):
        actions = ours.action_space.sample()
        assert_same(ours.step(actions), theirs.step(actions))
