"""Laws over the registry: tasks, starts, parameters and observations are those stated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from system_cases import NAMES, SMOOTH, STARTS, row_of, rows_of, starts_for

import physgym
from physgym import SYSTEMS, elementwise, get_system
from physgym.systems import three_body
from physgym.task import Task

# -- the registry ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_registry_entry_is_complete(name: str) -> None:
    system = get_system(name)
    assert system is get_system(system.env_id) is SYSTEMS[system.name]
    params = system.Params()
    assert set(system.param_units) == set(params._fields)
    assert set(system.ranges) | system.non_negative <= set(params._fields)
    for field, (low, high) in system.ranges.items():
        assert low <= getattr(params, field) <= high
    assert system.state_size == len(system.state_units) == 2 * (system.state_size // 2)
    assert len(system.action_names) == len(system.discrete_actions)
    assert np.abs(system.discrete_actions).max() <= 1.0
    assert system.default_integrator in system.integrators
    assert 0.0 < system.reward_threshold < system.max_episode_steps
    assert set(system.keys.values()) < set(range(len(system.discrete_actions)))
    sections = ("Description", "Action Space", "Observation Space", "Rewards", "Starting State")
    for heading in (*sections, "Episode End", "Arguments", "Version History"):
        assert f"## {heading}" in (type(system).__doc__ or ""), heading


def test_discrete_thrusts_are_unit_winds() -> None:
    winds = SYSTEMS["spaceship"].discrete_actions
    assert winds[0].tolist() == [0.0, 0.0]
    angles = np.arange(8) * math.pi / 4
    assert winds[1:] == pytest.approx(np.stack([np.cos(angles), np.sin(angles)], -1), abs=1e-15)


# -- the goal of the three bodies --------------------------------------------------------


def brute_force_distance(states: np.ndarray) -> np.ndarray:
    """Least squared distance to the choreography over a grid of phases, refined by a parabola."""
    phases = np.linspace(0.0, 2.0 * math.pi, 4000, endpoint=False)
    orbit = three_body.figure_eight(phases)
    squares = ((states[:, None, :] - orbit) ** 2).sum(-1)
    least = squares.argmin(-1)
    step, best = phases[1], []
    for square, state, i in zip(squares, states, least, strict=True):
        left, mid, right = square[i - 1], square[i], square[(i + 1) % len(phases)]
        shift = 0.5 * (left - right) / (left - 2.0 * mid + right)
        fine = three_body.figure_eight(phases[i] + shift * step)
        best.append(((state - fine) ** 2).sum())
    return np.array(best)


@pytest.mark.parametrize(("noise", "bar"), [(1e-3, 1e-9), (0.02, 3e-7), (0.1, 2e-4)])
def test_distance_to_figure_eight(noise: float, bar: float) -> None:
    rng = np.random.default_rng(16)
    states = three_body.figure_eight(rng.uniform(0.0, 2.0 * math.pi, 64)) + rng.normal(
        0.0, noise, (64, 12)
    )
    formula = three_body.squared_distance_to_figure_eight(tuple(states.T))
    truth = brute_force_distance(states)
    scale = SYSTEMS["three_body"].error_scale ** 2
    reward, honest = 1.0 / (1.0 + formula / scale), 1.0 / (1.0 + truth / scale)
    assert np.abs(reward - honest).max() <= bar
    assert (formula >= 0.0).all()


# -- tasks, as the page of the systems states them ------------------------------------------


def task_error(name: str, y: np.ndarray, u: np.ndarray, p: Any) -> float:
    """Squared error of one state, written a second time."""
    if name == "oscillator":
        return (y[0] - 0.3) ** 2 + y[1] ** 2 / (p.stiffness / p.mass)
    if name == "pendulum":
        upright = math.remainder(y[0] - math.pi, 2.0 * math.pi)
        return upright**2 + 0.1 * min(y[1] ** 2, 64.0) + 0.001 * u[0] ** 2
    if name == "spaceship":
        r, speed = np.hypot(y[0], y[1]), math.sqrt(p.gm / 3.0)
        radial = (y[:2] @ y[2:]) / r
        across = abs(y[0] * y[3] - y[1] * y[2]) / r
        return (r / 3.0 - 1.0) ** 2 + (radial / speed) ** 2 + (across / speed - 1.0) ** 2
    if name == "cart_pole":
        return 2.0 * (1.0 + math.cos(y[1])) + p.length * y[3] ** 2 / p.gravity + y[0] ** 2
    if name == "acrobot":
        tip = -p.length_1 * math.cos(y[0]) - p.length_2 * math.cos(y[0] + y[1])
        return (1.0 - tip / (p.length_1 + p.length_2)) ** 2
    if name == "mass_spring":
        return y[0] ** 2 + p.mass / p.stiffness * y[1] ** 2
    if name == "n_body":
        mass, q, v = 0.5 * (p.mass_0 + p.mass_1), y[:4].reshape(2, 2), y[4:].reshape(2, 2)
        speed = math.sqrt(p.g * mass * 2.0 / (4.0 + p.softening**2) ** 1.5)
        r = np.linalg.norm(q, axis=1)
        radial, across = (q * v).sum(1) / r, (q[:, 0] * v[:, 1] - q[:, 1] * v[:, 0]) / r
        parts = (r - 1.0) ** 2 + (radial / speed) ** 2 + (across / speed - 1.0) ** 2
        return float(parts.mean())
    return float(brute_force_distance(y[None])[0])


RING = math.sqrt(2.0 / 4.01**1.5)
"""Speed of two unit masses on the ring."""
SCALES = {
    "acrobot": 0.5,
    "cart_pole": 0.5,
    "mass_spring": 0.2,
    "n_body": 0.15,
    "oscillator": 0.2,
    "spaceship": 0.15,
    "three_body": 0.3,
}


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_those_stated(name: str) -> None:
    system, states, controls, params = rows_of(name, SYSTEMS[name].starts[0], 40)
    dense = system.reward(states, controls, states, params)
    sparse = system.reward(states, controls, states, params, kind="sparse")
    quadratic = system.reward(states, controls, states, params, kind="quadratic")
    for i, (y, u) in enumerate(zip(states, controls, strict=True)):
        error = task_error(name, y, u, row_of(params, i))
        if name == "pendulum":
            wanted, scale = 1.0 - error / 16.2736, 0.5
        else:
            scale = SCALES[name]
            wanted = 1.0 / (1.0 + error / scale**2)
        tolerance = 1e-4 if name == "three_body" else 1e-10
        assert dense[i] == pytest.approx(wanted, abs=tolerance)
        assert sparse[i] == float(math.sqrt(error) < scale / 2.0)
        assert quadratic[i] == pytest.approx(-error / scale**2, rel=1e-3, abs=1e-9)
    assert not system.reward(states, controls, states, params, kind="none").any()
    with pytest.raises(ValueError, match="dense, sparse, quadratic"):
        system.reward(states, controls, states, params, kind="huge")


@pytest.mark.parametrize(
    ("name", "control", "state"),
    [
        ("oscillator", [0.0], [0.3, 0.0]),
        ("pendulum", [0.0], [math.pi, 0.0]),
        ("pendulum", [0.0], [-math.pi, 0.0]),
        ("spaceship", [0.0, 0.0], [0.0, 3.0, math.sqrt(10.0 / 3.0), 0.0]),
        ("spaceship", [0.0, 0.0], [0.0, 3.0, -math.sqrt(10.0 / 3.0), 0.0]),
        ("three_body", [0.0, 0.0], three_body.figure_eight(1.0).tolist()),
        ("cart_pole", [0.0], [0.0, -math.pi, 0.3, 0.0]),
        ("acrobot", [0.0], [math.pi, 0.0, 0.2, 0.1]),
        ("mass_spring", [0.0], [0.0, 0.0]),
        ("n_body", [0.0, 0.0], [0.0, 1.0, 0.0, -1.0, -RING, 0.0, RING, 0.0]),
    ],
)
def test_goal_earns_one(name: str, control: list[float], state: list[float]) -> None:
    system = SYSTEMS[name]
    for kind in ("dense", "sparse"):
        reward = system.reward(None, tuple(control), tuple(state), system.Params(), kind=kind)
        assert reward == pytest.approx(1.0, abs=1e-6)


def test_ends_are_those_stated() -> None:
    ship, bodies = SYSTEMS["spaceship"], SYSTEMS["three_body"]
    for r, collision, escape in ((0.499, True, False), (0.501, False, False), (8.01, False, True)):
        state = (r * math.cos(2.0), r * math.sin(2.0), 0.0, 0.0)
        assert ship.events(state, ship.Params()) == {"collision": collision, "escape": escape}
    masses = bodies.Params(mass_0=1.0, mass_1=2.0, mass_2=3.0)
    for gap, collision in ((0.099, True), (0.101, False)):
        state = (1.0, 1.0, 1.0, 1.0 + gap, -1.0, -1.0, *[0.0] * 6)
        assert bodies.events(state, masses) == {"collision": collision, "escape": False}
    # Body 0 at x, the others half a metre off the origin: the centre of mass lies at x / 6.
    for x, escape in ((2.99, False), (3.01, True)):
        state = (x, 0.0, 0.6, 0.0, -0.4, 0.0, *[0.0] * 6)
        assert bodies.events(state, masses)["escape"] is escape
    cart, ring = SYSTEMS["cart_pole"], SYSTEMS["n_body"]
    for x, off in ((2.99, False), (-3.01, True)):
        assert cart.events((x, 0.0, 0.0, 0.0), cart.Params()) == {"off_track": off}
    for x, escape in ((2.49, False), (2.51, True)):
        assert ring.events((0.0, 0.0, 0.0, x, *[0.0] * 4), ring.Params()) == {"escape": escape}
    for name in ("acrobot", "mass_spring", "oscillator", "pendulum"):
        assert SYSTEMS[name].events(SMOOTH[name], SYSTEMS[name].Params()) == {}


def test_starts_are_those_stated() -> None:
    """Ranges of the starts: an upper and a lower bound that a few hundred draws come close to."""
    rng = np.random.default_rng(30)
    for name, highest in (
        ("oscillator", (1.8, 1.8)),
        ("pendulum", (math.pi, 1.0)),
        ("cart_pole", (1.0, math.pi, 0.5, 1.0)),
        ("acrobot", (1.0, 1.0, 1.0, 1.0)),
    ):
        states = starts_for(SYSTEMS[name], rng, 400, "default")
        assert (np.abs(states) <= highest).all()
        assert (states.max(0) > 0.95 * np.array(highest)).all()
        assert (states.min(0) < -0.95 * np.array(highest)).all()
    states = starts_for(SYSTEMS["spaceship"], rng, 400, "default")
    q, v = states[:, :2], states[:, 2:]
    axis = 1.0 / (2.0 / np.linalg.norm(q, axis=1) - (v**2).sum(1) / 10.0)
    spin = q[:, 0] * v[:, 1] - q[:, 1] * v[:, 0]
    eccentricity = np.sqrt(np.maximum(1.0 - spin**2 / (10.0 * axis), 0.0))
    assert 2.0 - 1e-9 <= axis.min() < 2.1 < 3.9 < axis.max() <= 4.0 + 1e-9
    assert eccentricity.min() < 0.02 < 0.38 < eccentricity.max() <= 0.4 + 1e-9
    assert 0.4 < (spin > 0.0).mean() < 0.6
    radius = np.hypot(*(starts_for(SYSTEMS["mass_spring"], rng, 400, "default") / (1.0, 2.0)).T)
    assert 0.1 <= radius.min() < 0.12 < 0.98 < radius.max() <= 1.0
    states = starts_for(SYSTEMS["n_body"], rng, 400, "default")
    radius = np.linalg.norm(states[:, :2], axis=1)
    assert 0.73 < radius.min() < 0.85 < 1.15 < radius.max() < 1.27
    assert np.abs(states.reshape(-1, 2, 2, 2).sum(2)).max() <= 1e-14
    states = starts_for(SYSTEMS["three_body"], rng, 64, "figure_eight")
    distance = brute_force_distance(states)
    assert 0.02**2 * 4 < distance.mean() < 0.02**2 * 12


# -- observations, parameters, small functions -------------------------------------------


def test_wrapping_keeps_the_angle() -> None:
    angles = np.concatenate([np.linspace(-50.0, 50.0, 2001), [math.pi, -math.pi, 1e6, -1e6]])
    wrapped = elementwise.wrap(angles)
    assert np.abs(wrapped).max() <= math.pi + 1e-12
    gap = np.arctan2(np.sin(wrapped - angles), np.cos(wrapped - angles))
    assert np.abs(gap).max() <= 1e-9
    inside = np.linspace(-3.14159, 3.14159, 101)
    assert np.array_equal(elementwise.wrap(inside), inside)
    assert all(elementwise.wrap(float(a)) == w for a, w in zip(angles, wrapped, strict=True))


def test_elementwise_refuses_unknown_operands() -> None:
    with pytest.raises(TypeError, match="floats, NumPy arrays and torch tensors, not str"):
        elementwise.sin("0.1")


@pytest.mark.parametrize("name", NAMES)
def test_embedding_is_cos_and_sin(name: str) -> None:
    system = SYSTEMS[name]
    states = starts_for(system, np.random.default_rng(17), 5, system.starts[0])
    plain, embedded = system.observe(states), system.observe(states, "embedded")
    assert plain.dtype == embedded.dtype == np.float32
    assert plain.shape == (5, system.state_size)
    assert embedded.shape == (5, system.state_size + len(system.angles))
    assert len(system.observation_high("embedded")) == embedded.shape[1]
    if not system.angles:
        assert np.array_equal(plain, embedded)
    for place, i in enumerate(system.angles):
        pair = np.stack([np.cos(states[:, i]), np.sin(states[:, i])], -1)
        assert embedded[:, i + place : i + place + 2] == pytest.approx(pair, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_random_parameters_stay_in_their_ranges(name: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(18)
    drawn = [system.sample_params(rng, True) for _ in range(50)]
    for field, default in zip(system.Params._fields, system.Params(), strict=True):
        values = np.array([getattr(p, field) for p in drawn])
        low, high = system.ranges.get(field, (default, default))
        assert ((low <= values) & (values <= high)).all()
        assert len(np.unique(values)) == (50 if field in system.ranges else 1)
    only = system.sample_params(
        rng, {next(iter(system.ranges)): system.ranges[next(iter(system.ranges))]}
    )
    assert sum(a != b for a, b in zip(only, system.Params(), strict=True)) == 1


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_starts_are_valid_and_at_rest_where_promised(name: str, start: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(19)
    for _ in range(50):
        params = system.sample_params(rng, True)
        state = system.sample_state(rng, params, start)
        assert system.check_state(state, params) == state
        if name == "three_body":
            masses = np.array([params.mass_0, params.mass_1, params.mass_2])
            assert np.abs(masses @ np.array(state).reshape(2, 3, 2)).max() <= 1e-14
        if start == "random":
            gaps = np.sqrt(system._squares(state))
            assert gaps.min() >= 0.5
            potential = system.energy((*state[:6], *[0.0] * 6), params)
            assert system.energy(state, params) == pytest.approx(potential / 2.0)


@pytest.mark.parametrize("name", NAMES)
def test_hand_written_controller_beats_nothing_and_chance(name: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(20)
    params, count, steps = system.Params(), 48, system.max_episode_steps // 2
    returns = {}
    for policy in ("nothing", "random", "controller"):
        states = starts_for(system, np.random.default_rng(21), count, system.starts[0])
        alive, total = np.ones(count, dtype=bool), np.zeros(count)
        task = Task(system.name)
        step, constants = task.transition("arrays"), task.constants(params)
        nothing = int(np.abs(system.discrete_actions).sum(-1).argmin())
        for t in range(steps):
            actions = np.full(count, nothing)
            if policy == "random":
                actions = rng.integers(0, len(system.discrete_actions), count)
            elif policy == "controller":
                actions = system.controller(states, params, t)
            control = system.control(system.discrete_actions[actions], params)
            result = step(states.T, tuple(control.T), constants, task.dt, task.count)
            states = np.stack(result[: system.state_size], -1)
            total += alive * result[system.state_size]
            for event in result[system.state_size + 3 :]:
                alive &= ~event
        returns[policy] = total.mean()
    assert returns["controller"] > 1.2 * max(returns["nothing"], returns["random"]), returns


def test_public_names_are_there() -> None:
    for name in physgym.__all__:
        assert hasattr(physgym, name)
