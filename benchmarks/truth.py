"""References apart from `physgym`: its equations written a second time, SciPy's DOP853, closed forms.

A slip in a system's equations or in an integrator shows as a difference from these. Tests use them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm


def _oscillator(y: np.ndarray, u: np.ndarray, p: Any) -> list[float]:
    return [y[1], (u[0] - p.stiffness * y[0] - p.damping * y[1]) / p.mass]


def _pendulum(y: np.ndarray, u: np.ndarray, p: Any) -> list[float]:
    torque = u[0] - p.mass * p.gravity * p.length * np.sin(y[0]) - p.damping * y[1]
    return [y[1], torque / (p.mass * p.length**2)]


def _spaceship(y: np.ndarray, u: np.ndarray, p: Any) -> np.ndarray:
    pull = p.gm * y[:2] / (y[:2] @ y[:2] + p.softening**2) ** 1.5
    return np.concatenate([y[2:], u - pull])


def _three_body(y: np.ndarray, u: np.ndarray, p: Any) -> np.ndarray:
    q, masses = y[:6].reshape(3, 2), np.array([p.mass_0, p.mass_1, p.mass_2])
    gaps = q[None, :, :] - q[:, None, :]
    cubes = ((gaps**2).sum(-1) + p.softening**2 + np.eye(3)) ** 1.5
    pulls = p.g * (masses[None, :, None] * gaps / cubes[..., None]).sum(1)
    pulls[0] += u
    return np.concatenate([y[6:], pulls.ravel()])


def _cart_pole(y: np.ndarray, u: np.ndarray, p: Any) -> np.ndarray:
    """By the Jacobian J of the tip: (m_c e e^T + m_p J^T J) a = forces - m_p J^T J' v."""
    v, c, s = y[2:], np.cos(y[1]), np.sin(y[1])
    jacobian = np.array([[1.0, p.length * c], [0.0, p.length * s]])
    slope = p.length * v[1] * np.array([[0.0, -s], [0.0, c]])
    mass = np.diag([p.mass_cart, 0.0]) + p.mass_pole * jacobian.T @ jacobian
    force = jacobian.T @ (p.mass_pole * (np.array([0.0, -p.gravity]) - slope @ v))
    force = force + np.array([u[0] - p.damping * v[0], 0.0])
    return np.concatenate([v, np.linalg.solve(mass, force)])


def _acrobot(y: np.ndarray, u: np.ndarray, p: Any) -> np.ndarray:
    """By the Jacobians of the two masses, of angles from the downward vertical."""
    v, mass, force = y[2:], np.zeros((2, 2)), -p.damping * y[2:]
    force = force + (np.array([0.0, u[0]]) if len(u) == 1 else np.asarray(u))
    whole, half = np.ones(2), np.array([1.0, 0.0])
    for m, rods in (
        (p.mass_1, [(p.length_1, y[0], half)]),
        (p.mass_2, [(p.length_1, y[0], half), (p.length_2, y[0] + y[1], whole)]),
    ):
        jacobian, pull = np.zeros((2, 2)), np.array([0.0, -p.gravity])
        for length, angle, turns in rods:
            jacobian += length * np.outer([np.cos(angle), np.sin(angle)], turns)
            pull = pull + length * (turns @ v) ** 2 * np.array([np.sin(angle), -np.cos(angle)])
        mass, force = mass + m * jacobian.T @ jacobian, force + m * jacobian.T @ pull
    return np.concatenate([v, np.linalg.solve(mass, force)])


def _mass_spring(y: np.ndarray, u: np.ndarray, p: Any) -> np.ndarray:
    count = len(y) // 2
    stretch = np.eye(count) - np.eye(count, k=-1)
    force = -p.stiffness * stretch.T @ stretch @ y[:count] + u[0] * np.eye(count)[-1]
    return np.concatenate([y[count:], force / p.mass])


def _n_body(y: np.ndarray, u: np.ndarray, p: Any) -> np.ndarray:
    count = len(y) // 4
    q, masses = y[: 2 * count].reshape(count, 2), np.array([p[1 + i] for i in range(count)])
    pulls = np.zeros((count, 2))
    for i in range(count):
        for j in range(count):
            gap = q[j] - q[i]
            pulls[i] += p.g * masses[j] * gap / (gap @ gap + p.softening**2 + (i == j)) ** 1.5
    pulls[0] += u
    return np.concatenate([y[2 * count :], pulls.ravel()])


