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


class Served:
    """N rows of a learned env of states.

    Args:
        native: the model's step.
        latent: of N rows; its memory and condition tell the sizes.
        task: of PhysGym, with a program, and a reward of a kind that it knows.
        limit: (D,) largest magnitudes that are no divergence.

    Attributes:
        turns: two latents; a step reads one and writes the other, so that each holds good until the next but one step.
        action: (N,) int64 or (N, A) of the model's type, to be written before a step, as are
        control: (U, N), and
        constants: (C, N).
        states: (N, D) the last that could be trusted.
        out: (K, N) of a step: see ``Serving.size``.
        observed: (N, F) float32, unclipped.
        asks: whether the machine code itself finds out that weights have moved.
    """

    def __init__(self, native: NativeStep, latent: Latent, task: Any, limit: np.ndarray) -> None:
        made = serving(task.program, task.obs_mode == "embedded", native.dtype)
        count, size = len(latent.z), task.system.state_size
        self._native, self._code, self._function = native, native.code, made.function
        self._limit = np.ascontiguousarray(limit, np.float64)
        self.states = np.zeros((size, count)).T
        self.out = np.zeros((made.size, count))
        self.observed = np.zeros((count, made.features), np.float32)
        self.control = np.zeros((len(task.program.control), count))
        self.constants = np.zeros((max(1, len(task.program.constants)), count))
        self._make_tensors(latent, task)
        self.asks = data_pointer() is not None
        self._handles = handles(self._code.weights)
        self._known = table_of(self._code.weights)
        self._layouts = self._layout()

    def _make_tensors(self, latent: Latent, task: Any) -> None:
        count, dtype = len(latent.z), self._native.dtype
        with torch.inference_mode(False), torch.no_grad():
            first = _copied(latent)
            second = _copied(latent)._replace(condition=first.condition)
            wide = () if task.discrete else (task.system.action_size,)
            kind = torch.int64 if task.discrete else dtype
            self._action = torch.zeros((count, *wide), dtype=kind)
            made = [torch.zeros((count, *shape), dtype=dtype) for shape in self._code.shapes]
        self.turns, self.action = (first, second), self._action.numpy()
        self._made = self._native.ordered(second, made)

    def bound(
        self, turn: int, action: Tensor | None = None, control: np.ndarray | None = None
    ) -> Callable[[], int]:
        """A function that steps from ``turns[turn]`` to the other under ``action`` and ``control``, by default those of
        these rooms. It gives 1 where weights have moved, and has then done nothing: see ``found_again``.
        """
        action = self._action if action is None else action
        control = self.control if control is None else control
        before, after = self.turns[turn], self.turns[1 - turn]
        shown, doubt = self._made.shown, self._made.doubt
        inputs = table_of(given_of(before, action))
        outputs = table_of([after.z, shown, *([] if doubt is None else [doubt]), *after.memory])
        arrays = {name: getattr(self, name) for name in ("constants", "states", "out", "observed")}
        arrays |= {"limit": self._limit, "control": control}
        values = {
            "rows": len(before.z),
            "asked": len(self._known) if self.asks else 0,
            "tensors": ctypes.addressof(self._handles),
            "weights": ctypes.addressof(self._known),
            "step": ctypes.cast(self._code.function, ctypes.c_void_p).value,
            "inputs": ctypes.addressof(inputs),
            "numbers": self._code.numbers.data_ptr(),
            "outputs": ctypes.addressof(outputs),
            "shown": shown.data_ptr(),
            "doubt": 0 if doubt is None else doubt.data_ptr(),
            "stride": len(before.z),
            "pace": 1,
            **{name: array.ctypes.data for name, array in arrays.items()},
        }
        slots = (ctypes.c_int64 * len(SLOTS))(*(values[name] for name in SLOTS))
        call: Any = partial(self._function, ctypes.c_void_p(ctypes.addressof(slots)))
        call.read = self, slots, inputs, outputs, action, arrays  # alive as long as their addresses
        return call

    def adopt(self, latent: Latent, shown: np.ndarray) -> None:
        """Go on from ``latent`` and the states (N, D) that it shows: they are then in ``turns[0]`` and ``states``."""
        with torch.inference_mode():
            for own, given in zip(_tensors(self.turns[0]), _tensors(latent), strict=True):
                own.copy_(given)
        self.states[:] = shown

    def stands(self) -> bool:
        """Whether no weight has moved, as far as the function itself cannot tell."""
        return self.asks or addresses(self._code.weights) == list(self._known)

    def found_again(self) -> bool:
        """Look where the weights lie now; False where they are not what was compiled any more."""
        if self._layout() != self._layouts:
            return False
        self._known[:] = addresses(self._code.weights)
        return True

    def _layout(self) -> list[Any]:
        return [(x.dtype, x.device, x.shape, x.stride()) for x in self._code.weights]


def _copied(latent: Latent) -> Latent:
    told = None if latent.condition is None else latent.condition.clone()
    return Latent(latent.z.clone(), tuple(x.clone() for x in latent.memory), told)


def _tensors(latent: Latent) -> Sequence[Tensor]:
    return [latent.z, *latent.memory, *([] if latent.condition is None else [latent.condition])]
