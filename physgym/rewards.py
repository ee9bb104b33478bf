"""Rewards of the user's own: a function (state, control, next_state, params) -> reward in place of a kind.

It is given components, as the equations are: `theta, omega = next_state` unpacks floats in a single env, rows
(N,) of arrays or tensors in a batch; `control` likewise, and `params` is the system's `Params`. It returns one
number, or one a row. Written with `+ - * / **`, comparisons joined by `& |` and the functions of
`physgym.elementwise`, it serves every env, gradients on torch included.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym.elementwise import where
from physgym.system import REWARDS

if TYPE_CHECKING:
    from physgym.task import Task

Reward = Callable[[Any, Any, Any, Any], Any]
"""(state, control, next_state, params) -> one number, or one a row."""


def check_reward(reward: Any) -> Any:
    """A kind of reward, or a function; ValueError for anything else."""
    if callable(reward) and not isinstance(reward, type):
        return reward
    if not isinstance(reward, str) or reward not in REWARDS:
        raise ValueError(
            f"reward={reward!r} is unknown; choose one of {', '.join(REWARDS)}, or give a function "
            "(state, control, next_state, params) -> reward"
        )
    return str(reward)


def portable(reward: Any) -> Any:
    """`reward`, for a pickle; PicklingError where a function has no name that another process finds."""
    if isinstance(reward, str):
        return reward
    try:
        pickle.dumps(reward)
    except Exception as error:
        raise pickle.PicklingError(
            f"this env cannot be pickled, for its reward={name_of(reward)} cannot: give a function that "
            f"is defined at the top of a module, no lambda and none inside another ({error})"
        ) from None
    return reward


def name_of(reward: Any) -> str:
    """What to call a function in a message."""
    return getattr(reward, "__qualname__", None) or type(reward).__qualname__


def earned(reward: Reward, state: Any, control: Any, after: Any, params: Any) -> Any:
    """What a transition earns: a float where `after` has floats, else fresh rows (N,) as it has them.

    Raises ValueError where the function returns anything but one number, or one a row.
    """
    value = reward(tuple(state), tuple(control), tuple(after), params)
    shape = tuple(getattr(after[0], "shape", ()))
    try:
        return _like(value, after[0], shape)
    except (TypeError, ValueError, RuntimeError):
        wanted = f"one number, or {shape[0]}, one a row" if shape else "one number"
        given = f"values of shape {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
        raise ValueError(
            f"reward={name_of(reward)} must return {wanted}; it returned {given[:200]}"
        ) from None


def _like(value: Any, first: Any, shape: tuple[int, ...]) -> Any:
    if hasattr(first, "detach"):
        import torch

        rows = torch.as_tensor(value, dtype=first.dtype, device=first.device)
        if tuple(rows.shape) not in ((), shape):
            raise ValueError
        return rows.expand(shape).clone()
    made = np.array(value, dtype=np.float64)
    if made.shape not in ((), shape):
        raise ValueError
    return np.broadcast_to(made, shape).copy() if shape else made.item()


def rewarded(
    task: Task,
    transition: Callable[..., tuple[Any, ...]],
    params: Callable[[], Any],
    array: Callable[[np.ndarray], Any] | None = None,
) -> Callable[..., tuple[Any, ...]]:
    """`transition` (see `Task.transition`) with the task's own function for its reward.

    A value that is not finite counts as 0, with a warning unless the state is lost anyway.

    Args:
        params: what the episodes' parameters are at the moment, floats or rows.
        array: puts rows where a vector env keeps them; None: the env is a single one, of floats.

    Raises:
        ValueError: the function fails on a start state, or returns no finite numbers there.
    """
    reward, size = task.reward, task.system.state_size
    check_at_starts(task, array)
    warned: list[bool] = []

    def step(state: Any, control: Any, constants: Any, dt: float, count: int) -> tuple[Any, ...]:
        result = transition(state, control, constants, dt, count)
        value = earned(reward, state, control, result[:size], params())
        if not _all(finite := abs(value) < float("inf")):
            if not warned and not _all(finite | result[size + 2]):
                warned.append(True)
                told = (
                    f"reward={name_of(reward)} is not finite in some states: it counts as 0 there"
                )
                warnings.warn(told, RuntimeWarning, stacklevel=3)
            value = where(finite, value, 0.0 * finite)
        return (*result[:size], value, *result[size + 1 :])

    return step


def check_at_starts(task: Task, array: Callable[[np.ndarray], Any] | None) -> None:
    """Try the task's function on starts, as floats or as rows; ValueError where it does not serve."""
    rng, reward = np.random.default_rng(0), task.reward
    drawn = [task.starts.draw(rng) for _ in range(1 if array is None else 3)]
    state, params = drawn[0]
    if array is not None:
        state = tuple(array(np.array(row)) for row in zip(*(s for s, _ in drawn), strict=True))
        if task.ranges:
            rows = zip(*(p for _, p in drawn), strict=True)
            params = params._make(array(np.array(row)) for row in rows)
    action = tuple(0.0 * state[0] + level for level in task.system.discrete_actions[-1].tolist())
    try:
        with np.errstate(all="ignore"):
            control = task.system.control_of(action, params)
            value = earned(reward, state, control, state, params)
    except Exception as error:
        told = f"reward={name_of(reward)} fails on a start state"
        if isinstance(error, ValueError) and str(error).startswith("reward="):
            raise
        raise ValueError(
            f"{told} ({type(error).__name__}: {error}): it is called as (state, control, next_state, params), "
            "with components that are floats, arrays or tensors; see physgym.rewards"
        ) from error
    if not _all(abs(value) < float("inf")):
        raise ValueError(
            f"reward={name_of(reward)} must return finite numbers; it returned {value} for the "
            f"start {drawn[0][0]}"
        )


def _all(truth: Any) -> bool:
    return bool(truth.all()) if hasattr(truth, "all") else bool(truth)
