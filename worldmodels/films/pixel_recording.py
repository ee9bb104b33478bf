"""What a world model of pixels imagines beside the truth: its pictures, and films of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physgym.rendering import render_batch
from worldmodels.films.recording import Recording, captions
from worldmodels.films.video import side_by_side
from worldmodels.imagination import imagine
from worldmodels.interface import Latent


def check_sees_pixels(model: Any) -> None:
    """Raise ``ValueError`` for a model of states, which decodes no pictures."""
    if not model.spec.image_size:
        raise ValueError(
            "this model sees states and draws no pictures: expected a model of pixels "
            "(train.py --model visual)"
        )


def true_frames(recording: Recording, size: int) -> np.ndarray:
    """Pixel observations uint8 (T+1, size, size, 3) of a recording's states."""
    system, params = recording.system, recording.params
    scenes = [system.scene(tuple(s), None, params, False) for s in recording.states.tolist()]
    return render_batch(scenes, system.view, size)


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


def quantised(pictures: np.ndarray | Tensor) -> np.ndarray:
    """Pictures of floats in [0, 1] as uint8; what is not finite is black."""
    values = np.nan_to_num(np.asarray(pictures, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.rint(255.0 * values.clip(0.0, 1.0)).astype(np.uint8)


def enlarged(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Pictures (..., H, W, 3) with every pixel as a square of ``factor`` x ``factor``."""
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def film_pixels(
    model: Any,
    recording: Recording,
    size: int = 360,
    advance: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Film uint8 (T+1, H, W, 3) of what the model is to see, what it imagines, and the difference.

    The model sees the first ``model.context_frames`` pictures, then the actions alone. Panels are the
    observations of S x S pixels, enlarged by the whole number that comes closest to ``size``; their
    difference is as in ``video.side_by_side``. ``advance`` is called for each of the T+1 pictures.
    Raises ``ValueError`` for a model of states, and for an episode no longer than the context.
    """
    check_sees_pixels(model)
    many, steps = model.context_frames, len(recording.actions)
    if steps < many:
        raise ValueError(
            f"an episode of {steps} steps is too short: the model reads {many} frames before it "
            f"imagines any; record {many} steps or more"
        )
    told = [[float(getattr(recording.params, name)) for name in model.spec.param_names]]
    truth = true_frames(recording, model.spec.image_size)
    imagined = imagine_frames(
        model, truth[None, :many], recording.actions[None], told, recording.dt
    )
    learned = np.concatenate([truth[: many - 1], quantised(imagined[0])])
    lines = (
        captions(recording, recording.states),
        _told(imagined[0], many, recording.dt),
        _errors(truth, learned),
    )
    factor = max(1, round(size / model.spec.image_size))
    film = np.empty((0, 0, 0, 3), np.uint8)
    for index in range(steps + 1):
        shown, drawn = (enlarged(panel[index : index + 1], factor) for panel in (truth, learned))
        (picture,) = side_by_side(shown, drawn, captions=[[line[index]] for line in lines])
        if not index:
            film = np.empty((steps + 1, *picture.shape), np.uint8)
        film[index] = picture
        advance()
    return film


def _told(imagined: np.ndarray, many: int, dt: float) -> list[str]:
    """What each picture of the model is: given, decoded from the context, or imagined."""
    finite = np.isfinite(imagined).all(axis=(1, 2, 3))
    kinds = ["context, as given"] * (many - 1) + ["context, decoded"]
    kinds += ["imagined" if known else "diverged" for known in finite[1:]]
    return [f"t {index * dt:5.2f} s   {kind}" for index, kind in enumerate(kinds)]


def _errors(truth: np.ndarray, learned: np.ndarray) -> list[str]:
    """Mean squared and largest difference of each pair of pictures, of values in [0, 1]."""
    change = (truth.astype(np.float32) - learned) / 255.0
    mean, most = (change**2).mean(axis=(1, 2, 3)), np.abs(change).max(axis=(1, 2, 3))
    pairs = zip(mean, most, strict=True)
    return [f"MSE {square:.1e}   largest {100 * largest:.0f} %" for square, largest in pairs]


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
