"""Open loop, for every medium: a model sees the beginning, is told the actions, and imagines the rest.

`imagine` is the loop, in which no row costs another its future; `forecast` (states) and `imagine_frames`
(pictures) take and give NumPy arrays, as evaluation, films and agents want them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def forecast(model: Any, context: Any, actions: Any, params: Any, dt: float) -> np.ndarray:
    """States (B, T, D) float64 that ``model`` imagines after ``context`` (B, K, D).

    ``actions`` (B, T) or (B, T, A), ``params`` (B, P) in the order of the model's spec. Runs where
    the model is, in its own precision, without gradients.
    """
    tensors = itertools.chain(model.parameters(), model.buffers(), [torch.zeros(1)])
    own = next(tensor for tensor in tensors if tensor.is_floating_point())
    with torch.no_grad():
        latent = model.encode(
            torch.as_tensor(context, dtype=own.dtype, device=own.device),
            torch.as_tensor(params, dtype=own.dtype, device=own.device),
        )
        states = imagine(model, latent, torch.as_tensor(actions, device=own.device), dt)
    return states.double().cpu().numpy()


def read(model: Any, context: Any, actions: Any, params: Any) -> Latent:
    """Latent at the last of ``context`` frames (B, L, S, S, 3) uint8, after ``actions`` (B, L-1[, A]).

    ``params`` (B, P) in the order of the model's spec.
    """
    device = device_of(model)
    table = torch.as_tensor(params, dtype=torch.float32, device=device)
    frames = torch.as_tensor(np.ascontiguousarray(context), device=device)
    return model.encode(frames, table, torch.as_tensor(actions, device=device))


def imagine_frames(
    model: Any, context: Any, actions: Any, params: Any, dt: float | None = None
) -> np.ndarray:
    """Pictures float32 (B, T+2-L, S, S, 3) in [0, 1]: the last context frame decoded, then T+1-L imagined.

    ``context`` (B, L, S, S, 3) uint8, ``actions`` (B, T[, A]) from the first context frame on, ``params``
    (B, P) in the order of the model's spec. Runs where the model is, without gradients. Pictures behind a
    solver's failure are NaN.
    """
    first = np.shape(context)[1] - 1
    with evaluating(model):
        latent = read(model, context, actions[:, :first], params)
        rest = torch.as_tensor(actions[:, first:], device=device_of(model))
        pictures = [model.decode(latent).unsqueeze(1)]
        if rest.shape[1]:
            pictures.append(imagine(model, latent, rest, dt))
    return torch.cat(pictures, 1).float().cpu().numpy()


def check_sees_pixels(model: Any) -> None:
    """Raise ``ValueError`` for a model of states, which decodes no pictures."""
    if not model.spec.image_size:
        raise ValueError(
            "this model sees states and decodes no pictures: expected a model of pixels "
            "(physgym train --model visual)"
        )


def device_of(model: Any) -> torch.device:
    """Where the weights of ``model`` are."""
    tensors = itertools.chain(model.parameters(), model.buffers(), [torch.zeros(1)])
    return next(tensors).device


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model in eval mode and without gradients; afterwards in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
