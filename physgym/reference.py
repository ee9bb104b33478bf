"""The accurate mode: SciPy's DOP853, an eighth-order method with error control, at 1e-12."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym.compile.pacing import MAX_SUBSTEPS
from physgym.compile.program import outcome

if TYPE_CHECKING:
    from physgym.system import System

TOLERANCE = 1e-12
"""Relative and absolute tolerance."""


class _Unresolved(Exception):
    """The solver gave up, or ran out of sub-steps."""


def solve(
    system: System, state: tuple[Any, ...], control: tuple[Any, ...], params: Any, dt: float
) -> tuple[Any, ...]:
    """Advance `state` (floats or rows) by `dt` [s] under a held control, each row by itself; stops
    at a collision.

    Raises TypeError on tensors (SciPy has no gradients) and RuntimeError where SciPy gives up or
    needs more than MAX_SUBSTEPS sub-steps.
    """
    after, unresolved, reason = _solve(system, state, control, params, dt)
    if np.any(unresolved):
        raise RuntimeError(f"DOP853 failed on {system.name}: {reason}")
    return after


def _solve(
    system: System, state: tuple[Any, ...], control: tuple[Any, ...], params: Any, dt: float
) -> tuple[tuple[Any, ...], Any, str]:
    """The state after `dt`, which rows are lost (their state is where they stood), and why."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in (*state, *control, *params)))
    if any(type(x).__module__.startswith("torch") for x in (*state, *control, *params)):
        raise TypeError(
            'integrator="dop853" works on NumPy arrays and floats, not on torch tensors'
        )
    rows = [
        np.broadcast_to(np.asarray(x, dtype=np.float64), shape).reshape(-1)
        for x in (*state, *control, *params)
    ]
    d, u = len(state), len(control)
    ends, lost, reason = [], [], ""
    for r in np.stack(rows, axis=-1).tolist():
        try:
            control_, mine = tuple(r[d : d + u]), system.Params(*r[d + u :])
            ends.append(_solve_row(system, tuple(r[:d]), control_, mine, dt))
            lost.append(False)
        except (ArithmeticError, ValueError, _Unresolved) as trouble:
            ends.append(r[:d])
            lost.append(True)
            reason = f"{trouble} at state {r[:d]}"
    if shape == ():
        return tuple(ends[0]), lost[0], reason
    after = tuple(np.moveaxis(np.asarray(ends).reshape(*shape, d), -1, 0))
    return after, np.array(lost).reshape(shape), reason


def _solve_row(
    system: System, state: tuple[float, ...], control: tuple[float, ...], params: Any, dt: float
) -> list[float]:
    from scipy.integrate import DOP853

    def derivative(t: float, y: np.ndarray) -> Any:
        return system.derivative(tuple(np.asarray(y).tolist()), control, params)

    if system.collision(state, params):
        return list(state)
    with np.errstate(all="ignore"):
        solver = DOP853(derivative, 0.0, state, dt, rtol=TOLERANCE, atol=TOLERANCE)
        for _ in range(MAX_SUBSTEPS):
            message = solver.step()
            if solver.status == "failed":
                raise _Unresolved(message)
            if system.collision(tuple(solver.y.tolist()), params):
                return _first_inside(system, solver, params)
            if solver.status == "finished":
                return solver.y.tolist()
    raise _Unresolved(f"{dt:g} s need more than {MAX_SUBSTEPS} sub-steps")


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
    themselves. A row that the solver gives up on stays where it was and counts as out of bounds.
    """

    def advance(
        state: tuple[Any, ...], control: tuple[Any, ...], constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        after, unresolved, _ = _solve(system, tuple(state), tuple(control), constants, dt)
        result = outcome(system, after, tuple(control), constants, reward)
        return (*after, *result[:2], result[2] | unresolved, *result[3:])

    return advance
