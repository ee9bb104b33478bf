"""The accurate mode: SciPy's DOP853, an eighth-order method with error control, at 1e-12."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym.compile.program import outcome

if TYPE_CHECKING:
    from physgym.system import System

TOLERANCE = 1e-12
"""Relative and absolute tolerance."""


def solve(
    system: System, state: tuple[Any, ...], control: tuple[Any, ...], params: Any, dt: float
) -> tuple[Any, ...]:
    """Advance `state` (floats or rows) by `dt` [s] under a held control, each row by itself; stops
    at a collision.

    Raises TypeError on tensors (SciPy has no gradients) and RuntimeError where SciPy gives up.
    """
    shape = np.broadcast_shapes(*(np.shape(x) for x in (*state, *control, *params)))
    if any(type(x).__module__.startswith("torch") for x in (*state, *control, *params)):
        raise TypeError(
            'integrator="dop853" works on NumPy arrays and floats, not on torch tensors'
        )
    rows = [
        np.broadcast_to(np.asarray(x, dtype=np.float64), shape).reshape(-1)
        for x in (*state, *control, *params)
    ]
    table = np.stack(rows, axis=-1).tolist()
    d, u = len(state), len(control)
    ends = [
        _solve_row(system, tuple(r[:d]), tuple(r[d : d + u]), system.Params(*r[d + u :]), dt)
        for r in table
    ]
    if shape == ():
        return tuple(ends[0])
    return tuple(np.moveaxis(np.asarray(ends).reshape(*shape, d), -1, 0))


def _solve_row(
    system: System, state: tuple[float, ...], control: tuple[float, ...], params: Any, dt: float
) -> list[float]:
    from scipy.integrate import DOP853

    def derivative(t: float, y: np.ndarray) -> Any:
        return system.derivative(tuple(np.asarray(y).tolist()), control, params)

    if system.collision(state, params):
        return list(state)
    solver = DOP853(derivative, 0.0, state, dt, rtol=TOLERANCE, atol=TOLERANCE)
    while solver.status == "running":
        message = solver.step()
        if solver.status == "failed":
            raise RuntimeError(f"DOP853 failed on {system.name} at state {state}: {message}")
        if system.collision(tuple(solver.y.tolist()), params):
            return _first_inside(system, solver, params)
    return solver.y.tolist()


def _first_inside(system: System, solver: Any, params: Any) -> list[float]:
    """Where the solver's last step enters a collision, to rounding, and on its far side: the
    episode ends there.
    """
    path, early, late, inside = solver.dense_output(), solver.t_old, solver.t, solver.y.tolist()
    for _ in range(60):
        middle = 0.5 * (early + late)
        state = path(middle).tolist()
        if system.collision(tuple(state), params):
            late, inside = middle, state
        else:
            early = middle
    return inside


def transition(system: System, reward: str) -> Callable[..., tuple[Any, ...]]:
    """The accurate counterpart of `Program.transition`; its constants are the parameters
    themselves.
    """

    def advance(
        state: tuple[Any, ...], control: tuple[Any, ...], constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        after = solve(system, tuple(state), tuple(control), constants, dt)
        return (*after, *outcome(system, after, tuple(control), constants, reward))

    return advance
