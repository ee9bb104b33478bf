"""The true env's task around predicted states: what a learned env takes from it unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

import physgym
from physgym.rewards import check_at_starts
from physgym.task import Task
from physgym.validation import real_number
from worldmodels.configs.schema import suggestion
from worldmodels.interface import Spec, WorldModel

FREE = (
    "dt", "image_size", "obs_mode", "observe_params", "params", "randomize", "reward", "start", "energy",
)  # fmt: skip
"""Arguments of the true env that a learned one may choose anew."""
OWN = (
    "checkpoint", "num_envs", "max_episode_steps", "autoreset_mode", "flat_info", "starts", "dataset",
    "uncertainty_penalty", "uncertainty_limit", "divergence_factor", "device", "render_mode",
    "reward_fn", "terminated_fn",
)  # fmt: skip
"""Arguments of a learned env itself, which a misspelt one may mean."""
LARGEST_ANGLE = 1e6
"""Unwrapped angles [rad] beyond this have diverged; the training range says nothing of turns."""


def arguments_of(spec: Spec) -> dict[str, Any]:
    """Arguments of the true env that shows what a model of `spec` sees."""
    if not spec.image_size:
        return dict(spec.env_kwargs)
    return {**spec.env_kwargs, "obs_mode": "pixels", "image_size": spec.image_size}


def task_of(model: WorldModel, arguments: Mapping[str, Any]) -> Task:
    """The task of the env that `model` learned, with `arguments` over those of its buffer.

    Raises:
        ValueError: an argument that a learned env cannot choose; a spec that does not fit its env.
    """
    spec = model.spec
    if spec.foreign:
        return _foreign_task(spec, arguments)
    unknown = sorted(set(arguments) - set(FREE))
    if unknown:
        raise ValueError(
            f"{unknown[0]}={arguments[unknown[0]]!r} cannot be chosen for a learned env; "
            f"what can is {', '.join(FREE)}" + suggestion(unknown[0], (*OWN, *FREE))
        )
    system, known = find_system(spec), arguments_of(spec)
    if spec.image_size:
        _check_pictures(known, arguments)
    others = {"start", "energy"} if {"start", "energy"} & set(arguments) else set()
    kept = {name: value for name, value in known.items() if name not in others}
    task, trained = Task(system.name, **{**kept, **arguments}), Task(system.name, **known)
    if trained.dt != spec.dt:
        raise ValueError(f"the spec's dt={spec.dt} is not that of its env, {trained.dt}")
    if spec.image_size and task.reward != trained.reward:
        raise ValueError(
            f"reward={task.reward!r} (start={task.start!r}) cannot be read off a picture: this model "
            f"learned reward={trained.reward!r} (start={trained.start!r})"
        )
    if task.dt != spec.dt and not getattr(model, "any_dt", False):
        raise ValueError(f"dt={task.dt} cannot be predicted: this model knows dt={spec.dt} only")
    _check_spec(spec, task)
    if callable(task.reward):
        check_at_starts(task, np.asarray)
    return task


def _foreign_task(spec: Spec, arguments: Mapping[str, Any]) -> Any:
    """The task of a foreign env; ValueError where the env made here is not the one that was learned."""
    system = find_system(spec)
    if arguments:
        name = sorted(arguments)[0]
        raise ValueError(
            f"{name}={arguments[name]!r} cannot be chosen for a learned {spec.env_name}, whose arguments are "
            f"those of its buffer, {spec.env_kwargs}" + suggestion(name, OWN)
        )
    expected = {
        "action_kind": system.action_mode,
        "action_size": system.action_count,
        "state_size": system.state_size,
    }
    for name, value in expected.items():
        if getattr(spec, name) != value:
            raise ValueError(
                f"the model's {name}={getattr(spec, name)!r} does not fit {system.env_id}, "
                f"which has {value!r}: it was trained on another env"
            )
    if spec.image_size:
        return system.task(dt=spec.dt, obs_mode="pixels", image_size=spec.image_size)
    return system.task(dt=spec.dt)


def _check_pictures(known: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """ValueError for arguments that ask a model of pixels to show anything else."""
    for name in ("obs_mode", "image_size", "observe_params"):
        own = known.get(name, False)
        if arguments.get(name, own) != own:
            raise ValueError(
                f"{name}={arguments[name]!r} cannot be served: this model sees and shows pictures "
                f"alone, with {name}={own!r}; leave it out, or train a model of states"
            )


def find_system(spec: Spec) -> Any:
    """The system of `spec`; ValueError where there is none of its name."""
    try:
        return physgym.system_of(spec)
    except KeyError as error:
        raise ValueError(f"the model is of an unknown env: {error.args[0]}") from None


def _check_spec(spec: Spec, task: Task) -> None:
    system = task.system
    expected = {
        "action_kind": task.action_mode,
        "action_size": len(system.discrete_actions) if task.discrete else system.action_size,
    }
    if not spec.image_size:
        expected |= {"state_size": system.state_size, "angles": tuple(system.angles)}
    for name, value in expected.items():
        if getattr(spec, name) != value:
            raise ValueError(
                f"the model's {name}={getattr(spec, name)!r} does not fit {system.env_id}, "
                f"which has {value!r}: it was trained on another env"
            )
    unknown = sorted(set(spec.param_names) - set(system.Params._fields))
    if unknown:
        raise ValueError(
            f"the model is told {unknown[0]!r}, no parameter of {system.env_id}: "
            f"it has {', '.join(system.Params._fields)}"
        )


REWARD_RANGES = {
    "dense": (0.0, 1.0),
    "sparse": (0.0, 1.0),
    "alive": (0.0, 1.0),
    "quadratic": (-np.inf, 0.0),
    "none": (0.0, 0.0),
    "learned": (-np.inf, np.inf),
}
"""Least and largest reward of a step, by kind (see `physgym.system.REWARDS`); "learned" of a foreign env."""


class Experience:
    """The physical parameters that a model's training saw: what its predictions can answer for.

    Args:
        model: what predicts.
        task: of the learned env; its parameters and ranges are checked.

    Raises:
        ValueError: as `check`.
    """

    def __init__(self, model: WorldModel, task: Task) -> None:
        trained = task if model.spec.foreign else Task(task.system.name, **arguments_of(model.spec))
        self._names, self._told = task.base._fields, set(model.told_params)
        self._low, self._high = _ends(trained)
        room = 1e-6 * np.maximum(np.abs(self._low), np.abs(self._high))  # buffers may hold float32
        self._room = room
        self._warned: set[str] = set()
        self.check(np.stack(_ends(task)))

    def check(self, params: np.ndarray) -> None:
        """Check parameters (K, P) that episodes are to have.

        Raises:
            ValueError: a value that training never saw, of a parameter that the model is not told: it would
                move as if nothing had been asked. Where it is told, a warning says that it guesses.
        """
        strange = (params < self._low - self._room) | (params > self._high + self._room)
        for column in np.flatnonzero(strange.any(axis=0)):
            name, value = self._names[column], params[strange[:, column], column][0]
            low, high = self._low[column], self._high[column]
            seen = f"{low:g} alone" if low == high else f"values from {low:g} to {high:g}"
            told = f"{name}={value:g}, but this model learned from {seen}"
            if name not in self._told:
                raise ValueError(
                    f"{told} and is not told parameters: it would move as before. Leave {name} out, or "
                    "train a model that is told it (--env.randomize --model.condition params)"
                )
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(f"{told}: its motion there is a guess", UserWarning, stacklevel=4)


def _ends(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest parameters (P,) that a task's episodes have."""
    pairs = [task.ranges.get(name, (value, value)) for name, value in task.base._asdict().items()]
    low, high = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return low, high


