"""Reward and end of an episode, read off a latent: what pixels do not show, learned from the buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.configs.keypoints import KeypointConfig
from worldmodels.configs.structures import ModelConfig
from worldmodels.configs.visual import VisualConfig
from worldmodels.dynamics.fields import ActionEmbedding, embedded_size
from worldmodels.interface import Medium


class OutcomeHeads(nn.Module):
    """Latent after a step and the action that led there to (reward, logit of termination)."""

    def __init__(self, config: VisualConfig, medium: Medium) -> None:
        super().__init__()
        self.action = ActionEmbedding(medium, config.dynamics.action_embedding)
        size = medium.features
        self.look: nn.Module = nn.Identity()
        if medium.spatial:
            channels = min(config.width, 8)
            self.look = nn.Conv2d(medium.features, channels, 3, padding=1)
            size = channels * config.spatial_size**2
        width = 4 * config.width
        self.hidden = nn.Linear(size + config.dynamics.action_embedding, width)
        self.out = nn.Linear(width, 2)
        self._scales()

    def _scales(self) -> None:
        self.reward_shift: Tensor
        self.reward_scale: Tensor
        self.register_buffer("reward_shift", torch.zeros(()))
        self.register_buffer("reward_scale", torch.ones(()))

    def fit_normaliser(self, dataset: Any) -> None:
        """Set the scale of rewards from the episodes of ``dataset``."""
        valid = np.arange(dataset.rewards.shape[1]) < np.asarray(dataset.lengths)[:, None]
        rewards = np.asarray(dataset.rewards)[valid]
        spread = float(rewards.std())
        self.reward_shift.fill_(float(rewards.mean()))
        self.reward_scale.fill_(
            max(spread, 1e-6)
        )  # one that never changes is its mean, whatever is said

    def _raw(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.tanh(self.look(z)).flatten(1)
        hidden = F.silu(self.hidden(torch.cat((seen, self.action(action)), 1)))
        reward, logit = self.out(hidden).unbind(1)
        return reward, logit

    def forward(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        reward, logit = self._raw(z, action)
        return reward * self.reward_scale + self.reward_shift, logit

    def loss(
        self, z: Tensor, action: Tensor, reward: Tensor, ended: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normalised squared error of rewards and cross-entropy of ends, means over ``mask`` (N,)."""
        guess, logit = self._raw(z, action)
        weight = mask.to(guess.dtype)
        count = weight.sum().clamp(min=1.0)
        wanted = (reward - self.reward_shift) / self.reward_scale
        reward_loss = (weight * (guess - wanted) ** 2).sum() / count
        entropy = F.binary_cross_entropy_with_logits(logit, ended.to(logit.dtype), reduction="none")
        return reward_loss, (weight * entropy).sum() / count


class PointHeads(OutcomeHeads):
    """Coordinates and velocities after a step, angles as (cos, sin), to the same: by two hidden layers."""

    def __init__(self, config: KeypointConfig, medium: Medium) -> None:
        nn.Module.__init__(self)
        embedding, width = config.dynamics.action_embedding, config.head_width
        self.action = ActionEmbedding(medium, embedding)
        self.first = nn.Linear(embedded_size(medium.features, medium.angles) + embedding, width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 2)
        self._scales()

    def _raw(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.silu(self.first(torch.cat((z, self.action(action)), 1)))
        reward, logit = self.out(F.silu(self.hidden(hidden))).unbind(1)
        return reward, logit


class StateHeads(PointHeads):
    """Features before and after a step, angles as (cos, sin), and the action to the same.

    Rewards and ends of an env that nobody knows may ask for all three.
    """

    WIDTH = 128
    """Of both hidden layers."""

    def __init__(self, config: ModelConfig, medium: Medium) -> None:
        nn.Module.__init__(self)
        self.action = ActionEmbedding(medium, config.action_embedding)
        size = 2 * embedded_size(medium.features, medium.angles) + config.action_embedding
        self.first = nn.Linear(size, self.WIDTH)
        self.hidden = nn.Linear(self.WIDTH, self.WIDTH)
        self.out = nn.Linear(self.WIDTH, 2)
        self._scales()
