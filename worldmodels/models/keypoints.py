"""World model over pixels whose latent is what is read: points, their coordinates, and nothing else.

Every frame is read by one rule, a structure steps the coordinates and their velocities as it steps states, and
sprites are drawn at the points. Velocities are not read at all: the structure itself filters them from a few
frames, predicting each and correcting by what is read there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worldmodels.configs.keypoints import KeypointConfig
from worldmodels.dynamics.fields import embed
from worldmodels.dynamics.port_hamiltonian import PortHamiltonian
from worldmodels.interface import Batch, Latent, Spec, WorldModel
from worldmodels.models import observer
from worldmodels.models.ensemble import EnsembleWorldModel
from worldmodels.models.heads import PointHeads
from worldmodels.models.inputs import check_actions, check_context, check_latent, idle_action
from worldmodels.models.states import StateWorldModel
from worldmodels.sight.reader import Reading, channels
from worldmodels.sight.seeing import Sight, explained_share, trusted


class KeypointWorldModel(WorldModel):
    """The four verbs over pictures (B, S, S, 3), by a model of states (B, 2n) behind a reader.

    A latent's z is that of ``motion``, a ``StateWorldModel`` (or an ensemble of them) over n coordinates and
    their velocities, in half-widths of the picture and radians; its memory ends with the circles' radii (B, K).
    Legend: K bodies, n coordinates, L frames of a context.
    """

    rate_scales: ClassVar[dict[str, float]] = {"heads": 4.0}
    """Learning rates of parts over that of the optimiser: a reward may be narrow."""

    def __init__(self, spec: Spec, config: KeypointConfig) -> None:
        super().__init__()
        if not config.settled or config.kinds is None:
            raise ValueError(
                f"points={config.points}, coordinates={config.coordinates!r} and sprite_reach="
                f"{config.sprite_reach} of a model of keypoints are found in pictures: worldmodels.train "
                "finds them; to build one without, give all three"
            )
        self.spec, self.config = spec, config
        self.sight = Sight(config.kinds, spec.image_size, config.sprite_reach)
        self.sight.requires_grad_(False)
        chart = self.sight.chart
        self.size = chart.size
        inner = replace(  # what is read are positions, of any env
            spec, state_size=2 * chart.size, angles=chart.angles, image_size=0, foreign=False, coordinates="",
            idle=idle_action(spec),
        )  # fmt: skip
        kind = EnsembleWorldModel if config.dynamics.ensemble > 1 else StateWorldModel
        self.motion = kind(inner, config.dynamics)
        self.heads = PointHeads(config, self.own.dynamics.medium)
        self.any_dt, self.reversible = self.motion.any_dt, self.motion.reversible
        self.reach: Tensor
        self.grain: Tensor
        self.register_buffer("reach", torch.zeros(()))
        self.register_buffer("grain", torch.ones(chart.size))

    @property
    def members(self) -> tuple[StateWorldModel, ...]:
        """The model of states, or those of an ensemble."""
        motion: Any = self.motion
        return tuple(motion.models) if self.config.dynamics.ensemble > 1 else (motion,)

    @property
    def own(self) -> StateWorldModel:
        """The model of states, or the first of an ensemble."""
        return self.members[0]

    @property
    def dynamics(self) -> Any:
        """The structure."""
        return self.own.dynamics

    @property
    def context_frames(self) -> int:
        """Frames that ``encode`` is meant to see."""
        return self.config.context_frames

    @property
    def told_params(self) -> tuple[str, ...]:
        """Physical parameters that predictions depend on: none without ``condition="params"``."""
        return self.motion.told_params

    @property
    def has_energy(self) -> bool:
        """Whether ``energy`` is there."""
        return self.motion.has_energy

    def fit_normaliser(self, readings: Any) -> None:
        """Set the scales from episodes of coordinates and velocities (a train split of ``Readings``)."""
        self.motion.fit_normaliser(readings)
        self.heads.fit_normaliser(readings)
        own, half = self.own, 0.5 * self.spec.image_size
        grain = torch.full((self.size,), self.config.precision_pixels / half)
        owners, radii = self.sight.chart.owners, torch.as_tensor(readings.radii)
        for index in self.sight.chart.angles:
            grain[index] /= float(radii[:, owners[index]].median().clamp(min=1e-3))
        self.grain.copy_(grain / own.scale[: self.size])
        self.reach.copy_(self._straight((own.reach - own.shift.abs()).abs() / own.scale).max())

    def untrained(self) -> KeypointWorldModel:
        """The same with a fresh motion, drawn from torch's global generator; what is found, not trained, stays.

        So a comparison with it tells what is learned from what is read.
        """
        fresh = KeypointWorldModel(self.spec, self.config)
        fresh.sight.load_state_dict(self.sight.state_dict())
        for own, other in zip(self.buffers(), fresh.buffers(), strict=True):
            other.copy_(own)
        for model in fresh.members:
            model.know_time_scale()
        return fresh

    # The verbs

    def look(self, frames: Tensor) -> Reading:
        """Points (B, L, K, 2) and how much is seen (B, L, K) of ``frames`` (B, L, S, S, 3)."""
        reading = self.sight.reader(
            channels(frames.flatten(0, 1), self.sight.reader.background.dtype)
        )
        return Reading(*(tensor.unflatten(0, frames.shape[:2]) for tensor in reading))

    def encode(
        self, context: Tensor, params: Tensor | None = None, actions: Tensor | None = None
    ) -> Latent:
        """Latent at the last of ``context`` (B, L, S, S, 3) frames, L at least 2.

        ``actions`` (B, L-1[, A]) between them; None: nothing acted. A body that is seen in none of the
        frames has no place: its numbers are NaN.
        """
        size = self.spec.image_size
        check_context(context, (size, size, 3), "pixels", 2, "frames")
        if context.is_floating_point() and not bool(torch.isfinite(context).all()):
            raise ValueError("context has frames that are not finite: NaN or infinite pixels")
        between = (context.shape[0], context.shape[1] - 1)
        if actions is None:
            actions = self._idle(between, context.device)
        check_actions(actions, self.spec, between, "actions")
        reading, kind = self.look(context), self.reach.dtype
        chart, seen = self.sight.chart, trusted(reading.seen)
        weight = seen.to(reading.points.dtype)
        radii = (chart.radii(reading.points) * weight).sum(1) / weight.sum(1)
        read = chart.coordinates(reading.points)
        return self.observe(read.to(kind), seen, radii.to(kind), actions, params)

    def observe(
        self, read: Tensor, seen: Tensor, radii: Tensor, actions: Tensor, params: Tensor | None
    ) -> Latent:
        """Filter coordinates ``read`` (B, L, n) of bodies ``seen`` (B, L, K) into a latent at the last.

        ``radii`` (B, K) of the circles. See ``observer.observe``.
        """
        latent = observer.observe(self, read, seen, actions, params)
        return latent._replace(memory=(*latent.memory, radii))

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds later. A model that knows one step length only ignores ``dt``."""
        inner, radii = self._parted(latent)
        moved = self.motion.step(inner, action, dt)
        return moved._replace(memory=(*moved.memory, radii))

    def decode(self, latent: Latent) -> Tensor:
        """(B, S, S, 3) float picture in [0, 1] of the bodies where the latent has them."""
        return self.draw(self.places(latent)).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    def draw(self, places: Tensor) -> Tensor:
        """(B, 3, S, S) picture of bodies at ``places`` (B, K, 2), NaN where one is not a number."""
        sound = places.isfinite().flatten(1).all(1)
        drawn = self.sight.sprites(torch.nan_to_num(places, 0.0, 0.0, 0.0))
        return torch.where(sound[:, None, None, None], drawn, torch.nan)

    def coordinates(self, latent: Latent) -> Tensor:
        """(B, 2n) coordinates and their rates a second, in half-widths of the picture and radians."""
        return self.motion.decode(self._parted(latent)[0])

    def places(self, latent: Latent) -> Tensor:
        """(B, K, 2) where the bodies are, in half-widths of the picture."""
        kind = self.sight.chart.origin.dtype
        coordinates = self.coordinates(latent)[:, : self.size].to(kind)
        return self.sight.chart.points(coordinates, latent.memory[-1].to(kind))

    def explained(self, frames: Tensor) -> Tensor:
        """Share of what differs from the background, squared, that sprites draw of (N, S, S, 3) frames."""
        kind = self.sight.reader.background.dtype
        return explained_share(self.sight, channels(frames.to(self.reach.device), kind))

    def energy(self, latent: Latent) -> Tensor:
        """(B,) learned energy, up to scale and offset. Raises where the structure has none."""
        return self.motion.energy(self._parted(latent)[0])

    def conserve(self, latent: Latent, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds later with neither input nor dissipation: the learned H alone acts.

        An ensemble, whose members have no such step, goes under the action that does nothing. Raises where
        the structure has no energy.
        """
        if not isinstance(self.dynamics, PortHamiltonian):
            raise NotImplementedError(
                f"{self.config.structure} has no energy; port_hamiltonian has"
            )
        if isinstance(self.motion, EnsembleWorldModel):
            return self.step(latent, self._idle(latent.z.shape[:1], latent.z.device), dt)
        inner, radii = self._parted(latent)
        seconds = self.spec.dt if dt is None else dt
        moved = self.dynamics.conserve(inner, seconds / self.own.time_scale)
        return moved._replace(memory=(*moved.memory, radii))

    def judge(self, latent: Latent, action: Tensor) -> tuple[Tensor, Tensor]:
        """Reward (B,) and logit of termination (B,) of having come to ``latent`` by ``action``."""
        z = latent.z if latent.z.ndim == 2 else latent.z.mean(1)
        return self.heads(self._features(z), action)

    def largest(self, latent: Latent) -> Tensor:
        """(B,) largest magnitude in a latent, angles left out: ``reach`` is that of training."""
        return self._straight(latent.z).abs().flatten(1).amax(1)

    @property
    def disagreement(self) -> Callable[[Latent], Tensor]:
        """(latent) to the (B,) standard deviation over members in latent units; an ensemble alone has it."""
        if not isinstance(self.motion, EnsembleWorldModel):
            raise AttributeError("one model alone has no disagreement: model.dynamics.ensemble=5")
        return self.motion.disagreement

    # Training

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of rollouts over coordinates that were read; see ``observer``.

        ``batch.states`` (B, T+1, 2n) are coordinates and their smoothed velocities; ``batch.observed``
        frames of them are filtered before the rollout begins, 0: it begins at the smoothed state.
        """
        follow = observer.long_errors if batch.observed else observer.short_errors
        errors, states = follow(self, batch)
        mask = batch.mask[:, -errors.shape[1] :].to(errors.dtype)
        error = (errors * mask).sum() / mask.sum().clamp(min=1.0)
        heads, logs = self._head_loss(batch, states)
        logs |= {"prediction": error.detach(), "loss": error.detach()}
        return error + heads, logs

    def separate_parts(self) -> dict[str, list[nn.Module]]:
        """Motion and heads, each with its own optimiser: neither's gradients are cut by the other's."""
        return {"motion": [self.motion], "heads": [self.heads]}

    def _head_loss(self, batch: Batch, states: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the heads on the latents ``states`` (B, T, 2n) of the last T steps: it moves nothing else."""
        if batch.rewards is None or batch.terminated is None:
            raise ValueError("the heads need a batch with rewards and terminated")
        first = batch.mask.shape[1] - states.shape[1]
        outcomes = (batch.actions, batch.rewards, batch.terminated, batch.mask)
        reward, ended = self.heads.loss(
            self._features(states.flatten(0, 1)),
            *(value[:, first:].flatten(0, 1) for value in outcomes),
        )
        logs = {"reward": reward.detach(), "termination": ended.detach()}
        return self.config.head_weight * (reward + ended), logs

    def _features(self, z: Tensor) -> Tensor:
        return embed(z, self.sight.chart.angles)

    def _straight(self, z: Tensor) -> Tensor:
        """``z`` (..., 2n) with its angles at 0."""
        kept = torch.ones(2 * self.size, device=z.device, dtype=z.dtype)
        kept[list(self.sight.chart.angles)] = 0.0
        return z * kept

    def _parted(self, latent: Latent) -> tuple[Latent, Tensor]:
        """A latent as ``motion`` knows it, and the radii; ``ValueError`` for what is none of this model's."""
        many = self.config.dynamics.ensemble
        check_latent(latent, (2 * self.size,) if many == 1 else (many, 2 * self.size))
        if not latent.memory:
            raise ValueError(
                "latent has no memory: expected the Latent that encode or step returns"
            )
        return latent._replace(memory=latent.memory[:-1]), latent.memory[-1]

    def _idle(self, sizes: Any, device: Any) -> Tensor:
        idle = idle_action(self.spec)
        if idle is None:
            raise ValueError(
                "this env has no action that does nothing: pass the actions between the frames"
            )
        if self.spec.action_kind == "discrete":
            return torch.full(tuple(sizes), idle, dtype=torch.int64, device=device)
        return torch.zeros(*sizes, self.spec.action_size, device=device)
