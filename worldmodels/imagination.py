"""Open loop, for every medium: a model sees the beginning, is told the actions, and imagines the rest.

`imagine` is the loop; `forecast` (states) and `imagine_frames` (pictures) take and give NumPy arrays, as
evaluation, films and agents want them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.interface import DivergenceError, Latent, WorldModel


def imagine(
    model: WorldModel, latent: Latent, actions: Tensor, dt: Tensor | float | None = None
) -> Tensor:
    """States (B, T, D) that ``actions`` (B, T) or (B, T, A) lead to from ``latent``, one a step.

    Where a solver cannot go on, the rest of the rollout is NaN: diverged at that step, never a crash.
    """
    states: list[Tensor] = []
    for t in range(actions.shape[1]):
        try:
            latent = model.step(latent, actions[:, t], dt)
        except DivergenceError:
            rest = actions.shape[1] - t
            lost = torch.full_like(model.decode(latent), float("nan"))
            return torch.stack(states + [lost] * rest, 1)
        states.append(model.decode(latent))
    return torch.stack(states, 1)


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
            "this model sees states and draws no pictures: expected a model of pixels "
            "(train.py --model visual)"
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
