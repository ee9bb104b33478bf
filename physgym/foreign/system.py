"""`ForeignSystem`: what is known of a Gymnasium env that is not of this package.

It has the attributes of a `physgym.System` that every env has (a name, spaces, a time limit) and says with
`knows` that it has no more: nobody has told its equations, its energy, or how to put it into a state.
"""

from __future__ import annotations

import difflib
import importlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from physgym.foreign.facts import FACTS, Facts


class NoParams(NamedTuple):
    """The physical parameters of an env that tells none."""


class ForeignSystem:
    """A Gymnasium env of any kind with observations (D,) and discrete or bounded continuous actions.

    Its states are its observations. Continuous actions count from -1 to 1 between the ends of the env's own
    space, as those of our systems do.

    Args:
        env_id: of `gymnasium.make`, with a module before a colon where one registers it.
        kwargs: of `gymnasium.make`.

    Raises:
        ValueError: an env that cannot be made, observations that are not one row of numbers, actions
            that are neither choices nor bounded numbers.
    """

    knows: frozenset[str] = frozenset()
    """Of what `System.knows` names: nothing."""
    Params = NoParams
    param_units: Mapping[str, str] = {}
    ranges: Mapping[str, tuple[float, float]] = {}
    angles: tuple[int, ...] = ()
    starts: tuple[str, ...] = ("default",)
    keys: Mapping[str, int] = {}
    view = 1.0

    def __init__(self, env_id: str, kwargs: Mapping[str, Any] | None = None) -> None:
        self.name = self.env_id = env_id
        self.kwargs = dict(kwargs or {})
        self._painter: Any = None
        env = self.make()
        try:
            observation, action, spec = env.observation_space, env.action_space, env.spec
            self.observation_space = _checked_observation(env_id, observation)
            self.action_space = _checked_action(env_id, action)
            facts = FACTS.get(env_id)
            if facts is not None and len(facts.names) != self.observation_space.shape[0]:
                facts = None  # made with arguments that show something else
            self.facts: Facts | None = facts
            self.dt = _seconds(env, facts)
        finally:
            env.close()
        limit = spec.max_episode_steps if spec is not None else None
        self.max_episode_steps = int(limit) if limit else 1000
        self.reward_threshold = None if spec is None else spec.reward_threshold

    @property
    def discrete(self) -> bool:
        """Whether actions are choices."""
        return isinstance(self.action_space, spaces.Discrete)

    @property
    def action_mode(self) -> str:
        """ "discrete" or "continuous": what the env takes."""
        return "discrete" if self.discrete else "continuous"

    @property
    def state_size(self) -> int:
        """D, the components of an observation."""
        return int(self.observation_space.shape[0])

    @property
    def state_names(self) -> tuple[str, ...]:
        """Of the components of an observation."""
        if self.facts is not None:
            return self.facts.names
        return tuple(f"observation {index}" for index in range(self.state_size))

    @property
    def state_units(self) -> tuple[str, ...]:
        """Unknown."""
        return ("",) * self.state_size

    @property
    def action_size(self) -> int:
        """A, the numbers of a continuous action; 0 where actions are choices."""
        return 0 if self.discrete else int(self.action_space.shape[0])

    @property
    def action_count(self) -> int:
        """n of a discrete env, A of a continuous one: what `Spec.action_size` holds."""
        return int(self.action_space.n) if self.discrete else self.action_size

    @property
    def discrete_actions(self) -> np.ndarray:
        """(n, 1) of choices, none of which is known to be weaker than another; (A, A) of numbers."""
        return np.ones((self.action_count, 1)) if self.discrete else np.eye(self.action_size)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Of discrete actions."""
        return tuple(f"action {index}" for index in range(self.action_count))

    @property
    def folder(self) -> str:
        """Its id as the name of a folder."""
        return folder_of(self.env_id)

    @property
    def coordinates(self) -> str:
        """Positions and velocities among the observations, where the env is a known one; else ""."""
        return "" if self.facts is None else self.facts.coordinates

    def make(self, **arguments: Any) -> gymnasium.Env[Any, Any]:
        """The true env, single. Raises ValueError where Gymnasium cannot make it."""
        try:
            return gymnasium.make(self.env_id, **{**self.kwargs, **arguments})
        except (TypeError, ValueError, AttributeError, gymnasium.error.Error) as error:
            told = f" with {json.dumps(self.kwargs, default=str)}" if self.kwargs else ""
            raise ValueError(
                f"env {self.env_id!r} cannot be made{told}: {' '.join(str(error).split())}"
            ) from error

    def task(self, **arguments: Any) -> Any:
        """Its `ForeignTask` with the given arguments."""
        from physgym.foreign.task import ForeignTask

        return ForeignTask(self, **arguments)

    def portrait(self, state: Any, size: int, caption: str | None = None) -> np.ndarray:
        """A picture (size, size, 3) uint8 of an observation: the env's own where it can be put into one,
        else a bar for each component.
        """
        if self._painter is None:
            from physgym.foreign.pictures import Painter

            self._painter = Painter(self)
        return self._painter.portrait(np.asarray(state), size, caption)

    def check_params(self, overrides: Mapping[str, float] | None, base: Any = None) -> NoParams:
        """No parameters. Raises ValueError for any."""
        if overrides:
            raise ValueError(
                f"{self.env_id} has no parameters that could be set: {dict(overrides)}"
            )
        return NoParams()

    def read(self, observations: Any) -> np.ndarray:
        """(N, D) float64 of a batch of observations. Raises ValueError for anything else."""
        rows = np.asarray(observations)
        valid = rows.ndim == 2 and rows.shape[1] == self.state_size and rows.dtype.kind in "iuf"
        if not valid or not np.isfinite(rows).all():
            raise ValueError(
                f"observations of shape {rows.shape} and type {rows.dtype} are not valid: expected "
                f"(N, {self.state_size}) finite numbers, as {self.env_id} shows them"
            )
        return rows.astype(np.float64)

    def energy(self, states: Any, params: Any) -> np.ndarray:
        """NaN (...,): unknown."""
        return np.full(np.shape(states)[:-1], np.nan)

    def events_of(self, state: Any, params: Any) -> dict[str, Any]:
        """No events are known by name."""
        return {}

    def bounds(self, params: Any) -> np.ndarray:
        """(D,) largest magnitude of an observation, as its space says."""
        return np.maximum(np.abs(self.observation_space.low), np.abs(self.observation_space.high))

    def to_env(self, action: Any) -> Any:
        """An action as the env takes it: integers counted from the space's first, numbers between its ends."""
        if self.discrete:
            return np.asarray(action, np.int64) + int(self.action_space.start)
        low, high = self.action_space.low, self.action_space.high
        scaled = low + 0.5 * (np.asarray(action, np.float64) + 1.0) * (high - low)
        return np.clip(scaled, low, high).astype(self.action_space.dtype)

    def from_env(self, action: Any) -> np.ndarray:
        """The reverse of `to_env`: integers from 0, or float64 in [-1, 1]."""
        if self.discrete:
            return np.asarray(action, np.int64) - int(self.action_space.start)
        low, high = self.action_space.low.astype(float), self.action_space.high.astype(float)
        return np.clip(2.0 * (np.asarray(action, np.float64) - low) / (high - low) - 1.0, -1.0, 1.0)

    def __repr__(self) -> str:
        return f"<ForeignSystem {self.env_id}: {self.state_size} observations, {self.action_space}>"


