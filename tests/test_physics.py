"""The truth is the truth: closed forms, references at 1e-12, energy and symmetries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from system_cases import (
    NAMES,
    SMOOTH,
    STARTS,
    controls_for,
    rollout_errors,
    starts_for,
    undamped,
)

from benchmarks.truth import (
    FIGURE_EIGHT,
    FIGURE_EIGHT_ENERGY,
    FIGURE_EIGHT_PERIOD,
    RIGHT_HAND_SIDES,
    kepler,
    oscillator_step,
    pendulum_period,
    reference_step,
    scaled_error,
    separatrix,
)
from physgym import SYSTEMS
from physgym.systems.three_body import PERIOD, figure_eight

OSCILLATOR, PENDULUM = SYSTEMS["oscillator"], SYSTEMS["pendulum"]
SPACESHIP, THREE_BODY = SYSTEMS["spaceship"], SYSTEMS["three_body"]


def still(name: str) -> np.ndarray:
    """No control."""
    return np.zeros(SYSTEMS[name].control_size)


# -- closed forms ------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [0.01, 0.1, 0.2, 1.0])
@pytest.mark.parametrize(
    "damping", [0.0, 0.1, 2.0, 20.0], ids=["none", "weak", "critical", "strong"]
)
def test_oscillator_is_the_matrix_exponential(damping: float, dt: float) -> None:
    params = OSCILLATOR.Params(damping=damping)
    rng = np.random.default_rng(1)
    state, truth = np.array([1.3, -0.7]), np.array([1.3, -0.7])
    for force in rng.uniform(-1.0, 1.0, 20):
        state = OSCILLATOR.step(state, np.array([force]), params, dt)
        truth = oscillator_step(truth, force, params, dt)
        assert scaled_error(state, truth) <= 1e-11


@pytest.mark.parametrize(
    ("mass", "stiffness", "damping", "dt"),
    [
        (0.5, 2.0, 0.1, 10.0),
        (0.001, 1000.0, 0.0, 0.1),
        (0.001, 2.0, 5.0, 0.1),
        (0.5, 2.0, 200.0, 1.0),
    ],
)
def test_stiff_oscillator_is_exact_too(
    mass: float, stiffness: float, damping: float, dt: float
) -> None:
    params = OSCILLATOR.Params(mass=mass, stiffness=stiffness, damping=damping)
    state, force = np.array([0.3, -0.7]), 0.4
    after = OSCILLATOR.step(state, np.array([force]), params, dt)
    assert scaled_error(after, oscillator_step(state, force, params, dt)) <= 1e-11


def crossing_time(theta: float, dt: float = 0.01) -> float:
    """When a pendulum released at rest at `theta` first hangs down: a quarter of its period."""
    params, state, t = undamped(PENDULUM), (theta, 0.0), 0.0
    while True:
        after = PENDULUM.step(state, (0.0,), params, dt)
        if after[0] <= 0.0:
            break
        state, t = after, t + dt
    # The crossing inside the step, by Newton on the length of that step.
    part = state[0] / -state[1]
    for _ in range(4):
        after = PENDULUM.step(state, (0.0,), params, part)
        part -= after[0] / after[1]
    return t + part


@pytest.mark.parametrize(
    ("theta", "period"),
    [(0.5, 2.03786791515817), (2.0, 2.66587094283493), (3.0, 5.15806675426787)],
)
def test_pendulum_period_from_rest(theta: float, period: float) -> None:
    assert pendulum_period(theta) == pytest.approx(period, rel=1e-13)
    assert 4.0 * crossing_time(theta) == pytest.approx(period, rel=2e-8)


def test_pendulum_separatrix() -> None:
    rate = math.sqrt(9.81)
    state = (0.0, 2.0 * rate)
    for n in range(1, 21):
        state = PENDULUM.step(state, (0.0,), undamped(PENDULUM), 0.05)
        assert state == pytest.approx(separatrix(0.05 * n, rate), abs=2e-6)


@pytest.mark.parametrize(("a", "e"), [(2.0, 0.0), (3.0, 0.4), (4.0, 0.7)])
def test_spaceship_follows_kepler_ellipse(a: float, e: float) -> None:
    params = SPACESHIP.Params()
    state = tuple(kepler(a, e, params.gm, 0.0).tolist())
    for n in range(1, 101):
        state = SPACESHIP.step(state, (0.0, 0.0), params, 0.1)
        assert scaled_error(state, kepler(a, e, params.gm, 0.1 * n)) <= 1e-6, n


def test_figure_eight_returns_with_its_energy() -> None:
    params, count = THREE_BODY.Params(), 128
    state, energy = FIGURE_EIGHT, FIGURE_EIGHT_ENERGY
    for _ in range(count):
        state = THREE_BODY.step(state, np.zeros(2), params, FIGURE_EIGHT_PERIOD / count)
        assert THREE_BODY.energy(state, params) == pytest.approx(energy, abs=2e-6)
    assert np.abs(state - FIGURE_EIGHT).max() <= 5e-5
    accurate = FIGURE_EIGHT
    for _ in range(8):
        accurate = THREE_BODY.step(accurate, np.zeros(2), params, PERIOD / 8, "dop853")
    assert np.abs(accurate - FIGURE_EIGHT).max() <= 1e-8


def test_figure_eight_series_is_a_solution() -> None:
    phases = np.linspace(0.0, 2.0 * math.pi, 25)
    states = figure_eight(phases)
    assert np.abs(states[0] - FIGURE_EIGHT).max() <= 2e-5
    truth = FIGURE_EIGHT
    for state in states[1:]:
        truth = reference_step("three_body", truth, np.zeros(2), THREE_BODY.Params(), PERIOD / 24)
        assert np.abs(state - truth).max() <= 2e-5


def test_pythagorean_three_bodies_until_the_first_encounter() -> None:
    params = THREE_BODY.Params(mass_0=3.0, mass_1=4.0, mass_2=5.0)
    start = np.array([1.0, 3.0, -2.0, -1.0, 1.0, -1.0, *[0.0] * 6])
    state, truth = start, start
    for n in range(1, 19):  # bodies first come within 0.1, where the motion stops, at t = 1.86
        state = THREE_BODY.step(state, np.zeros(2), params, 0.1)
        truth = reference_step("three_body", truth, np.zeros(2), params, 0.1)
        assert scaled_error(state, truth) <= 1e-5, n
    assert THREE_BODY.energy(truth, params) == pytest.approx(
        -(12.0 / 5.0 + 15.0 / 4.0 + 20.0 / 3.0), abs=1e-9
    )


def test_pythagorean_right_hand_side_reaches_the_closest_approach() -> None:
    """The reference that the other tests lean on meets a value from the literature."""
    params = THREE_BODY.Params(mass_0=3.0, mass_1=4.0, mass_2=5.0)
    start = np.array([1.0, 3.0, -2.0, -1.0, 1.0, -1.0, *[0.0] * 6])
    right = RIGHT_HAND_SIDES["three_body"]
    solution = solve_ivp(
        lambda t, y: right(y, np.zeros(2), params), (0.0, 15.9), start,
        method="DOP853", rtol=1e-13, atol=1e-13,
    )  # fmt: skip
    q = solution.y[:6].T.reshape(-1, 3, 2)
    gaps = np.stack(
        [np.linalg.norm(q[:, i] - q[:, j], axis=-1) for i, j in ((0, 1), (0, 2), (1, 2))]
    )
    assert gaps.min() == pytest.approx(4.13825e-4, rel=2e-2)
    assert solution.t[gaps.min(0).argmin()] == pytest.approx(15.82992, abs=2e-4)


# -- every system against a reference ----------------------------------------------------


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_default_mode_against_dop853(name: str, start: str) -> None:
    bar = 1e-11 if SYSTEMS[name].default_integrator == "exact" else 1e-5
    assert rollout_errors(name, start, count=6, steps=20, seed=0) <= bar


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_accurate_mode_against_dop853(name: str, start: str) -> None:
    worst = rollout_errors(
        name, start, count=2, steps=20, seed=1, tolerance=3e-14, integrator="dop853"
    )
    assert worst <= 1e-8


@pytest.mark.parametrize("name", NAMES)
def test_step_of_0_2_is_two_of_0_1(name: str) -> None:
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    rng = np.random.default_rng(3)
    states = starts_for(system, rng, 32, system.starts[0])
    controls = controls_for(system, rng, (32,))
    one = system.step(states, controls, params, 0.2)
    two = system.step(system.step(states, controls, params, 0.1), controls, params, 0.1)
    assert scaled_error(one, two) <= 1e-6


# -- energy ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_energy_rate_is_power_less_dissipation(name: str) -> None:
    torch = pytest.importorskip("torch")
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    rng = np.random.default_rng(4)
    state = torch.tensor(starts_for(system, rng, 16, system.starts[0]), requires_grad=True)
    control = torch.tensor(controls_for(system, rng, (16,)))
    (slope,) = torch.autograd.grad(system.energy(state, params).sum(), state)
    rate = (slope * system.derivative(state, control, params)).sum(-1)
    lost = system.dissipation(state, params)
    balance = system.power(state, control, params) - lost
    assert (lost >= 0.0).all()
    assert (rate - balance).abs().max() <= 1e-10 * (1.0 + rate.abs().max())
    assert balance.abs().max() > 1e-3, "nothing was balanced"


@pytest.mark.parametrize("name", NAMES)
def test_energy_gained_is_work_done(name: str) -> None:
    """The work w' = power - dissipation, integrated beside the state, is the energy gained."""
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    rng = np.random.default_rng(5)
    right, state = RIGHT_HAND_SIDES[name], np.array(SMOOTH[name])
    before, work, stepped = float(system.energy(state, params)), 0.0, state
    for control in controls_for(system, rng, (10,)):

        def extended(t: float, y: np.ndarray, u: np.ndarray = control) -> np.ndarray:
            power = system.power(y[:-1], u, params) - system.dissipation(y[:-1], params)
            return np.append(right(y[:-1], u, params), power)

        y = solve_ivp(
            extended, (0.0, system.dt), [*state, work], method="DOP853", rtol=1e-12, atol=1e-12
        ).y[:, -1]
        state, work = y[:-1], float(y[-1])
        stepped = system.step(stepped, control, params)
        assert float(system.energy(state, params)) - before == pytest.approx(work, abs=1e-9)
        assert float(system.energy(stepped, params)) - before == pytest.approx(work, abs=2e-5)
    assert abs(work) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_energy_is_kept_without_damping_and_control(name: str) -> None:
    system, params = SYSTEMS[name], undamped(SYSTEMS[name])
    states = starts_for(system, np.random.default_rng(6), 8, system.starts[0])
    before = system.energy(states, params)
    for _ in range(60):
        states = system.step(states, np.zeros((8, system.control_size)), params)
        drift = np.abs(system.energy(states, params) - before) / np.maximum(1.0, np.abs(before))
        assert drift.max() <= 1e-5


