"""`System`: a controlled physical system with units, limits, task and picture; and the registry.

A system is stateless: every method is a pure function. Those of `physgym.equations` speak of
components; those added here take a state as a tuple of components or as one array or tensor with
the components on the last axis, and answer in kind. Integers count as float64. `params` is a `Params`
(of numbers, rows or tensors), None for the defaults, or a dict of what differs from them. Raises ValueError
for a state, control or parameters that are none of these, or of another size.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from physgym import observations, sampling, stepping, validation
from physgym.compile.program import Program
from physgym.elementwise import where
from physgym.equations import Equations
from physgym.integrators import ORDERS, SPLIT
from physgym.packing import alike, like, sized
from physgym.variants import Registry

__all__ = [
    "INTEGRATORS",
    "REWARDS",
    "SYSTEMS",
    "SYSTEM_REWARDS",
    "System",
    "get_system",
    "system_of",
]

REWARDS = ("dense", "sparse", "quadratic", "none")
"""Kinds of reward that an env takes: in [0, 1] and smooth; 1 near the goal, else 0; minus the
squared error in units of its scale; 0."""
SYSTEM_REWARDS = (*REWARDS, "alive")
"""Kinds that `System.reward` knows: also 1 until something ends the episode, which envs give to
starts without a goal of their own."""
INTEGRATORS = (*ORDERS, "exact", "dop853")
"""Names of integrators; those that split need a separable system, "exact" a linear one, and
"dop853" is SciPy's, at 1e-12."""


