"""Open-loop rollouts: a model imagines what actions lead to."""

from __future__ import annotations

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
