"""`Served`: a model's step and the true env's verdict on it, by one call, in rooms that are made once.

A step of few rows is some microseconds of arithmetic: arrays, tensors and tables of addresses made for each step cost
several times that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.envs.native_steps import NativeStep, given_of
from worldmodels.interface import Latent
from worldmodels.native.places import addresses, data_pointer, handles, table_of
from worldmodels.native.serving import SLOTS, serving


class Judged:
    """Rooms for the true env's verdict on N rows of states that a model predicts.

    Args:
        task: of PhysGym, with a program, and a reward of a kind that it knows.
        count: N.
        dtype: floating type of the model.
        limit: (D,) largest magnitudes that are no divergence.

    Attributes:
        control: (U, N), to be written before a step, as are
        constants: (C, N).
        states: (N, D) the last that could be trusted.
        out: (K, N) of a step: see ``Serving.size``.
        observed: (N, F) float32, unclipped.
    """

    def __init__(self, task: Any, count: int, dtype: torch.dtype, limit: np.ndarray) -> None:
        made = serving(task.program, task.obs_mode == "embedded", dtype)
        self.count, self._function = count, made.function
        self._limit = np.ascontiguousarray(limit, np.float64)
        self.states = np.zeros((task.system.state_size, count)).T
        self.out = np.zeros((made.size, count))
        self.observed = np.zeros((count, made.features), np.float32)
        self.control = np.zeros((len(task.program.control), count))
        self.constants = np.zeros((max(1, len(task.program.constants)), count))

    def judge(self, shown: Tensor, doubt: Tensor | None) -> None:
        """Judge what rows show (N, D), and how far members disagree (N,), by one call."""
        self._call(shown, doubt, self.control, {})()

    def _call(
        self, shown: Tensor, doubt: Tensor | None, control: np.ndarray, own: dict[str, Any]
    ) -> Callable[[], int]:
        """The machine code on a table of these places, with those of ``own`` in it."""
        arrays = {name: getattr(self, name) for name in ("constants", "states", "out", "observed")}
        arrays |= {"limit": self._limit, "control": control}
        values = {
            "rows": self.count,
            "stride": self.count,
            "pace": 1,
            "shown": shown.data_ptr(),
            "doubt": 0 if doubt is None else doubt.data_ptr(),
            **{name: array.ctypes.data for name, array in arrays.items()},
            **own,
        }
        slots = (ctypes.c_int64 * len(SLOTS))(*(values.get(name, 0) for name in SLOTS))
        call: Any = partial(self._function, ctypes.c_void_p(ctypes.addressof(slots)))
        call.read = self, slots, arrays, shown, doubt  # alive as long as their addresses
        return call


class Served(Judged):
    """N rows of a learned env of states, each step from one of two latents to the other.

    Args:
        native: the model's step.
        latent: of N rows; its memory and condition tell the sizes.
        task: see ``Judged``, as is
        limit.

    Attributes:
        turns: two latents; a step reads one and writes the other, so that each holds good until the next but one step.
        action: (N,) int64 or (N, A) of the model's type, to be written before a step.
        asks: whether the machine code itself finds out that weights have moved.
    """

    def __init__(self, native: NativeStep, latent: Latent, task: Any, limit: np.ndarray) -> None:
        super().__init__(task, len(latent.z), native.dtype, limit)
        self._native, self._code = native, native.code
        self._make_tensors(latent, task)
        self.asks = data_pointer() is not None
        self._handles = handles(self._code.weights)
        self._known = table_of(self._code.weights)
        self._layouts = self._layout()

    def _make_tensors(self, latent: Latent, task: Any) -> None:
        dtype = self._native.dtype
        with torch.inference_mode(False), torch.no_grad():
            first = _copied(latent)
            second = _copied(latent)._replace(condition=first.condition)
            wide = () if task.discrete else (task.system.action_size,)
            kind = torch.int64 if task.discrete else dtype
            self._action = torch.zeros((self.count, *wide), dtype=kind)
            made = [torch.zeros((self.count, *shape), dtype=dtype) for shape in self._code.shapes]
        self.turns, self.action = (first, second), self._action.numpy()
        self._made = self._native.ordered(second, made)

    def bound(
        self, turn: int, action: Tensor | None = None, control: np.ndarray | None = None
    ) -> Callable[[], int]:
        """A function that steps from ``turns[turn]`` to the other under ``action`` and ``control``, by default those of
        these rooms. It gives 1 where weights have moved, and has then done nothing: see ``taken``.
        """
        action = self._action if action is None else action
        control = self.control if control is None else control
        before, after = self.turns[turn], self.turns[1 - turn]
        shown, doubt = self._made.shown, self._made.doubt
        inputs = table_of(given_of(before, action))
        outputs = table_of([after.z, shown, *([] if doubt is None else [doubt]), *after.memory])
        own = {
            "asked": len(self._known) if self.asks else 0,
            "tensors": ctypes.addressof(self._handles),
            "weights": ctypes.addressof(self._known),
            "step": ctypes.cast(self._code.function, ctypes.c_void_p).value,
            "inputs": ctypes.addressof(inputs),
            "numbers": self._code.numbers.data_ptr(),
            "outputs": ctypes.addressof(outputs),
        }
        call: Any = self._call(shown, doubt, control, own)
        call.given = inputs, outputs, action
        return call

    def taken(self, call: Callable[[], int]) -> bool:
        """Do the step that ``bound`` gave; False where the model is not what was compiled any more."""
        if self._stand() and not call():
            return True
        return self._found_again() and not call()

    def _stand(self) -> bool:
        """Whether weights lie where they did, as far as the machine code cannot tell: it knows tensors by their place,
        which ``torch.utils.swap_tensors`` changes (of all, where it moves a model).
        """
        if self.asks:
            return bool(self._code.weights[0]._cdata == self._handles[0])
        return addresses(self._code.weights) == list(self._known)

    def adopt(self, latent: Latent, shown: np.ndarray) -> None:
        """Go on from ``latent`` and the states (N, D) that it shows: they are then in ``turns[0]`` and ``states``."""
        with torch.inference_mode():
            for own, given in zip(_tensors(self.turns[0]), _tensors(latent), strict=True):
                own.copy_(given)
        self.states[:] = shown

    def _found_again(self) -> bool:
        """Look where the weights lie now; False where they are not what was compiled any more."""
        if self._layout() != self._layouts:
            return False
        self._handles[:] = handles(self._code.weights)
        self._known[:] = addresses(self._code.weights)
        return True

    def _layout(self) -> list[Any]:
        return [(x.dtype, x.device, x.shape, x.stride()) for x in self._code.weights]


def _copied(latent: Latent) -> Latent:
    """A copy without gaps, as machine code reads it."""
    z, *rest = (x.clone(memory_format=torch.contiguous_format) for x in _tensors(latent))
    told = None if latent.condition is None else rest.pop()
    return Latent(z, tuple(rest), told)


def _tensors(latent: Latent) -> Sequence[Tensor]:
    return [latent.z, *latent.memory, *([] if latent.condition is None else [latent.condition])]