class System(Equations):
    """A controlled physical system: what its `Equations` say, as functions of whole states."""

    knows: frozenset[str] = frozenset({"energy", "equations", "parameters", "pictures", "rewards"})
    """What this object can tell of its env beside its spaces, which tools ask before they use it; a
    `physgym.foreign.system.ForeignSystem` knows none of it."""

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return self.name

    @property
    def action_count(self) -> int:
        """n, the number of discrete actions."""
        return len(self.discrete_actions)

    def task(self, **arguments: Any) -> Any:
        """Its `physgym.task.Task` with the given arguments."""
        from physgym.task import Task

        return Task(self.name, **arguments)

    @property
    def integrators(self) -> tuple[str, ...]:
        """Names of the integrators that serve this system."""
        missing = () if self.separable else SPLIT
        missing = missing if self.linear else (*missing, "exact")
        return tuple(name for name in INTEGRATORS if name not in missing)

    def _state(self, state: Any) -> tuple[Any, ...]:
        return sized(self, "state", state, self.state_size)

    def _control(self, control: Any) -> tuple[Any, ...]:
        return sized(self, "control", control, self.control_size)

    def _told(self, params: Any) -> Any:
        return params if type(params) is self.Params else validation.params_of(self, params)

    def derivative(self, state: Any, control: Any, params: Any) -> Any:
        """Time derivative of the state, (v, dv/dt), in the kind of `state`."""
        s, u, params = self._state(state), self._control(control), self._told(params)
        alike(s, u, params)
        half = self.state_size // 2
        q, v = s[:half], s[half:]
        force, rate = self.acceleration(q, v, u, params), self.damping_rate(params)
        if isinstance(rate, float) and rate == 0.0:
            return like(state, (*v, *force))
        return like(state, (*v, *(a - rate * w for a, w in zip(force, v, strict=True))))

    def control(self, action: Any, params: Any) -> Any:
        """Physical control of a continuous `action` (..., A) in [-1, 1], scaled by the limits."""
        parts = sized(self, "action", action, self.action_size)
        return like(action, self.control_of(parts, self._told(params)))

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
        return stepping.step(self, state, control, params, dt, integrator, substeps)

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

        Raises ValueError for more sub-steps than `validation.MOST_SUBSTEPS`, and for `substeps` too
        few for integrator="exact".
        """
        return stepping.program(self, integrator, substeps, reward, dt, params)

    def energy(self, state: Any, params: Any) -> Any:
        """Total energy (...,) [J] of states (..., D)."""
        return self.energy_of(self._state(state), self._told(params))

    def power(self, state: Any, control: Any, params: Any) -> Any:
        """Power (...,) [W] that `control` (..., U) puts in."""
        return self.power_of(self._state(state), self._control(control), self._told(params))

    def dissipation(self, state: Any, params: Any) -> Any:
        """Power (...,) [W] >= 0 that damping takes out; d(energy)/dt = power - dissipation."""
        return self.dissipation_of(self._state(state), self._told(params))

    def reward(
        self, state: Any, control: Any, next_state: Any, params: Any, kind: str = "dense"
    ) -> Any:
        """Reward (...,) of the transition; `kind` is one of `SYSTEM_REWARDS`, all
        of them functions of the
        state reached.
        """
        s, u, params = self._state(next_state), self._control(control), self._told(params)
        if kind == "dense":
            return self.dense_reward(s, u, params)
        if kind == "none":
            return 0.0 * s[0]
        if kind == "alive":
            over = self.terminated(next_state, params)
            return where(over, 0.0, 1.0 + 0.0 * s[0])
        if kind not in SYSTEM_REWARDS:
            known = ", ".join(SYSTEM_REWARDS)
            raise ValueError(f"reward={kind!r} is unknown; choose one of {known}")
        ratio = self.squared_error(s, u, params) / (self.error_scale * self.error_scale)
        # The zero has the operand's type: torch would make float32 of two numbers.
        return where(ratio < 0.25, 1.0, 0.0 * abs(s[0])) if kind == "sparse" else -ratio

    def events(self, state: Any, params: Any) -> dict[str, Any]:
        """What ends an episode at `state`: a dict of truth values (...,), empty where nothing
        does.
        """
        return self.events_of(self._state(state), self._told(params))

    def terminated(self, next_state: Any, params: Any) -> Any:
        """Whether the task ends at `next_state` (...,)."""
        found: Any = None
        next_state = self._state(next_state)
        for happened in self.events(next_state, params).values():
            found = happened if found is None else found | happened
        if found is not None:
            return found
        first = next_state[0]
        return False if isinstance(first, float) else (first != first)

    def within_bounds(self, state: Any, params: Any) -> Any:
        """Whether no component (...,) but angles exceeds `bounds`; one that is not a number does."""
        inside: Any = True
        s, bounds = self._state(state), self.bounds(self._told(params))
        for i, (x, bound) in enumerate(zip(s, bounds, strict=True)):
            if i not in self.angles:
                inside = abs(x) <= bound if inside is True else inside & (abs(x) <= bound)
        return inside

    def sample_params(
        self,
        rng: np.random.Generator,
        randomize: bool | Mapping[str, tuple[float, float]],
        base: Any = None,
    ) -> Any:
        """Parameters: `base` (default: the defaults) with those of `randomize` (True: all of
        `ranges`) drawn anew.
        """
        base = self._told(base)
        ranges = validation.check_ranges(self, randomize)
        return sampling.sample_params(rng, ranges, base)

    def sample_state(
        self, rng: np.random.Generator, params: Any, start: str | None = None
    ) -> tuple[float, ...]:
        """Draw a start state (`start`: one of `starts`), anew while it is no start: beyond the
        bounds or already an end. Raises ValueError where none of many draws is one.
        """
        kind = validation.choice_of(
            "start", self.starts[0] if start is None else start, self.starts
        )
        return sampling.sample_state(self, rng, self._told(params), kind)

    def observe(self, states: np.ndarray, obs_mode: str = "state") -> np.ndarray:
        """Observations (..., F) float32 of states (..., D): angles wrapped to [-pi, pi], or
        embedded as cos, sin.
        """
        validation.choice_of("obs_mode", obs_mode, ("state", "embedded"))
        columns = [np.asarray(x, np.float64) for x in self._state(validation.plain(states))]
        return np.stack(
            observations.features(self, columns, obs_mode == "embedded"), axis=-1
        ).astype(np.float32)

    def observation_high(self, obs_mode: str = "state", params: Any = None) -> np.ndarray:
        """Bounds (F,) float32 of what `observe` returns, for `params` (rows: for all of them)."""
        validation.choice_of("obs_mode", obs_mode, ("state", "embedded", "state_pixels"))
        bounds = self.bounds(self._told(params))
        high = observations.largest(self, bounds, obs_mode == "embedded")
        return np.asarray(high, dtype=np.float32)

    @property
    def state_high(self) -> np.ndarray:
        """Bounds (D,) float32 of state observations with default parameters."""
        return self.observation_high("state")

    def check_integrator(self, integrator: str | None) -> str:
        """`integrator` or the default one; ValueError names the choices."""
        return validation.check_integrator(self, integrator)

    def check_params(self, overrides: Mapping[str, float] | None, base: Any = None) -> Any:
        """`base` (default: the defaults) with `overrides`; ValueError names a bad parameter."""
        return validation.check_params(self, overrides, base)

    def check_state(self, state: Any, params: Any) -> tuple[float, ...]:
        """`state` as floats; ValueError where its shape, a value or a collision makes it no
        start.
        """
        return validation.check_state(self, state, self._told(params))


SYSTEMS: Registry = Registry()
"""Every system by name; filled by `physgym.registration.register`."""


def get_system(name: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """The system of that name or env id; of another id that Gymnasium knows ("CartPole-v1",
    "module:Id-v0"), the `ForeignSystem` of that env made with `kwargs`.

    Raises KeyError with the closest match for a name that nobody has, ValueError for an env that
    cannot be made or has other spaces than numbers.
    """
    for system in SYSTEMS.values():
        if name in (system.name, system.env_id):
            return system
    if isinstance(name, str) and name in SYSTEMS:  # a variant
        return SYSTEMS[name]
    from physgym.foreign.system import close_ids, foreign_system

    if (found := foreign_system(name, kwargs)) is not None:
        return found
    close = difflib.get_close_matches(str(name).lower(), SYSTEMS, n=1, cutoff=0.4)
    close = close or close_ids(name)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise KeyError(
        f"unknown system {name!r}; {hint}choose one of {', '.join(SYSTEMS)}, or the id of an env that "
        "Gymnasium knows (module:Id-v0 where a module registers it)"
    )


def system_of(source: Any) -> Any:
    """What is known of the env of a source: anything with `env_name` and `env_kwargs`, such as a
    model's spec or a dataset. Raises as `get_system`.
    """
    return get_system(source.env_name, source.env_kwargs)
