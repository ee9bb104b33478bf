"""First order: a neural ODE without further structure."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodels.configs.training import FirstOrderConfig
from worldmodels.dynamics.fields import ActionEmbedding, Network, embed, embedded_size, tile
from worldmodels.dynamics.flow import flow
from worldmodels.interface import Dynamics, Latent, Medium, register


@register("first_order")
class FirstOrder(Dynamics):
    """dz/dt = f(z, a) (Chen et al. 2018, arXiv:1806.07366). Assumes nothing but a flow."""

    any_dt = True
    recordable = True

    def __init__(self, config: FirstOrderConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.action = ActionEmbedding(medium, config.action_embedding)
        size = embedded_size(medium.features, medium.angles) + config.action_embedding
        self.f = Network(config, medium, size + medium.condition_size, medium.features)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        constant = [tile(self.action(action), latent.z)]
        if latent.condition is not None:
            constant.append(tile(latent.condition, latent.z))

        def derivative(z: Tensor) -> Tensor:
            return self.f(torch.cat([embed(z, self.medium.angles), *constant], 1))

        return latent._replace(z=flow(self.config, derivative, latent.z, dt))
