"""Open loop, for every medium: a model sees the beginning, is told the actions, and imagines the rest.

`imagine` is the loop, in which no row costs another its future; `forecast` (states) and `imagine_frames`
(pictures) take and give NumPy arrays, as evaluation, films and agents want them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from physgym.threads import small_work
from physgym.validation import real_number
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

    Raises:
        ValueError: actions that are no tensor of at least one step, or no such choices; a dt that is not
            finite.
    """
    actions = _planned(model, actions)
    _check_dt(dt, len(actions))
    with small_batch(model, len(actions)):
        states = [
            placed(model.decode(latent), going, len(actions))
            for latent, going in unroll(model.step, latent, actions, dt)
        ]
    return torch.stack(states, 1)


def _planned(model: WorldModel, actions: Any) -> Tensor:
    """``actions`` as ``model`` takes them; ``ValueError`` for what is no plan of at least one step."""
    spec = model.spec
    discrete = spec.action_kind == "discrete"
    layout = "(B, T) of integers" if discrete else f"(B, T, {spec.action_size}) of numbers"
    if not isinstance(actions, Tensor):
        raise ValueError(
            f"actions are a {type(actions).__name__}, not a torch.Tensor: expected {layout}; "
            "torch.as_tensor makes one"
        )
    if actions.ndim != (2 if discrete else 3):
        raise ValueError(
            f"actions of shape {tuple(actions.shape)} are not valid: expected {layout}"
        )
    if not actions.shape[1]:
        raise ValueError(f"actions of shape {tuple(actions.shape)} hold no step: expected T >= 1")
    if discrete and actions.dtype in (torch.uint8, torch.int8, torch.int16):
        actions = actions.long()  # no table can be read with them
    if discrete and len(actions) and not actions.is_floating_point():
        low, high = (int(end) for end in torch.aminmax(actions))
        if low < 0 or high >= spec.action_size:
            raise ValueError(
                f"actions from {low} to {high} are not valid: expected 0 to {spec.action_size - 1}"
            )
    return actions


def _check_dt(dt: Any, rows: int) -> None:
    if isinstance(dt, Tensor):
        fits = dt.shape in ((), (1,), (rows,)) and bool(dt.isfinite().all())
    else:
        fits = dt is None or real_number(dt) is not None
    if not fits:
        raise ValueError(
            f"dt={dt!r} is not valid: expected seconds, a number or a tensor ({rows},), or None"
        )


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


def imagine_latents(
    model: WorldModel, latent: Latent, actions: Tensor, dt: Tensor | float | None = None
) -> Iterator[Latent]:
    """``latent`` itself, and the latents that ``actions`` (B, T[, A]) lead to; lost rows are NaN from then on."""
    yield latent
    for moved, going in unroll(model.step, latent, actions, dt):
        yield map_tensors(lambda x, at=going: placed(x, at, len(actions)), moved)


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
    first, count = _weights(model)
    if first is None or first.device.type != "cpu" or model.spec.image_size:
        return nullcontext()
    return small_work(rows * count)


def _weights(model: WorldModel) -> tuple[Tensor | None, int]:
    """One of the weights of ``model``, and how many there are: walked over once, not at every small step."""
    known = _COUNTED.get(model)
    if known is None:
        weights = list(model.parameters())
        known = _COUNTED[model] = next(iter(weights), None), sum(w.numel() for w in weights)
    return known


_COUNTED: WeakKeyDictionary[WorldModel, tuple[Tensor | None, int]] = WeakKeyDictionary()


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
