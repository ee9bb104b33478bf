"""The figure-eight choreography of three bodies: its states, and how far a state is from it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from physgym.elementwise import maximum, sqrt

PERIOD = 6.3259139799991715
"""Period of the figure eight for m = G = 1 [s]."""
RATE = 2.0 * math.pi / PERIOD
_X_AMPLITUDES = {
    1: -1.100841230542,
    5: 0.025392011251,
    7: 0.005876143102,
    11: -0.000423109328,
    13: -0.000122950096,
    17: 1.1474698e-05,
    19: 3.617025e-06,
}
_Y_AMPLITUDES = {
    2: -0.338809988483,
    4: -0.055964052094,
    8: 0.003004342146,
    10: 0.000805870152,
    14: -6.7923198e-05,
    16: -2.0735596e-05,
    20: 2.059349e-06,
}
# Sine series of body 2 (at the origin at t = 0), from our own integration of the initial values of
# Chenciner and Montgomery (2000, doi:10.2307/2661357) with DOP853 at 1e-13; bodies 0 and 1 run a
# third of a period behind and ahead.
THIRD = 2.0 * math.pi / 3.0
_ROOT3_HALF = math.sqrt(3.0) / 2.0


def figure_eight(phase: Any) -> np.ndarray:
    """States (..., 12) of the choreography at `phase` [rad] (array or number), for unit masses and
    G = 1.
    """
    phase = np.asarray(phase, dtype=np.float64)
    positions, velocities = [], []
    for shift in (-THIRD, THIRD, 0.0):
        for series in (_X_AMPLITUDES, _Y_AMPLITUDES):
            angle = phase + shift
            positions.append(sum(a * np.sin(k * angle) for k, a in series.items()))
            velocities.append(sum(a * k * RATE * np.cos(k * angle) for k, a in series.items()))
    return np.stack(positions + velocities, axis=-1)


def _times(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def _curve(z: tuple[Any, Any]) -> list[tuple[Any, Any, Any, Any]]:
    """Per coordinate (x, y, vx, vy): the body-Fourier amplitude of the choreography at phase z =
    e^(i phase).

    Each is (re, im, d re/d phase, d im/d phase). Harmonics k = 1 mod 3 enter as z^k, k = 2 mod 3 as
    -z^-k.
    """
    powers = {1: z, 2: _times(z, z)}
    cube = _times(powers[2], z)
    for k in (4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20):
        powers[k] = _times(powers[k - 3], cube)
    sums = []
    for series in (_X_AMPLITUDES, _Y_AMPLITUDES):
        re, im, dre, dim, d2re, d2im = ([] for _ in range(6))
        for k, a in series.items():
            sign = 1.0 if k % 3 == 1 else -1.0
            c, s = powers[k]
            re.append((sign * a, c))
            im.append((a, s))
            dre.append((-sign * k * a, s))
            dim.append((k * a, c))
            d2re.append((-sign * k * k * a, c))
            d2im.append((-k * k * a, s))
        terms = [_dot(part) for part in (re, im, dre, dim, d2re, d2im)]
        sums.append(terms)
    x, y = sums
    position = [(t[0], t[1], t[2], t[3]) for t in (x, y)]
    velocity = [(RATE * t[2], RATE * t[3], RATE * t[4], RATE * t[5]) for t in (x, y)]
    return position + velocity


def _dot(terms: list[tuple[float, Any]]) -> Any:
    total = terms[0][0] * terms[0][1]
    for weight, value in terms[1:]:
        total = total + weight * value
    return total


def squared_distance_to_figure_eight(state: Any) -> Any:
    """Equations: the least squared 12-D distance of a state to the choreography, over its phase.

    The discrete Fourier transform over the three bodies keeps distances and turns the choreography
    into one closed curve in four complex amplitudes; its first harmonic gives the phase, two
    Gauss-Newton steps refine it.
    """
    amplitudes, rest = [], 0.0
    for i in (0, 1, 6, 7):
        b0, b1, b2 = state[i], state[i + 2], state[i + 4]
        total = b0 + b1 + b2
        rest = rest + total * total / 3.0
        amplitudes.append(
            (-2.0 / 3.0 * _ROOT3_HALF * (b0 - b1), 2.0 / 3.0 * (b2 - 0.5 * (b0 + b1)))
        )
    x = amplitudes[0]
    size = sqrt(x[0] * x[0] + x[1] * x[1] + 1e-24) * -1.0
    z = (x[0] / size, x[1] / size)
    for last in (False, False, True):
        square, along, speed = 0.0, 0.0, 0.0
        for (re, im), (cre, cim, dre, dim) in zip(amplitudes, _curve(z), strict=True):
            a, b = re - cre, im - cim
            square = square + (a * a + b * b)
            along = along + (a * dre + b * dim)
            speed = speed + (dre * dre + dim * dim)
        if last:
            return rest + 1.5 * (square - along * along / maximum(speed, 1e-24))
        # No speed where the first harmonic is gone (coincident bodies): any phase is as near.
        turn = along / maximum(speed, 1e-24)
        length = sqrt(1.0 + turn * turn)
        z = _times(z, (1.0 / length, turn / length))
    return rest


@functools.lru_cache(maxsize=1)
def track() -> tuple[tuple[float, float], ...]:
    """The curve (x, y) that every body runs along, for pictures."""
    return tuple(map(tuple, figure_eight(np.linspace(0.0, 2.0 * math.pi, 121))[:, 4:6].tolist()))


@functools.lru_cache(maxsize=1)
def regulator() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Orbit (P, 12), its unit tangents, gains (P, 2, 12) and control weights (P, 2, 2) of the
    periodic regulator.
    """
    from physgym.system import get_system

    system = get_system("three_body")
    count, eps, effort = 128, 1e-6, 0.5
    h, phases = PERIOD / count, 2.0 * math.pi * np.arange(count) / count
    orbit, tangents = figure_eight(phases), figure_eight(phases + eps) - figure_eight(phases - eps)
    moved = np.concatenate([np.eye(12), -np.eye(12), np.zeros((4, 12))]) * eps
    push = np.concatenate([np.zeros((24, 2)), np.eye(2), -np.eye(2)]) * eps
    starts = orbit[:, None, :] + moved
    ends = system.step(starts, np.broadcast_to(push, (count, 28, 2)), system.Params(), h)
    a = np.swapaxes(ends[:, :12] - ends[:, 12:24], 1, 2) / (2.0 * eps)
    b = np.swapaxes(ends[:, 24:26] - ends[:, 26:28], 1, 2) / (2.0 * eps)
    cost, gains, weights = np.eye(12), np.zeros((count, 2, 12)), np.zeros((count, 2, 2))
    for i in list(range(count))[::-1] * 8:
        weights[i] = np.eye(2) * effort * h + b[i].T @ cost @ b[i]
        gains[i] = np.linalg.solve(weights[i], b[i].T @ cost @ a[i])
        cost = np.eye(12) * h + a[i].T @ cost @ (a[i] - b[i] @ gains[i])
        cost = 0.5 * (cost + cost.T)
    return orbit, tangents / np.linalg.norm(tangents, axis=1, keepdims=True), gains, weights
