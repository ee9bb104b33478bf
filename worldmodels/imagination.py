"""Open-loop rollouts: a model imagines what actions lead to, and no row costs another its future."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.threads import small_work
from worldmodels.interface import DivergenceError, Latent, WorldModel

Advance = Callable[[Any, Tensor, Any], Any]
"""(latent, action, dt) to the latent after it."""


class Stepped(NamedTuple):
    """One step of B rows."""

    latent: Any
    """Of all rows; a lost row's is the one it had."""
    lost: np.ndarray
    """(B,) bool: rows that the model could not step."""
    error: Exception | None
    """What it said of one of them."""


def imagine(
    model: WorldModel, latent: Latent, actions: Tensor, dt: Tensor | float | None = None
) -> Tensor:
    """States (B, T, D) that ``actions`` (B, T) or (B, T, A) lead to from ``latent``, one a step.

    Where a solver cannot go on, the rest of that row is NaN: diverged at that step, never a crash. The
    other rows go on.
    """
    with small_batch(model, len(actions)):
        states = [
            placed(model.decode(latent), going, len(actions))
            for latent, going in unroll(model.step, latent, actions, dt)
        ]
    return torch.stack(states, 1)


def unroll(
    advance: Advance, latent: Any, actions: Tensor, dt: Tensor | float | None = None
) -> Iterator[tuple[Any, np.ndarray | None]]:
    """The latents that ``actions`` (B, T[, A]) lead to by ``advance(latent, action, dt)``, one a step.

    With each comes which of the B rows it holds (K,), None for all of them: rows where a solver could not
    go on are left out from then on (where all are, one stays, for its shape). ``placed`` puts them back.
    """
    going: np.ndarray | None = None
    for t in range(actions.shape[1]):
        if going is None or len(going):
            chosen = actions[:, t] if going is None else actions[going, t]
            latent, lost, _ = step_rows(advance, latent, chosen, _of_rows(dt, going))
            if lost.any():
                kept = np.flatnonzero(~lost)
                going = kept if going is None else going[kept]
                latent = map_tensors(lambda x, at=kept: x[at] if len(at) else x[:1], latent)
        yield latent, going


def placed(values: Tensor, going: np.ndarray | None, count: int) -> Tensor:
    """``values`` of the rows ``going`` among ``count`` rows, NaN in the others; None: all are there."""
    if going is None:
        return values
    whole = values.new_full((count, *values.shape[1:]), float("nan"))
    whole[torch.as_tensor(going, device=values.device)] = values[: len(going)]
    return whole


def step_rows(
    advance: Advance,
    latent: Any,
    actions: Tensor,
    dt: Tensor | float | None = None,
    failures: tuple[type[Exception], ...] = (DivergenceError,),
) -> Stepped:
    """Step all rows of ``latent`` (B, ...) together, or in halves until those that cannot go on are found.

    Args:
        advance: (latent, actions, dt) to latents, as a model's ``step``; called once where nothing fails.
        latent: ``Latent``, or nested tuples and dicts of tensors with the batch on axis 0.
        actions: (B,) or (B, A).
        dt: seconds, of all rows or (B,) of each; None: those of the buffer.
        failures: exceptions that mean a row cannot be stepped; others are raised.
    """
    count = len(actions)
    try:
        return Stepped(advance(latent, actions, dt), np.zeros(count, dtype=np.bool_), None)
    except failures as reason:
        error = reason
    if count == 1:
        return Stepped(latent, np.ones(1, dtype=np.bool_), error)
    parts = []
    for at in (slice(0, count // 2), slice(count // 2, count)):
        own = map_tensors(lambda x, at=at: x[at], latent)
        parts.append(step_rows(advance, own, actions[at], _of_rows(dt, at), failures))
    joined = map_tensors(lambda a, b: torch.cat((a, b)), *(part.latent for part in parts))
    return Stepped(joined, np.concatenate([part.lost for part in parts]), error)


def small_batch(model: WorldModel, rows: int) -> AbstractContextManager[None]:
    """One thread for a step of few ``rows`` of a model of states on the CPU; pictures take them all."""
    first = next(model.parameters(), None)
    if first is None or first.device.type != "cpu" or model.spec.image_size:
        return nullcontext()
    return small_work(rows * sum(weights.numel() for weights in model.parameters()))


def _of_rows(dt: Tensor | float | None, rows: Any) -> Tensor | float | None:
    """``dt`` of ``rows`` (None: of all), where each row has its own."""
    return dt[rows] if rows is not None and isinstance(dt, Tensor) and dt.ndim == 1 else dt


def map_tensors(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``function`` over the tensors of nested tuples, NamedTuples and dicts; None stays None."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {k: map_tensors(function, tree[k], *(o[k] for o in others)) for k in tree}
    parts = [map_tensors(function, *leaves) for leaves in zip(tree, *others, strict=True)]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
