"""LSTM: a learned memory beside the latent."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodels.configs.training import LSTMConfig
from worldmodels.dynamics.fields import ActionEmbedding, Network, embed, embedded_size, layer, tile
from worldmodels.interface import Dynamics, Latent, Medium, register


@register("lstm")
class LSTM(Dynamics):
    """(h, c)' = cell(z, a), z' = z + g(h'); on maps a convolutional cell.

    The memory (h, c) is carried in the latent and starts at zero in every row. The step length of the
    buffer is built in.
    """

    recordable = True

    def __init__(self, config: LSTMConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.action = ActionEmbedding(medium, config.action_embedding)
        size = embedded_size(medium.features, medium.angles) + config.action_embedding
        size += medium.condition_size + config.hidden
        self.gates = layer(size, 4 * config.hidden, medium.spatial)
        self.g = Network(config, medium, config.hidden, medium.features)

    def initial_memory(self, z: Tensor) -> tuple[Tensor, ...]:
        zeros = z.new_zeros(z.shape[0], self.config.hidden, *z.shape[2:])
        return zeros, zeros

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        z, (h, c) = latent.z, latent.memory
        parts = [embed(z, self.medium.angles), tile(self.action(action), z), h]
        if latent.condition is not None:
            parts.append(tile(latent.condition, z))
        keep, write, show, value = self.gates(torch.cat(parts, 1)).chunk(4, 1)
        c = torch.sigmoid(keep + 1.0) * c + torch.sigmoid(write) * torch.tanh(value)
        h = torch.sigmoid(show) * torch.tanh(c)
        return latent._replace(z=z + self.unit_step * self.g(h), memory=(h, c))
