"""`PhysicsVectorEnv`: thousands of one system at once, on NumPy arrays or torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from physgym.autoreset import AutoresetVectorEnv
from physgym.elementwise import wrap
from physgym.env import RENDER_SIZE
from physgym.task import Task, check_names
from physgym.threads import use_torch

BACKENDS = ("numpy", "torch")


class PhysicsVectorEnv(
    AutoresetVectorEnv, VectorEnv
):  # named for skrl, which looks at direct bases
    """A native batch of `physgym.env.PhysicsEnv`, made by `gymnasium.make_vec(...,
    vectorization_mode="vector_entry_point")`.

    On NumPy it equals `gymnasium.vector.SyncVectorEnv` over the single env, step for step and bit
    for bit, infos included, in every autoreset mode. Arguments beyond those of `PhysicsEnv`:

    Args:
        num_envs: N, how many.
        max_episode_steps: time limit; None for none (Gymnasium passes the registered one).
        autoreset_mode: "NextStep" (default), "SameStep" or "Disabled"
            (`gymnasium.vector.AutoresetMode`). TorchRL's `GymWrapper` takes "Disabled", and
            "SameStep" with `flat_info`.
        flat_info: put parameters into `info` as "params_mass" and so on, not as a dict of their own, for
            clients that read no nested info (TorchRL where it resets in the same step).
        backend: "numpy", or "torch" for float64 states as tensors on `device`, observations
            float32.
        device: torch device such as "cpu" or "cuda"; only with backend="torch".

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
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend={backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
        if device is not None and backend != "torch":
            raise ValueError(
                f'device={device!r} needs backend="torch" (NumPy arrays lie on the CPU)'
            )
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f'render_mode={render_mode!r} must be "rgb_array" or None for a vector env'
            )
        check_names(arguments, PhysicsVectorEnv)
        self._task = Task(system, **arguments)
        self._torch: Any = _import_torch() if backend == "torch" else None
        if self._torch and self._task.integrator == "dop853":
            raise ValueError('integrator="dop853" is SciPy\'s and works with backend="numpy" only')
        self.device = _checked_device(self._torch, device or "cpu") if self._torch else None
        metadata = {**self.metadata, "render_fps": max(1, round(1.0 / self._task.dt))}
        super().__init__(num_envs, max_episode_steps, autoreset_mode, metadata, flat_info)
        self.render_mode = render_mode
        self.single_observation_space = self._task.observation_space
        self.single_action_space = self._task.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        system_ = self._task.system
        self._state = self._array(np.zeros((system_.state_size, self.num_envs)))
        self._params = self._array(
            np.repeat(np.array(self._task.base)[:, None], self.num_envs, axis=1)
        )
        self._uniform = True
        self._energy = self._array(np.zeros(self.num_envs))
        self._outside = self.blank(np.bool_)
        self._event_names = tuple(system_.events_of((1.0,) * system_.state_size, self._task.base))
        self._events = [self.blank(np.bool_) for _ in self._event_names]
        self._control: Any = None
        self._bind()

    def _bind(self) -> None:
        self._transition = self._task.transition("arrays" if self._torch is None else "tensors")
        self._table = self._array(np.ascontiguousarray(self._task.system.discrete_actions.T))
        self._constants = self._prepare()

    @property
    def system(self) -> Any:
        """The `physgym.System` behind this environment."""
        return self._task.system

    # -- arrays of either backend ------------------------------------------------------------------

    def _array(self, array: np.ndarray) -> Any:
        return array if self._torch is None else self._torch.as_tensor(array, device=self.device)

    def blank(self, dtype: type) -> Any:
        """(N,) zeros of `dtype`, where this env keeps its arrays."""
        if self._torch is None:
            return np.zeros(self.num_envs, dtype=dtype)
        kind = self._torch.bool if dtype is np.bool_ else self._torch.int64
        return self._torch.zeros(self.num_envs, dtype=kind, device=self.device)

    def _copied(self, array: Any) -> Any:
        return array.copy() if self._torch is None else array.clone()

    def _numpy(self, array: Any) -> np.ndarray:
        return array if self._torch is None else array.cpu().numpy()

    def _named_params(self, rows: Any = None) -> Any:
        """Parameters as a NamedTuple of floats where all rows share them, else of rows."""
        if self._uniform:
            return self._task.base
        return self._task.base._make(self._params if rows is None else self._params[:, rows])

    def _prepare(self) -> Any:
        return self._task.constants(self._named_params())

    # -- what AutoresetVectorEnv asks for ----------------------------------------------------------

    def start(self, rows: np.ndarray, options: Mapping[str, Any]) -> None:
        """Draw parameters and a state for each of `rows`, each from its own generator."""
        task, system = self._task, self._task.system
        batch: Any = options.get("state")
        own = batch is not None and np.ndim(batch) == 2
        if own and np.shape(batch)[0] != self.num_envs:
            raise ValueError(
                f"options['state'] has {np.shape(batch)[0]} rows for num_envs={self.num_envs}"
            )
        drawn = []
        for row in rows.tolist():
            mine = {**options, "state": np.asarray(batch)[row]} if own else options
            drawn.append(task.sample(self.generator(row), mine))
        states = np.array([s for s, _ in drawn]).T
        params = np.array([p for _, p in drawn]).T
        energy = system.energy_of(tuple(states), system.Params(*params))
        everyone = len(rows) == self.num_envs
        index = slice(None) if everyone else self._array(rows)
        self._state[:, index] = self._array(states)
        self._energy[index] = self._array(energy)
        self._outside[index] = False
        for happened in self._events:
            happened[index] = False
        self._adopt(params, index, everyone)

    def _adopt(self, params: np.ndarray, index: Any, everyone: bool) -> None:
        base = np.array(self._task.base)[:, None]
        default = bool((params == base).all())
        if self._uniform and default:
            return
        self._params[:, index] = self._array(params)
        self._uniform = default and everyone
        self._constants = self._prepare()

    def advance(self, actions: Any, resting: Any | None) -> tuple[Any, Any, Any]:
        """Move every row one step under its action."""
        control = self._controls(actions, resting)
        size = self._task.system.state_size
        result = self._transition(
            self._state, control, self._constants, self._task.dt, self._task.count
        )
        for i in range(size):
            self._state[i] = result[i]
        rewards, self._energy, outside = result[size], result[size + 1], result[size + 2]
        if isinstance(rewards, float):
            rewards = self._array(np.full(self.num_envs, rewards))
        self._outside = self.blank(np.bool_) if isinstance(outside, bool) else outside
        if bool(self._outside.any()):
            rewards[rewards != rewards] = 0.0  # a state that is not a number earns nothing
        self._events = list(result[size + 3 :])
        self._control = control
        terminated = self.blank(np.bool_)
        for happened in self._events:
            terminated |= happened
        return rewards, terminated, self._copied(self._outside)

    def observe(self, rows: Any = None) -> Any:
        """Observations of `rows`, batched."""
        state = self._state if rows is None else self._state[:, rows]
        if self._torch is not None and self._task.obs_mode in ("state", "embedded"):
            return self._observe_tensors(state, rows)
        if self._task.obs_mode == "state" and not self._task.observe_params:
            return self._observe_fast(state, rows)
        params = self._params if rows is None else self._params[:, rows]
        return self._task.observe_rows(self._numpy(state).T, self._numpy(params).T)

    def _observe_fast(self, state: np.ndarray, rows: Any) -> np.ndarray:
        out = np.empty((state.shape[1], state.shape[0]), np.float32)
        angles = self._task.system.angles
        for i, x in enumerate(state):
            out[:, i] = wrap(x) if i in angles else x
        if self._outside.any():
            space: Any = self.single_observation_space
            np.clip(np.nan_to_num(out, nan=0.0), space.low, space.high, out=out)
        return out

    def _observe_tensors(self, state: Any, rows: Any) -> Any:
        torch, task = self._torch, self._task
        columns = []
        for i, x in enumerate(state):
            if i not in task.system.angles:
                columns.append(x)
            else:
                columns += (
                    [torch.cos(x), torch.sin(x)] if task.obs_mode == "embedded" else [wrap(x)]
                )
        if task.observe_params:
            columns += list(self._params if rows is None else self._params[:, rows])
        space: Any = self.single_observation_space
        low, high = (torch.as_tensor(b, device=self.device) for b in (space.low, space.high))
        return torch.stack(columns, dim=-1).float().nan_to_num(nan=0.0).clamp(low, high)

    def facts(self) -> dict[str, Any]:
        """Fresh state, energy, params, out_of_bounds and events of all rows."""
        facts: dict[str, Any] = {
            "state": self._copied(self._state.T),
            "energy": self._copied(self._energy),
            "params": {
                n: self._copied(p)
                for n, p in zip(self._task.base._fields, self._params, strict=True)
            },
            "out_of_bounds": self._copied(self._outside),
        }
        for name, happened in zip(self._event_names, self._events, strict=True):
            facts[name] = self._copied(happened)
        return facts

    # -- actions -----------------------------------------------------------------------------------

    def _controls(self, actions: Any, resting: Any | None) -> Any:
        actions = self._checked(actions, resting)
        unit = tuple(self._table[:, actions]) if self._task.discrete else tuple(actions.T)
        return self._task.system.control_of(unit, self._named_params())

    def _checked(self, actions: Any, resting: Any | None) -> Any:
        array: Any = (
            np.asarray(actions)
            if self._torch is None
            else self._torch.as_tensor(actions, device=self.device)
        )
        discrete = self._task.discrete
        shape = (self.num_envs,) if discrete else (self.num_envs, self._task.system.action_size)
        if tuple(array.shape) != shape:
            raise InvalidAction(
                f"actions have shape {tuple(array.shape)}, but this env takes {shape}"
            )
        if discrete:
            return self._checked_discrete(array, resting)
        array = array.astype(np.float64) if self._torch is None else array.double()
        if resting is not None:
            array = self._without(array, resting)
        finite = np.isfinite(array).all() if self._torch is None else array.isfinite().all()
        if not finite:
            raise InvalidAction(
                "actions must be finite numbers in [-1, 1] (beyond it, clipped); some are NaN "
                "or infinite"
            )
        return array.clip(-1.0, 1.0)

    def _checked_discrete(self, array: Any, resting: Any | None) -> Any:
        count = len(self._task.system.discrete_actions)
        integers = (
            array.dtype.kind in "iu" if self._torch is None else not array.is_floating_point()
        )
        if integers and resting is not None:
            array = self._without(array, resting)
        if not integers or int(array.min()) < 0 or int(array.max()) >= count:
            raise InvalidAction(f"actions {array!r} must be integers from 0 to {count - 1}")
        return array

    def _without(self, array: Any, resting: Any) -> Any:
        array = self._copied(array)
        array[resting] = 0
        return array

    # -- pictures, copies --------------------------------------------------------------------------

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One picture (480, 480, 3) uint8 a row, with the action visible."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs render_mode="rgb_array"')
            return None
        if not self._started:
            raise ResetNeeded("Call reset() before render(): there is no state to draw.")
        task = self._task
        states, params = self._numpy(self._state).T.tolist(), self._numpy(self._params).T.tolist()
        control = None if self._control is None else [self._numpy(c) for c in self._control]
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
        return {
            k: v
            for k, v in self.__dict__.items()
            if k not in ("_transition", "_torch", "_constants")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._torch = _import_torch() if self.device is not None else None
        self._bind()


def _checked_device(torch: Any, device: Any) -> Any:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'device={device!r} is unknown to torch; give "cpu", "cuda" or "cuda:0"'
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'device={device!r}: this torch sees no CUDA device; use device="cpu", or install a '
            "CUDA build of torch on a machine with an NVIDIA GPU"
        )
    return found


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as reason:
        raise gymnasium.error.DependencyNotInstalled(
            'backend="torch" needs PyTorch: pip install torch'
        ) from reason
    use_torch()
    return torch
