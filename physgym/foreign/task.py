"""`ForeignTask`: the spaces, starts and pictures of a foreign env, as a `physgym.Task` has those of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction

from physgym.foreign.system import ForeignSystem, NoParams, foreign_system
from physgym.validation import real_array, whole_number


class ForeignTask:
    """The task of a foreign env: its observations are its states, its rewards are learned or given.

    Args:
        system: what is known of the env.
        dt: seconds a step; None: the env's own.
        params, randomize: as our tasks have them, at their only value.
        obs_mode: "state", what the env itself observes, or "pixels": pictures of what it renders.
        image_size: height and width of those [px].

    Raises:
        ValueError: another value of these, or a dt that is not above 0.
    """

    reward = "learned"
    start = "default"

    def __init__(
        self,
        system: ForeignSystem,
        dt: float | None = None,
        params: Mapping[str, float] | None = None,
        randomize: Any = False,
        obs_mode: str = "state",
        image_size: int = 64,
    ) -> None:
        if randomize:
            raise ValueError(f"randomize={randomize!r}: {system.env_id} has no parameters to draw")
        if obs_mode not in ("state", "pixels"):
            raise ValueError(
                f'obs_mode={obs_mode!r}: {system.env_id} has its own, "state", and "pixels"'
            )
        self.system, self.obs_mode, self.image_size = system, obs_mode, image_size
        self.base = self.limit = system.check_params(params)
        self.ranges: dict[str, tuple[float, float]] = {}
        self.dt = float(system.dt if dt is None else dt)
        if not 0.0 < self.dt < math.inf:
            raise ValueError(f"dt={dt!r} is not valid: expected seconds above 0")
        self.discrete, self.action_mode = system.discrete, system.action_mode
        self.action_space = system.action_space
        pictures = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = system.observation_space if obs_mode == "state" else pictures
        self.actions = ForeignActions(system)
        self._env: gymnasium.Env[Any, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (self.system.env_id, self.system.kwargs, self.dt, self.obs_mode, self.image_size),
        )

    def __deepcopy__(self, memo: Any) -> ForeignTask:
        return self

    def sample(
        self, rng: np.random.Generator, options: Mapping[str, Any] | None = None
    ) -> tuple[tuple[float, ...], NoParams]:
        """The first observation of a true episode, seeded by `rng`; or `options["state"]`, an observation.

        Raises ValueError for another option, and for a state that is no observation.
        """
        given = dict(options or {})
        state = given.pop("state", None)
        if given:
            name = sorted(given)[0]
            raise ValueError(
                f"unknown reset option {name!r}: a learned {self.system.env_id} takes 'state', an observation"
            )
        if state is not None:
            return self._given(state), NoParams()
        if self._env is None:
            self._env = self.system.make()
        observation, _ = self._env.reset(seed=true_seed(rng))
        return tuple(np.asarray(observation, np.float64).tolist()), NoParams()

    def _given(self, state: Any) -> tuple[float, ...]:
        row = real_array(state)
        size = self.system.state_size
        if row is None or row.shape != (size,) or not np.isfinite(row).all():
            raise ValueError(
                f"options['state']={state!r} is no observation of {self.system.env_id}: expected {size} "
                "finite numbers"
            )
        return tuple(float(value) for value in row)

    def observe_rows(self, states: np.ndarray, params: np.ndarray) -> np.ndarray:
        """States (N, D) as observations: in the space's type, and within it."""
        space = self.observation_space
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.nan_to_num(states, nan=0.0).astype(space.dtype)
        return np.clip(rows, space.low, space.high)

    def portrait(
        self, state: tuple[float, ...], control: Any, params: Any, size: int, caption: str
    ) -> np.ndarray:
        """`ForeignSystem.portrait` of an observation."""
        return self.system.portrait(state, size, caption)


class ForeignActions:
    """The actions of a foreign env; every refusal is a `gymnasium.error.InvalidAction`.

    One action stays as the env takes it; rows become integers (N,) from 0, or (N, A) float64 in [-1, 1],
    whatever the ends of the env's own space.
    """

    def __init__(self, system: ForeignSystem) -> None:
        self._system, self._space = system, system.action_space
        self.count = system.action_count if system.discrete else 0
        self.size = system.action_size

    def index(self, action: Any) -> int:
        """One discrete action as an int, as the env takes it."""
        number = int(action) if isinstance(action, bool) else whole_number(action)
        if number is None or not self._space.contains(np.int64(number)):
            raise InvalidAction(f"action {action!r} is not one of {self._space}")
        return number

    def vector(self, action: Any) -> tuple[float, ...]:
        """One continuous action as floats, clipped to its space."""
        row = real_array(action)
        if row is None or row.shape != self._space.shape or not np.isfinite(row).all():
            raise InvalidAction(
                f"action {action!r} must be finite numbers of shape {self._space.shape}, in {self._space}"
            )
        return tuple(np.clip(row, self._space.low, self._space.high).astype(float).tolist())

    def rows(self, actions: Any, num_envs: int, resting: Any | None = None) -> np.ndarray:
        """Actions of a batch; those of rows of the mask `resting` are not looked at and read zero."""
        array = real_array(actions)
        wanted = (num_envs, *self._space.shape)
        if array is None or array.shape != wanted:
            found = "no numbers" if array is None else f"of shape {array.shape}"
            raise InvalidAction(f"actions are {found}, but this env takes {wanted}")
        if self._system.discrete:
            if array.dtype.kind not in "iu":
                raise InvalidAction(f"actions of type {array.dtype} are not integers")
            rows = self._system.from_env(array)
            outside = (rows < 0) | (rows >= self._system.action_count)
        else:
            outside = ~np.isfinite(array).all(axis=1)
            rows = self._system.from_env(np.nan_to_num(array))
        if resting is not None:
            rows[resting], outside = 0, outside & ~resting
        if outside.any():
            raise InvalidAction(f"actions {array!r} are not all in {self._space}")
        return rows


def true_seed(rng: np.random.Generator) -> int:
    """The seed of the true episode that a learned env begins as, where `rng` is the learned env's own."""
    return int(rng.integers(2**31))


def _rebuild(
    env_id: str, kwargs: dict[str, Any], dt: float, obs_mode: str, image_size: int
) -> ForeignTask:
    system = foreign_system(env_id, kwargs)
    if system is None:
        raise ValueError(f"env {env_id!r} is not registered here")
    return ForeignTask(system, dt, obs_mode=obs_mode, image_size=image_size)