RIGHT_HAND_SIDES: dict[str, Callable[[np.ndarray, np.ndarray, Any], Any]] = {
    "acrobot": _acrobot,
    "cart_pole": _cart_pole,
    "mass_spring": _mass_spring,
    "n_body": _n_body,
    "oscillator": _oscillator,
    "pendulum": _pendulum,
    "spaceship": _spaceship,
    "three_body": _three_body,
}
"""dy/dt of (state (D,), control (U,), params) by the system's name, of variants by that without its ending."""


def right_hand_side(name: str) -> Callable[[np.ndarray, np.ndarray, Any], Any]:
    """That of a system, or of the one that a variant ("n_body_5") is of."""
    return RIGHT_HAND_SIDES[name if name in RIGHT_HAND_SIDES else name.rpartition("_")[0]]


def reference_step(
    name: str, state: Any, control: Any, params: Any, dt: float, tolerance: float = 1e-12
) -> np.ndarray:
    """The state (D,) after `dt` [s] under a held control, by DOP853 at `tolerance`.

    Raises RuntimeError where SciPy gives up.
    """
    right, u = right_hand_side(name), np.asarray(control, dtype=np.float64)
    solution = solve_ivp(
        lambda t, y: right(y, u, params),
        (0.0, dt),
        np.asarray(state, dtype=np.float64),
        method="DOP853",
        rtol=tolerance,
        atol=tolerance,
    )
    if not solution.success:
        raise RuntimeError(f"DOP853 failed on {name} at {state}: {solution.message}")
    return solution.y[:, -1]


def scaled_error(state: Any, truth: Any) -> float:
    """The largest |error| / max(1, |x|)."""
    truth = np.asarray(truth)
    return float(np.max(np.abs(np.asarray(state) - truth) / np.maximum(1.0, np.abs(truth))))


def oscillator_step(state: Any, force: float, params: Any, dt: float) -> np.ndarray:
    """The state (2,) of a forced damped oscillator after `dt` [s], by the matrix exponential."""
    k, c, m = params.stiffness, params.damping, params.mass
    generator = np.array([[0.0, 1.0, 0.0], [-k / m, -c / m, 1.0 / m], [0.0, 0.0, 0.0]])
    return (expm(generator * dt) @ [*state, force])[:2]


def pendulum_period(theta: float, gravity: float = 9.81, length: float = 1.0) -> float:
    """Period [s] of an undamped pendulum released at rest at `theta` [rad].

    2 pi / (w0 agm(1, cos(theta / 2))), by the arithmetic-geometric mean.
    """
    a, b = 1.0, math.cos(theta / 2.0)
    while abs(a - b) > 1e-15 * a:
        a, b = (a + b) / 2.0, math.sqrt(a * b)
    return 2.0 * math.pi / (math.sqrt(gravity / length) * a)


def separatrix(t: float, rate: float) -> tuple[float, float]:
    """State of a pendulum of small-angle rate `rate` [rad/s] that just reaches the top, from below."""
    return 2.0 * math.asin(math.tanh(rate * t)), 2.0 * rate / math.cosh(rate * t)


def kepler(a: float, e: float, gm: float, t: float) -> np.ndarray:
    """State (4,) on an ellipse `t` [s] after its closest point, by the eccentric anomaly."""
    mean = math.sqrt(gm / a**3) * t
    anomaly = mean
    for _ in range(30):
        anomaly -= (anomaly - e * math.sin(anomaly) - mean) / (1.0 - e * math.cos(anomaly))
    c, s, root = math.cos(anomaly), math.sin(anomaly), math.sqrt(1.0 - e * e)
    rate = math.sqrt(gm / a**3) / (1.0 - e * c)
    return np.array([a * (c - e), a * root * s, -a * s * rate, a * root * c * rate])


_V = (-0.93240737099600795, -0.864731461689236286)
_B = (0.970004356563723486, -0.243087530800388234)
FIGURE_EIGHT = np.array(
    [*_B, -_B[0], -_B[1], 0.0, 0.0, -_V[0] / 2, -_V[1] / 2, -_V[0] / 2, -_V[1] / 2, *_V]
)
"""State (12,) on the figure eight for m = G = 1 (Chenciner, Montgomery 2000, doi:10.2307/2661357)."""
FIGURE_EIGHT_PERIOD = 6.32591398
FIGURE_EIGHT_ENERGY = -1.28714199602879
