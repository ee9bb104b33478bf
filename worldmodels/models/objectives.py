"""What a visual model descends on: one ELBO over a decoded rollout, or each part's own loss.

The squared error of a picture is summed over it and averaged over pictures. Legend: B windows, T steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodels.interface import Batch, Latent, shortened


def elbo(model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Read the first frames once, roll the structure over all actions, decode: end-to-end gradients."""
    frames, first = frames_of(batch), model.config.context_frames - 1
    context = frames[:, : first + 1]
    latent, mean, log_variance = model.read(context, batch.params, batch.actions[:, :first], True)
    kl = divergence(mean, log_variance, model.config.free_bits)
    steps = min(batch.actions.shape[1] - first, model.config.rollout_steps)
    ahead = pushed(batch.actions.shape[1] - first - steps)
    if ahead:  # from imagined latents only: the encoder learns from the other batches
        with torch.no_grad():
            latent = advanced(model, latent, batch.actions[:, first : first + ahead])
        first, kl = first + ahead, kl.detach()
    batch = shortened(batch, first + steps)
    states = rollout(model, latent, batch.actions[:, first:])
    valid = torch.cat((batch.mask[:, first - 1 : first], batch.mask[:, first:]), 1)
    model.note_reach(states)
    error = picture_error(model, states, frames_of(batch)[:, first:], valid)
    loss = error + model.config.beta * kl
    heads, logs = head_loss(model, states, batch, first)
    if model.config.consistency_weight:
        apart, redrawn = consistency(model, states, batch, first)
        loss = loss + redrawn + model.config.consistency_weight * apart
        logs["consistency"] = apart.detach()
    logs |= {"reconstruction": error.detach(), "kl": kl.detach(), "loss": loss.detach()}
    return loss + heads, logs


def consistency(model: Any, states: Tensor, batch: Batch, first: int) -> tuple[Tensor, Tensor]:
    """How far a rollout is from what the encoder reads later, and how badly that is drawn.

    ``states`` (B, T+1, ...) follow frame ``first``. Some of each row are compared with the mean of what is
    read from the true frames up to their time, in units of the spread of such readings. The readings feel
    only how well they are drawn: if they came to meet the rollout, all could meet in one point.
    """
    many = model.config.encoder_frames
    rows, steps = batch.actions.shape[0], states.shape[1] - 1
    count = min(model.config.decoded_frames or steps, steps)
    device = states.device
    at = 1 + torch.rand((rows, steps), device=device).argsort(1)[:, :count]
    row = torch.arange(rows, device=device).unsqueeze(1)
    seen = (first + at).unsqueeze(2) + torch.arange(1 - many, 1, device=device)
    frames = frames_of(batch)[row.unsqueeze(2), seen].flatten(0, 1)
    actions = batch.actions[row.unsqueeze(2), seen[..., :-1]].flatten(0, 1)
    read = model.transform(model.posterior(frames, actions)[0])
    weight = batch.mask[row, first + at - 1].flatten().to(read.dtype)
    total = weight.sum().clamp(min=1.0)
    wanted = frames[:, -1].permute(0, 3, 1, 2).to(read.dtype) / 255.0
    redrawn = ((model.draw(read) - wanted) ** 2).flatten(1).sum(1)
    target = read.detach().flatten(1)
    middle = (weight.unsqueeze(1) * target).sum(0) / total
    spread = (weight * ((target - middle) ** 2).sum(1)).sum() / total
    apart = ((states[row, at].flatten(0, 1).flatten(1) - target) ** 2).sum(1)
    apart = (weight * apart).sum() / total / spread.clamp(min=1e-6)
    return apart, (weight * redrawn).sum() / total


def pushed(most: int) -> int:
    """Steps to imagine before a rollout: none in half of the batches, else up to ``most``."""
    if most < 1 or torch.rand(()) < 0.5:
        return 0
    return int(torch.randint(1, most + 1, ()))


def advanced(model: Any, latent: Latent, actions: Tensor) -> Latent:
    """``latent`` after ``actions`` (B, T[, A])."""
    for t in range(actions.shape[1]):
        latent = model.step(latent, actions[:, t])
    return latent


