"""One step of a model of states as machine code on the CPU: `NativeStep` for few rows, `NativeBlocks` for many.

A step of few rows spends its time in torch's calls, and one of many in going over memory once an operation. Here
`dynamics.step` of a model, `decode` and an ensemble's disagreement are recorded once, and compiled (code is shared by
models of one shape). Weights are read where the model keeps them: what training changes in place is seen at the next
step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from physgym.compile.cache import once
from physgym.compile.native import available, engine_of, function_of
from worldmodels.interface import Latent, WorldModel
from worldmodels.models.ensemble import EnsembleWorldModel, member_of
from worldmodels.models.states import StateWorldModel
from worldmodels.native.libm import add_symbols
from worldmodels.native.lowering import assembly
from worldmodels.native.places import Inventory, addresses
from worldmodels.native.recording import (
    NotRecordable,
    Recorded,
    Recording,
    first_row,
    record,
    record_step,
)
from worldmodels.native.standing import StandingStep

FEW_ROWS = 256
"""Rows up to which going over them one by one costs less than laying them out in blocks."""


class Stepped(NamedTuple):
    """What a step comes to."""

    latent: Latent
    shown: Tensor
    """(N, D): the states that ``latent`` decodes to."""
    doubt: Tensor | None
    """(N,): how far an ensemble's members disagree; None for a single model."""


