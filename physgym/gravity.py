"""Mutual gravity of bodies in the plane, written as equations are: states hold x, y of each body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from physgym.elementwise import minimum, sqrt


def pairs(count: int) -> tuple[tuple[int, int], ...]:
    """All pairs (i, j), i < j, of `count` bodies."""
    return tuple((i, j) for i in range(count) for j in range(i + 1, count))


def pulled(q: Any, push: Any, masses: Any, p: Any) -> Any:
    """Equations: accelerations (2 N) by sum_j G m_j (q_j - q_i) / (r_ij^2 + eps^2)^1.5, and `push` (2)
    on body 0.
    """
    a = [push[0], push[1], *(0.0 for _ in range(2 * len(masses) - 2))]
    for i, j in pairs(len(masses)):
        dx, dy = q[2 * j] - q[2 * i], q[2 * j + 1] - q[2 * i + 1]
        square = dx * dx + dy * dy + p.softening * p.softening
        pull = p.g / (square * sqrt(square))
        wi, wj = masses[j] * pull, masses[i] * pull
        a[2 * i], a[2 * i + 1] = a[2 * i] + wi * dx, a[2 * i + 1] + wi * dy
        a[2 * j], a[2 * j + 1] = a[2 * j] - wj * dx, a[2 * j + 1] - wj * dy
    return tuple(a)


def squares(q: Any, count: int) -> list[Any]:
    """Equations: the squared distance of each pair."""
    found = []
    for i, j in pairs(count):
        dx, dy = q[2 * j] - q[2 * i], q[2 * j + 1] - q[2 * i + 1]
        found.append(dx * dx + dy * dy)
    return found


def energy(state: Any, masses: Any, p: Any) -> Any:
    """Equations: kinetic energy less G m_i m_j / sqrt(r_ij^2 + eps^2) of the pairs."""
    total, count = 0.0, len(masses)
    for i in range(count):
        vx, vy = state[2 * count + 2 * i], state[2 * count + 2 * i + 1]
        total = total + 0.5 * masses[i] * (vx * vx + vy * vy)
    for (i, j), square in zip(pairs(count), squares(state, count), strict=True):
        total = total - p.g * masses[i] * masses[j] / sqrt(square + p.softening * p.softening)
    return total


def shortest_fall(state: Any, masses: Any, p: Any) -> Any:
    """Equations: the shortest free-fall time [s] of a pair, sqrt((r^2 + eps^2)^1.5 / (G (m_i + m_j)))."""
    fastest: Any = None
    for (i, j), r2 in zip(pairs(len(masses)), squares(state, len(masses)), strict=True):
        square = r2 + p.softening * p.softening
        time2 = square * sqrt(square) / (p.g * (masses[i] + masses[j]))
        fastest = time2 if fastest is None else minimum(fastest, time2)
    return sqrt(fastest)


def centred(x: Sequence[Any], masses: Sequence[Any]) -> tuple[Any, ...]:
    """Positions or velocities (2 N) less those of the centre of mass."""
    total, mean = masses[0], [masses[0] * x[0], masses[0] * x[1]]
    for i in range(1, len(masses)):
        total = total + masses[i]
        mean = [mean[0] + masses[i] * x[2 * i], mean[1] + masses[i] * x[2 * i + 1]]
    return tuple(a - mean[i % 2] / total for i, a in enumerate(x))