# -- symmetries --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["acrobot", "cart_pole", "mass_spring", "oscillator", "pendulum"])
def test_mirror_image(name: str) -> None:
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    s, u = SMOOTH[name], (0.8,)
    plain = system.step(s, u, params)
    mirrored = system.step(tuple(-x for x in s), tuple(-x for x in u), params)
    assert mirrored == tuple(-x for x in plain)


def test_whole_turns_change_nothing() -> None:
    params = PENDULUM.Params()
    theta, omega = PENDULUM.step(SMOOTH["pendulum"], (1.0,), params)
    turned = PENDULUM.step((SMOOTH["pendulum"][0] + 2.0 * math.pi, -0.8), (1.0,), params)
    assert turned == pytest.approx((theta + 2.0 * math.pi, omega), abs=1e-13)


@pytest.mark.parametrize("name", ["n_body", "spaceship", "three_body"])
@pytest.mark.parametrize("reflect", [False, True], ids=["turn", "mirror"])
def test_rotated_and_mirrored_space(name: str, reflect: bool) -> None:
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    c, s = math.cos(0.7), math.sin(0.7)
    turn = np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if reflect else 1.0])
    control = np.array([0.3, -0.2])

    def turned(state: Any) -> np.ndarray:
        return (np.asarray(state).reshape(-1, 2) @ turn.T).ravel()

    plain = system.step(np.array(SMOOTH[name]), control, params)
    other = system.step(turned(SMOOTH[name]), turned(control), params)
    assert other == pytest.approx(turned(plain), abs=1e-12)


