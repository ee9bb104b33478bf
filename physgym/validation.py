"""What users pass, checked once: numbers, parameters, states, steps. Each error names the value,
what is allowed and, where there is one, the way out.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym.integrators import SPLIT

if TYPE_CHECKING:
    from physgym.system import System

MAX_STEP_SIZE = 10.0
"""Longest control step dt [s] that is accepted."""
MOST_SUBSTEPS = 100_000
"""Most equal sub-steps in one control step, whether a user asks for them or the accuracy does."""
LARGEST_ANGLE = 1e6
"""Largest unwrapped angle [rad] to start from: whole turns beyond it would cost the rest its digits."""


def real_array(value: Any) -> np.ndarray | None:
    """`value` as an array of integers or real numbers; None for anything else (truth values, text,
    dates, complex numbers, ragged lists, tensors that carry gradients).
    """
    try:
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # a type that NumPy has not
            value = value.float()
        array = np.asarray(value)
    except Exception:  # whatever the object's own conversion raises
        return None
    return array if array.dtype.kind in "iuf" else None


def real_number(value: Any) -> float | None:
    """`value` as a finite float; None where it is no single finite real number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    else:
        array = real_array(value)
        if array is None or array.shape != ():
            return None
        number = array.item()
    try:
        number = float(number)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def whole_number(value: Any) -> int | None:
    """`value` as an int; None where it is no single integer (truth values are none)."""
    if isinstance(value, (bool, np.bool_)) or "bool" in str(getattr(value, "dtype", "")):
        return None
    if getattr(value, "ndim", 0):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def truth_of(name: str, value: Any) -> bool:
    """`value`, True or False (or 1 or 0), as a bool; ValueError otherwise."""
    if isinstance(value, np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"{name}={value!r} must be True or False")


def plain(value: Any) -> Any:
    """A tensor as NumPy can read it, without its graph; anything else as it is."""
    return value.detach().cpu() if hasattr(value, "detach") else value


def params_of(system: System, params: Any) -> Any:
    """`params` where they are the system's `Params` (of numbers, rows or tensors); None and a dict as in
    `check_params`; ValueError for anything else.
    """
    if isinstance(params, system.Params):
        return params
    return check_params(system, params)


def count_of(name: str, value: Any, low: int, high: int, unit: str = "") -> int:
    """`value` as an int from `low` to `high`; ValueError otherwise."""
    number = whole_number(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}={value!r} must be a whole number{unit} from {low} to {high}")
    return number


