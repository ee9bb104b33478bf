"""Velocity: both the kinematic map and the acceleration are learned."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodels.configs.training import VelocityConfig
from worldmodels.dynamics.fields import ActionEmbedding, Network, embed, embedded_size, tile
from worldmodels.dynamics.flow import flow
from worldmodels.interface import Dynamics, Latent, Medium, register


@register("velocity")
class Velocity(Dynamics):
    """dq/dt = g(q, v, a), dv/dt = f(q, v, a) with two networks.

    Assumes that the features split into positions and rates, not that the rates are dq/dt: they may be
    momenta, or velocities in other coordinates.
    """

    any_dt = True
    recordable = True

    def __init__(self, config: VelocityConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.action = ActionEmbedding(medium, config.action_embedding)
        size = embedded_size(medium.features, medium.angles) + config.action_embedding
        size += medium.condition_size
        self.g = Network(config, medium, size, medium.features // 2)
        self.f = Network(config, medium, size, medium.features // 2)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        constant = [tile(self.action(action), latent.z)]
        if latent.condition is not None:
            constant.append(tile(latent.condition, latent.z))

        def derivative(z: Tensor) -> Tensor:
            inputs = torch.cat([embed(z, self.medium.angles), *constant], 1)
            return torch.cat((self.g(inputs), self.f(inputs)), 1)

        return latent._replace(z=flow(self.config, derivative, latent.z, dt))
