"""Newtonian: velocities are the rates of positions, accelerations are learned."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodels.configs.training import SPLIT, NewtonianConfig
from worldmodels.dynamics.fields import (
    ActionEmbedding,
    Coefficients,
    Network,
    along,
    embed,
    embedded_size,
    nonnegative,
    tile,
)
from worldmodels.dynamics.flow import flow, split_flow
from worldmodels.interface import Dynamics, Latent, Medium, register


@register("newtonian")
class Newtonian(Dynamics):
    """dq/dt = v, dv/dt = f(q, v, a) - gamma v, with a learned gamma >= 0, one a coordinate.

    Assumes that the second half of the features is the time derivative of the first. Splittings
    (leapfrog, yoshida4) need f to see no velocities: ``velocity_input=False``.
    """

    any_dt = True
    recordable = True

    def __init__(self, config: NewtonianConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.action = ActionEmbedding(medium, config.action_embedding)
        half = medium.features // 2
        seen = medium.features if config.velocity_input else half
        size = embedded_size(seen, medium.angles) + config.action_embedding + medium.condition_size
        self.f = Network(config, medium, size, half)
        self.raw_damping = Coefficients(torch.full((half,), 0.05), medium.condition_size, 16)

    def damping(self, condition: Tensor | None = None) -> Tensor:
        """gamma >= 0: (F/2,), or (B, F/2) where the model is told parameters."""
        return nonnegative(self.raw_damping(condition))

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        constant = [tile(self.action(action), latent.z)]
        if latent.condition is not None:
            constant.append(tile(latent.condition, latent.z))
        gamma = along(self.damping(latent.condition), latent.z)

        def force(x: Tensor) -> Tensor:
            return self.f(torch.cat([embed(x, self.medium.angles), *constant], 1))

        def derivative(z: Tensor) -> Tensor:
            q, v = z.chunk(2, 1)
            return torch.cat((v, force(z if self.config.velocity_input else q) - gamma * v), 1)

        if self.config.method in SPLIT:
            z = split_flow(self.config, force, lambda v: v, latent.z, dt, gamma)
        else:
            z = flow(self.config, derivative, latent.z, dt)
        return latent._replace(z=z)
