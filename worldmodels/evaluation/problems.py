"""Open-loop problems: a start and actions, and the true states they lead to.

Legend: B problems, T steps, D state size, U control size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import physgym


class Problems(NamedTuple):
    """B starts with actions, and the truth about them."""

    system: Any
    """The true ``physgym.System``, or what is known of a foreign env: see its ``knows``."""
    params: Any
    """Its ``Params`` of (B,) arrays."""
    dt: float
    """Seconds a step."""
    states: np.ndarray
    """(B, T+1, D) float64 true states; angles unwrapped."""
    actions: np.ndarray
    """(B, T) int64, or (B, T, A) float32."""
    controls: np.ndarray
    """(B, T, U) physical controls of those actions."""
    valid: np.ndarray
    """(B, T) bool: step t lies in the episode."""
    integrator: str | None = None
    """Integrator of the truth; None: the system's own."""
    angles: tuple[int, ...] = ()
    """Components of the states that are angles, compared the shorter way round."""
    rewards: np.ndarray | None = None
    """(B, T) float64, what was recorded; None where the system itself can tell."""
    terminated: np.ndarray | None = None
    """(B, T) bool, likewise."""

    @property
    def steps(self) -> int:
        """T."""
        return int(self.valid.shape[1])

    def param_array(self, names: Sequence[str]) -> np.ndarray:
        """(B, P) float64 of the parameters ``names``, in that order."""
        columns = [np.asarray(getattr(self.params, name), np.float64) for name in names]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.states), 0))

    def energy(self, states: np.ndarray) -> np.ndarray:
        """(B, T) true energy [J] of any states (B, T, D) under each row's parameters; NaN: nobody knows it."""
        with np.errstate(all="ignore"):
            return np.asarray(self.system.energy(states, columns(self.params)), np.float64)


def columns(params: Any) -> Any:
    """``Params`` of (B,) arrays as (B, 1), to go with states (B, T, D)."""
    return type(params)(*(np.asarray(value, np.float64)[:, None] for value in params))


def from_dataset(dataset: Any, steps: int, count: int = 256) -> Problems:
    """At most ``count`` problems of ``steps`` steps, cut from the episodes of ``dataset``.

    Every episode gives one from its start and, where it is longer, one from each further ``steps``.
    Raises ``ValueError`` where no episode is as long as ``steps``.
    """
    rows, starts = places(dataset, steps, count)
    return _at(dataset, rows, starts[:, None] + np.arange(steps + 1))


def at_states(dataset: Any, rows: np.ndarray, at: np.ndarray) -> Problems:
    """Problems of no step: the states of episodes ``rows`` (n,) at steps ``at`` (n,)."""
    return _at(dataset, rows, at[:, None])


