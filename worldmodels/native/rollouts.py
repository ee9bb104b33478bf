"""`NativeRollout`: rollouts of a structure over vectors as machine code, with gradients.

A step by torch is hundreds of calls, each of which goes over memory once; forward and backward here go over blocks of
rows that stay in the cache, and what backward needs is kept without a graph. Matrix products take the same
time in both, so that this is what is left of a step.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from physgym.compile.cache import once
from physgym.compile.native import available, engine_of, function_of
from worldmodels.interface import Dynamics, Latent
from worldmodels.native.graph import Graph, Product, graph_of, read_by
from worldmodels.native.libm import add_symbols
from worldmodels.native.matrices import PADDING, TILE, padded
from worldmodels.native.programs import Program, Slot, pitch, program_of
from worldmodels.native.recording import (
    NotRecordable,
    Number,
    Recorded,
    Recording,
    Ref,
    record,
)

ROWS = 64
"""Rows of a block: what a step makes of them fits the second cache."""
FEW = 3
"""Rows and steps that machine code is tried on."""
TOLERANCE = 1e-3
"""Difference from torch's gradients, over their size (or 1), that is put down to rounding."""


class NativeRollout:
    """Rollouts of ``dynamics`` in steps of ``dt`` (units of the latent's own time).

    Made for latents and actions like those given, of one row or more. Gradients reach the start, its memory and
    the parameters; they agree with torch's to rounding.

    Raises:
        NotRecordable: the structure does what cannot be written down, or not be differentiated here.
    """

    def __init__(self, dynamics: Dynamics, latent: Latent, action: Tensor, dt: float) -> None:
        self._depth = len(latent.memory)
        self._recorded = recorded = _recorded(dynamics, latent, action, dt)
        self.dtype = latent.z.dtype
        fixed = _fixed(recorded)
        learned = frozenset(index for index, leaf in fixed.items() if leaf.requires_grad)
        followed = frozenset((0, *range(2, 2 + self._depth)))
        self._compiled = _compiled(recorded.recording, learned, followed, self.dtype)
        self._numbers = torch.tensor(recorded.numbers or [0.0], dtype=self.dtype)
        self._spare: list[Tensor] = []

    def __call__(self, latent: Latent, actions: Tensor) -> Tensor:
        """States (B, T+1, F) from ``latent`` on under ``actions`` (B, T) or (B, T, A)."""
        leaves = _fixed(self._recorded)
        order = [index for index in self._compiled.leaves if index in leaves]
        given = [leaves[index] for index in order]
        kept = torch.is_grad_enabled()
        states: Any = _Rollout.apply(
            self, kept, order, actions, latent.condition, latent.z, *latent.memory, *given
        )
        return states

    def buffer(self, size: int) -> Tensor:
        """Room for ``size`` numbers, that of an earlier rollout if there is one."""
        if self._spare and self._spare[-1].numel() >= size:
            return self._spare.pop()
        self._spare.clear()
        return torch.empty(size, dtype=self.dtype)

    def give_back(self, room: Tensor) -> None:
        """Keep ``room`` for the next rollout."""
        self._spare.append(room)


