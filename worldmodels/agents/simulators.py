"""What futures are imagined in: an interface that knows neither medium nor whether it is the truth.

A planner (`worldmodels.agents.planning`) hands a `Simulator` what N rows have seen, and then steps as many
futures as it likes from there. `TrueSimulator` is our own systems, `LearnedSimulator` (beside this file) a
world model; any other class that fills in `Simulator` serves as well.

Legend: K rows that are planned for, B futures, L observations of a context, A action size, P parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.actions import ActionKind
from physgym.rewards import check_at_starts, earned, name_of
from physgym.task import Task
from worldmodels.envs.observed import read_states

Cost = Callable[[Any, Any, Any], Any]
"""(states (B, D), actions (B,) or (B, A), next states (B, D)) to costs (B,); of a model of pictures
(B, S, S, 3) floats in [0, 1] in place of states. Arrays, and tensors where gradients are asked for."""


class Seen(NamedTuple):
    """What K rows have seen."""

    context: np.ndarray
    """(K, L, *shape); futures begin at the last."""
    actions: np.ndarray
    """(K, L-1) int64 or (K, L-1, A): what acted between them."""
    params: np.ndarray
    """(K, P) physical parameters; (K, 0) where nothing is known of them."""


class Moment(NamedTuple):
    """What one step of B futures came to; tensors where `advance_tensors` made it, but for `lost`."""

    carry: Any
    """The simulator's own: what the next step goes on from."""
    rewards: Any
    """(B,): what the step earned, or minus what it cost."""
    ended: Any
    """(B,) bool: it ended an episode. Its reward counts, nothing after it does."""
    lost: np.ndarray
    """(B,) bool: it cannot be followed further (it diverged, or left its bounds). Such a future ranks
    behind all others."""


