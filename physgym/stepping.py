"""One step of a system: which integrator, and how many sub-steps the accuracy needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from physgym import validation
from physgym.compile.cache import once
from physgym.compile.program import Program, substeps_for
from physgym.packing import alike, like, sized

if TYPE_CHECKING:
    from physgym.system import System


def step(
    system: System,
    state: Any,
    control: Any,
    params: Any,
    dt: float | None,
    integrator: str | None,
    substeps: int | None,
) -> Any:
    """See `System.step`."""
    dt = validation.check_dt(system.dt if dt is None else dt)
    integrator = validation.check_integrator(system, integrator)
    params = validation.params_of(system, params)
    s = sized(system, "state", state, system.state_size)
    u = sized(system, "control", control, system.control_size)
    alike(s, u, params)
    s, u = _lifted(s, (*u, *params)), _lifted(u, (*s, *params))
    if integrator == "dop853":
        from physgym.reference import solve

        return like(state, solve(system, s, u, params, dt))
    compiled, count = program(system, integrator, substeps, "none", dt, params)
    constants = compiled.prepare(params, 0.0 if compiled.adaptive else dt / count)
    return like(state, compiled.transition(s, u, constants, dt, count)[: system.state_size])


def _lifted(parts: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[Any, ...]:
    """`parts` as tensors where there is one among them or the `others`: programs mix no floats with them."""
    tensor = next((x for x in (*parts, *others) if hasattr(x, "detach")), None)
    if tensor is None:
        return parts
    dtype = tensor.dtype if tensor.is_floating_point() else tensor.double().dtype
    filled = (tensor.new_full((), float(x), dtype=dtype) for x in parts if not hasattr(x, "detach"))
    return tuple(x if hasattr(x, "detach") else next(filled) for x in parts)


def program(
    system: System,
    integrator: str,
    substeps: int | None,
    reward: str,
    dt: float | None,
    params: Any,
) -> tuple[Program, int]:
    """See `System.program`."""
    substeps = validation.check_substeps(substeps)
    adaptive = system.adaptive and substeps is None
    if not adaptive and (substeps is None or integrator == "exact"):
        dt = system.dt if dt is None else dt
        needed = _needed(system, integrator, dt, system.Params() if params is None else params)
        if substeps is not None and substeps < needed:
            raise ValueError(
                f'substeps={substeps} is too few for integrator="exact", whose series holds over '
                f"{dt / needed:g} s here: give at least {needed}, or None for as many as needed"
            )
        substeps = substeps or needed
    return _program(system, integrator, adaptive, reward), substeps or 1


def _needed(system: System, integrator: str, dt: float, params: Any) -> int:
    """How many equal sub-steps keep the accuracy at the worst of `params`."""
    longest = _longest(system, integrator, params)
    if longest * validation.MOST_SUBSTEPS >= dt:
        return min(substeps_for(dt, longest), validation.MOST_SUBSTEPS)
    raise ValueError(
        f"{system.name} with parameters {validation.shown(params)} moves so fast that dt={dt:g} s needs more than "
        f"{validation.MOST_SUBSTEPS} sub-steps (each at most {longest:.3g} s): take parameters "
        "nearer the defaults, a shorter dt, or an integrator with substeps= of your own"
    )


def _longest(system: System, integrator: str, params: Any) -> float:
    """The longest accurate sub-step [s] at the worst of `params`; 0 where there is none."""
    try:
        with np.errstate(all="ignore"):
            limit = (
                system.max_exact_step(params)
                if integrator == "exact"
                else system.max_step(None, params)
            )
            shortest = limit.detach().min() if hasattr(limit, "detach") else np.min(limit)
    except ArithmeticError:  # floats, where rows would read 0 or not a number
        return 0.0
    return float(shortest) if shortest > 0.0 else 0.0


@once
def _program(system: System, integrator: str, adaptive: bool, reward: str) -> Program:
    return Program(system, integrator, adaptive, reward)
