"""Whether a rollout goes by machine code: where it can, where it pays, and where its gradients are torch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from physgym.compile.native import available
from worldmodels.interface import Dynamics, Latent
from worldmodels.native.recording import NotRecordable
from worldmodels.native.rollouts import NativeRollout, recorded_step

FEW_CALLS, MANY_ROWS = 40, 2048
"""A rollout of fewer operations is as quick by torch, unless it has so many rows."""
FEW = 3
"""Rows and steps that machine code is tried on."""
TOLERANCE = 1e-3
"""Difference from torch's gradients, over their size (or 1), that is put down to rounding."""


def rolled_out(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> Tensor | None:
    """States (B, T+1, F) from ``latent`` on under ``actions`` (B, T) or (B, T, A), in steps of ``dt``.

    Compiled at the first call for latents, actions and steps of this kind. None where there is no machine code: no
    llvmlite (or PHYSGYM_NATIVE=0), too few operations to gain by it, not vectors on the CPU, half precision,
    gradients of actions or conditions wanted, a structure that does not say it is ``recordable``, or an
    operation that has no rule.
    """
    known = _plan_of(dynamics, latent, actions, dt)
    if known is None or not known.operations:
        return None
    if known.operations * actions.shape[1] < FEW_CALLS and len(actions) < MANY_ROWS:
        return None
    if not known.tried:
        known.native, known.tried = _agreed(dynamics, latent, actions, dt), True
    return None if known.native is None else known.native(latent, actions)


def calls_of(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> int:
    """Operations of a rollout that `rolled_out` would do; 0 where there is no machine code."""
    known = _plan_of(dynamics, latent, actions, dt)
    return 0 if known is None else known.operations * actions.shape[1]


@dataclass
class _Plan:
    """What is known of a structure, for latents and actions of one kind."""

    weights: tuple[Tensor, ...]
    operations: int
    """Of a step; 0 where it cannot be recorded."""
    tried: bool = False
    native: NativeRollout | None = None


_plans: WeakKeyDictionary[Dynamics, dict[Any, _Plan]] = WeakKeyDictionary()


def _plan_of(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> _Plan | None:
    """What is known of the structure, or found out now; None where there can be no machine code."""
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
    if known is None or any(a is not b for a, b in zip(known.weights, weights, strict=True)):
        known = plans[key] = _Plan(weights, _operations(dynamics, latent, actions, dt))
    return known


def _operations(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float) -> int:
    try:
        return len(recorded_step(dynamics, latent, actions[:, 0], dt).recording.operations)
    except NotRecordable:
        return 0


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
        known = by_torch(lambda before, action: dynamics.step(before, action, dt), first, actions)
        for states in (native(first, actions), known):
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


def by_torch(
    advance: Callable[[Latent, Tensor], Latent], latent: Latent, actions: Tensor
) -> Tensor:
    """Latents z (B, T+1, ...) that ``advance(latent, action)`` leads to under ``actions`` (B, T[, A])."""
    states = [latent.z]
    for t in range(actions.shape[1]):
        latent = advance(latent, actions[:, t])
        states.append(latent.z)
    return torch.stack(states, 1)
