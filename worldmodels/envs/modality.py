"""What a learned env shows of its latents: the interface, and the modality of states.

A `Modality` is a model beside its task: how starts become latents, what a latent looks like and whether
it can be trusted, what it earns, and what users see of it. It holds nothing that moves. `Predictor` and
`WorldModelVectorEnv` are written against it and know no medium.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.env import RENDER_SIZE
from physgym.task import Task
from worldmodels.envs import judging
from worldmodels.envs import task as truth
from worldmodels.envs.native_steps import NativeBlocks, NativeStep, native_step
from worldmodels.envs.observed import read_states
from worldmodels.envs.starts import BufferStarts, Starts, TrueStarts
from worldmodels.interface import Latent, WorldModel


class Decoded(NamedTuple):
    """What N latents look like."""

    shown: np.ndarray
    """(N, *shape): states, or pictures; anything where a row is not sound."""
    sound: np.ndarray
    """(N,) bool: finite, and within what training has seen."""


class Modality(ABC):
    """What learned envs of one medium have of their own; abstract.

    Legend: N rows, K rows that start, L elements of a context, A action size, P parameters.

    Args:
        model: in its final place; tensors are made in its floating type and on its device.
        task: of the env it learned.
        factor: a prediction this many times beyond the training range has diverged.

    Raises:
        ValueError: a factor that is not above 0.
    """

    shape: tuple[int, ...]
    """Shape of what one row shows."""
    dtype: type
    """NumPy type of it."""
    length: int
    """L, the elements of a start's context."""
    reads_shown: bool
    """Whether `judge` looks at what is shown, or at the latent alone."""
    flags: tuple[str, ...]
    """Keys of `Outcome.events`, and "out_of_bounds" where it can be told: bools of `info`."""

    def __init__(self, model: WorldModel, task: Task, factor: float) -> None:
        if not truth.number_of("divergence_factor", factor, 0.0):
            raise ValueError(f"divergence_factor={factor!r} must be more than 0")
        self.model, self.task = model, task
        tensors = (*model.parameters(), *model.buffers(), torch.zeros(1))
        first = next(tensor for tensor in tensors if tensor.is_floating_point())
        self.float_type, self.device = first.dtype, first.device

    @abstractmethod
    def true_starts(self) -> Starts:
        """Starts drawn as the true env draws them."""

    @abstractmethod
    def buffer_starts(self, dataset: Any) -> Starts:
        """Starts taken from a buffer. Raises ValueError where it cannot give any."""

    @abstractmethod
    def encode(self, context: np.ndarray, actions: np.ndarray, params: np.ndarray) -> Latent:
        """Latents of contexts (K, L, *shape), actions (K, L-1[, A]) and parameters (K, P)."""

    @abstractmethod
    def decode(self, latent: Latent) -> Decoded:
        """What latents look like, and which of them can be trusted."""

    def native(
        self, latent: Latent, actions: Tensor, dt: float
    ) -> NativeStep | NativeBlocks | None:
        """What steps and shows latents like these in place of the model; None: the model does."""
        return None

    def shown(self, decoded: Tensor) -> Decoded:
        """What the model's `decode` says, as rows show it; only where `native` gives something."""
        raise NotImplementedError

    def sound(self, latent: Latent) -> np.ndarray:
        """Which latents (N,) can be trusted, as far as can be told without showing them."""
        return self.decode(latent).sound

    @abstractmethod
    def judge(
        self,
        latent: Latent,
        before: np.ndarray,
        shown: np.ndarray,
        actions: np.ndarray,
        params: Any,
    ) -> judging.Outcome:
        """Reward and ends of having come to `latent` by `actions`; `params` are columns (N,).

        `before` and `shown` (N, *shape) are what the latents before and after look like.
        """

    @abstractmethod
    def judge_tensors(
        self, latent: Latent, before: Any, after: Any, actions: Tensor, params: Any
    ) -> tuple[Tensor, Tensor]:
        """Rewards (N,) with their gradients, and ends (N,) bool, of having come to `latent` by continuous
        `actions` (N, A).

        `before` and `after` (N, *shape) are what `model.decode` makes of the latents before and after, None
        where `reads_shown` is False; `params` are columns (N,) of tensors.
        """

    @abstractmethod
    def read(self, observations: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """What N rows show (N, *shape), and their parameters (N, P) where they are observed, from
        `observations` as envs give them; `observe` reversed. ValueError for a wrong shape.
        """

    @abstractmethod
    def observe(self, shown: np.ndarray, params: np.ndarray) -> Any:
        """Observations of what rows show, batched and fresh; `params` (N, P)."""

    @abstractmethod
    def facts(self, shown: np.ndarray, params: Any) -> dict[str, Any]:
        """What `info` says of it: fresh arrays; `params` are columns (N,)."""

    @abstractmethod
    def portrait(
        self, shown: np.ndarray, action: np.ndarray | None, params: Any, caption: str
    ) -> np.ndarray:
        """A picture (480, 480, 3) uint8 for people of one row, come to by `action` (None: none)."""

    def actions(self, actions: np.ndarray) -> Tensor:
        """Parsed actions as the model takes them."""
        if self.model.spec.action_kind == "discrete":
            return torch.as_tensor(actions, dtype=torch.int64, device=self.device)
        return self.tensor(actions)

    def tensor(self, values: np.ndarray) -> Tensor:
        """`values` in the model's floating type, where the model is."""
        return torch.as_tensor(values, dtype=self.float_type, device=self.device)


class StateModality(Modality):
    """A model of states: what it predicts is judged and shown by the true system itself.

    A state has diverged beyond `factor` times the training range; angles beyond 1e6 rad.
    """

    dtype, length, reads_shown = np.float64, 1, True
    most: np.ndarray
    """(D,) largest magnitude that is not taken for diverged, finite."""

    def __init__(self, model: WorldModel, task: Task, factor: float) -> None:
        super().__init__(model, task, factor)
        self.shape = (model.spec.state_size,)
        self.flags = ("out_of_bounds", *judging.event_names(task))
        limit = truth.prediction_limit(model, task, factor)
        self.most = np.minimum(limit, np.finfo(np.float64).max)
        self._judge = judging.Judge(task)

    def true_starts(self) -> Starts:
        return TrueStarts(self.task)

    def buffer_starts(self, dataset: Any) -> Starts:
        return BufferStarts(dataset, self.task, self.true_starts())

    def encode(self, context: np.ndarray, actions: np.ndarray, params: np.ndarray) -> Latent:
        return self.model.encode(self.tensor(context), self.tensor(params))

    def native(
        self, latent: Latent, actions: Tensor, dt: float
    ) -> NativeStep | NativeBlocks | None:
        return native_step(self.model, latent, actions, dt)

    def decode(self, latent: Latent) -> Decoded:
        return self.shown(self.model.decode(latent))

    def shown(self, decoded: Tensor) -> Decoded:
        states = decoded.detach().to("cpu", torch.float64).numpy()
        columns = np.ascontiguousarray(states.T)  # as equations read them, component by component
        return Decoded(columns.T, (np.abs(columns) <= self.most[:, None]).all(axis=0))

    def judge(
        self,
        latent: Latent,
        before: np.ndarray,
        shown: np.ndarray,
        actions: np.ndarray,
        params: Any,
    ) -> judging.Outcome:
        control = judging.controls_of(self.task, actions, params)
        return self._judge(before, shown, control, params)

    def judge_tensors(
        self, latent: Latent, before: Any, after: Any, actions: Tensor, params: Any
    ) -> tuple[Tensor, Tensor]:
        return judging.judge_tensors(self.task, before, after, actions, params)

    def read(self, observations: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return read_states(self.task, observations)

    def observe(self, shown: np.ndarray, params: np.ndarray) -> Any:
        if self._judge.inside(shown):
            return self.task.observe_rows(shown, params, inside=True)
        return self.task.observe_rows(shown, params)

    def facts(self, shown: np.ndarray, params: Any) -> dict[str, Any]:
        energy = self._judge.energy(shown)
        if energy is None:
            with np.errstate(all="ignore"):
                energy = np.array(self.task.system.energy(tuple(shown.T), params))
        return {"state": shown.copy(), "energy": energy}

    def portrait(
        self, shown: np.ndarray, action: np.ndarray | None, params: Any, caption: str
    ) -> np.ndarray:
        control = None
        if action is not None:
            row = type(params)(*(np.array([value]) for value in params))
            control = tuple(float(u[0]) for u in judging.controls_of(self.task, action[None], row))
        return self.task.portrait(tuple(shown.tolist()), control, params, RENDER_SIZE, caption)
