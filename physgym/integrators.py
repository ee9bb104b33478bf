"""Fixed-step integrators as pure functions over tuples of components.

Components may be floats, NumPy arrays, torch tensors or traced expressions: the same file steps the
true systems and the learned ones. `derivative(state)` returns the time derivative of a state tuple;
`force(q)` the acceleration (or dp/dt) at positions `q` without damping; `velocity(v)` the dq/dt
that belongs to velocities (or momenta) `v`. `damping` [1/s] is a rate gamma that adds -gamma v to
dv/dt (a scalar, or one a component).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Components = tuple[Any, ...]
Field = Callable[[Components], Components]

ORDERS = {
    "euler": 1,
    "semi_implicit_euler": 1,
    "leapfrog": 2,
    "rk4": 4,
    "yoshida4": 4,
    "suzuki4": 4,
}
"""Order of convergence of each method, which tests hold by halving the step."""
SPLIT = ("semi_implicit_euler", "leapfrog", "yoshida4", "suzuki4")
"""The methods that need dq/dt to depend on v alone, and dv/dt on q (and linear damping)."""

_CBRT2 = 2.0 ** (1.0 / 3.0)
_W1 = 1.0 / (2.0 - _CBRT2)
_W0 = 1.0 - 2.0 * _W1
_S = 1.0 / (4.0 - 4.0 ** (1.0 / 3.0))


def axpy(h: Any, x: Components, y: Components) -> Components:
    """Return y + h x, component by component."""
    return tuple(b + h * a for a, b in zip(x, y, strict=True))


def euler(derivative: Field, state: Components, h: Any) -> Components:
    """One explicit Euler step (order 1)."""
    return axpy(h, derivative(state), state)


def rk4(derivative: Field, state: Components, h: Any) -> Components:
    """One step of the classical fourth-order Runge-Kutta method (not the 3/8 rule)."""
    half, sixth = 0.5 * h, h / 6.0
    k1 = derivative(state)
    k2 = derivative(axpy(half, k1, state))
    k3 = derivative(axpy(half, k2, state))
    k4 = derivative(axpy(h, k3, state))
    return tuple(
        x + sixth * (a + 2.0 * (b + c) + d)
        for x, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True)
    )


def _rates(damping: Any, count: int) -> Components:
    return damping if isinstance(damping, tuple) else (damping,) * count


def _kick(force: Field, q: Components, v: Components, h: Any, damping: Any) -> Components:
    """Velocities after `h` of force and damping at fixed `q`, explicit."""
    if damping is None:
        return axpy(h, force(q), v)
    rates = _rates(damping, len(v))
    return tuple(b + h * (a - g * b) for a, b, g in zip(force(q), v, rates, strict=True))


def _kick_implicit(force: Field, q: Components, v: Components, h: Any, damping: Any) -> Components:
    """The adjoint of `_kick`: damping at the end of the step. With `_kick` it makes a symmetric
    pair.
    """
    if damping is None:
        return axpy(h, force(q), v)
    rates = _rates(damping, len(v))
    return tuple((b + h * a) / (1.0 + h * g) for a, b, g in zip(force(q), v, rates, strict=True))


def semi_implicit_euler(
    force: Field, velocity: Field, q: Components, v: Components, h: Any, damping: Any = None
) -> tuple[Components, Components]:
    """One symplectic Euler step: velocities first, then positions with the new velocities (order
    1).
    """
    v = _kick(force, q, v, h, damping)
    return axpy(h, velocity(v), q), v


def leapfrog(
    force: Field, velocity: Field, q: Components, v: Components, h: Any, damping: Any = None
) -> tuple[Components, Components]:
    """One kick-drift-kick step (velocity Verlet, order 2): symplectic without damping, always
    time-symmetric.
    """
    half = 0.5 * h
    v = _kick(force, q, v, half, damping)
    q = axpy(h, velocity(v), q)
    return q, _kick_implicit(force, q, v, half, damping)


def yoshida4(
    force: Field, velocity: Field, q: Components, v: Components, h: Any, damping: Any = None
) -> tuple[Components, Components]:
    """Three leapfrog steps of w1 h, w0 h, w1 h (order 4; Yoshida 1990,
    doi:10.1016/0375-9601(90)90092-3).
    """
    for weight in (_W1, _W0, _W1):
        q, v = leapfrog(force, velocity, q, v, weight * h, damping)
    return q, v


def suzuki4(
    force: Field, velocity: Field, q: Components, v: Components, h: Any, damping: Any = None
) -> tuple[Components, Components]:
    """Five leapfrog steps (order 4; Suzuki 1990, doi:10.1016/0375-9601(90)90962-N).

    Two thirds more forces than yoshida4, for an error that is about a hundred times smaller: what a
    learned force is worth can otherwise not be seen at the step lengths of control.
    """
    for weight in (_S, _S, 1.0 - 4.0 * _S, _S, _S):
        q, v = leapfrog(force, velocity, q, v, weight * h, damping)
    return q, v


FLOWS = {"euler": euler, "rk4": rk4}
"""Methods for any first-order system: (derivative, state, h) -> state."""
SPLITTINGS = {
    "semi_implicit_euler": semi_implicit_euler,
    "leapfrog": leapfrog,
    "yoshida4": yoshida4,
    "suzuki4": suzuki4,
}
"""Methods for second-order systems: (force, velocity, q, v, h, damping) -> (q, v)."""