def choice_of(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value`, one of `choices`; ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument}={value!r} is unknown; choose one of {', '.join(choices)}")
    return str(value)


def check_dt(dt: Any) -> float:
    """`dt` as a float in (0, MAX_STEP_SIZE]; ValueError otherwise."""
    number = real_number(dt)
    if number is None or not 0.0 < number <= MAX_STEP_SIZE:
        raise ValueError(f"dt={dt!r} must be a number of seconds in (0, {MAX_STEP_SIZE:g}]")
    return number


def check_substeps(substeps: Any) -> int | None:
    """`substeps`: None, or an int from 1 to MOST_SUBSTEPS; ValueError otherwise."""
    number = whole_number(substeps)
    if substeps is None or (number is not None and 1 <= number <= MOST_SUBSTEPS):
        return number
    raise ValueError(
        f"substeps={substeps!r} must be None (as many as needed) or a whole number "
        f"from 1 to {MOST_SUBSTEPS}"
    )


def check_integrator(system: System, integrator: Any) -> str:
    """`integrator` or the default one; ValueError names the choices."""
    if integrator is None:
        return system.default_integrator
    if isinstance(integrator, str) and integrator in SPLIT and not system.separable:
        raise ValueError(
            f"integrator={integrator!r} does not serve {system.name}, whose acceleration depends on velocities; "
            f"choose one of {', '.join(system.integrators)}"
        )
    if not isinstance(integrator, str) or integrator not in system.integrators:
        raise ValueError(
            f"integrator={integrator!r} is unknown for {system.name}; choose one of "
            f"{', '.join(system.integrators)}"
        )
    return str(integrator)


def check_params(system: System, overrides: Mapping[str, float] | None, base: Any = None) -> Any:
    """`base` (default: the defaults) with `overrides`; ValueError names a bad parameter, value and
    range.
    """
    base = system.Params() if base is None else base
    if isinstance(overrides, system.Params):
        overrides = overrides._asdict()
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ValueError(f"params={overrides!r} must be a dict of {', '.join(base._fields)}")
    values = {}
    for name, value in (overrides or {}).items():
        if name not in base._fields:
            raise ValueError(
                f"unknown parameter {name!r} of {system.name}; it has {', '.join(base._fields)}"
            )
        lowest = "at least 0" if name in system.non_negative else "more than 0"
        number = real_number(plain(value))
        if number is None or number < 0.0 or (number == 0.0 and name not in system.non_negative):
            raise ValueError(
                f"parameter {name}={value!r} of {system.name} must be a finite number, {lowest}"
            )
        values[name] = number
    return base._replace(**values)


def shown(params: Any) -> dict[str, Any]:
    """Parameters (floats, rows or tensors) by name: a number each, or the ends of what it takes."""
    ends = {n: (float(x.min()), float(x.max())) for n, x in params._asdict().items() if np.ndim(x)}
    numbers = {n: float(x) for n, x in params._asdict().items() if not np.ndim(x)}
    values = {n: low if low == high else (low, high) for n, (low, high) in ends.items()}
    return {n: (numbers | values)[n] for n in params._fields}


def check_ranges(system: System, randomize: Any) -> dict[str, tuple[float, float]]:
    """The ranges that `randomize` (True, False or {name: (low, high)}) draws from."""
    if randomize is None or isinstance(randomize, (bool, np.bool_)):
        return dict(system.ranges) if randomize else {}
    if not isinstance(randomize, Mapping):
        raise ValueError(
            f"randomize={randomize!r} must be True, False or a dict of name: (low, high)"
        )
    ranges = {}
    for name, bounds in randomize.items():
        try:
            low, high = bounds
        except (TypeError, ValueError):
            low = high = None
        if low is None or isinstance(bounds, (str, bytes, Set, Mapping)):  # not two in an order
            raise ValueError(f"randomize[{name!r}]={bounds!r} must be (low, high)")
        low, high = (getattr(check_params(system, {name: x}), name) for x in (low, high))
        if low > high:
            raise ValueError(f"randomize[{name!r}]={bounds!r} has low > high")
        ranges[name] = (low, high)
    return ranges


def check_state(system: System, state: Any, params: Any) -> tuple[float, ...]:
    """`state` as floats; ValueError where its shape, a value or a collision makes it no start."""
    names = ", ".join(system.state_names)
    array = real_array(state)
    if array is None:
        raise ValueError(f"state {state!r} is not made of numbers; give {names}")
    if array.shape != (system.state_size,):
        raise ValueError(
            f"state has shape {array.shape}, but {system.name} has ({system.state_size},): {names}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"state {array.tolist()} is not finite; give finite {names}")
    values = tuple(array.tolist())
    for i, bound in enumerate(system.bounds(params)):
        bound = LARGEST_ANGLE if i in system.angles else bound
        if abs(values[i]) > bound:
            raise ValueError(
                f"state {system.state_names[i]}={values[i]} is outside [-{bound:g}, {bound:g}]"
            )
    for event, happened in system.events_of(values, params).items():
        if happened:
            raise ValueError(
                f"state {array.tolist()} is already an end of the episode ({event}); "
                "start elsewhere"
            )
    _check_energy(system, values, params)
    return values


def _check_energy(system: System, state: tuple[float, ...], params: Any) -> None:
    try:
        finite = bool(np.isfinite(system.energy_of(state, params)))
    except ArithmeticError:
        finite = False
    if not finite:
        raise ValueError(f"state {list(state)} has no finite energy; start elsewhere")
