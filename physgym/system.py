"""`System`: the equations of a controlled physical system with units, limits, task and picture; and
their registry.

A system is stateless: every method is a pure function. Methods marked *equations* are written
component by component with `+ - * /`, `abs`, comparisons joined by `& |`, and the names of
`physgym.elementwise`, because they run on floats, arrays and tensors and are traced by
`physgym.compile.program`. Public methods take a state as a tuple of components or as one array or tensor
with the components on the last axis, and answer in kind.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from physgym.compile.cache import once
from physgym.compile.program import Program, substeps_for
from physgym.elementwise import where, wrap
from physgym.integrators import ORDERS
from physgym.primitives import Arc, Arrow, Disc, Polyline, Primitive, Segment

__all__ = [
    "INTEGRATORS",
    "REWARDS",
    "SYSTEMS",
    "Arc",
    "Arrow",
    "Disc",
    "Polyline",
    "Primitive",
    "Segment",
    "System",
]

REWARDS = ("dense", "sparse", "quadratic", "none", "alive")
"""Kinds of reward: in [0, 1] and smooth; 1 near the goal, else 0; minus the squared error in units
of its scale; 0; 1 until something ends the episode (what starts without a goal of their own
use)."""
INTEGRATORS = (*ORDERS, "exact", "dop853")
"""Names of integrators; "exact" exists for linear systems only, "dop853" is SciPy's, at 1e-12."""
MAX_STEP_SIZE = 10.0
"""Longest control step dt [s] that is accepted."""


