"""Linear-quadratic regulators about a state of a true system, for controllers written by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_EPS = 1e-6
_ROUNDS = 2000

Map = Callable[[np.ndarray, np.ndarray], np.ndarray]


def linearised(step: Map, state: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A (D, D) and B (D, U = `size`) of `step`, (states (N, D), controls (N, U)) -> states, at a fixed
    point `state` (D,), by central differences.
    """
    width = len(state)
    moved = _EPS * np.concatenate([np.eye(width), -np.eye(width), np.zeros((2 * size, width))])
    push = _EPS * np.concatenate([np.zeros((2 * width, size)), np.eye(size), -np.eye(size)])
    ends = step(state + moved, push)
    ahead, behind = ends[:width], ends[width : 2 * width]
    right, left = ends[2 * width : 2 * width + size], ends[2 * width + size :]
    return (ahead - behind).T / (2.0 * _EPS), (right - left).T / (2.0 * _EPS)


def regulator(
    a: np.ndarray, b: np.ndarray, weights: np.ndarray, effort: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gain (U, D) and cost (D, D) of the discrete regulator of x' = A x + B u that pays x^T diag(weights)
    x + effort u^T u a step, by iteration of Riccati's equation.
    """
    cost, gain = np.diag(weights), np.zeros(b.T.shape)
    for _ in range(_ROUNDS):
        gain = np.linalg.solve(effort * np.eye(b.shape[1]) + b.T @ cost @ b, b.T @ cost @ a)
        cost = np.diag(weights) + a.T @ cost @ (a - b @ gain)
        cost = 0.5 * (cost + cost.T)
    return gain, cost
