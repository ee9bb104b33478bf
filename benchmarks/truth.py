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


RIGHT_HAND_SIDES: dict[str, Callable[[np.ndarray, np.ndarray, Any], Any]] = {
    "oscillator": _oscillator,
    "pendulum": _pendulum,
    "spaceship": _spaceship,
    "three_body": _three_body,
}
"""dy/dt of (state (D,), control (U,), params) by the system's name."""


def reference_step(
    name: str, state: Any, control: Any, params: Any, dt: float, tolerance: float = 1e-12
) -> np.ndarray:
    """The state (D,) after `dt` [s] under a held control, by DOP853 at `tolerance`.

    Raises RuntimeError where SciPy gives up.
    """
    right, u = RIGHT_HAND_SIDES[name], np.asarray(control, dtype=np.float64)
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