def number_of(name: str, value: Any, least: float) -> float:
    """`value` as a float, `least` or more (infinity too, where there is a `least`); else ValueError."""
    bounded = np.isfinite(least)
    number = (
        np.inf if bounded and isinstance(value, float) and value == np.inf else real_number(value)
    )
    if number is None or number < least:
        allowed = f"a number, {least:g} or more" if bounded else "a finite number"
        raise ValueError(f"{name}={value!r} must be {allowed}")
    return float(number)


def prediction_limit(model: WorldModel, task: Task, factor: float) -> np.ndarray:
    """(D,) largest magnitude of a prediction: `factor` times the training range, for angles 1e6.

    What a model recorded no range (`reach`) of, or never saw away from 0, is held to the true env's bounds instead.
    """
    bounds = np.array([float(bound) for bound in task.system.bounds(task.limit)])
    reach = getattr(model, "reach", None)
    recorded = bounds if reach is None else reach.detach().double().cpu().numpy()
    limit = factor * np.where(np.isfinite(recorded) & (recorded > 0.0), recorded, bounds)
    limit[list(task.system.angles)] = LARGEST_ANGLE
    return limit


def parse_actions(
    task: Task, actions: Any, num_envs: int, resting: np.ndarray | None
) -> np.ndarray:
    """Actions (N,) int64 or (N, A) float64 in [-1, 1]; those of `resting` rows are ignored (zero).

    Raises:
        gymnasium.error.InvalidAction: a wrong shape or type, an action that does not exist.
    """
    return task.actions.rows(actions, num_envs, resting)


def parse_action(task: Task, action: Any) -> np.ndarray:
    """One action of a single env as a row (1,) int64, or (1, A) float64 in [-1, 1].

    Raises:
        gymnasium.error.InvalidAction: naming the action, as the true env does.
    """
    if task.discrete:
        return np.array([task.actions.index(action)])
    return np.array([task.actions.vector(action)])
