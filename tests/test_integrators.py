"""Integrators have the order they claim, and keep or lose structure as theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from system_cases import (
    METHODS,
    NAMES,
    SEPARABLE,
    SMOOTH,
    controls_for,
    undamped,
)

from benchmarks.truth import (
    reference_step,
)
from physgym import SYSTEMS
from physgym.integrators import ORDERS, SPLIT

ORDINARY = tuple(ORDERS)


@pytest.mark.parametrize(("name", "integrator"), [m for m in METHODS if m[1] in ORDINARY])
def test_order_by_halving(name: str, integrator: str) -> None:
    system, dt = SYSTEMS[name], 0.4
    params, order = system.Params(), ORDERS[integrator]
    control = controls_for(system, np.random.default_rng(0), ())
    state = np.array(SMOOTH[name])
    truth = reference_step(name, state, control, params, dt, 1e-13)
    coarse = {1: 128, 2: 32, 4: 16 if system.separable else 64}[order]
    errors = [
        np.linalg.norm(system.step(state, control, params, dt, integrator, substeps=n) - truth)
        for n in (coarse, 2 * coarse)
    ]
    assert errors[1] > 1e-12, "too close to rounding to say anything"
    assert abs(math.log2(errors[0] / errors[1]) - order) <= 0.15


def there_and_back(name: str, integrator: str) -> float:
    """How far a step forth and, with velocities turned round, a step back miss the state."""
    system, params = SYSTEMS[name], undamped(SYSTEMS[name])
    flip = np.repeat([1.0, -1.0], system.state_size // 2)
    state, control = np.array(SMOOTH[name]), controls_for(system, np.random.default_rng(7), ())
    ahead = system.step(state, control, params, 0.2, integrator, substeps=2)
    back = system.step(flip * ahead, control, params, 0.2, integrator, substeps=2)
    return float(np.abs(flip * back - state).max())


@pytest.mark.parametrize("name", SEPARABLE)
def test_reversibility(name: str) -> None:
    assert there_and_back(name, "leapfrog") <= 1e-13
    assert there_and_back(name, "yoshida4") <= 1e-13
    assert there_and_back(name, "rk4") >= 1e-9
    assert there_and_back(name, "semi_implicit_euler") >= 1e-4


def symplectic_defect(name: str, integrator: str) -> float:
    """The largest entry of J' Omega J - Omega, J the Jacobian of a step (equal masses)."""
    torch = pytest.importorskip("torch")
    system, params = SYSTEMS[name], undamped(SYSTEMS[name])
    control = torch.tensor(controls_for(system, np.random.default_rng(7), ()))
    jacobian = torch.autograd.functional.jacobian(
        lambda s: system.step(s, control, params, 0.2, integrator, substeps=2),
        torch.tensor(SMOOTH[name], dtype=torch.float64),
    )
    half = system.state_size // 2
    omega = torch.zeros(2 * half, 2 * half, dtype=torch.float64)
    omega[:half, half:], omega[half:, :half] = torch.eye(half), -torch.eye(half)
    return float((jacobian.T @ omega @ jacobian - omega).abs().max())


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SEPARABLE)))
def test_what_cannot_be_split_is_not(name: str) -> None:
    system = SYSTEMS[name]
    assert not set(SPLIT) & set(system.integrators) and "rk4" in system.integrators
    for integrator in SPLIT:
        with pytest.raises(ValueError, match=f"{integrator}.*velocities; choose one of euler, rk4"):
            system.step(SMOOTH[name], (0.0,), system.Params(), integrator=integrator)


@pytest.mark.parametrize("name", SEPARABLE)
def test_symplecticity(name: str) -> None:
    for integrator in ("leapfrog", "yoshida4", "semi_implicit_euler"):
        assert symplectic_defect(name, integrator) <= 1e-12, integrator
    assert symplectic_defect(name, "rk4") >= 1e-9
    assert symplectic_defect(name, "euler") >= 1e-3


@pytest.mark.parametrize("name", ["oscillator", "pendulum"])
def test_leapfrog_energy_stays_near_for_long(name: str) -> None:
    """Sampled at every step: leapfrog stays within its band, explicit Euler drifts away."""
    system, params = SYSTEMS[name], undamped(SYSTEMS[name])
    worst = {}
    for integrator in ("leapfrog", "euler"):
        state, gaps = SMOOTH[name], []
        for _ in range(2000):
            state = system.step(state, (0.0,), params, 0.02, integrator, substeps=1)
            gaps.append(abs(system.energy(state, params) - system.energy(SMOOTH[name], params)))
        worst[integrator] = (max(gaps[:500]), max(gaps))
    early, ever = worst["leapfrog"]
    assert ever <= 1.05 * early
    assert worst["euler"][1] > 100.0 * ever