def test_bodies_may_change_names() -> None:
    params = THREE_BODY.Params(mass_0=0.9, mass_1=1.1, mass_2=1.3)
    swapped = params._replace(mass_1=1.3, mass_2=1.1)
    order = [0, 1, 4, 5, 2, 3, 6, 7, 10, 11, 8, 9]
    state, control = np.array(SMOOTH["three_body"]), np.array([0.3, -0.2])
    plain = THREE_BODY.step(state, control, params)
    assert THREE_BODY.step(state[order], control, swapped) == pytest.approx(plain[order], abs=1e-12)
    assert np.abs(THREE_BODY.step(state, control, swapped) - plain).max() > 1e-4


def test_momentum_is_kept_without_thrust() -> None:
    params = THREE_BODY.Params(mass_0=0.9, mass_1=1.1, mass_2=1.3)
    masses, state = np.array([0.9, 1.1, 1.3]), np.array(SMOOTH["three_body"])
    after = THREE_BODY.step(state, np.zeros(2), params)
    q, v = (x.reshape(3, 2) for x in np.split(after, 2))
    q0, v0 = (x.reshape(3, 2) for x in np.split(state, 2))
    assert masses @ v == pytest.approx(masses @ v0, abs=1e-12)
    assert masses @ q == pytest.approx(masses @ (q0 + THREE_BODY.dt * v0), abs=1e-12)
    spin, spin0 = (masses @ (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) for a, b in ((q, v), (q0, v0)))
    assert spin == pytest.approx(spin0, abs=1e-12)