class Simulator(ABC):
    """Steps futures of rows under given actions; abstract.

    A class of your own says what its `actions` and its `idle` action are, reads observations, begins and
    advances; it may keep anything in its carry. `begin_tensors` and `advance_tensors` serve method="gradient"
    alone.
    """

    actions: ActionKind
    """ActionKind(n, 0) for discrete actions, ActionKind(0, A) for continuous ones in [-1, 1]^A."""
    idle: Any
    """The action that does nothing: an integer, or (A,) floats."""
    cost: Cost | None = None
    """What is paid in place of the env's reward. An env's end is no way out of it: a future that ends goes on
    paying what its last step cost."""
    length: int = 1
    """L, observations that a future begins from."""
    batch: int = 2**14
    """Most futures that are stepped at once, to bound memory."""
    no_gradients: str = "this simulator steps no tensors"
    """Why method="gradient" cannot be had; "" where it can."""

    @abstractmethod
    def read(self, observations: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """What N rows show (N, *shape) and their parameters (N, P), from observations as the env gives them
        and from what the caller tells of parameters (None, or a table of numbers or rows (N,)).
        ValueError where they do not serve.
        """

    @abstractmethod
    def begin(self, seen: Seen, rows: np.ndarray) -> Any:
        """The carry of B futures, the b-th of which begins where row `rows[b]` of `seen` is."""

    @abstractmethod
    def advance(self, carry: Any, actions: np.ndarray) -> Moment:
        """Step every future under `actions` (B,) int64 or (B, A) float64 in [-1, 1]."""

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Actions (N,) or (N, A) in [-1, 1] as the env takes them."""
        return actions.copy() if self.actions.count else actions.astype(np.float32)

    def begin_tensors(self, seen: Seen, rows: np.ndarray) -> Any:
        """As `begin`, for `advance_tensors`."""
        raise ValueError(f"no gradients: {self.no_gradients}")

    def advance_tensors(self, carry: Any, actions: Tensor) -> Moment:
        """As `advance` under continuous `actions` (B, A), with gradients of the rewards in them."""
        raise ValueError(f"no gradients: {self.no_gradients}")


class TrueSimulator(Simulator):
    """The truth: the equations of one of our systems, stepped exactly from states.

    Reward, ends and bounds are those of the true env; `observations` are its states.

    Args:
        task: of the env.
        cost: see `Simulator.cost`; of states.

    Raises:
        ValueError: a reward that fails on a start state, or none at all and no cost.
    """

    def __init__(self, task: Task, cost: Cost | None = None) -> None:
        check_pays(task, cost)
        if callable(task.reward):
            check_at_starts(task, np.asarray)
        self.task, self.system, self.cost = task, task.system, cost
        self.actions, self.idle = task.actions, idle_action(task)
        self._advance, self._tensors = task.transition("arrays"), task.transition("tensors")
        self.no_gradients = ""
        if task.integrator == "dop853":
            self.no_gradients = 'integrator="dop853" is SciPy\'s and steps no tensors: choose "rk4"'

    def read(self, observations: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        states, told = read_states(self.task, observations)
        return states, told_params(self.task, params, told, len(states))

    def begin(self, seen: Seen, rows: np.ndarray) -> Any:
        params = columns(self.task, seen.params[rows])
        return seen.context[rows, -1].T.copy(), params, self.task.constants(params)

    def advance(self, carry: Any, actions: np.ndarray) -> Moment:
        state, params, constants = carry
        task, size = self.task, len(state)
        levels = self.system.discrete_actions[actions] if task.discrete else actions
        with np.errstate(all="ignore"):
            control = self.system.control_of(tuple(levels.T), params)
            result = self._advance(state, control, constants, task.dt, task.count)
            after = np.stack(np.broadcast_arrays(*result[:size]))
            if self.cost is not None:
                rewards = -paid(self.cost, state.T, actions, after.T)
            elif callable(task.reward):
                rewards = earned(task.reward, tuple(state), control, tuple(after), params)
            else:
                rewards = result[size] + np.zeros(len(actions))
        lost = (result[size + 2] | ~np.isfinite(after).all(0)) & np.ones(len(actions), np.bool_)
        ended = np.zeros(len(actions), dtype=np.bool_)
        for happened in result[size + 3 :]:
            ended = ended | happened
        return Moment((np.where(lost, state, after), params, constants), rewards, ended, lost)

    def begin_tensors(self, seen: Seen, rows: np.ndarray) -> Any:
        params = columns(self.task, seen.params[rows])
        if isinstance(params[0], np.ndarray):
            params = params._make(map(torch.as_tensor, params))
        return torch.as_tensor(seen.context[rows, -1]), params, self.task.constants(params)

    def advance_tensors(self, carry: Any, actions: Tensor) -> Moment:
        state, params, constants = carry
        task, size = self.task, state.shape[1]
        control = self.system.control_of(tuple(actions.unbind(-1)), params)
        parts = state.unbind(-1)
        result = self._tensors(parts, control, constants, task.dt, task.count)
        after = torch.stack(torch.broadcast_tensors(*result[:size]), dim=-1)
        if self.cost is not None:
            rewards = -paid(self.cost, state, actions, after)
        elif callable(task.reward):
            rewards = earned(task.reward, parts, control, after.unbind(-1), params)
        else:
            rewards = result[size] + 0.0 * actions[:, 0]
        ended = torch.zeros(len(actions), dtype=torch.bool)
        for happened in result[size + 3 :]:
            ended = ended | happened
        lost = ~after.detach().isfinite().all(-1).numpy() | np.asarray(result[size + 2])
        return Moment((after, params, constants), rewards, ended, lost)


def check_pays(task: Task, cost: Any) -> None:
    """Raise ValueError where there is nothing to plan for, or `cost` is no function."""
    if cost is not None and not callable(cost):
        raise ValueError(
            f"cost={cost!r} is not valid: expected a function (states, actions, next_states) -> costs (B,)"
        )
    if cost is None and task.reward == "none":
        raise ValueError(
            'the env has reward="none", so every plan is as good as another: give reward= (such as "dense") '
            "or cost="
        )


def paid(cost: Cost, before: Any, actions: Any, after: Any) -> Any:
    """What `cost` asks for (B,): float64, or a tensor where `after` is one.

    Raises ValueError where it returns anything but one number a row, or a tensor without gradients.
    """
    tensors, count = isinstance(after, Tensor), len(after)
    try:
        value = cost(before, actions, after)
        made = value if tensors else np.asarray(value, dtype=np.float64)
    except (TypeError, RuntimeError) as error:
        hint = "; method='gradient' calls it with tensors: write it with torch" if tensors else ""
        raise ValueError(f"cost={name_of(cost)} fails ({error}){hint}") from error
    if tensors and not (isinstance(made, Tensor) and made.requires_grad):
        raise ValueError(
            f"cost={name_of(cost)} gives no gradients, which method='gradient' needs: write it with torch"
        )
    if tuple(made.shape) != (count,):
        raise ValueError(
            f"cost={name_of(cost)} must return one number a row, ({count},); it returned shape "
            f"{tuple(made.shape)}"
        )
    return made


def idle_action(task: Task) -> Any:
    """The action that does nothing, or least: an index, or (A,) zeros."""
    levels = task.system.discrete_actions
    return int((levels**2).sum(1).argmin()) if task.discrete else np.zeros(levels.shape[1])


def told_params(task: Task, told: Any, seen: np.ndarray | None, count: int) -> np.ndarray:
    """Parameters (N, P) of N rows: the task's own, then what is `seen` (N, P), then what is `told` (a table of
    numbers or rows (N,), as `info["params"]` is). ValueError for other names or shapes.
    """
    names = task.system.Params._fields
    table = np.tile(np.array(task.base, dtype=np.float64), (count, 1)) if seen is None else seen
    if told is None:
        return table
    told = told._asdict() if hasattr(told, "_asdict") else told
    if isinstance(told, Mapping):  # the masks of an info, such as "_mass", say nothing more
        told = {name: value for name, value in told.items() if str(name)[:1] != "_"}
    if not isinstance(told, Mapping) or not set(told) <= set(names):
        raise ValueError(f"params={told!r} are not valid: expected a table of {', '.join(names)}")
    table = table.copy()
    for name, value in told.items():
        values = np.asarray(value, dtype=np.float64)
        if values.shape not in ((), (count,)) or not np.isfinite(values).all():
            raise ValueError(
                f"params[{name!r}]={value!r} is not valid: expected a number, or {count}"
            )
        table[:, names.index(name)] = values
    return table


def columns(task: Task, params: np.ndarray) -> Any:
    """Parameters (B, P) as the system's: floats where all rows have the task's own, else columns (B,)."""
    if (params == np.array(task.base)).all():
        return task.base
    return task.base._make(np.ascontiguousarray(params.T))