class _Compiled:
    """Machine code of a graph, and where its tensors lie."""

    def __init__(self, graph: Graph, real: torch.dtype) -> None:
        self.graph, self.real = graph, real
        self.program: Program = program_of(graph, real)
        add_symbols()
        engine = engine_of(self.program.assembly)
        self.forward = function_of(engine, "forward")
        self.backward = function_of(engine, "backward")
        used = {ref.storage for node in graph.nodes for ref in read_by(node)}
        self.leaves = sorted(index for index in used if graph.storages[index].fixed)
        self.size = torch.empty((), dtype=real).element_size()
        self.kept, at = dict[int, int](), 0
        for index in sorted(self.program.kept):
            self.kept[index] = at
            at += ROWS * pitch(graph, index)
        self.kept_size = at
        self.scratch, self.scratch_size = self._scratch()
        self.learned, self.learned_size = self._learned()
        self.places = {slot: place for place, slot in enumerate(self.program.slots)}
        products = [node for node in graph.nodes if isinstance(node, Product)]
        self.matrices = {node.right for node in products}
        self.rows = {node.start for node in products if node.start is not None}
        self.widest = max([PADDING, *(padded(node.result.shape[1]) for node in products)])
        self.widest = max([self.widest, *(padded(node.left.shape[1]) for node in products)])

    def _scratch(self) -> tuple[dict[Slot, int], int]:
        """Places of what lives within a step: those of others that are not needed at the same time."""
        places: dict[Slot, int] = {}
        free: dict[int, list[tuple[int, int]]] = {}
        top = 0
        spans = sorted(self.program.spans.items(), key=lambda item: item[1])
        for slot, (first, last) in spans:
            if not self._within_a_step(slot):
                continue
            size = ROWS * pitch(self.graph, slot.key)
            ended = [k for k, (_, until) in enumerate(free.get(size, ())) if until < first]
            if ended:
                place, _ = free[size].pop(ended[0])
            else:
                place, top = top, top + size
            places[slot] = place
            free.setdefault(size, []).append((place, last))
        return places, top

    def _within_a_step(self, slot: Slot) -> bool:
        if slot.kind not in ("value", "gradient"):
            return False
        own = self.graph.storages[slot.key]
        if own.kind != "own" or own.fixed or slot.key in self.graph.outputs:
            return False
        return slot.kind == "gradient" or slot.key not in self.program.kept

    def _learned(self) -> tuple[dict[Slot, int], int]:
        """Places of the gradients of what is the same for all rows."""
        places, at = {}, 0
        for slot in self.program.slots:
            if slot.kind == "matrix gradient":
                size = slot.key.shape[0] * padded(slot.key.shape[1])
            elif slot.kind == "gradient" and self.graph.storages[slot.key].fixed:
                size = padded(self.graph.storages[slot.key].size)
            else:
                continue
            places[slot] = at
            at += size
        return places, at


