"""`PhysicsVectorEnv`: thousands of one system at once, on NumPy arrays or torch tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from physgym.autoreset import Rollout
from physgym.backends import BACKENDS, backend_of
from physgym.compile.tensors import tensor_rows
from physgym.env import RENDER_SIZE
from physgym.observations import frames_per_second
from physgym.rewards import rewarded
from physgym.starts import by_row
from physgym.stretches import StretchingVectorEnv
from physgym.system import get_system
from physgym.task import Task, check_names
from physgym.validation import choice_of
from physgym.vector_info import zero_outside

__all__ = ["BACKENDS", "RENDERERS", "PhysicsVectorEnv"]

RENDERERS = ("opencv", "torch")


class PhysicsVectorEnv(
    StretchingVectorEnv, VectorEnv
):  # named for skrl, which looks at direct bases
    """A native batch of `physgym.env.PhysicsEnv`, made by `gymnasium.make_vec(...,
    vectorization_mode="vector_entry_point")`.

    On NumPy it equals `gymnasium.vector.SyncVectorEnv` over the single env, step for step and bit
    for bit, infos included, in every autoreset mode. Arguments beyond those of `PhysicsEnv`:

    Args:
        num_envs: N, how many.
        max_episode_steps: time limit; None or -1 for none (`gymnasium.make_vec` passes the
            registered one unless told otherwise).
        autoreset_mode: "NextStep" (default), "SameStep" or "Disabled"
            (`gymnasium.vector.AutoresetMode`). TorchRL's `GymWrapper` takes "Disabled", and
            "SameStep" with `flat_info`.
        flat_info: put parameters into `info` as "params_mass" and so on, not as a dict of their own, for
            clients that read no nested info (TorchRL where it resets in the same step).
        backend: "numpy", or "torch" for float64 states as tensors on `device`, observations
            float32.
        device: torch device such as "cpu" or "cuda"; only with backend="torch".
        renderer: what draws pixel observations: "opencv" (NumPy arrays, row after row), or "torch" with
            backend="torch": uint8 tensors on `device`, all rows at once, which differ from OpenCV's by
            shades along edges (`physgym.tensor_rendering.render` has them differentiable).

    `reset` takes back what `info` gave: options "state" (N, D) and parameters (N,) go to their
    rows, with the `_key` masks of `info` or without.

    On torch, observations (of states), rewards and info are differentiable in the actions of every
    step since the row's reset, where these carry gradients; a reset cuts the graph of its rows.
    Autoreset lets go of the whole graph only when all rows restart at once, and so may keep long
    ones alive: call `detach()` after each backward, or step under `torch.no_grad()`. Under
    `torch.inference_mode()` nothing is recorded and the env stays usable outside it.

    Raises:
        ValueError: a bad argument; the message names what is allowed.
        gymnasium.error.InvalidAction: actions of a wrong shape or type, or out of range.
    """

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        system: str = "pendulum",
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        flat_info: bool = False,
        backend: str = "numpy",
        device: str | None = None,
        renderer: str = "opencv",
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f'render_mode={render_mode!r} must be "rgb_array" or None for a vector env'
            )
        check_names(arguments, PhysicsVectorEnv)
        self._task = Task(system, **arguments)
        self._arrays = backend_of(backend, device)
        self.device = self._arrays.device
        self._tensors = backend == "torch"
        self._renderer = choice_of("renderer", renderer, RENDERERS)
        if renderer == "torch" and not self._tensors:
            raise ValueError('renderer="torch" draws tensors: use it with backend="torch"')
        if self._tensors and self._task.integrator == "dop853":
            raise ValueError('integrator="dop853" is SciPy\'s and works with backend="numpy" only')
        metadata = {**self.metadata, "render_fps": frames_per_second(self._task.dt)}
        with self._arrays.owned():
            super().__init__(num_envs, max_episode_steps, autoreset_mode, metadata, flat_info)
            self._allocate()
        self.render_mode = render_mode
        self.single_observation_space = self._task.observation_space
        self.single_action_space = self._task.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._control: Any = None
        self._bind()

    def _allocate(self) -> None:
        """The arrays of all rows, before the first reset."""
        system_, size, array = self._task.system, self.num_envs, self._arrays.array
        self._state = array(np.zeros((system_.state_size, size)))
        self._params = array(np.repeat(np.array(self._task.base)[:, None], size, axis=1))
        self._uniform = True
        self._energy = array(np.zeros(size))
        self._outside = self.blank(np.bool_)
        self._any_outside = False
        self._event_names = tuple(system_.events_of((1.0,) * system_.state_size, self._task.base))
        self._events = [self.blank(np.bool_) for _ in self._event_names]

    def _bind(self) -> None:
        with self._arrays.owned():
            self._constants = self._prepare()
            levels = np.ascontiguousarray(self._task.system.discrete_actions.T)
            self._table = self._arrays.array(levels)
        self._stretches = None
        self._calm = self.blank(np.bool_), self.blank(np.bool_)
        self._transition = self._task.transition("tensors" if self._tensors else "arrays")
        if self._tensors and self._task.program is not None:
            self._transition = tensor_rows(self._task.program)
        if callable(self._task.reward):
            kept = self._arrays.array
            self._transition = rewarded(self._task, self._transition, self._named_params, kept)
        # Machine code raises no warnings that would have to be kept quiet.
        self._silent = type(self._transition).__module__ == "physgym.compile.native"

    @property
    def system(self) -> Any:
        """The `physgym.System` behind this environment."""
        return self._task.system

    @property
    def task(self) -> Task:
        """The arguments of this environment, and what follows from them."""
        return self._task

    def blank(self, dtype: type) -> Any:
        """(N,) zeros of `dtype`, where this env keeps its arrays."""
        return self._arrays.blank(self.num_envs, dtype)

    def mask_of(self, mask: Any) -> Any:
        """A mask (N,) of either kind, where this env keeps its arrays."""
        return self._arrays.array(mask) if self._tensors else np.asarray(mask)

    def _named_params(self, rows: Any = None) -> Any:
        """Parameters as a NamedTuple of floats where all rows share them, else of rows."""
        if self._uniform:
            return self._task.base
        return self._task.base._make(self._params if rows is None else self._params[:, rows])

    def _prepare(self) -> Any:
        """The constants of the transition: an array (C, N) that is written into, where rows of NumPy
        have parameters of their own.
        """
        constants = self._task.constants(self._named_params())
        if self._uniform or self._tensors or self._task.program is None:
            return constants
        table = np.empty((len(constants), self.num_envs))
        for line, values in zip(table, constants, strict=True):
            line[...] = values
        return table

    # -- what AutoresetVectorEnv asks for ----------------------------------------------------------

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """See `AutoresetVectorEnv.reset`."""
        with self._arrays.owned():
            return super().reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """See `AutoresetVectorEnv.step`."""
        if not self._tensors:
            return super().step(actions)
        with self._arrays.owned():
            return super().step(actions)

    def rollout(self, actions: Any) -> Rollout:
        """See `AutoresetVectorEnv.rollout`."""
        with self._arrays.owned():
            return super().rollout(actions)

    def detach(self) -> None:
        """Cut the graph that leads to the present states (torch); the motion goes on."""
        cut = self._arrays.detached
        self._state, self._energy = cut(self._state), cut(self._energy)
        self._control = cut(self._control)

    def start(self, rows: np.ndarray, options: Mapping[str, Any]) -> None:
        """Draw parameters and a state for each of `rows`, each from its own generator."""
        own = by_row(options, self.num_envs)
        if own is None:
            states, params = self._task.starts_of(options).draw_rows(self.streams, rows)
        else:
            drawn = [self._sample(row, own[row]) for row in rows.tolist()]
            states, params = np.array([s for s, _ in drawn]).T, np.array([p for _, p in drawn]).T
        with np.errstate(all="ignore"):
            energy = self._task.system.energy_of(tuple(states), self._task.base._make(params))
        put, array, everyone = self._arrays.put, self._arrays.array, len(rows) == self.num_envs
        index = slice(None) if everyone else array(rows)
        self._state = put(self._state, index, array(states))
        self._energy = put(self._energy[None], index, array(energy)[None])[0]
        for flag in (self._outside, *self._events):
            flag[index] = False
        self._any_outside = self._any_outside and not everyone
        self._adopt(params, index, everyone)

    def _sample(self, row: int, options: Mapping[str, Any]) -> tuple[tuple[float, ...], Any]:
        with self.streams.lent(row) as rng:
            return self._task.sample(rng, options)

    def _adopt(self, params: np.ndarray, index: Any, everyone: bool) -> None:
        base = np.array(self._task.base)[:, None]
        default = bool((params == base).all())
        if self._uniform and default:
            return
        self._params = self._arrays.put(self._params, index, self._arrays.array(params))
        self._uniform, before = default and everyone, self._constants
        if not isinstance(before, np.ndarray) or everyone:
            self._constants = self._prepare()
            return
        for line, values in zip(
            before, self._task.constants(self._task.base._make(params)), strict=True
        ):
            line[index] = values

    def advance(self, actions: Any, resting: Any | None) -> tuple[Any, Any, Any]:
        """Move every row one step under its action."""
        control = self._controls(actions, resting)
        size, arrays = self._task.system.state_size, self._arrays
        with _NOTHING if self._silent else arrays.quiet():
            result = self._transition(
                self._state, control, self._constants, self._task.dt, self._task.count
            )
        self._state = arrays.stacked(result[:size], self._state)
        rewards, self._energy, outside = result[size], result[size + 1], result[size + 2]
        if isinstance(rewards, float):
            rewards = arrays.array(np.full(self.num_envs, rewards))
        self._outside = self.blank(np.bool_) if isinstance(outside, bool) else outside
        self._any_outside = bool(self._outside.any())
        if self._any_outside:  # a lost state earns nothing
            rewards = zero_outside(rewards, abs(rewards) < float("inf"))
        self._events = list(result[size + 3 :])
        self._control = control
        terminated = self.blank(np.bool_)
        for happened in self._events:
            terminated |= happened
        return rewards, terminated, arrays.copied(self._outside)

    def observe(self, rows: Any = None) -> Any:
        """Observations of `rows`, batched."""
        task, arrays, told = self._task, self._arrays, self._task.observe_params
        state = self._state if rows is None else self._state[:, rows]
        params = self._params if rows is None else self._params[:, rows]
        if task.obs_mode not in ("state", "embedded"):
            if self._renderer == "torch":
                return self._drawn(state, params)
            return task.observe_rows(arrays.numpy(state).T, arrays.numpy(params).T)
        if not self._any_outside:
            return arrays.vectors([*task.features(state), *(params if told else ())])
        with arrays.quiet():
            vectors = arrays.vectors([*task.features(state), *(params if told else ())])
            return arrays.clipped(vectors, task.observation_space)

    def _drawn(self, state: Any, params: Any) -> Any:
        """Observations with pictures, as tensors."""
        from physgym.tensor_rendering import render

        task, system = self._task, self._task.system
        told = system.Params(*params.detach())
        pictures = render(system, state.detach().T, told, task.image_size).round()
        pictures = pictures.to(self._arrays.torch.uint8)
        if task.obs_mode == "pixels":
            return pictures
        vectors = self._arrays.vectors(
            [*task.features(state), *(params if task.observe_params else ())]
        )
        space = task.observation_space["state"]
        return {"state": self._arrays.clipped(vectors, space), "pixels": pictures}

    def facts(self) -> dict[str, Any]:
        """Fresh state, energy, params, out_of_bounds and events of all rows."""
        facts: dict[str, Any] = {
            "state": self._arrays.copied(self._state.T),
            "energy": self._arrays.copied(self._energy),
            "params": {
                n: self._arrays.copied(p)
                for n, p in zip(self._task.base._fields, self._params, strict=True)
            },
            "out_of_bounds": self._arrays.copied(self._outside),
        }
        for name, happened in zip(self._event_names, self._events, strict=True):
            facts[name] = self._arrays.copied(happened)
        return facts

    # -- actions -----------------------------------------------------------------------------------

    def _controls(self, actions: Any, resting: Any | None) -> Any:
        kind, size = self._task.actions, self.num_envs
        if self._tensors:
            parsed = kind.tensor_rows(self._arrays.torch, self.device, actions, size, resting)
        else:
            parsed = kind.rows(actions, size, resting)
        unit = tuple(self._table[:, parsed]) if self._task.discrete else tuple(parsed.T)
        return self._task.system.control_of(unit, self._named_params())

    # -- pictures, copies --------------------------------------------------------------------------

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One picture (480, 480, 3) uint8 a row, with the action visible."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs render_mode="rgb_array"')
            return None
        if not self._started:
            raise ResetNeeded("Call reset() before render(): there is no state to draw.")
        task = self._task
        states, params = (
            self._arrays.numpy(self._state).T.tolist(),
            self._arrays.numpy(self._params).T.tolist(),
        )
        control = None if self._control is None else [self._arrays.numpy(c) for c in self._control]
        pictures = []
        for i, (state, row) in enumerate(zip(states, params, strict=True)):
            push = (
                None
                if control is None or not self.elapsed[i]
                else tuple(float(c[i]) for c in control)
            )
            caption = f"t = {int(self.elapsed[i]) * task.dt:5.2f} s"
            pictures.append(
                task.portrait(tuple(state), push, task.system.Params(*row), RENDER_SIZE, caption)
            )
        return tuple(pictures)

    def __getstate__(self) -> dict[str, Any]:
        made = ("_transition", "_constants", "_stretches")
        return {k: self._arrays.detached(v) for k, v in self.__dict__.items() if k not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()


_NOTHING = contextlib.nullcontext()


def registered(
    num_envs: int = 1, *, max_episode_steps: int | None = None, **arguments: Any
) -> PhysicsVectorEnv:
    """The `PhysicsVectorEnv` that `gymnasium.make_vec` makes: max_episode_steps=None is the
    registered time limit, as it is to `gymnasium.make`; -1 is none.
    """
    if max_episode_steps is None:
        env_id = get_system(arguments.get("system", "pendulum")).env_id
        max_episode_steps = gymnasium.spec(env_id).max_episode_steps
    return PhysicsVectorEnv(num_envs=num_envs, max_episode_steps=max_episode_steps, **arguments)