class Code:
    """A recorded function of tensors (N, ...) as machine code, for any number of rows.

    Attributes:
        weights: what it reads beside its inputs.
        numbers: those that are handed to it.
        shapes: of a row of each result.
        function: of (rows, weights, inputs, numbers, outputs), all but the first tables of addresses.
    """

    def __init__(self, recorded: Recorded, real: torch.dtype) -> None:
        self.weights, self.dtype = recorded.weights, real
        self.shapes = [ref.shape[1:] for ref in recorded.recording.outputs]
        inputs = sum(storage.kind == "input" for storage in recorded.recording.storages)
        self.numbers = torch.tensor(recorded.numbers or [0.0], dtype=real)
        self.function = _compiled(recorded.recording, real)
        self._first = ctypes.c_void_p(self.numbers.data_ptr())
        sizes = len(self.weights), inputs, len(self.shapes)
        self._tables: list[Any] = [(ctypes.c_void_p * size)() for size in sizes]

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The results for inputs of as many rows as they have."""
        given = [tensor.contiguous() for tensor in given]
        made = [given[0].new_empty((len(given[0]), *shape)) for shape in self.shapes]
        for places, tensors in zip(self._tables, (self.weights, given, made), strict=True):
            places[:] = addresses(tensors)
        weights, inputs, outputs = self._tables
        self.function(ctypes.c_int64(len(given[0])), weights, inputs, self._first, outputs)
        return made


class NativeStep:
    """`model.step` by ``dt`` seconds and `model.decode` after it, as one function of machine code.

    Made by ``native_step``. Numbers agree with torch's to rounding (a few 1e-7 of float32), and do not depend on how
    many rows there are.
    """

    def __init__(self, model: WorldModel, latent: Latent, action: Tensor, dt: float) -> None:
        self.dtype = latent.z.dtype
        self.code = Code(_recorded(model, latent, action, dt), self.dtype)
        self.doubts = isinstance(model, EnsembleWorldModel)
        """Whether members can disagree."""
        self.inventory = Inventory(model)

    def fits(self, latent: Latent) -> bool:
        """Whether the model is still what was compiled: in the same floating type, on the CPU."""
        return _unmoved(self.code.weights[0], self.dtype, latent)

    def __call__(self, latent: Latent, action: Tensor) -> Stepped:
        """What comes of ``action`` (N,) or (N, A)."""
        return self.ordered(latent, self.code(given_of(latent, action)))

    def ordered(self, latent: Latent, made: Sequence[Tensor]) -> Stepped:
        """The results of ``code`` by name."""
        z, shown, *memory = made
        doubt = memory.pop(0) if self.doubts else None
        return Stepped(latent._replace(z=z, memory=tuple(memory)), shown, doubt)


def given_of(latent: Latent, action: Tensor) -> list[Tensor]:
    """What the machine code of a few rows reads, in its order."""
    told = [] if latent.condition is None else [latent.condition]
    return [latent.z, action, *latent.memory, *told]


def _tensors_of(model: WorldModel) -> list[Tensor]:
    """What the machine code of a model may read."""
    return [*model.parameters(), *model.buffers()]


def _unmoved(first: Tensor, dtype: torch.dtype, latent: Latent) -> bool:
    return first.dtype is dtype is latent.z.dtype and first.device.type == "cpu"


class NativeBlocks:
    """`model.step` by ``dt`` seconds of many rows by machine code that takes blocks of them, and `model.decode`.

    Made by ``native_step``, for as many rows as those given. Members of an ensemble go one after another.
    """

    def __init__(self, model: Any, latent: Latent, action: Tensor, dt: float) -> None:
        self._alone = isinstance(model, StateWorldModel)
        models = [model] if self._alone else list(model.models)
        steps = dt / models[0].seconds
        self.dtype = latent.z.dtype
        self._steps = [
            StandingStep(own.dynamics, self._of(latent, index), action, steps)
            for index, own in enumerate(models)
        ]
        self._decode = Code(_decoded(model, latent), self.dtype)
        self.inventory = Inventory(model)

    def _of(self, latent: Latent, index: int) -> Latent:
        return latent if self._alone else member_of(latent, index)

    def fits(self, latent: Latent) -> bool:
        """Whether the model is still what was compiled: in the same floating type, on the CPU."""
        return self._steps[0].fits(latent)

    def __call__(self, latent: Latent, action: Tensor) -> Stepped:
        """What comes of ``action`` (N,) or (N, A)."""
        made = [step(self._of(latent, k), action) for k, step in enumerate(self._steps)]
        if self._alone:
            return Stepped(made[0], self._decode([made[0].z])[0], None)
        memory = zip(*(own.memory for own in made), strict=True)
        z, shown, doubt = self._decode([own.z for own in made])
        after = latent._replace(z=z, memory=tuple(torch.stack(x, 1) for x in memory))
        return Stepped(after, shown, doubt)


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
    verbs = {"step", "decode", "disagreement", "members", "shown"}
    replaced = any(verbs & vars(part).keys() for part in (*parts, *structures))
    return not replaced and all(vars(type(own)).get("recordable", False) for own in structures)


def _recorded(model: Any, latent: Latent, action: Tensor, dt: float) -> Recorded:
    """One step of ``model`` from the first row, written down; members one by one, so that no weights are stacked."""
    alone = isinstance(model, StateWorldModel)
    models = [model] if alone else list(model.models)

    def advance(before: Latent, action: Tensor) -> Sequence[Tensor]:
        made = [
            own.dynamics.step(
                before if alone else member_of(before, index), action, dt / own.seconds
            )
            for index, own in enumerate(models)
        ]
        if alone:
            return made[0].z, model.decode(made[0]), *made[0].memory
        memory = zip(*(own.memory for own in made), strict=True)
        after = Latent(torch.stack([own.z for own in made], 1))
        told = model.decode(after), model.disagreement(after)
        return after.z, *told, *(torch.stack(x, 1) for x in memory)

    return record_step(advance, _tensors_of(model), latent, action)


def _decoded(model: Any, latent: Latent) -> Recorded:
    """From z of each member to what ``model`` shows, written down; of several also z together and the disagreement."""
    alone = isinstance(model, StateWorldModel)

    def decode(*members: Tensor) -> Sequence[Tensor]:
        if alone:
            return (model.decode(Latent(members[0])),)
        whole = Latent(torch.stack(members, 1))
        return whole.z, model.decode(whole), model.disagreement(whole)

    with torch.inference_mode(False):
        each = [latent.z] if alone else list(latent.z.unbind(1))
        return record(decode, _tensors_of(model), list(map(first_row, each)))


@once
def _compiled(recording: Recording, real: torch.dtype) -> Any:
    """The machine code of ``recording``."""
    add_symbols()
    return function_of(engine_of(assembly(recording, real)), "step")
