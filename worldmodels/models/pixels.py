"""World model over pixels: a beta-VAE around a structure, behind the same four verbs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.configs.visual import VisualConfig
from worldmodels.dynamics import build_dynamics
from worldmodels.dynamics.port_hamiltonian import PortHamiltonian
from worldmodels.interface import Batch, Latent, Medium, Spec, WorldModel
from worldmodels.models import rereading
from worldmodels.models.backgrounds import background_of
from worldmodels.models.heads import OutcomeHeads
from worldmodels.models.inputs import (
    check_actions,
    check_context,
    check_latent,
    check_params,
    idle_action,
)
from worldmodels.models.objectives import detached, elbo, sample
from worldmodels.models.vae import Decoder, Encoder, Transform


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
        self.reversible = self.dynamics.reversible and not config.rereads
        self.param_shift: Tensor
        self.param_scale: Tensor
        self.reach: Tensor
        self.register_buffer("param_shift", torch.zeros(told))
        self.register_buffer("param_scale", torch.ones(told))
        self.register_buffer("reach", torch.zeros(()))
        self.background: Tensor | None
        empty = torch.zeros(3, spec.image_size, spec.image_size)
        self.register_buffer("background", empty if spec.foreign else None)  # ours are on black
        self.encoder_dtype: torch.dtype | None = None
        self.decoder_dtype: torch.dtype | None = None

    @property
    def context_frames(self) -> int:
        """Frames that ``encode`` is meant to see."""
        return self.config.context_frames

    @property
    def told_params(self) -> tuple[str, ...]:
        """Physical parameters that predictions depend on: none without ``condition="params"``."""
        return self.spec.param_names if self.param_shift.numel() else ()

    @property
    def has_energy(self) -> bool:
        """Whether ``energy`` is there."""
        return self.dynamics.has_energy

    def fit_normaliser(self, dataset: Any) -> None:
        """Set the scales of parameters and rewards from the episodes of ``dataset`` (its train split), and of a
        foreign env what its pictures have in common, beside which the decoder draws.
        """
        if self.param_shift.numel():
            table = np.stack([dataset.params[name] for name in self.spec.param_names], 1)
            spread = table.std(0)
            self.param_shift.copy_(torch.as_tensor(table.mean(0)))
            self.param_scale.copy_(torch.as_tensor(np.where(spread > 1e-6, spread, 1.0)))
        self.heads.fit_normaliser(dataset)
        if self.background is not None:
            mean = torch.as_tensor(background_of(dataset).mean)
            self.background.copy_(mean.permute(2, 0, 1))

    def untrained(self) -> VisualWorldModel:
        """The same architecture with fresh weights, drawn from torch's global generator."""
        return VisualWorldModel(self.spec, self.config)

    # The verbs

    def posterior(self, frames: Tensor, actions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z given ``frames`` (B, K, S, S, 3), uint8 or in [0, 1].

        ``actions`` (B, K-1[, A]) between the frames, where they are known.
        """
        channels = stacked(frames).to(self.reach.dtype)
        if self.encoder_dtype is None:
            return self.encoder(channels, actions)
        with torch.autocast(frames.device.type, self.encoder_dtype):
            mean, log_variance = self.encoder(channels, actions)
        return mean.float(), log_variance.float()

    def encode(
        self, context: Tensor, params: Tensor | None = None, actions: Tensor | None = None
    ) -> Latent:
        """Latent at the last of ``context`` (B, L, S, S, 3) frames, L at least ``encoder_frames``.

        ``actions`` (B, L-1[, A]) between them make the velocity more certain; a structure with memory
        needs them, to be warmed up on the frames before the last K.
        """
        size = self.spec.image_size
        least = self.config.encoder_frames
        check_context(context, (size, size, 3), "pixels", least, "frames")
        if context.is_floating_point() and not bool(torch.isfinite(context).all()):
            raise ValueError("context has frames that are not finite: NaN or infinite pixels")
        if actions is not None:
            between = (context.shape[0], context.shape[1] - 1)
            check_actions(actions, self.spec, between, "actions")
        return self.read(context, params, actions, False)[0]

    def read(
        self, context: Tensor, params: Tensor | None, actions: Tensor | None, sampled: bool
    ) -> tuple[Latent, Tensor, Tensor]:
        """Latent at the end of a context, with the mean and log-variance that it was drawn from."""
        frames, condition = self.config.encoder_frames, self._condition(params, len(context))
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
        return rereading.watched(self, latent), mean, log_variance

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds later. A model that knows one step length only ignores ``dt``.

        Every ``config.rereads`` steps of the buffer's length it is read anew from the last two
        pictures that were imagined.
        """
        check_latent(latent, self._sizes)
        check_actions(action, self.spec, latent.z.shape[:1])
        ratio = 1.0 if dt is None else dt / self.spec.dt
        if not self.config.rereads:
            return self.dynamics.step(latent, action, ratio * self.config.time_step)
        return rereading.step(self, latent, action, ratio)

    def decode(self, latent: Latent) -> Tensor:
        """(B, S, S, 3) float picture in [0, 1]: the positions alone are drawn."""
        check_latent(latent, self._sizes)
        return self.draw(latent.z).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    def draw(self, z: Tensor) -> Tensor:
        """(B, 3, S, S) picture of states (q, p), not clamped."""
        q = z.chunk(2, 1)[0]
        if self.decoder_dtype is None:
            drawn = self.decoder(q)
        else:
            with torch.autocast(q.device.type, self.decoder_dtype):
                drawn = self.decoder(q).float()
        return drawn if self.background is None else drawn + self.background

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
        losses = elbo if self.config.training_mode == "hgn" else detached
        return losses(self, batch)

    def note_reach(self, states: Tensor) -> None:
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

    @property
    def _sizes(self) -> tuple[int, ...]:
        """Those of a latent's z, after the batch."""
        config = self.config
        if config.spatial:
            return config.latent_channels, config.spatial_size, config.spatial_size
        return (config.flat_size,)

    def _condition(self, params: Tensor | None, rows: int) -> Tensor | None:
        if not self.param_shift.numel():
            return None
        told = check_params(params, self.spec, rows).to(self.param_shift.dtype)
        return (told - self.param_shift) / self.param_scale


def stacked(frames: Tensor) -> Tensor:
    """Frames (B, K, S, S, 3), uint8 or floats in [0, 1], as channels (B, 3 K, S, S) in [0, 1]."""
    channels = frames.permute(0, 1, 4, 2, 3).flatten(1, 2)
    return channels if channels.is_floating_point() else channels.float() / 255.0
