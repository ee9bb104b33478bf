"""`NativeRollout`: rollouts of a structure over vectors as machine code, with gradients.

A step by torch is hundreds of calls, each of which goes over memory once; forward and backward here go over blocks of
rows that stay in the cache, and what backward needs is kept without a graph. Matrix products take the same
time in both, so that this is what is left of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldmodels.interface import Dynamics, Latent
from worldmodels.native.layout import layout_of
from worldmodels.native.recording import NotRecordable, Number, Recorded, Ref, record_step
from worldmodels.native.runs import Run, view


class NativeRollout:
    """Rollouts of ``dynamics`` in steps of ``dt`` (units of the latent's own time).

    Made for latents and actions like those given, of one row or more. Gradients reach the start, its memory and
    the parameters; they agree with torch's to rounding.

    Raises:
        NotRecordable: the structure does what cannot be written down, or not be differentiated here.
    """

    def __init__(self, dynamics: Dynamics, latent: Latent, action: Tensor, dt: float) -> None:
        self._depth = len(latent.memory)
        self._recorded = recorded = recorded_step(dynamics, latent, action, dt)
        self.dtype = latent.z.dtype
        fixed = fixed_of(recorded)
        learned = frozenset(index for index, leaf in fixed.items() if leaf.requires_grad)
        followed = frozenset((0, *range(2, 2 + self._depth)))
        self._compiled = layout_of(recorded.recording, learned, followed, self.dtype)
        self._numbers = torch.tensor(recorded.numbers or [0.0], dtype=self.dtype)
        self._spare: list[Tensor] = []

    def __call__(self, latent: Latent, actions: Tensor) -> Tensor:
        """States (B, T+1, F) from ``latent`` on under ``actions`` (B, T) or (B, T, A)."""
        leaves = fixed_of(self._recorded)
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
        code, numbers = owner._compiled, owner._numbers
        run = Run(code, numbers, owner.buffer, order, actions, condition, start, leaves, kept)
        run.advance()
        if kept:
            ctx.owner, ctx.run, ctx.sizes = owner, run, [x.shape[1] for x in start]
            ctx.save_for_backward(*leaves)
        else:
            owner.give_back(run.tape)
        return run.moving[0][:, : run.count, : start[0].shape[1]].transpose(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upon: Tensor) -> Any:
        run: Run = ctx.run
        if run is None:
            raise RuntimeError("a rollout's gradient can be taken once: roll out again")
        _ = ctx.saved_tensors  # refuses leaves that were changed since
        ctx.run = None
        given = [torch.zeros_like(x) for x in run.moving]
        given[0][:, : run.count, : upon.shape[2]] = upon.transpose(0, 1)
        learned = run.go_back(given)
        ctx.owner.give_back(run.tape)
        first = [g[0, : run.count, :size] for g, size in zip(given, ctx.sizes, strict=True)]
        return (None, None, None, None, None, *first, *run.gradients(learned))


def recorded_step(dynamics: Dynamics, latent: Latent, action: Tensor, dt: float) -> Recorded:
    """One step from the first row, written down."""
    weights = [*dynamics.parameters(), *dynamics.buffers()]
    addresses = [x.untyped_storage().data_ptr() for x in weights]
    if len(set(addresses)) != len(addresses):
        raise NotRecordable("two parameters share their memory")

    def advance(before: Latent, action: Tensor) -> Sequence[Tensor]:
        after = dynamics.step(before, action, dt)
        return after.z, *after.memory

    return record_step(advance, weights, latent, action, gradients=True)


def fixed_of(recorded: Recorded) -> dict[int, Tensor]:
    """What is the same for all rows, by storage: weights, and what torch makes of them, with its gradients."""
    storages = recorded.recording.storages
    known = {
        index: recorded.weights[own.place]
        for index, own in enumerate(storages)
        if own.kind == "weight"
    }

    def given(value: Any) -> Any:
        if isinstance(value, Ref):
            return view(known[value.storage], value)
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