def detached(model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Every frame is read for itself; the structure follows the latents, which do not feel it.

    Momenta are decoded too, as the frame before: decode(q - h p) with h one step. So they mean
    motion although no rollout reaches the encoder.
    """
    frames, many = frames_of(batch), model.config.encoder_frames
    first = model.config.context_frames - 1
    windows = frames.unfold(1, many, 1)[:, first + 1 - many :]  # (B, N, S, S, 3, K)
    count = windows.shape[1]
    between = batch.actions.unfold(1, many - 1, 1)[:, first + 1 - many :]
    if between.ndim == 4:  # continuous actions: (B, N, A, K-1)
        between = between.movedim(-1, 2)
    mean, log_variance = model.posterior(
        windows.movedim(-1, 2).flatten(0, 1), between.flatten(0, 1)
    )
    states = model.transform(sample(mean, log_variance)).unflatten(0, (-1, count))
    valid = torch.cat((torch.ones_like(batch.mask[:, :1]), batch.mask[:, first:]), 1)
    model.note_reach(states)
    error = picture_error(model, states, frames[:, first:], valid)
    earlier = picture_error(model, moved_back(model, states), frames[:, first - 1 : -1], valid)
    error = 0.5 * (error + earlier)
    kl = divergence(mean, log_variance, model.config.free_bits)
    loss = error + model.config.beta * kl
    logs = {"reconstruction": error.detach(), "kl": kl.detach()}
    with torch.no_grad():
        target = model.transform(mean).unflatten(0, (-1, count))
    total = loss
    if model.config.train_predictor and model.config.predictor_weight:
        followed = following_error(model, frames, target, batch, first, valid)
        total = total + model.config.predictor_weight * followed
        logs["prediction"] = followed.detach()
        loss = loss + followed
    heads, head_logs = head_loss(model, target, batch, first)
    return total + heads, {**logs, **head_logs, "loss": loss.detach()}


def moved_back(model: Any, states: Tensor) -> Tensor:
    """States one step earlier if nothing acted: q - h p."""
    q, p = states.chunk(2, 2)
    return torch.cat((q - model.config.time_step * p, p), 2)


def following_error(
    model: Any, frames: Tensor, target: Tensor, batch: Batch, first: int, valid: Tensor
) -> Tensor:
    """Squared error of a rollout in the latent, in units of the typical change in one step."""
    with torch.no_grad():
        context = frames[:, : first + 1]
        latent = model.read(context, batch.params, batch.actions[:, :first], False)[0]
    latent = latent._replace(z=target[:, 0])
    predicted = rollout(model, latent, batch.actions[:, first:])[:, 1:]
    weight = valid[:, 1:].to(predicted.dtype)
    change = ((target[:, 1:] - target[:, :-1]) ** 2).flatten(2).mean(2)
    error = ((predicted - target[:, 1:]) ** 2).flatten(2).mean(2)
    return (weight * error).sum() / (weight * change).sum().clamp(min=1e-6)


def rollout(model: Any, latent: Latent, actions: Tensor) -> Tensor:
    """States (B, T+1, ...) from ``latent`` on under ``actions`` (B, T[, A])."""
    states = [latent.z]
    for t in range(actions.shape[1]):
        latent = model.step(latent, actions[:, t])
        states.append(latent.z)
    return torch.stack(states, 1)


def picture_error(model: Any, states: Tensor, frames: Tensor, valid: Tensor) -> Tensor:
    """Summed squared error of a picture, mean over the frames drawn: some of each row, or all."""
    count, kept = states.shape[:2], model.config.decoded_frames
    if 0 < kept < count[1]:
        order = torch.rand(count, device=states.device).argsort(1)[:, :kept]
        rows = torch.arange(count[0], device=states.device).unsqueeze(1)
        states, frames, valid = states[rows, order], frames[rows, order], valid[rows, order]
    pictures = model.draw(states.flatten(0, 1))
    wanted = frames.flatten(0, 1).permute(0, 3, 1, 2).to(pictures.dtype) / 255.0
    squared = ((pictures - wanted) ** 2).flatten(1).sum(1)
    weight = valid.flatten().to(squared.dtype)
    return (weight * squared).sum() / weight.sum().clamp(min=1.0)


def head_loss(
    model: Any, states: Tensor, batch: Batch, first: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the heads on the states (B, T+1, ...) that the actions from ``first`` led to."""
    if batch.rewards is None or batch.terminated is None:
        raise ValueError("the heads need a batch with rewards and terminated")
    after = states[:, 1:].flatten(0, 1)
    reward, ended = model.heads.loss(
        after if model.config.head_gradient else after.detach(),
        batch.actions[:, first:].flatten(0, 1),
        batch.rewards[:, first:].flatten(),
        batch.terminated[:, first:].flatten(),
        batch.mask[:, first:].flatten(),
    )
    logs = {"reward": reward.detach(), "termination": ended.detach()}
    return model.config.head_weight * (reward + ended), logs


def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A draw of the normal distribution, differentiable in both (Kingma and Welling, arXiv:1312.6114)."""
    return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)


def divergence(mean: Tensor, log_variance: Tensor, free_bits: float = 0.0) -> Tensor:
    """KL to the standard normal, summed over elements of at least ``free_bits``, mean over the batch."""
    kl = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance)
    return (
        kl.clamp(min=free_bits).flatten(1).sum(1).mean()
        if free_bits
        else kl.flatten(1).sum(1).mean()
    )


def frames_of(batch: Batch) -> Tensor:
    """The frames (B, T+1, S, S, 3) of a batch. Raises ``ValueError`` for a batch of states alone."""
    if batch.frames is None:
        raise ValueError("this batch has no frames: train on a buffer collected with --pixels")
    return batch.frames