class System(ABC):
    """A controlled physical system: state (q, v), positions first, then velocities, in SI-like
    units.
    """

    name: ClassVar[str]
    env_id: ClassVar[str]
    Params: ClassVar[Any]
    """NamedTuple class of the parameters, with defaults."""
    param_units: ClassVar[Mapping[str, str]]
    ranges: ClassVar[Mapping[str, tuple[float, float]]]
    """Where each parameter is drawn from, uniformly, when randomised."""
    non_negative: ClassVar[frozenset[str]] = frozenset()
    """Parameters that may be zero; all others must be positive."""
    state_names: ClassVar[tuple[str, ...]]
    state_units: ClassVar[tuple[str, ...]]
    angles: ClassVar[tuple[int, ...]] = ()
    """Indices of state components that are angles [rad]."""
    control_size: ClassVar[int]
    discrete_actions: ClassVar[np.ndarray]
    """(n, A): the continuous action that each discrete action stands for."""
    action_names: ClassVar[tuple[str, ...]]
    dt: ClassVar[float]
    max_episode_steps: ClassVar[int]
    default_integrator: ClassVar[str]
    linear: ClassVar[bool] = False
    """Whether the equation of motion is linear, so that integrator="exact" exists."""
    adaptive: ClassVar[bool] = False
    """Whether the sub-step depends on the state (see `max_step`)."""
    starts: ClassVar[tuple[str, ...]] = ("default",)
    reward_threshold: ClassVar[float]
    error_scale: ClassVar[float]
    view: ClassVar[float]
    """Half the width of the picture [world units]."""
    keys: ClassVar[Mapping[str, int]] = {}
    """Keyboard keys and the discrete actions they stand for."""

    @property
    def state_size(self) -> int:
        """D, the number of state components (even)."""
        return len(self.state_names)

    @property
    def action_size(self) -> int:
        """A, the size of a continuous action."""
        return int(self.discrete_actions.shape[1])

    # -- equations, written by each system ---------------------------------------------------------

    @abstractmethod
    def acceleration(self, q: Any, u: Any, p: Any) -> Any:
        """Equations: dv/dt at positions `q` under control `u`, without damping."""

    def damping_rate(self, p: Any) -> Any:
        """Equations: the rate gamma [1/s] of linear damping, dv/dt = acceleration - gamma v."""
        return 0.0

    @abstractmethod
    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: the physical control that an action in [-1, 1]^A stands for."""

    @abstractmethod
    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: total energy [J], potential energy zero at rest or at infinity."""

    @abstractmethod
    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: power that the control puts in [W]."""

    def dissipation_of(self, state: Any, p: Any) -> Any:
        """Equations: power that damping takes out [W], >= 0."""
        return 0.0 * state[0]

    @abstractmethod
    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: squared distance from the goal."""

    def dense_reward(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: reward in [0, 1] of the state reached."""
        return 1.0 / (1.0 + self.squared_error(state, u, p) / (self.error_scale * self.error_scale))

    def collision(self, state: Any, p: Any) -> Any:
        """Equations: whether bodies have hit each other; the motion stops there. False where
        nothing can.
        """
        return False

    def events_of(self, state: Any, p: Any) -> dict[str, Any]:
        """Equations: what ends an episode, by name (each becomes a key of `info`)."""
        return {}

    @abstractmethod
    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: the largest |component| of an observation; a state beyond it is truncated with
        a flag.
        """

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: longest accurate sub-step [s]; of the parameters alone unless `adaptive`."""
        return MAX_STEP_SIZE

    def exact_step(self, state: Any, u: Any, p: Any, h: Any) -> Any:
        """Equations: the exact flow of a linear system over `h` [s]."""
        raise ValueError(
            f'integrator="exact" needs a linear equation of motion, which {self.name} has not; '
            f"choose one of {', '.join(self.integrators)}"
        )

    # -- what each system draws, samples and does by hand ------------------------------------------

    @abstractmethod
    def sample_state(
        self, rng: np.random.Generator, params: Any, start: str | None = None
    ) -> tuple[float, ...]:
        """Draw a start state (`start`: one of `starts`)."""

    @abstractmethod
    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """The picture of a state (floats); `detail` adds what helps people: goal, tracks, flame or
        torque arrow.
        """

    @abstractmethod
    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Hand-written baseline: discrete actions (B,) for states (B, D) at time step `step`."""

    # -- the public functions ----------------------------------------------------------------------

    @property
    def integrators(self) -> tuple[str, ...]:
        """Names of the integrators that serve this system."""
        return tuple(name for name in INTEGRATORS if name != "exact" or self.linear)

    def derivative(self, state: Any, control: Any, params: Any) -> Any:
        """Time derivative of the state, (v, dv/dt), in the kind of `state`."""
        s, u = components(state), components(control)
        half = self.state_size // 2
        q, v = s[:half], s[half:]
        force, rate = self.acceleration(q, u, params), self.damping_rate(params)
        if isinstance(rate, float) and rate == 0.0:
            return like(state, (*v, *force))
        return like(state, (*v, *(a - rate * w for a, w in zip(force, v, strict=True))))

    def control(self, action: Any, params: Any) -> Any:
        """Physical control of a continuous `action` (..., A) in [-1, 1], scaled by the limits."""
        return like(action, self.control_of(components(action), params))

    def step(
        self,
        state: Any,
        control: Any,
        params: Any,
        dt: float | None = None,
        integrator: str | None = None,
        substeps: int | None = None,
    ) -> Any:
        """Advance `state` by `dt` [s] (default: the system's) under a held `control`;
        differentiable on tensors.

        `params` is a `Params` (None: the defaults; a dict: what differs from them). `substeps=None`
        takes as many as the system's accuracy needs; a number takes just those, of equal size.
        Raises ValueError on an unknown integrator, a bad dt or substeps, or a state or control of
        another size.
        """
        dt = check_dt(self.dt if dt is None else dt)
        integrator = self.check_integrator(integrator)
        if params is None or isinstance(params, Mapping):
            params = self.check_params(params)
        s, u = components(state), components(control)
        for name, x, size in (("state", s, self.state_size), ("control", u, self.control_size)):
            if len(x) != size:
                raise ValueError(f"{name} has {len(x)} components, but {self.name} has {size}")
        if integrator == "dop853":
            from physgym.reference import solve

            return like(state, solve(self, s, u, params, dt))
        program, count = self.program(integrator, substeps, dt=dt, params=params)
        constants = program.prepare(params, 0.0 if program.adaptive else dt / count)
        return like(state, program.transition(s, u, constants, dt, count)[: self.state_size])

    def program(
        self,
        integrator: str,
        substeps: int | None = None,
        reward: str = "none",
        dt: float | None = None,
        params: Any = None,
    ) -> tuple[Program, int]:
        """The compiled step (see `physgym.compile.program`) and its number of sub-steps for `dt`: as many
        as the accuracy needs at `params` (floats or rows, of which the worst counts).
        """
        check_substeps(substeps)
        adaptive = self.adaptive and substeps is None
        if substeps is None and not adaptive and integrator != "exact":
            limit = self.max_step(None, self.Params() if params is None else params)
            shortest = float(limit.min().detach() if hasattr(limit, "detach") else np.min(limit))
            substeps = substeps_for(self.dt if dt is None else dt, shortest)
        return _program(self, integrator, adaptive, reward), substeps or 1

    def energy(self, state: Any, params: Any) -> Any:
        """Total energy (...,) [J] of states (..., D)."""
        return self.energy_of(components(state), params)

    def power(self, state: Any, control: Any, params: Any) -> Any:
        """Power (...,) [W] that `control` (..., U) puts in."""
        return self.power_of(components(state), components(control), params)

    def dissipation(self, state: Any, params: Any) -> Any:
        """Power (...,) [W] >= 0 that damping takes out; d(energy)/dt = power - dissipation."""
        return self.dissipation_of(components(state), params)

    def reward(
        self, state: Any, control: Any, next_state: Any, params: Any, kind: str = "dense"
    ) -> Any:
        """Reward (...,) of the transition; `kind` is one of `REWARDS`, and all are functions of the
        state reached.
        """
        s, u = components(next_state), components(control)
        if kind == "dense":
            return self.dense_reward(s, u, params)
        if kind == "none":
            return 0.0 * s[0]
        if kind == "alive":
            over = self.terminated(next_state, params)
            return where(over, 0.0, 1.0 + 0.0 * s[0])
        if kind not in REWARDS:
            raise ValueError(f"reward={kind!r} is unknown; choose one of {', '.join(REWARDS)}")
        ratio = self.squared_error(s, u, params) / (self.error_scale * self.error_scale)
        # The zero has the operand's type: torch would make float32 of two numbers.
        return where(ratio < 0.25, 1.0, 0.0 * abs(s[0])) if kind == "sparse" else -ratio

    def events(self, state: Any, params: Any) -> dict[str, Any]:
        """What ends an episode at `state`: a dict of truth values (...,), empty where nothing
        does.
        """
        return self.events_of(components(state), params)

    def terminated(self, next_state: Any, params: Any) -> Any:
        """Whether the task ends at `next_state` (...,)."""
        found: Any = None
        for happened in self.events(next_state, params).values():
            found = happened if found is None else found | happened
        if found is not None:
            return found
        first = components(next_state)[0]
        return False if isinstance(first, float) else (first != first)

    def sample_params(
        self,
        rng: np.random.Generator,
        randomize: bool | Mapping[str, tuple[float, float]],
        base: Any = None,
    ) -> Any:
        """Parameters: `base` (default: the defaults) with those of `randomize` (True: all of
        `ranges`) drawn anew.
        """
        base = self.Params() if base is None else base
        ranges = dict(self.ranges) if randomize is True else dict(randomize or {})
        drawn = {name: float(rng.uniform(*ranges[name])) for name in base._fields if name in ranges}
        return base._replace(**drawn)

    def observe(self, states: np.ndarray, obs_mode: str = "state") -> np.ndarray:
        """Observations (..., F) float32 of states (..., D): angles wrapped to [-pi, pi], or
        embedded as cos, sin.
        """
        columns = []
        for i, x in enumerate(np.moveaxis(np.asarray(states, dtype=np.float64), -1, 0)):
            if i not in self.angles:
                columns.append(x)
            elif obs_mode == "embedded":
                columns += [np.cos(x), np.sin(x)]
            else:
                columns.append(wrap(x))
        return np.stack(columns, axis=-1).astype(np.float32)

    def observation_high(self, obs_mode: str = "state", params: Any = None) -> np.ndarray:
        """Bounds (F,) float32 of what `observe` returns, for parameters up to `params`."""
        high: list[float] = []
        for i, bound in enumerate(self.bounds(self.Params() if params is None else params)):
            is_angle = i in self.angles
            high += (
                [1.0, 1.0]
                if is_angle and obs_mode == "embedded"
                else [math.pi if is_angle else float(bound)]
            )
        return np.asarray(high, dtype=np.float32)

    @property
    def state_high(self) -> np.ndarray:
        """Bounds (D,) float32 of state observations with default parameters."""
        return self.observation_high("state")

    # -- checks of what users pass -----------------------------------------------------------------

    def check_integrator(self, integrator: str | None) -> str:
        """`integrator` or the default one; ValueError names the choices."""
        if integrator is None:
            return self.default_integrator
        if integrator not in self.integrators:
            raise ValueError(
                f"integrator={integrator!r} is unknown for {self.name}; choose one of "
                f"{', '.join(self.integrators)}"
            )
        return integrator

    def check_params(self, overrides: Mapping[str, float] | None, base: Any = None) -> Any:
        """`base` (default: the defaults) with `overrides`; ValueError names a bad parameter, value
        and range.
        """
        base = self.Params() if base is None else base
        if overrides is not None and not isinstance(overrides, Mapping):
            raise ValueError(f"params={overrides!r} must be a dict of {', '.join(base._fields)}")
        overrides = dict(overrides or {})
        unknown = sorted(set(overrides) - set(base._fields))
        if unknown:
            raise ValueError(
                f"unknown parameter {unknown[0]!r} of {self.name}; it has {', '.join(base._fields)}"
            )
        for name, value in overrides.items():
            lowest = "at least 0" if name in self.non_negative else "more than 0"
            number = _finite_float(value)
            if number is None or number < 0.0 or (number == 0.0 and name not in self.non_negative):
                raise ValueError(
                    f"parameter {name}={value!r} of {self.name} must be a finite number, {lowest}"
                )
            overrides[name] = number
        return base._replace(**overrides)

    def check_state(self, state: Any, params: Any) -> tuple[float, ...]:
        """`state` as floats; ValueError where its shape, a value or a collision makes it no
        start.
        """
        names = ", ".join(self.state_names)
        try:
            array = np.asarray(state, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"state {state!r} is not made of numbers; give {names}") from None
        if array.shape != (self.state_size,):
            raise ValueError(
                f"state has shape {array.shape}, but {self.name} has ({self.state_size},): {names}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"state {array.tolist()} is not finite; give finite {names}")
        values = tuple(array.tolist())
        for i, bound in enumerate(self.bounds(params)):
            if i not in self.angles and abs(values[i]) > bound:
                raise ValueError(
                    f"state {self.state_names[i]}={values[i]} is outside [-{bound:g}, {bound:g}]"
                )
        for event, happened in self.events_of(values, params).items():
            if happened:
                raise ValueError(
                    f"state {array.tolist()} is already an end of the episode ({event}); "
                    "start elsewhere"
                )
        return values


def components(x: Any) -> tuple[Any, ...]:
    """A tuple as it is; an array or tensor as the tuple of its components on the last axis."""
    if isinstance(x, tuple):
        return x
    if isinstance(x, list):
        return tuple(x)
    if isinstance(x, np.ndarray):
        return tuple(x.tolist()) if x.ndim == 1 else tuple(np.moveaxis(x, -1, 0))
    return tuple(x.unbind(-1))


def like(x: Any, values: tuple[Any, ...]) -> Any:
    """`values` (components) packed the way `x` was."""
    if isinstance(x, (tuple, list)):
        return tuple(values)
    if isinstance(x, np.ndarray):
        return np.stack(np.broadcast_arrays(*values), axis=-1)
    import torch

    tensors = [torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in values]
    return torch.stack(torch.broadcast_tensors(*tensors), dim=-1)


def check_dt(dt: Any) -> float:
    """`dt` as a float in (0, MAX_STEP_SIZE]; ValueError otherwise."""
    number = None if isinstance(dt, str) else _finite_float(dt)
    if number is None or not 0.0 < number <= MAX_STEP_SIZE:
        raise ValueError(f"dt={dt!r} must be a number of seconds in (0, {MAX_STEP_SIZE:g}]")
    return number


def check_substeps(substeps: Any) -> None:
    """ValueError unless `substeps` is None or a whole number from 1 to 100,000."""
    if substeps is None:
        return
    if (
        isinstance(substeps, bool)
        or not isinstance(substeps, (int, np.integer))
        or not 1 <= substeps <= 100_000
    ):
        raise ValueError(
            f"substeps={substeps!r} must be None (as many as needed) or a whole number "
            "from 1 to 100000"
        )


def _finite_float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, str) else None


@once
def _program(system: System, integrator: str, adaptive: bool, reward: str) -> Program:
    return Program(system, integrator, adaptive, reward)


SYSTEMS: dict[str, System] = {}
"""Every system by name; filled by `register`."""


def register(system: type[System]) -> type[System]:
    """Class decorator: put one instance of a system into `SYSTEMS`."""
    SYSTEMS[system.name] = system()
    return system


def get_system(name: str) -> System:
    """The system of that name or env id; KeyError with the closest match otherwise."""
    if name in SYSTEMS:
        return SYSTEMS[name]
    for system in SYSTEMS.values():
        if name == system.env_id:
            return system
    close = difflib.get_close_matches(str(name).lower(), SYSTEMS, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise KeyError(f"unknown system {name!r}; {hint}choose one of {', '.join(SYSTEMS)}")