def _checked_observation(env_id: str, space: Any) -> spaces.Box:
    """`space`. Raises ValueError unless it is one row of numbers."""
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.shape[0]:
        return space
    fix = "flatten them (gymnasium.wrappers.FlattenObservation, in an env that you register)"
    if isinstance(space, spaces.Box) and len(space.shape) in (2, 3):
        fix = (
            "images are not read, nor are rendered pictures of such envs learned yet: encode them in an env that "
            "you register"
        )
    elif isinstance(space, spaces.Discrete):
        fix = "one-hot them in an env that you register"
    raise ValueError(
        f"the observations of {env_id} are {_told(space)}, and a model of states learns one row of "
        f"numbers, Box (D,): {fix}"
    )


def _checked_action(env_id: str, space: Any) -> Any:
    """`space`. Raises ValueError unless actions are choices, or one row of bounded numbers."""
    if isinstance(space, spaces.Discrete):
        return space
    row = isinstance(space, spaces.Box) and len(space.shape) == 1 and bool(space.shape[0])
    if row and np.isfinite(space.low).all() and np.isfinite(space.high).all():
        return space
    fix = "bound them (gymnasium.wrappers.RescaleAction or ClipAction, in an env that you register)"
    if not row:
        fix = "flatten them in an env that you register"
    raise ValueError(
        f"the actions of {env_id} are {_told(space)}, and models take Discrete(n) or bounded Box (A,): {fix}"
    )


def _told(space: Any) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _seconds(env: gymnasium.Env[Any, Any], facts: Facts | None) -> float:
    """Seconds a step: what is known, the env's own `dt` or `tau`, one picture's time, or 1."""
    if facts is not None and facts.dt is not None:
        return facts.dt
    plain = env.unwrapped
    for name in ("dt", "tau"):
        value = getattr(plain, name, None)
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
            return float(value)
    rate = (env.metadata or {}).get("render_fps")
    return 1.0 / float(rate) if isinstance(rate, (int, float)) and rate > 0 else 1.0


def folder_of(env_id: str) -> str:
    """The id of an env as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", env_id).lstrip(".-")


_KNOWN: dict[str, ForeignSystem] = {}


def foreign_system(env_id: str, kwargs: Mapping[str, Any] | None = None) -> ForeignSystem | None:
    """The env of that id, made once for each `kwargs`; None where Gymnasium has none of it.

    Raises ValueError as `ForeignSystem` does, and for a module before the colon that cannot be imported.
    """
    if not isinstance(env_id, str):
        return None
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"env {env_id!r}: the module {module!r} cannot be imported: {error}"
            ) from error
    if name not in gymnasium.registry:
        return None
    key = json.dumps([env_id, dict(kwargs or {})], sort_keys=True, default=str)
    if key not in _KNOWN:
        _KNOWN[key] = ForeignSystem(env_id, kwargs)
    return _KNOWN[key]


def close_ids(name: str) -> list[str]:
    """Ids that Gymnasium knows and that `name` may have meant, the closest first."""
    return difflib.get_close_matches(str(name), list(gymnasium.registry), n=2, cutoff=0.75)
