"""What is compared in pixels: learned models, the ceiling that their own pictures set, and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.evaluation.pixels.metrics import brightness
from worldmodels.evaluation.pixels.problems import PixelProblems
from worldmodels.evaluation.problems import idle_actions
from worldmodels.imagination import device_of, evaluating, placed, read, unroll
from worldmodels.interface import Latent

BACKGROUND_ROW = "constant background"
COPY_ROW = "copy-last-frame"


class Prediction(NamedTuple):
    """What a row says of a batch."""

    frames: Tensor
    """(B, n, S, S, 3) floats in [0, 1]: of all T steps, or the last alone."""
    latents: np.ndarray | None = None
    """(B, T+1, F) float32, the first of the frames seen; None where there are none."""
    rewards: np.ndarray | None = None
    """(B, T) float64 that the model gives its own rollout; None where it gives none."""
    ends: np.ndarray | None = None
    """(B, T) bool, where it says that an episode ends; with rewards."""


class PixelEntry(NamedTuple):
    """One row of a comparison in pixels."""

    predict: Callable[[PixelProblems, bool], Prediction]
    """What comes of a batch; True: of the last step alone."""
    kind: str = "model"
    """model, oracle (a model's own reconstruction) or baseline."""
    model_name: str = ""
    """Structure of a model; decides its colour in plots."""
    any_dt: bool = True
    """Whether it can be asked for a step length it was not made for."""
    reversible: bool = True
    """Whether it can be asked backward in time."""


def structure_of(model: Any) -> str:
    """Name of the structure of a visual model."""
    return str(getattr(model.config, "structure", model.config.name))


def model_entry(model: Any) -> PixelEntry:
    """Row of a visual model: it sees the frames of the context and the actions, and nothing after.

    One whose step length is an input, but whose steps are jumps, has never seen a negative one, and is not
    asked for it.
    """

    def predict(batch: PixelProblems, last: bool) -> Prediction:
        with evaluating(model), torch.inference_mode():
            return _roll(model, batch, last)

    structure, any_dt = structure_of(model), bool(model.any_dt)
    return PixelEntry(predict, "model", structure, any_dt, any_dt and structure != "jump")


def reconstruction_entry(model: Any) -> PixelEntry:
    """Row of what the model draws of the true frames around each step: the ceiling of its rollouts.

    Of a foreign env, with the rewards and ends that it gives true frames.
    """

    def predict(batch: PixelProblems, last: bool) -> Prediction:
        many, seen = model.config.encoder_frames, batch.context.shape[1]
        told = batch.tasks.param_array(model.spec.param_names)
        actions = _all_actions(batch)
        frames, drawn, latents = batch.frames, [], []
        judged: list[tuple[Tensor, Tensor]] = []
        with evaluating(model), torch.inference_mode():
            for t in range(seen - 1, frames.shape[1]):
                window = frames[:, t + 1 - many : t + 1]
                latent = read(model, window, actions[:, t + 1 - many : t], told)
                latents.append(latent.z.flatten(1))
                drawn.append(model.decode(latent))
                if model.spec.foreign and t >= seen:
                    acted = torch.as_tensor(actions[:, t - 1], device=device_of(model))
                    judged.append(model.judge(latent, acted))
        return _prediction(drawn[1:], latents, judged)

    return PixelEntry(predict, "oracle", structure_of(model), False, False)


def background_entry(frame: np.ndarray) -> PixelEntry:
    """Row of one frame (S, S, 3) in [0, 1], the mean of the training split, whatever happens."""

    def predict(batch: PixelProblems, last: bool) -> Prediction:
        constant = torch.from_numpy(frame.astype(np.float32))
        return Prediction(constant.expand(len(batch.truth), batch.truth.shape[1], *frame.shape))

    return PixelEntry(predict, "baseline")


def copy_entry() -> PixelEntry:
    """Row of the last frame seen, for ever."""

    def predict(batch: PixelProblems, last: bool) -> Prediction:
        return Prediction(brightness(batch.context[:, -1:]).expand_as(batch.truth))

    return PixelEntry(predict, "baseline")


def encode(model: Any, batch: PixelProblems) -> Latent:
    """Latent at the last frame seen, of as many frames as the model wants."""
    many = model.context_frames
    told = batch.tasks.param_array(model.spec.param_names)
    past = batch.past_actions[:, batch.past_actions.shape[1] - (many - 1) :]
    return read(model, batch.context[:, -many:], np.ascontiguousarray(past), told)


def conserves(model: Any) -> bool:
    """Whether ``learned_energies`` can be asked: an ensemble goes on under the action that does nothing, which
    nobody knows of a foreign env.
    """
    many = getattr(getattr(model.config, "dynamics", None), "ensemble", 1)
    return bool(model.has_energy) and not (model.spec.foreign and many > 1)


def learned_energies(model: Any, batch: PixelProblems) -> np.ndarray:
    """Learned energies (B, T+1) from the frames seen on, along the motion that H alone makes.

    That is ``model.conserve``, with neither control nor learned dissipation; a model without it is stepped
    under the action that does nothing.
    """
    actions = idle_actions(model.spec, *batch.tasks.actions.shape[:2])
    with evaluating(model), torch.inference_mode():
        latent = encode(model, batch)
        held = torch.as_tensor(actions, device=latent.z.device)
        advance = (lambda z, *_: model.conserve(z)) if hasattr(model, "conserve") else model.step
        values = [model.energy(latent)]
        for moved, going in unroll(advance, latent, held):
            values.append(placed(model.energy(moved), going, len(held)))
        return torch.stack(values, 1).cpu().double().numpy()


def _roll(model: Any, batch: PixelProblems, last: bool) -> Prediction:
    """Step through the actions of a batch; where a solver cannot go on, the rest of that row is NaN."""
    latent = encode(model, batch)
    actions = torch.as_tensor(np.ascontiguousarray(batch.tasks.actions), device=device_of(model))
    count, steps = actions.shape[:2]
    frames: list[Tensor] = []
    judged: list[tuple[Tensor, Tensor]] = []
    latents = [latent.z.flatten(1)]
    for t, (moved, going) in enumerate(unroll(model.step, latent, actions, batch.dt)):
        latents.append(placed(moved.z.flatten(1), going, count))
        if not last or t == steps - 1:
            frames.append(placed(model.decode(moved), going, count))
        if hasattr(model, "judge") and not last:
            rows = slice(None) if going is None else going if len(going) else [0]
            reward, logit = model.judge(moved, actions[rows, t])
            judged.append((placed(reward, going, count), placed(logit, going, count)))
    return _prediction(frames, latents, judged)


def _prediction(
    frames: list[Tensor], latents: list[Tensor], judged: Sequence[tuple[Tensor, Tensor]] = ()
) -> Prediction:
    """``judged``: reward and logit of an end (B,) of every step."""
    columns = [torch.stack(values, 1) for values in zip(*judged, strict=True)]
    return Prediction(
        torch.stack(frames, 1),
        torch.stack(latents, 1).float().cpu().numpy(),
        columns[0].double().cpu().numpy() if judged else None,
        (columns[1] > 0.0).cpu().numpy() if judged else None,
    )


def _all_actions(batch: PixelProblems) -> np.ndarray:
    return np.concatenate([batch.past_actions, batch.tasks.actions], 1)
