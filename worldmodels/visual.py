"""World model over pixels: a beta-VAE around a structure, behind the same four verbs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import physgym
from worldmodels.dynamics import build_dynamics
from worldmodels.dynamics.port_hamiltonian import PortHamiltonian
from worldmodels.heads import OutcomeHeads
from worldmodels.interface import Batch, Latent, Medium, Spec, WorldModel, shortened
from worldmodels.vae import Decoder, Encoder, Transform
from worldmodels.visual_config import VisualConfig


class VisualWorldModel(WorldModel):
    """The four verbs over pictures (B, S, S, 3).

    ``encode`` reads K frames as one latent z, whose transform s = (q, p) a structure steps; ``decode``
    draws q alone, so that only p can carry motion. One step of the buffer lasts ``config.time_step`` in
    the latent's own time.
    """

    def __init__(self, spec: Spec, config: VisualConfig) -> None:
        super().__init__()
        self.spec = spec
        self.config = config
        told = len(spec.param_names) if config.dynamics.condition == "params" else 0
        if config.dynamics.condition == "params" and not told:
            raise ValueError("condition='params' needs a buffer whose spec names parameters")
        features = config.latent_channels if config.spatial else config.flat_size
        medium = Medium(
            features,
            config.spatial,
            (),
            spec.action_kind,
            spec.action_size,
            told,
            idle_action(spec),
        )
        self.encoder = Encoder(config, medium, spec.image_size)
        self.transform = Transform(config)
        self.decoder = Decoder(config, spec.image_size)
        self.dynamics = build_dynamics(config.dynamics, medium)
        self.dynamics.calibrate(config.time_step)
        self.heads = OutcomeHeads(config, medium)
        self.any_dt = self.dynamics.any_dt
        self.param_shift: Tensor
        self.param_scale: Tensor
        self.reach: Tensor
        self.register_buffer("param_shift", torch.zeros(told))
        self.register_buffer("param_scale", torch.ones(told))
        self.register_buffer("reach", torch.zeros(()))
        self.encoder_dtype: torch.dtype | None = None
        self.decoder_dtype: torch.dtype | None = None

    @property
    def context_frames(self) -> int:
        """Frames that ``encode`` is meant to see."""
        return self.config.context_frames

    @property
    def has_energy(self) -> bool:
        """Whether ``energy`` is there."""
        return self.dynamics.has_energy

    def fit_normaliser(self, dataset: Any) -> None:
        """Set the scales of parameters and rewards from the episodes of ``dataset`` (its train split)."""
        if self.param_shift.numel():
            table = np.stack([dataset.params[name] for name in self.spec.param_names], 1)
            spread = table.std(0)
            self.param_shift.copy_(torch.as_tensor(table.mean(0)))
            self.param_scale.copy_(torch.as_tensor(np.where(spread > 1e-6, spread, 1.0)))
        self.heads.fit_normaliser(dataset)

    # The verbs

    def posterior(self, frames: Tensor, actions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z given ``frames`` (B, K, S, S, 3), uint8 or in [0, 1].

        ``actions`` (B, K-1[, A]) between the frames, where they are known.
        """
        if self.encoder_dtype is None:
            return self.encoder(stacked(frames), actions)
        with torch.autocast(frames.device.type, self.encoder_dtype):
            mean, log_variance = self.encoder(stacked(frames), actions)
        return mean.float(), log_variance.float()

    def encode(
        self, context: Tensor, params: Tensor | None = None, actions: Tensor | None = None
    ) -> Latent:
        """Latent at the last of ``context`` (B, L, S, S, 3) frames, L at least ``encoder_frames``.

        ``actions`` (B, L-1[, A]) between them make the velocity more certain; a structure with memory
        needs them, to be warmed up on the frames before the last K.
        """
        self._check_context(context)
        return self._read(context, params, actions, False)[0]

    def _read(
        self, context: Tensor, params: Tensor | None, actions: Tensor | None, sampled: bool
    ) -> tuple[Latent, Tensor, Tensor]:
        """Latent at the end of a context, with the mean and log-variance that it was drawn from."""
        frames, condition = self.config.encoder_frames, self._condition(params)
        extra = context.shape[1] - frames
        latent: Latent | None = None
        for start in range(extra + 1) if self._remembers else (extra,):
            between = None if actions is None else actions[:, start : start + frames - 1]
            mean, log_variance = self.posterior(context[:, start : start + frames], between)
            z = self.transform(sample(mean, log_variance) if sampled else mean)
            if latent is None:
                latent = Latent(z, self.dynamics.initial_memory(z), condition)
                continue
            if actions is None:
                raise ValueError(
                    f"a context of {context.shape[1]} frames warms up a memory: pass the actions "
                    f"(B, {context.shape[1] - 1}) between them"
                )
            latent = self.step(latent, actions[:, start + frames - 2])._replace(z=z)
        assert latent is not None
        return latent, mean, log_variance

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds later. A model that knows one step length only ignores ``dt``."""
        ratio = 1.0 if dt is None else dt / self.spec.dt
        return self.dynamics.step(latent, action, ratio * self.config.time_step)

    def decode(self, latent: Latent) -> Tensor:
        """(B, S, S, 3) float picture in [0, 1]: the positions alone are drawn."""
        return self.draw(latent.z).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    def draw(self, z: Tensor) -> Tensor:
        """(B, 3, S, S) picture of states (q, p), not clamped."""
        q = z.chunk(2, 1)[0]
        if self.decoder_dtype is None:
            return self.decoder(q)
        with torch.autocast(q.device.type, self.decoder_dtype):
            return self.decoder(q).float()

    def energy(self, latent: Latent) -> Tensor:
        """(B,) learned energy, up to scale and offset. Raises where the structure has none."""
        return self.dynamics.energy(latent)

    def conserve(self, latent: Latent, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds later with neither input nor dissipation: the learned H alone acts.

        Raises where the structure has no energy.
        """
        if not isinstance(self.dynamics, PortHamiltonian):
            raise NotImplementedError(
                f"{self.config.structure} has no energy; port_hamiltonian has"
            )
        ratio = 1.0 if dt is None else dt / self.spec.dt
        return self.dynamics.conserve(latent, ratio * self.config.time_step)

    def judge(self, latent: Latent, action: Tensor) -> tuple[Tensor, Tensor]:
        """Reward (B,) and logit of termination (B,) of having come to ``latent`` by ``action``."""
        return self.heads(latent.z, action)

    # Training

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative ELBO of a picture (hgn), or the sum of the parts' own losses (detached).

        The squared error is summed over a picture and averaged over pictures; see ``VisualConfig``.
        """
        if self.config.training_mode == "hgn":
            return self._elbo(batch)
        return self._detached(batch)

    def _elbo(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        frames, first = _frames(batch), self.config.context_frames - 1
        context = frames[:, : first + 1]
        latent, mean, log_variance = self._read(
            context, batch.params, batch.actions[:, :first], True
        )
        kl = divergence(mean, log_variance, self.config.free_bits)
        steps = min(batch.actions.shape[1] - first, self.config.rollout_steps)
        ahead = self._pushed(batch.actions.shape[1] - first - steps)
        if ahead:  # from imagined latents only: the encoder learns from the other batches
            with torch.no_grad():
                latent = self._advanced(latent, batch.actions[:, first : first + ahead])
            first, kl = first + ahead, kl.detach()
        batch = shortened(batch, first + steps)
        rollout = self._rollout(latent, batch.actions[:, first:])
        valid = torch.cat((batch.mask[:, first - 1 : first], batch.mask[:, first:]), 1)
        self._note_reach(rollout)
        error = self._picture_error(rollout, _frames(batch)[:, first:], valid)
        loss = error + self.config.beta * kl
        heads, logs = self._head_loss(rollout, batch, first)
        logs |= {"reconstruction": error.detach(), "kl": kl.detach(), "loss": loss.detach()}
        return loss + heads, logs

    def _pushed(self, most: int) -> int:
        """Steps to imagine before a rollout: none in half of the batches, else up to ``most``."""
        if most < 1 or torch.rand(()) < 0.5:
            return 0
        return int(torch.randint(1, most + 1, ()))

    def _advanced(self, latent: Latent, actions: Tensor) -> Latent:
        """``latent`` after ``actions`` (B, T[, A])."""
        for t in range(actions.shape[1]):
            latent = self.step(latent, actions[:, t])
        return latent

    def _detached(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Every frame is read for itself; the structure follows the latents, which do not feel it.

        Momenta are decoded too, as the frame before: decode(q - h p) with h one step. So they mean
        motion although no rollout reaches the encoder.
        """
        frames, many = _frames(batch), self.config.encoder_frames
        first = self.config.context_frames - 1
        windows = frames.unfold(1, many, 1)[:, first + 1 - many :]  # (B, N, S, S, 3, K)
        count = windows.shape[1]
        between = batch.actions.unfold(1, many - 1, 1)[:, first + 1 - many :]
        if between.ndim == 4:  # continuous actions: (B, N, A, K-1)
            between = between.movedim(-1, 2)
        mean, log_variance = self.posterior(
            windows.movedim(-1, 2).flatten(0, 1), between.flatten(0, 1)
        )
        states = self.transform(sample(mean, log_variance)).unflatten(0, (-1, count))
        valid = torch.cat((torch.ones_like(batch.mask[:, :1]), batch.mask[:, first:]), 1)
        self._note_reach(states)
        error = self._picture_error(states, frames[:, first:], valid)
        earlier = self._picture_error(self._moved_back(states), frames[:, first - 1 : -1], valid)
        error = 0.5 * (error + earlier)
        kl = divergence(mean, log_variance, self.config.free_bits)
        loss = error + self.config.beta * kl
        logs = {"reconstruction": error.detach(), "kl": kl.detach()}
        target = self.transform(mean).unflatten(0, (-1, count)).detach()
        total = loss
        if self.config.train_predictor and self.config.predictor_weight:
            followed = self._following_error(frames, target, batch, first, valid)
            total = total + self.config.predictor_weight * followed
            logs["prediction"] = followed.detach()
            loss = loss + followed
        heads, head_logs = self._head_loss(target, batch, first)
        return total + heads, {**logs, **head_logs, "loss": loss.detach()}

    def _moved_back(self, states: Tensor) -> Tensor:
        """States one step earlier if nothing acted: q - h p."""
        q, p = states.chunk(2, 2)
        return torch.cat((q - self.config.time_step * p, p), 2)

    def _following_error(
        self, frames: Tensor, target: Tensor, batch: Batch, first: int, valid: Tensor
    ) -> Tensor:
        """Squared error of a rollout in the latent, in units of the typical change in one step."""
        with torch.no_grad():
            context = frames[:, : first + 1]
            latent = self._read(context, batch.params, batch.actions[:, :first], False)[0]
        latent = latent._replace(z=target[:, 0])
        predicted = self._rollout(latent, batch.actions[:, first:])[:, 1:]
        weight = valid[:, 1:].to(predicted.dtype)
        change = ((target[:, 1:] - target[:, :-1]) ** 2).flatten(2).mean(2)
        error = ((predicted - target[:, 1:]) ** 2).flatten(2).mean(2)
        return (weight * error).sum() / (weight * change).sum().clamp(min=1e-6)

    def _rollout(self, latent: Latent, actions: Tensor) -> Tensor:
        """States (B, T+1, ...) from ``latent`` on under ``actions`` (B, T[, A])."""
        states = [latent.z]
        for t in range(actions.shape[1]):
            latent = self.step(latent, actions[:, t])
            states.append(latent.z)
        return torch.stack(states, 1)

    def _picture_error(self, states: Tensor, frames: Tensor, valid: Tensor) -> Tensor:
        """Summed squared error of a picture, mean over the frames drawn: some of each row, or all."""
        count, kept = states.shape[:2], self.config.decoded_frames
        if 0 < kept < count[1]:
            order = torch.rand(count, device=states.device).argsort(1)[:, :kept]
            rows = torch.arange(count[0], device=states.device).unsqueeze(1)
            states, frames, valid = states[rows, order], frames[rows, order], valid[rows, order]
        pictures = self.draw(states.flatten(0, 1))
        wanted = frames.flatten(0, 1).permute(0, 3, 1, 2).to(pictures.dtype) / 255.0
        squared = ((pictures - wanted) ** 2).flatten(1).sum(1)
        weight = valid.flatten().to(squared.dtype)
        return (weight * squared).sum() / weight.sum().clamp(min=1.0)

    def _head_loss(
        self, states: Tensor, batch: Batch, first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the heads on the states (B, T+1, ...) that the actions from ``first`` led to."""
        if batch.rewards is None or batch.terminated is None:
            raise ValueError("the heads need a batch with rewards and terminated")
        after = states[:, 1:].flatten(0, 1)
        reward, ended = self.heads.loss(
            after if self.config.head_gradient else after.detach(),
            batch.actions[:, first:].flatten(0, 1),
            batch.rewards[:, first:].flatten(),
            batch.terminated[:, first:].flatten(),
            batch.mask[:, first:].flatten(),
        )
        logs = {"reward": reward.detach(), "termination": ended.detach()}
        return self.config.head_weight * (reward + ended), logs

    def _note_reach(self, states: Tensor) -> None:
        """Remember about how large latents are: far beyond it a rollout has diverged."""
        if self.training:
            largest = states.detach().abs().amax()
            self.reach.copy_(torch.maximum(0.999 * self.reach, largest.nan_to_num(0.0, 0.0)))

    def accelerate(self, dtype: torch.dtype | None, compiled: bool) -> None:
        """Run where the model is as fast as it can: channels last, mixed precision, compiled parts.

        The decoder, which dominates, runs in ``dtype``; on CUDA the encoder does too. The latent's motion
        stays in float32. Parameter names do not change.
        """
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.decoder_dtype = dtype
        cuda = self.reach.device.type == "cuda"
        self.encoder_dtype = dtype if cuda else None
        if compiled:
            for part in (self.encoder, self.transform, self.decoder):
                part.compile()
            self.dynamics.step = torch.compile(self.dynamics.step)  # type: ignore[method-assign]

    def separate_parts(self) -> dict[str, list[nn.Module]]:
        """Parts with an optimiser each: none in hgn mode, where one ELBO moves all."""
        if self.config.training_mode == "hgn":
            return {}
        return {
            "encoder": [self.encoder, self.transform],
            "decoder": [self.decoder],
            "predictor": [self.dynamics],
            "heads": [self.heads],
        }

    def freeze(self) -> None:
        """Take the parts that ``config`` does not train out of training."""
        config = self.config
        parts = (
            (config.train_encoder, (self.encoder, self.transform)),
            (config.train_decoder, (self.decoder,)),
            (config.train_predictor, (self.dynamics,)),
        )
        for trained, modules in parts:
            for module in modules:
                module.requires_grad_(trained)

    @property
    def _remembers(self) -> bool:
        return self.config.structure == "lstm"

    def _condition(self, params: Tensor | None) -> Tensor | None:
        if not self.param_shift.numel():
            return None
        if params is None:
            names = ", ".join(self.spec.param_names)
            raise ValueError(f"this model is told parameters: pass params (B, P) of {names}")
        return (params.to(self.param_shift.dtype) - self.param_shift) / self.param_scale

    def _check_context(self, context: Tensor) -> None:
        size, many = self.spec.image_size, self.config.encoder_frames
        if context.ndim != 5 or tuple(context.shape[2:]) != (size, size, 3):
            raise ValueError(
                f"context of shape {tuple(context.shape)} is not valid: expected frames "
                f"(B, L, {size}, {size}, 3)"
            )
        if context.shape[1] < many:
            raise ValueError(
                f"context has {context.shape[1]} frames, too few: this model reads the last {many}"
            )
        if context.is_floating_point() and not bool(torch.isfinite(context).all()):
            raise ValueError("context has frames that are not finite: NaN or infinite pixels")


def idle_action(spec: Spec) -> int | None:
    """The discrete action without any control, 0 for continuous ones; None where there is none."""
    if spec.action_kind != "discrete":
        return 0
    levels = np.abs(physgym.get_system(spec.env_name).discrete_actions).sum(1)
    idle = np.flatnonzero(levels == 0)
    return int(idle[0]) if len(idle) else None


def stacked(frames: Tensor) -> Tensor:
    """Frames (B, K, S, S, 3), uint8 or floats in [0, 1], as channels (B, 3 K, S, S) in [0, 1]."""
    channels = frames.permute(0, 1, 4, 2, 3).flatten(1, 2)
    return channels if channels.is_floating_point() else channels.float() / 255.0


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


def _frames(batch: Batch) -> Tensor:
    if batch.frames is None:
        raise ValueError("this batch has no frames: train on a buffer collected with --pixels")
    return batch.frames
