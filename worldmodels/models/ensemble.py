"""K members of a model as one, evaluated together, with their disagreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from worldmodels.configs.training import ADAPTIVE, ModelConfig
from worldmodels.interface import Batch, Latent, Spec, WorldModel
from worldmodels.models.inputs import check_latent
from worldmodels.models.states import StateWorldModel
from worldmodels.native.selection import by_torch

MANY_CALLS = 128
"""Operations of rollouts from which on members go one by one by machine code, and not together by torch."""


class EnsembleWorldModel(WorldModel):
    """``config.ensemble`` independent members behind the four verbs.

    Latents hold every member's own on axis 1, (B, K, ...), so each member carries its own rollout.
    ``decode`` is the members' mean; ``members`` and ``disagreement`` show how far they are apart.
    """

    def __init__(self, spec: Spec, config: ModelConfig) -> None:
        super().__init__()
        if getattr(config, "integrator", "") in ADAPTIVE:
            raise ValueError(
                f"integrator={config.integrator!r} cannot step an ensemble, whose members go "  # type: ignore[attr-defined]
                "together: choose a fixed-step one such as rk4"
            )
        self.spec = spec
        self.config = config
        self.accelerated = False
        self.models = nn.ModuleList(StateWorldModel(spec, config) for _ in range(config.ensemble))
        self.any_dt, self.reversible = self._first.any_dt, self._first.reversible

    @property
    def _first(self) -> StateWorldModel:
        return self.models[0]  # type: ignore[return-value]

    @property
    def told_params(self) -> tuple[str, ...]:
        """Physical parameters that predictions depend on."""
        return self._first.told_params

    @property
    def has_energy(self) -> bool:
        """Whether ``energy`` is there."""
        return self._first.has_energy

    @property
    def reach(self) -> Tensor:
        """(D,) largest absolute values seen in training."""
        return self._first.reach

    def fit_normaliser(self, dataset: Any) -> None:
        """Set the scales of all members. Raises as ``StateWorldModel.fit_normaliser``."""
        self._first.fit_normaliser(dataset)
        others: Any = self.models[1:]
        for model in others:
            for own, first in zip(model.buffers(), self._first.buffers(), strict=True):
                own.copy_(first)
            model.know_time_scale()

    def _check(self, latent: Latent) -> None:
        check_latent(latent, (len(self.models), self._first.observed.size))

    def _together(self, verb: str, latent: Latent, *arguments: Any, out_axis: int = 1) -> Any:
        """``verb`` of every member at its own latent; the other arguments are the same for all."""
        told = None if latent.condition is None else 1
        latent_axes = Latent(1, (1,) * len(latent.memory), told)  # type: ignore[arg-type]
        call = _Verb(self._first)

        def one(weights: dict[str, Tensor], own: Latent) -> Any:
            named = {f"model.{name}": tensor for name, tensor in weights.items()}
            return functional_call(call, named, (verb, own, *arguments))

        out: Any = out_axis
        if verb == "step":
            out = latent_axes
        return torch.vmap(one, in_dims=(0, latent_axes), out_dims=out)(
            stacked(self.models),  # type: ignore[arg-type]
            latent,
        )

    def encode(self, context: Tensor, params: Tensor | None = None) -> Latent:
        """Latent (B, K, ...) of the last of ``context`` (B, T, D)."""
        latent = self._first.encode(context, params)
        count = len(self.models)

        def repeat(x: Tensor) -> Tensor:
            return x.unsqueeze(1).expand(x.shape[0], count, *x.shape[1:])

        condition = None if latent.condition is None else repeat(latent.condition)
        return Latent(repeat(latent.z), tuple(map(repeat, latent.memory)), condition)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float | None = None) -> Latent:
        """Every member's latent ``dt`` seconds later, under the same ``action`` (B,) or (B, A)."""
        self._check(latent)
        return self._together("step", latent, action, dt)

    def rollout(self, latent: Latent, actions: Tensor) -> Tensor:
        """Latents z (B, T+1, K, F) of all members under the same ``actions`` (B, T[, A])."""
        self._check(latent)
        if self.accelerated:
            own = [member_of(latent, index) for index in range(len(self.models))]
            pairs = zip(self.models, own, strict=True)
            return torch.stack([model.rollout(start, actions) for model, start in pairs], 2)  # type: ignore[operator]
        return by_torch(self.step, latent, actions)

    def accelerate(self) -> None:
        """Train by machine code, member by member; see ``StateWorldModel.accelerate``."""
        self.accelerated = True
        for model in self.models:
            model.accelerate()  # type: ignore[operator]

    def members(self, latent: Latent) -> Tensor:
        """(B, K, D) physical states of the members."""
        self._check(latent)
        return self._first.shown(latent.z)

    def decode(self, latent: Latent) -> Tensor:
        """(B, D) mean physical state of the members."""
        return self.members(latent).mean(1)

    def shown(self, z: Tensor) -> Tensor:
        """(..., D) mean of what latents (..., K, F) look like."""
        return self._first.shown(z).mean(-2)

    def disagreement(self, latent: Latent) -> Tensor:
        """(B,) standard deviation over members in latent units, root mean square over the state."""
        return latent.z.var(1, correction=0).mean(-1).sqrt()

    def judge(self, before: Tensor, action: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the members of what ``StateWorldModel.judge`` learned."""
        told = [model.judge(before, action, after) for model in self.models]  # type: ignore[operator]
        rewards, logits = zip(*told, strict=True)
        return torch.stack(rewards).mean(0), torch.stack(logits).mean(0)

    def separate_parts(self) -> dict[str, list[nn.Module]]:
        """Parts that learn for themselves, of all members together."""
        parts: dict[str, list[nn.Module]] = {}
        for model in self.models:
            for name, modules in model.separate_parts().items():  # type: ignore[operator]
                parts.setdefault(name, []).extend(modules)
        return parts

    def energy(self, latent: Latent) -> Tensor:
        """(B,) mean of the members' learned energies."""
        return self._together("energy", latent).mean(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the members' losses: each descends its own, as if it were alone."""
        members, _ = losses(self.models, batch)  # type: ignore[arg-type]
        return members.sum(), {"loss": members.mean().detach()}


def losses(
    models: Sequence[StateWorldModel], batch: Batch, own: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """(K,) losses of models of one structure, and (K,) of each thing that they log: what `loss` is of each.

    ``batch``: one for all; with ``own`` the batches of each, stacked on axis 0. Scales are taken from the first.
    """
    known: dict[str, Any] = {
        k: v for k, v in batch._asdict().items() if own and isinstance(v, Tensor)
    }
    first = batch._replace(**{name: value[0] for name, value in known.items()})
    if models[0].compiled_calls(first) >= MANY_CALLS:
        each = ({name: value[k] for name, value in known.items()} for k in range(len(models)))
        pairs = zip(models, each, strict=True)
        found = [model.loss(batch._replace(**given)) for model, given in pairs]
        logs = {name: torch.stack([log[name] for _, log in found]) for name in found[0][1]}
        return torch.stack([loss for loss, _ in found]), logs
    call = _Verb(models[0])

    def one(weights: dict[str, Tensor], given: dict[str, Any]) -> Any:
        named = {f"model.{name}": tensor for name, tensor in weights.items()}
        return functional_call(call, named, ("loss", batch._replace(**given)))

    return torch.vmap(one)(stacked(models), known)


def stacked(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """(K, ...) parameters of models of one structure, by name."""
    named = [dict(model.named_parameters()) for model in models]
    return {name: torch.stack([tensors[name] for tensors in named]) for name in named[0]}


def member_of(latent: Latent, index: int) -> Latent:
    """Latent of one member, of those of all."""
    condition = None if latent.condition is None else latent.condition[:, index]
    return Latent(latent.z[:, index], tuple(x[:, index] for x in latent.memory), condition)


class _Verb(nn.Module):
    """A model whose ``forward`` is any of its verbs, for ``functional_call``."""

    def __init__(self, model: StateWorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, verb: str, *arguments: Any) -> Any:
        return getattr(self.model, verb)(*arguments)
