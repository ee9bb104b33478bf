"""World model over state vectors: normalise, step a structure, denormalise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.configs.structures import ModelConfig
from worldmodels.dynamics import build_dynamics
from worldmodels.dynamics.fields import embed
from worldmodels.interface import Batch, Latent, Medium, Spec, WorldModel
from worldmodels.models.heads import StateHeads
from worldmodels.models.inputs import check_actions, check_context, check_latent, check_params
from worldmodels.models.observed import Observed
from worldmodels.native.selection import by_torch, calls_of, rolled_out


class StateWorldModel(WorldModel):
    """The four verbs over states (B, D) of positions, then velocities.

    Latents are dimensionless: positions are centred and divided by one length (angles stay in radians),
    velocities by the same length over one time tau, and dt by tau. So a velocity stays the rate of its
    position, directions stay comparable, and everything is of order one. ``fit_normaliser`` sets the
    numbers, which are saved with the weights.
    """

    def __init__(self, spec: Spec, config: ModelConfig) -> None:
        super().__init__()
        self.spec = spec
        self.config = config
        told = len(spec.param_names) if config.condition == "params" else 0
        if config.condition == "params" and not told:
            raise ValueError("condition='params' needs a buffer whose spec names parameters")
        self.observed = Observed(spec)
        size, structured = self.observed.size, self.observed.structured
        if config.structured and not structured:
            raise ValueError(
                f"{config.name} needs to know which observations of {spec.env_name} are positions and "
                "velocities: train with --env.coordinates"
            )
        medium = Medium(
            size,
            False,
            self.observed.angles,
            spec.action_kind,
            spec.action_size,
            told,
            spec.idle,
            structured,
        )
        self.dynamics = build_dynamics(config, medium)
        self.any_dt, self.reversible = self.dynamics.any_dt, self.dynamics.reversible
        self.heads = StateHeads(config, medium) if spec.foreign else None
        self.shift: Tensor
        self.scale: Tensor
        self.time_scale: Tensor
        self.step_scale: Tensor
        self.param_shift: Tensor
        self.param_scale: Tensor
        self.reach: Tensor
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("time_scale", torch.ones(()))
        self.register_buffer("step_scale", torch.ones(size))
        self.register_buffer("param_shift", torch.zeros(told))
        self.register_buffer("param_scale", torch.ones(told))
        self.register_buffer("reach", torch.full((spec.state_size,), float("inf")))
        self._tau = 1.0
        self.accelerated = False
        self.register_load_state_dict_post_hook(_after_loading)

    @property
    def told_params(self) -> tuple[str, ...]:
        """Physical parameters that predictions depend on: none without ``condition="params"``."""
        return self.spec.param_names if self.param_shift.numel() else ()

    @property
    def has_energy(self) -> bool:
        """Whether ``energy`` is there."""
        return self.dynamics.has_energy

    def fit_normaliser(self, dataset: Any) -> None:
        """Set scales from the episodes of ``dataset`` (its train split). Raises on non-finite data."""
        seen = transitions(dataset)
        states, following = (self.observed.features(torch.from_numpy(rows)) for rows in seen)
        steps = self.observed.difference(following, states).numpy()
        shift, scale, tau = self._scales(states.numpy(), steps)
        change = np.sqrt(np.mean((steps / scale) ** 2, 0))
        values = {"shift": shift, "scale": scale, "time_scale": tau}
        values["step_scale"] = np.array([_floored(c) for c in change])
        values["reach"] = np.abs(seen[0]).max(0)
        if self.param_shift.numel():
            table = np.stack([dataset.params[name] for name in self.spec.param_names], 1)
            values["param_shift"] = table.mean(0)
            values["param_scale"] = np.array([_floored(s, 1e-6) for s in table.std(0)])
        for name, value in values.items():
            buffer = getattr(self, name)
            buffer.copy_(torch.as_tensor(value, dtype=buffer.dtype))
        self.know_time_scale()
        self.dynamics.calibrate(self.spec.dt / self._tau)
        if self.heads is not None:
            self.heads.fit_normaliser(dataset)

    def _scales(
        self, states: np.ndarray, steps: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Shift (F,), scale (F,) and time [s] of features (M, F) that change by ``steps`` (M, F)."""
        centre = states.mean(0)
        if not self.observed.structured:  # of unlike things, each has a scale of its own
            scale = np.array([_floored(s) for s in states.std(0)])
            moved = np.sqrt(np.mean((steps / scale) ** 2))
            return centre, scale, self.spec.dt / min(_floored(moved), 1.0)
        half, angles = len(centre) // 2, self.observed.angles
        straight = [i for i in range(half) if i not in angles]
        length = np.ones(half)
        if straight:
            spread = np.sqrt(np.mean((states[:, straight] - centre[straight]) ** 2))
            length[straight] = _floored(spread)
        rate = np.sqrt(np.mean((states[:, half:] / length) ** 2))
        tau = 1.0 / _floored(rate)
        shift = np.zeros(2 * half)
        shift[straight] = centre[straight]
        return shift, np.concatenate((length, length / tau)), tau

    def know_time_scale(self) -> None:
        """Keep tau as a plain number too: integrators then spend nothing on it."""
        self._tau = float(self.time_scale)

    @property
    def seconds(self) -> float:
        """tau, the seconds that a unit of the structure's time is long."""
        return self._tau

    def encode(self, context: Tensor, params: Tensor | None = None) -> Latent:
        """Latent of the last of ``context`` (B, K, D); a state is all there is to know of the past.

        Raises ``ValueError`` naming another shape or type, as every verb does.
        """
        check_context(context, (self.spec.state_size,), "floats", 1, "states")
        z = self._latent(context[:, -1])
        condition = None
        if self.param_shift.numel():
            told = check_params(params, self.spec, len(z)).to(z.dtype)
            condition = (told - self.param_shift) / self.param_scale
        return Latent(z, self.dynamics.initial_memory(z), condition)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds later. A model that knows one step length only ignores ``dt``."""
        check_latent(latent, (self.observed.size,))
        check_actions(action, self.spec, latent.z.shape[:1])
        seconds = self.spec.dt if dt is None else dt
        return self.dynamics.step(latent, action, seconds / self._tau)

    def decode(self, latent: Latent) -> Tensor:
        """(B, D) state in physical units, angles unwrapped; what a foreign env would show."""
        check_latent(latent, (self.observed.size,))
        return self.shown(latent.z)

    def shown(self, z: Tensor) -> Tensor:
        """(..., D) what latents (..., F) look like."""
        return self.observed.shown(z * self.scale + self.shift)

    def judge(self, before: Tensor, action: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Learned (reward, logit of termination), each (B,), of going from observations ``before`` (B, D) to
        ``after`` by ``action``. Raises ``NotImplementedError`` where the true env's own are known.
        """
        if self.heads is None:
            raise NotImplementedError(
                f"rewards and ends of {self.spec.env_name} are known: nothing of them was learned"
            )
        return self.heads(self._pairs(before, after), action)

    def _latent(self, states: Tensor) -> Tensor:
        return (self.observed.features(states.to(self.scale.dtype)) - self.shift) / self.scale

    def _pairs(self, before: Tensor, after: Tensor) -> Tensor:
        angles = self.observed.angles
        return torch.cat([embed(self._latent(states), angles) for states in (before, after)], 1)

    def energy(self, latent: Latent) -> Tensor:
        """(B,) learned energy, up to scale and offset. Raises where the structure has none."""
        return self.dynamics.energy(latent)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of steps, in units of the typical change in one step.

        A step in which more than that changes (a close encounter) weighs less, as 1 / (1 + change^2):
        otherwise the few fastest moments of a buffer would decide the fit.
        """
        if self.config.objective == "shooting":
            errors = self._shooting_errors(batch)
        else:
            errors = self._matching_errors(batch)
        weights = batch.mask.to(errors.dtype)
        if self.config.relative_loss:
            known = self.observed.features(batch.states)
            gap = self.observed.difference(known[:, 1:], known[:, :-1])
            change = gap / (self.scale * self.step_scale)
            weights = weights / (1.0 + (change**2).mean(2))
        loss = (errors * weights).sum() / batch.mask.sum().clamp(min=1)
        if self.heads is None:
            return loss, {"loss": loss.detach()}
        reward, end = self._outcome_losses(batch)
        logs = {"loss": loss.detach(), "reward_loss": reward.detach(), "end_loss": end.detach()}
        return loss + reward + end, logs

    def _outcome_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of rewards and ends of the true transitions of a batch, which knows them."""
        if self.heads is None or batch.rewards is None or batch.terminated is None:
            raise ValueError("the batch holds no rewards and ends, which this model learns too")
        pairs = self._pairs(batch.states[:, :-1].flatten(0, 1), batch.states[:, 1:].flatten(0, 1))
        known = (batch.actions, batch.rewards, batch.terminated, batch.mask)
        return self.heads.loss(pairs, *(values.flatten(0, 1) for values in known))

    def separate_parts(self) -> dict[str, list[nn.Module]]:
        """Parts that learn for themselves, each with an optimiser of its own."""
        heads: list[nn.Module] = [] if self.heads is None else [self.heads]
        return {"all": [self.dynamics], **({"heads": heads} if heads else {})}

    def _matching_errors(self, batch: Batch) -> Tensor:
        """(B, T): each true state one step ahead; memory runs through the window."""
        count, steps = batch.mask.shape
        if self.dynamics.initial_memory(batch.states[:, 0]):
            latent = self.encode(batch.states[:, :1], batch.params)
            errors = []
            for t in range(steps):
                latent = latent._replace(z=self._latent(batch.states[:, t]))
                latent = self.step(latent, batch.actions[:, t])
                errors.append(self._error(latent.z, batch.states[:, t + 1]))
            return torch.stack(errors, 1)
        starts = batch.states[:, :-1].flatten(0, 1)
        params = batch.params.repeat_interleave(steps, 0)
        latent = self.encode(starts.unsqueeze(1), params)
        states = self.rollout(latent, batch.actions.flatten(0, 1).unsqueeze(1))
        error = self._error(states[:, 1], batch.states[:, 1:].flatten(0, 1))
        return error.unflatten(0, (count, steps))

    def _shooting_errors(self, batch: Batch) -> Tensor:
        """(B, T): a rollout from the true state at 0, gradients through it."""
        states = self.rollout(self.encode(batch.states[:, :1], batch.params), batch.actions)
        error = self._error(states[:, 1:].flatten(0, 1), batch.states[:, 1:].flatten(0, 1))
        return error.unflatten(0, batch.mask.shape)

    def rollout(self, latent: Latent, actions: Tensor) -> Tensor:
        """Latents z (B, T+1, F) from ``latent`` on under ``actions`` (B, T[, A]), in steps of the buffer's length.

        By machine code after ``accelerate``, where there is some; gradients go through either way.
        """
        if self.accelerated and type(self) is StateWorldModel:
            check_latent(latent, (self.observed.size,))
            check_actions(actions[:, 0], self.spec, latent.z.shape[:1])
            states = rolled_out(self.dynamics, latent, actions, self.spec.dt / self._tau)
            if states is not None:
                return states
        return by_torch(self.step, latent, actions)

    def compiled_calls(self, batch: Batch) -> int:
        """Operations of the rollouts that ``loss`` would do by machine code; 0 where torch does them."""
        matching = self.config.objective == "matching"
        if not self.accelerated or (matching and self.dynamics.initial_memory(batch.states[:1, 0])):
            return 0
        latent = self.encode(batch.states[:1, :1], batch.params[:1])
        actions = batch.actions[:1, : 1 if matching else None]
        return calls_of(self.dynamics, latent, actions, self.spec.dt / self._tau)

    def accelerate(self) -> None:
        """Roll out by machine code when training, where there is some (extra ``native``; vectors on the CPU).

        Numbers agree with torch's to rounding. Compiling takes one to three seconds, once for models of one shape.
        """
        self.accelerated = True

    def _error(self, z: Tensor, target: Tensor) -> Tensor:
        wanted = self._latent(target)
        gap = z - wanted
        if self.observed.turning:
            gap = self.observed.difference(z * self.scale, wanted * self.scale) / self.scale
        return ((gap / self.step_scale) ** 2).mean(1)


def _after_loading(model: StateWorldModel, keys: Any) -> None:
    """Hook of ``load_state_dict`` (a function of the module, so that models can be pickled)."""
    model.know_time_scale()


def transitions(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """States (M, D) and their successors (M, D) of every valid transition of ``dataset``.

    Raises ``ValueError`` where there is none, or where a state is not finite.
    """
    lengths = np.asarray(dataset.lengths)
    steps = np.arange(dataset.actions.shape[1])
    valid = steps[None, :] < lengths[:, None]
    if not valid.any():
        raise ValueError("the dataset has no transitions: collect episodes of at least one step")
    states, following = dataset.states[:, :-1][valid], dataset.states[:, 1:][valid]
    if not (np.isfinite(states).all() and np.isfinite(following).all()):
        bad = int((~np.isfinite(following).all(-1)).sum())
        raise ValueError(
            f"the dataset has states that are not finite ({bad} transitions): repair it"
        )
    return states, following


def _floored(value: Any, floor: float = 1e-9) -> float:
    """A scale that can be divided by: a coordinate that never varies counts as of size one."""
    return float(value) if float(value) > floor else 1.0