class _Run:
    """One rollout: the tensors of all steps and rows, and where each slot of a block of rows lies in them."""

    def __init__(
        self,
        owner: NativeRollout,
        order: Sequence[int],
        actions: Tensor,
        condition: Tensor | None,
        start: Sequence[Tensor],
        leaves: Sequence[Tensor],
        kept: bool,
    ) -> None:
        self.owner, self.code = owner, owner._compiled
        self.order, self.leaves, self.keeps = order, leaves, kept
        self.count, self.steps = actions.shape[:2]
        self.padded = -(-self.count // TILE) * TILE
        real = self.code.real
        self.moving = [self._moving(x, real) for x in start]
        flat = actions.transpose(0, 1).reshape(self.steps, self.count, -1)
        if actions.dtype is torch.int64:
            self.actions = self._rows(flat, flat.shape[2], actions.dtype)
        else:
            self.actions = self._rows(flat, padded(flat.shape[2]), real)
        self.condition = None
        if condition is not None:
            self.condition = self._rows(
                condition.detach().unsqueeze(0), padded(condition.shape[1]), real
            )
        self.matrices = self._matrices()
        blocks = -(-self.padded // ROWS)
        size = blocks * (self.steps if kept else 1) * self.code.kept_size
        self.tape = owner.buffer(max(1, size))
        self.upon: list[Tensor] = []

    def _moving(self, first: Tensor, real: torch.dtype) -> Tensor:
        """(T+1, B', pitch): what goes from step to step, the start in its place."""
        whole = torch.empty((self.steps + 1, self.padded, padded(first.shape[1])), dtype=real)
        whole[0] = self._rows(first.detach().unsqueeze(0), whole.shape[2], real)[0]
        return whole

    def _rows(self, values: Tensor, wide: int, dtype: torch.dtype) -> Tensor:
        """(T, B, N) as (T, B', wide): the last row again where there are too few."""
        room = torch.zeros((len(values), self.padded, wide), dtype=dtype)
        room[:, : self.count, : values.shape[2]] = values
        if self.padded > self.count:
            room[:, self.count :] = room[:, self.count - 1 : self.count]
        return room

    def _matrices(self) -> dict[Slot, Tensor]:
        leaves = dict(zip(self.order, self.leaves, strict=True))
        made: dict[Slot, Tensor] = {}
        for ref in self.code.matrices:
            own = _view(leaves[ref.storage].detach(), ref)
            made[Slot("matrix", ref)] = _wide(own)
            made[Slot("turned", ref)] = _wide(own.T)
        for ref in self.code.rows:
            own = _view(leaves[ref.storage].detach(), ref).reshape(1, -1)
            made[Slot("row", ref)] = _wide(own)
        made[Slot("zeros", None)] = torch.zeros(self.code.widest, dtype=self.code.real)
        return made

    def advance(self) -> None:
        """All steps of all rows."""
        self._each(self.code.forward, [None] * len(self._pieces()))

    def go_back(self, upon: Sequence[Tensor]) -> Tensor:
        """Gradients of what is the same for all rows, laid out as ``_Compiled.learned`` says."""
        self.upon = list(upon)
        pieces = self._pieces()
        rooms = [torch.zeros(self.code.learned_size, dtype=self.code.real) for _ in pieces]
        self._each(self.code.backward, rooms)
        return rooms[0] if len(rooms) == 1 else torch.stack(rooms).sum(0)

    def _pieces(self) -> list[list[int]]:
        """The blocks of each thread."""
        blocks = list(range(0, self.padded, ROWS))
        count = max(1, min(torch.get_num_threads(), len(blocks)))
        return [blocks[k::count] for k in range(count)]

    def _each(self, function: Callable[..., None], rooms: Sequence[Tensor | None]) -> None:
        pieces = self._pieces()
        if len(pieces) == 1:
            self._through(function, pieces[0], rooms[0])
            return
        pool = _pool(os.getpid(), len(pieces))
        jobs = [
            pool.submit(self._through, function, piece, room)
            for piece, room in zip(pieces, rooms, strict=True)
        ]
        for job in jobs:
            job.result()

    def _through(
        self, function: Callable[..., None], blocks: Sequence[int], room: Tensor | None
    ) -> None:
        """``function`` of some blocks, one after another."""
        scratch = torch.zeros(max(1, self.code.scratch_size), dtype=self.code.real)
        bases, strides = self._table(scratch, room)
        shared = bases.copy()
        pace = self._pace()
        for first in blocks:
            bases[:] = shared + first * pace
            rows = min(ROWS, self.padded - first)
            function(
                ctypes.c_int64(rows),
                ctypes.c_int64(self.steps),
                ctypes.c_void_p(bases.ctypes.data),
                ctypes.c_void_p(strides.ctypes.data),
            )

    def _table(self, scratch: Tensor, room: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Where each slot of the first row lies, and bytes from step to step."""
        slots = self.code.program.slots
        bases, strides = np.zeros(len(slots), np.int64), np.zeros(len(slots), np.int64)
        for place, slot in enumerate(slots):
            bases[place], strides[place] = self._at(slot, scratch, room)
        return bases, strides

    def _pace(self) -> np.ndarray:
        """Bytes from row to row of each slot, of those that all blocks share in one tensor."""
        code, paces = self.code, []
        for slot in code.program.slots:
            pace = 0
            if slot.kind in ("value", "gradient"):
                own = code.graph.storages[slot.key]
                if own.kind == "input" or slot.key in code.graph.outputs:
                    size = 8 if own.dtype is torch.int64 else code.size
                    pace = pitch(code.graph, slot.key) * size
                elif slot.kind == "value" and slot.key in code.kept:
                    span = self.steps if self.keeps else 1
                    pace = span * code.kept_size * code.size // ROWS
            paces.append(pace)
        return np.array(paces, np.int64)

    def _at(self, slot: Slot, scratch: Tensor, room: Tensor | None) -> tuple[int, int]:
        code = self.code
        if slot in self.matrices:
            return self.matrices[slot].data_ptr(), 0
        if slot.kind == "number":
            return self.owner._numbers.data_ptr() + slot.key * code.size, 0
        if slot in code.scratch:
            return scratch.data_ptr() + code.scratch[slot] * code.size, 0
        if slot in code.learned:
            return (0 if room is None else room.data_ptr() + code.learned[slot] * code.size), 0
        if slot.kind == "value" and slot.key in code.kept:
            stride = code.kept_size * code.size if self.keeps else 0
            return self.tape.data_ptr() + code.kept[slot.key] * code.size, stride
        if slot.kind == "value" and code.graph.storages[slot.key].fixed:
            leaf = self.leaves[self.order.index(slot.key)]
            return leaf.untyped_storage().data_ptr(), 0
        return self._carried(slot)

    def _carried(self, slot: Slot) -> tuple[int, int]:
        """Inputs and outputs of each step, and their gradients."""
        graph = self.code.graph
        own = self.moving if slot.kind == "value" else self.upon
        if slot.kind == "gradient" and not own:
            return 0, 0
        if slot.key in graph.outputs:
            tensor = own[graph.outputs.index(slot.key)]
            step = tensor.stride(0) * tensor.element_size()
            return tensor.data_ptr() + step, step
        place = graph.storages[slot.key].place
        if place == 1:
            tensor = self.actions
        elif place >= 2 + len(self.moving) - 1:
            if self.condition is None:
                raise ValueError("a step that is told parameters needs them")
            return self.condition.data_ptr(), 0
        else:
            tensor = own[0 if place == 0 else place - 1]
        return tensor.data_ptr(), tensor.stride(0) * tensor.element_size()

    def gradients(self, learned: Tensor) -> list[Tensor | None]:
        """Gradient of each leaf."""
        code, made = self.code, []
        for index, leaf in zip(self.order, self.leaves, strict=True):
            size = code.graph.storages[index].size
            total = torch.zeros(size, dtype=code.real)
            found = False
            for slot, at in code.learned.items():
                if slot.kind == "gradient" and slot.key == index:
                    total += learned[at : at + size]
                    found = True
                elif slot.kind == "matrix gradient" and slot.key.storage == index:
                    rows, columns = slot.key.shape
                    wide = padded(columns)
                    part = learned[at : at + rows * wide].view(rows, wide)[:, :columns]
                    _place(total, slot.key).add_(part)
                    found = True
            made.append(
                total.as_strided(leaf.shape, leaf.stride(), leaf.storage_offset())
                if found
                else None
            )
        return made


class _Rollout(torch.autograd.Function):
    """`NativeRollout` as a function that gradients go through."""

    @staticmethod
    def forward(
        ctx: Any,
        owner: NativeRollout,
        kept: bool,
        order: Sequence[int],
        actions: Tensor,
        condition: Tensor | None,
        *rest: Tensor,
    ) -> Tensor:
        split = owner._depth + 1
        start, leaves = rest[:split], rest[split:]
        kept = kept and any(ctx.needs_input_grad)
        run = _Run(owner, order, actions, condition, start, leaves, kept)
        run.advance()
        if kept:
            ctx.run, ctx.sizes = run, [x.shape[1] for x in start]
            ctx.save_for_backward(*leaves)
        else:
            owner.give_back(run.tape)
        return run.moving[0][:, : run.count, : start[0].shape[1]].transpose(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upon: Tensor) -> Any:
        run: _Run = ctx.run
        if run is None:
            raise RuntimeError("a rollout's gradient can be taken once: roll out again")
        _ = ctx.saved_tensors  # refuses leaves that were changed since
        ctx.run = None
        given = [torch.zeros_like(x) for x in run.moving]
        given[0][:, : run.count, : upon.shape[2]] = upon.transpose(0, 1)
        learned = run.go_back(given)
        owner: NativeRollout = run.owner
        owner.give_back(run.tape)
        first = [g[0, : run.count, :size] for g, size in zip(given, ctx.sizes, strict=True)]
        return (None, None, None, None, None, *first, *run.gradients(learned))


def rolled_out(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> Tensor | None:
    """States (B, T+1, F) from ``latent`` on under ``actions`` (B, T) or (B, T, A), in steps of ``dt``.

    Compiled at the first call for latents, actions and steps of this kind. None where there is no machine code: no
    llvmlite (or PHYSGYM_NATIVE=0), not vectors on the CPU, half precision, gradients of actions or conditions
    wanted, a structure that does not say it is ``recordable``, or an operation that has no rule.
    """
    weights = (*dynamics.parameters(), *dynamics.buffers())
    if not _possible(dynamics, weights, latent, actions):
        return None
    key = (
        tuple(weight.requires_grad for weight in weights),
        (latent.z.shape[1], latent.z.dtype, latent.condition is None, len(latent.memory)),
        (actions.dtype, actions.shape[2:], dt),
    )
    plans = _plans.setdefault(dynamics, {})
    known = plans.get(key)
    if known is None or any(a is not b for a, b in zip(known[0], weights, strict=True)):
        known = plans[key] = weights, _agreed(dynamics, latent, actions, dt)
    return None if known[1] is None else known[1](latent, actions)


_plans: WeakKeyDictionary[Dynamics, dict[Any, tuple[Any, NativeRollout | None]]] = (
    WeakKeyDictionary()
)


def _possible(
    dynamics: Dynamics, weights: Sequence[Tensor], latent: Latent, actions: Tensor
) -> bool:
    given = [actions] if latent.condition is None else [actions, latent.condition]
    tensors = [*weights, latent.z, *latent.memory, *given]
    return (
        available()
        and all(type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" for x in tensors)
        and all(x.dtype is latent.z.dtype for x in tensors if x.is_floating_point())
        and not any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))
        and latent.z.ndim == 2
        and not any(x.requires_grad for x in given)
        and "step" not in vars(dynamics)
        and bool(vars(type(dynamics)).get("recordable", False))
    )


def _agreed(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> NativeRollout | None:
    """Machine code whose gradients have been seen to be torch's, on the first rows and steps given.

    A structure that hides something from gradients (``torch.no_grad``, a function with a gradient of its own)
    records what it computes, and not that.
    """
    with torch.inference_mode(False), torch.enable_grad():  # whoever calls: gradients are tried
        z, *memory = (x[:FEW].detach().clone() for x in (latent.z, *latent.memory))
        told = None if latent.condition is None else latent.condition[:FEW].clone()
        first = Latent(z.requires_grad_(), tuple(memory), told)
        actions = actions[:FEW, :FEW].clone()
        try:
            native = NativeRollout(dynamics, first, actions[:, 0], dt)
        except NotRecordable:
            return None
        wanted = [z, *(weight for weight in dynamics.parameters() if weight.requires_grad)]
        found = []
        for states in (native(first, actions), _by_torch(dynamics, first, actions, dt)):
            weight = torch.linspace(0.5, 1.5, states.numel(), dtype=states.dtype)
            total = (states * weight.view_as(states)).sum()
            gradients = torch.autograd.grad(total, wanted, allow_unused=True)
            found.append([states.detach(), *(x for x in gradients if x is not None)])
    same = len(found[0]) == len(found[1]) and all(
        bool((a - b).norm() <= TOLERANCE * (1.0 + b.norm())) or not bool(b.isfinite().all())
        for a, b in zip(*found, strict=True)
    )
    if not same:
        warnings.warn(
            f"the gradients of {type(dynamics).__name__}.step are not those of its operations, as "
            "recordable = True promises (torch.no_grad inside it?): it is trained by torch",
            RuntimeWarning,
            stacklevel=2,
        )
    return native if same else None


def _by_torch(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> Tensor:
    states = [latent.z]
    for t in range(actions.shape[1]):
        latent = dynamics.step(latent, actions[:, t], dt)
        states.append(latent.z)
    return torch.stack(states, 1)


def _recorded(dynamics: Dynamics, latent: Latent, action: Tensor, dt: float) -> Recorded:
    """One step from the first row, written down."""
    given = [latent.z, action, *latent.memory]
    if latent.condition is not None:
        given.append(latent.condition)

    def step(z: Tensor, action: Tensor, *rest: Tensor) -> Sequence[Tensor]:
        memory = rest[: len(latent.memory)]
        told = None if latent.condition is None else rest[-1]
        after = dynamics.step(Latent(z, memory, told), action, dt)
        return after.z, *after.memory

    with torch.inference_mode(False):
        inputs = [x[:1].detach().clone() for x in given]
        weights = [*dynamics.parameters(), *dynamics.buffers()]
        addresses = [x.untyped_storage().data_ptr() for x in weights]
        if len(set(addresses)) != len(addresses):
            raise NotRecordable("two parameters share their memory")
        return record(step, weights, inputs, gradients=True)


def _fixed(recorded: Recorded) -> dict[int, Tensor]:
    """What is the same for all rows, by storage: weights, and what torch makes of them, with its gradients."""
    storages = recorded.recording.storages
    known = {
        index: recorded.weights[own.place]
        for index, own in enumerate(storages)
        if own.kind == "weight"
    }

    def given(value: Any) -> Any:
        if isinstance(value, Ref):
            return _view(known[value.storage], value)
        if isinstance(value, Number):
            return recorded.numbers[value.place]
        return [given(x) for x in value] if isinstance(value, (list, tuple)) else value

    pairs = zip(recorded.recording.operations, recorded.functions, strict=True)
    for operation, function in pairs:
        place = operation.result.storage
        if storages[place].fixed:
            named = {name: given(value) for name, value in operation.named}
            known[place] = function(*map(given, operation.arguments), **named)
    return known


def _view(base: Tensor, ref: Ref) -> Tensor:
    return base.as_strided(ref.shape, ref.stride, ref.offset)


def _place(flat: Tensor, ref: Ref) -> Tensor:
    if any(step == 0 and size > 1 for size, step in zip(ref.shape, ref.stride, strict=True)):
        raise NotRecordable("a matrix whose rows are one row")
    return flat.as_strided(ref.shape, ref.stride, ref.offset)


def _wide(matrix: Tensor) -> Tensor:
    room = matrix.new_zeros((matrix.shape[0], padded(matrix.shape[1])))
    room[:, : matrix.shape[1]] = matrix
    return room


@once
def _compiled(
    recording: Recording, learned: frozenset[int], followed: frozenset[int], real: torch.dtype
) -> _Compiled:
    """The machine code of ``recording``."""
    return _Compiled(graph_of(recording, learned, followed), real)


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="worldmodels")