def places(dataset: Any, steps: int, count: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B,) and first steps (B,) of the problems that ``from_dataset`` cuts; it raises the same."""
    longest = int(dataset.lengths.max())
    if steps > longest:
        raise ValueError(
            f"horizon {steps} is beyond the episodes, which have at most {longest} steps: "
            f"expected 1 to {longest}"
        )
    found = [
        (episode, start)
        for start in range(0, dataset.actions.shape[1] - steps + 1, steps)
        for episode in np.flatnonzero(dataset.lengths > start)
    ][:count]
    return np.array([row for row, _ in found]), np.array([start for _, start in found])


def part(problems: Problems, rows: slice | np.ndarray = slice(None), first: int = 0) -> Problems:
    """Some ``rows`` of ``problems``, from step ``first`` on."""
    return problems._replace(
        params=type(problems.params)(*(values[rows] for values in problems.params)),
        states=problems.states[rows, first:],
        actions=problems.actions[rows, first:],
        controls=problems.controls[rows, first:],
        valid=problems.valid[rows, first:],
        rewards=None if problems.rewards is None else problems.rewards[rows, first:],
        terminated=None if problems.terminated is None else problems.terminated[rows, first:],
    )


def check_source(name: str, spec: Any, dataset: Any) -> None:
    """Raise ``ValueError`` where the model ``name`` is of another env, action kind or dt than ``dataset``."""
    kind = "discrete" if dataset.actions.ndim == 2 else "continuous"
    pairs = {
        "env": (spec.env_name, dataset.env_name),
        "actions": (spec.action_kind, kind),
        "dt": (spec.dt, float(dataset.dt)),
    }
    for what, (own, given) in pairs.items():
        if own != given:
            raise ValueError(
                f"{name} learned {what} {own!r}, but the dataset {dataset.path} has {given!r}: "
                "compare runs and datasets of one env"
            )


def at_step_length(problems: Problems, dt: float, hold: float, seconds: float) -> Problems:
    """The same starts over the same ``seconds``, stepped by ``dt``; actions are held for ``hold``.

    The truth is computed anew, by the system's own accurate step. Raises ``ValueError`` where
    ``hold`` is no multiple of ``dt``, ``seconds`` none of ``hold``, or the actions do not last.
    """
    if "equations" not in problems.system.knows:
        raise ValueError(
            f"other step lengths cannot be asked of {problems.system.env_id}: nobody knows its equations, so "
            "there is no truth to compare with; leave --dt-values out"
        )
    per_hold, holds = _multiple(hold, dt, "dt"), _multiple(seconds, hold, "the longest dt")
    if holds > problems.steps:
        raise ValueError(f"{seconds:g} s need {holds} actions, but there are {problems.steps}")
    index = np.repeat(np.arange(holds), per_hold)
    actions, controls = problems.actions[:, index], problems.controls[:, index]
    system, params = problems.system, problems.params
    states, alive = [problems.states[:, 0]], np.ones(len(problems.states), np.bool_)
    valid = []
    for t in range(len(index)):
        with np.errstate(all="ignore"):
            after = system.step(states[-1], controls[:, t], params, dt, problems.integrator)
            after = np.where(alive[:, None], after, states[-1])
        valid.append(alive)
        alive = alive & ~np.asarray(system.terminated(after, params), np.bool_)
        alive = alive & np.isfinite(after).all(axis=1)
        states.append(after)
    truth, known = np.stack(states, axis=1), np.stack(valid, axis=1)
    return Problems(
        system, params, dt, truth, actions, controls, known, problems.integrator, problems.angles
    )


def without_action(tasks: Problems, spec: Any) -> Problems:
    """The same starts under no action, with the true states that follow."""
    actions = idle_actions(spec, len(tasks.states), tasks.steps)
    controls = controls_of(tasks.system, actions, tasks.params)
    still = tasks._replace(actions=actions, controls=controls)
    return at_step_length(still, tasks.dt, tasks.dt, tasks.steps * tasks.dt)


def idle_actions(spec: Any, count: int, steps: int) -> np.ndarray:
    """Actions (count, steps) or (count, steps, A) that do nothing."""
    if spec.action_kind == "continuous":
        return np.zeros((count, steps, spec.action_size), np.float32)
    rows = physgym.system_of(spec).discrete_actions
    return np.full((count, steps), int(np.abs(rows).sum(axis=1).argmin()), np.int64)


def controls_of(system: Any, actions: np.ndarray, params: Any) -> np.ndarray:
    """Physical controls (B, T, U) of discrete (B, T) or continuous (B, T, A) actions."""
    if "equations" not in system.knows:  # what is done is all that is known of it
        return np.asarray(actions[..., None] if actions.ndim == 2 else actions, np.float64)
    rows = system.discrete_actions[actions] if actions.ndim == 2 else actions
    return np.asarray(system.control(np.asarray(rows, np.float64), columns(params)))


def _at(dataset: Any, rows: np.ndarray, at: np.ndarray) -> Problems:
    """The problems of episodes ``rows`` (B,) whose states are at steps ``at`` (B, T+1)."""
    system = physgym.system_of(dataset)
    states = dataset.states[rows[:, None], at]
    actions = dataset.actions[rows[:, None], at[:, :-1]]
    valid = at[:, :-1] < dataset.lengths[rows, None]
    params = _params(system, {name: values[rows] for name, values in dataset.params.items()})
    controls = controls_of(system, actions, params)
    known = "equations" in system.knows
    return Problems(
        system,
        params,
        dataset.dt,
        states,
        actions,
        controls,
        valid,
        dataset.env_kwargs.get("integrator") if known else None,
        tuple(system.angles),
        None if known else dataset.rewards[rows[:, None], at[:, :-1]],
        None if known else dataset.terminated[rows[:, None], at[:, :-1]],
    )


def _params(system: Any, given: dict[str, np.ndarray]) -> Any:
    """``Params`` of (B,) arrays: those given, and the defaults of the others."""
    count = len(next(iter(given.values()), ()))
    defaults = system.Params()._asdict()
    return system.Params(
        **{
            name: np.asarray(given.get(name, np.full(count, value)), np.float64)
            for name, value in defaults.items()
        }
    )


def _multiple(whole: float, part: float, name: str) -> int:
    count = round(whole / part)
    if count < 1 or abs(whole / part - count) > 1e-6:
        raise ValueError(
            f"{whole:g} s is no multiple of {name} {part:g} s: choose step lengths that divide "
            "the longest one, as 0.05 0.1 0.2"
        )
    return count
