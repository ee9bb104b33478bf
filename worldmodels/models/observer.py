"""The structure as its own observer: velocities filtered from what is read, and the errors that it learns from.

``model`` is a ``KeypointWorldModel``. Legend: B rows, L frames of a context, T steps, n coordinates, K bodies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodels.interface import Batch, Latent

LONGEST_MEMORY = 16
"""Readings after which the filter forgets: its gains stay those of the 16th."""


def observe(
    model: Any, read: Tensor, seen: Tensor, actions: Tensor, params: Tensor | None
) -> Latent:
    """Filter coordinates ``read`` (B, L, n) of bodies ``seen`` (B, L, K) into a latent at the last.

    The structure predicts each frame from the one before, and a growing-memory filter of a constant
    velocity corrects it (E. Brookner 1998, Tracking and Kalman Filtering Made Easy, expanding-memory
    g-h filter): by 2 (2k - 1) / (k (k + 1)) of what is off, and its velocity by 6 / (k (k + 1)) a step,
    with k the readings of that body so far. Where a body is not seen, the prediction stands.
    """
    chart, own = model.sight.chart, model.own
    owners = torch.tensor(chart.owners, device=read.device)
    shown = seen[..., owners]
    count = shown[:, 0].to(read.dtype)
    since = torch.zeros_like(count)
    start = torch.cat((read[:, :1], torch.zeros_like(read[:, :1])), 2)
    latent = model.motion.encode(start, params)
    for frame in range(1, read.shape[1]):
        latent = model.motion.step(latent, actions[:, frame - 1])
        now = shown[:, frame]
        since, count = since + 1.0, count + now
        k = count.clamp(1.0, LONGEST_MEMORY)
        place = 2.0 * (2.0 * k - 1.0) / (k * (k + 1.0))
        rate = torch.where(k == 1.0, 0.0, 6.0 / (k * (k + 1.0)))
        rate = torch.where(k == 2.0, rate / since.clamp(min=1.0), rate)
        since = torch.where(now, 0.0, since)
        guess = latent.z * own.scale + own.shift
        target = read[:, frame]
        if guess.ndim == 3:  # of every member
            target, place, rate, now = (x.unsqueeze(1) for x in (target, place, rate, now))
        off = chart.nearest(target - guess[..., : model.size]) * now
        change = torch.cat((place * off, rate * off / model.spec.dt), -1)
        latent = latent._replace(z=latent.z + change / own.scale)
    lost = torch.where(count > 0.0, 0.0, torch.nan).to(latent.z.dtype)
    lost = torch.cat((lost, lost), 1)
    z = latent.z + (lost if latent.z.ndim == 2 else lost.unsqueeze(1))
    return latent._replace(z=z)


def short_errors(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, T): of a rollout from the smoothed state at 0, in units of the typical change in one step.

    With the smoothed latents (B, T, 2n) after each step. Large errors count by their root alone, and steps
    in which more changes weigh less: velocities that were smoothed over a collision are wrong.
    """
    own = model.own
    wanted = (batch.states - own.shift) / own.scale
    change = (((wanted[:, 1:] - wanted[:, :-1]) / own.step_scale) ** 2).mean(2)
    latent = model.motion.encode(batch.states[:, :1], batch.params)
    states = model.motion.rollout(latent, batch.actions)[:, 1:]
    off = (_mates(wanted[:, 1:], states) - states) / own.step_scale
    scaled = (off**2).mean(-1) / (1.0 + _mates(change, states))
    return _members(torch.sqrt(1.0 + scaled) - 1.0), wanted[:, 1:]


def long_errors(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, T): of the positions of a rollout behind filtered frames: log(1 + (error / precision)^2).

    With the rollout's latents (B, T, 2n), whose velocities soon are better than the smoothed ones.
    """
    own, size, first = model.own, model.size, batch.observed - 1
    read = batch.states[..., :size]
    seen = torch.ones(
        *read.shape[:2], len(model.config.kinds), dtype=torch.bool, device=read.device
    )
    context = slice(first + 1)
    latent = observe(
        model, read[:, context], seen[:, context], batch.actions[:, :first], batch.params
    )
    wanted = (read - own.shift[:size]) / own.scale[:size]
    states = model.motion.rollout(latent, batch.actions[:, first:])[:, 1:]
    off = (states[..., :size] - _mates(wanted[:, first + 1 :], states)) / model.grain
    errors = _members(torch.log1p((off**2).mean(-1)))
    return errors, (states if states.ndim == 3 else states.mean(2)).detach()


def _mates(value: Tensor, states: Tensor) -> Tensor:
    """``value`` (B, T, ...) beside every member, where ``states`` (B, T, E, 2n) are an ensemble's."""
    return value.unsqueeze(2) if states.ndim == 4 else value


def _members(errors: Tensor) -> Tensor:
    """Errors (B, T) of one model, or the sum of its members' (B, T, E): each descends its own."""
    return errors if errors.ndim == 2 else errors.sum(2)
