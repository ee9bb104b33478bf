"""One step of a model of states as machine code on the CPU: `NativeStep` for few rows, `NativeBlocks` for many.

A step of few rows spends its time in torch's calls, and one of many in going over memory once an operation. Here
`dynamics.step` of a model (of few rows `decode`, too) is recorded once, and compiled (code is shared by models of one
shape). Weights are read where the model keeps them: what training changes in place is seen at the next step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from physgym.compile.cache import once
from physgym.compile.native import available, engine_of, function_of
from worldmodels.interface import Latent, WorldModel
from worldmodels.models.ensemble import EnsembleWorldModel, member_of
from worldmodels.models.states import StateWorldModel
from worldmodels.native.libm import add_symbols
from worldmodels.native.lowering import assembly
from worldmodels.native.recording import NotRecordable, Recorded, Recording, record_step
from worldmodels.native.standing import StandingStep

FEW_ROWS = 256
"""Rows up to which going over them one by one costs less than laying them out in blocks."""


class NativeStep:
    """`model.step` by ``dt`` seconds and `model.decode` after it, as one function of machine code.

    Made by ``native_step``. Numbers agree with torch's to rounding (a few 1e-7 of float32), and do not depend on how
    many rows there are.
    """

    def __init__(self, model: WorldModel, latent: Latent, action: Tensor, dt: float) -> None:
        self._depth = len(latent.memory)
        self._recorded = _recorded(model, latent, action, dt)
        recording = self._recorded.recording
        self.dtype = latent.z.dtype
        self._step = _compiled(recording, self.dtype)
        self.shapes = [ref.shape[1:] for ref in recording.outputs]
        """Of what a row gives: z, what is shown, and the memory."""
        numbers = torch.tensor(self._recorded.numbers or [0.0], dtype=latent.z.dtype)
        self._numbers = numbers, ctypes.c_void_p(numbers.data_ptr())
        self._weights = _table(len(self._recorded.weights))
        self._inputs = _table(3 + self._depth)
        self._outputs = _table(len(self.shapes))
        self._tables = tuple(
            ctypes.cast(table, ctypes.c_void_p)
            for table in (self._weights, self._inputs, self._outputs)
        )

    def fits(self, latent: Latent) -> bool:
        """Whether the model is still what was compiled: in the same floating type, on the CPU."""
        first = self._recorded.weights[0]
        return first.dtype is self.dtype is latent.z.dtype and first.device.type == "cpu"

    def addresses(self) -> list[int]:
        """Where the weights lie."""
        return list(map(Tensor.data_ptr, self._recorded.weights))

    def bound(self, latent: Latent, action: Tensor, made: Sequence[Tensor]) -> Callable[[], Any]:
        """A function that steps whatever lies in these tensors, contiguous and of one row: ``action``, and the
        latent to the one in ``made`` (z, what is shown, memory). Weights are those that are there now.
        """
        given = _given(latent, action)
        tables = [_table(len(tensors)) for tensors in (self._recorded.weights, given, made)]
        for table, tensors in zip(tables, (self._recorded.weights, given, made), strict=True):
            table[:] = [tensor.data_ptr() for tensor in tensors]
        weights, inputs, outputs = (ctypes.cast(table, ctypes.c_void_p) for table in tables)
        return partial(self._step, ctypes.c_int64(1), weights, inputs, self._numbers[1], outputs)

    def __call__(self, latent: Latent, action: Tensor) -> tuple[Latent, Tensor]:
        """The latent after ``action`` (N,) or (N, A), and the states (N, D) that it decodes to."""
        given = [tensor.contiguous() for tensor in _given(latent, action)]
        count = len(latent.z)
        made = [latent.z.new_empty((count, *shape)) for shape in self.shapes]
        for place, tensor in enumerate(self._recorded.weights):
            self._weights[place] = tensor.data_ptr()
        for place, tensor in enumerate(given):
            self._inputs[place] = tensor.data_ptr()
        for place, tensor in enumerate(made):
            self._outputs[place] = tensor.data_ptr()
        weights, inputs, outputs = self._tables
        self._step(ctypes.c_int64(count), weights, inputs, self._numbers[1], outputs)
        z, shown, *memory = made
        return latent._replace(z=z, memory=tuple(memory)), shown


def _given(latent: Latent, action: Tensor) -> list[Tensor]:
    """What the machine code of a few rows reads, in its order."""
    told = [] if latent.condition is None else [latent.condition]
    return [latent.z, action, *latent.memory, *told]


class NativeBlocks:
    """`model.step` by ``dt`` seconds of many rows by machine code that takes blocks of them, and `model.decode`.

    Made by ``native_step``, for as many rows as those given. Members of an ensemble go one after another.
    """

    def __init__(self, model: Any, latent: Latent, action: Tensor, dt: float) -> None:
        self._model, self._alone = model, isinstance(model, StateWorldModel)
        models = [model] if self._alone else list(model.models)
        steps = dt / models[0].seconds
        self.dtype = latent.z.dtype
        self._steps = [
            StandingStep(own.dynamics, self._of(latent, index), action, steps)
            for index, own in enumerate(models)
        ]

    def _of(self, latent: Latent, index: int) -> Latent:
        return latent if self._alone else member_of(latent, index)

    def fits(self, latent: Latent) -> bool:
        """Whether the model is still what was compiled: in the same floating type, on the CPU."""
        return self._steps[0].fits(latent)

    def __call__(self, latent: Latent, action: Tensor) -> tuple[Latent, Tensor]:
        """The latent after ``action`` (N,) or (N, A), and the states (N, D) that it decodes to."""
        made = [step(self._of(latent, k), action) for k, step in enumerate(self._steps)]
        after = made[0]
        if not self._alone:
            memory = zip(*(own.memory for own in made), strict=True)
            whole = torch.stack([own.z for own in made], 1)
            after = latent._replace(z=whole, memory=tuple(torch.stack(x, 1) for x in memory))
        return after, self._model.decode(after)


def native_step(
    model: WorldModel, latent: Latent, action: Tensor, dt: float
) -> NativeStep | NativeBlocks | None:
    """Machine code for ``model``, for latents and actions like those given (of one row or more): of more than
    `FEW_ROWS` rows ``NativeBlocks``, for as many of them as are given; else ``NativeStep``, for any number.

    None where there is none: no llvmlite (or PHYSGYM_NATIVE=0), not on the CPU, half precision, not a model of
    states, a structure that does not say it is ``recordable``, an adaptive integrator, or another operation that has
    no rule.
    """
    if not (available() and latent.z.device.type == "cpu" and _plain(model)):
        return None
    kind = NativeBlocks if len(latent.z) > FEW_ROWS else NativeStep
    try:
        return kind(model, latent, action, dt)
    except NotRecordable:
        return None


def _plain(model: WorldModel) -> bool:
    """Whether ``model`` steps and decodes as its classes say, in a way that can be written down."""
    parts: list[Any] = [model]
    if type(model) is EnsembleWorldModel:
        parts += model.models
    elif type(model) is not StateWorldModel:
        return False
    structures = [part.dynamics for part in parts if isinstance(part, StateWorldModel)]
    replaced = any({"step", "decode"} & vars(part).keys() for part in (*parts, *structures))
    return not replaced and all(vars(type(own)).get("recordable", False) for own in structures)


def _recorded(model: Any, latent: Latent, action: Tensor, dt: float) -> Recorded:
    """One step of ``model`` from the first row, written down."""

    def advance(before: Latent, action: Tensor) -> Sequence[Tensor]:
        if isinstance(model, StateWorldModel):
            after = model.dynamics.step(before, action, dt / model.seconds)
        else:
            after = model.step(before, action, dt)
        return after.z, model.decode(after), *after.memory

    return record_step(advance, [*model.parameters(), *model.buffers()], latent, action)


@once
def _compiled(recording: Recording, real: torch.dtype) -> Any:
    """The machine code of ``recording``."""
    add_symbols()
    return function_of(engine_of(assembly(recording, real)), "step")


def _table(count: int) -> Any:
    return (ctypes.c_void_p * count)()
