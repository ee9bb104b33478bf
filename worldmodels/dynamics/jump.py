"""Jump: the next latent in one go, z' = z + f(z, a)."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodels.configs.training import JumpConfig
from worldmodels.dynamics.fields import ActionEmbedding, Network, embed, embedded_size, tile
from worldmodels.interface import Dynamics, Latent, Medium, register


@register("jump")
class Jump(Dynamics):
    """z' = z + f(z, a), or z' = z + dt f(z, a, dt) where ``dt_input`` lets one model serve several dt.

    Assumes nothing of the latent. Without ``dt_input`` the step length of the buffer is built in.
    """

    recordable = True

    def __init__(self, config: JumpConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.any_dt = config.dt_input
        self.action = ActionEmbedding(medium, config.action_embedding)
        size = embedded_size(medium.features, medium.angles) + config.action_embedding
        size += medium.condition_size + int(config.dt_input)
        self.f = Network(config, medium, size, medium.features)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        z = latent.z
        parts = [embed(z, self.medium.angles), tile(self.action(action), z)]
        if latent.condition is not None:
            parts.append(tile(latent.condition, z))
        if not self.config.dt_input:
            return latent._replace(z=z + self.unit_step * self.f(torch.cat(parts, 1)))
        steps = torch.as_tensor(dt, dtype=z.dtype, device=z.device).expand(z.shape[0])
        steps = steps.reshape(-1, 1)
        parts.append(tile(steps / self.unit_step, z))
        rate = self.f(torch.cat(parts, 1))
        return latent._replace(z=z + steps.reshape(-1, *[1] * (z.ndim - 1)) * rate)
