"""The beta-VAE around a predictor: frames to a latent, a latent to positions and momenta, and back to a frame.

After Toth et al. 2019, Hamiltonian Generative Networks (arXiv:1909.13789): the latent is a map, momenta are never
decoded, and a picture is made of the positions alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.configs.visual import VisualConfig, halvings
from worldmodels.dynamics.fields import ActionEmbedding, located, tile
from worldmodels.interface import Medium

UNKNOWN_SHARE = 0.1
"""Share of the rows whose actions the encoder is not told in training, so that it can do without."""


class Residual(nn.Module):
    """x + two 3 x 3 convolutions of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class Encoder(nn.Module):
    """Frames (B, 3 K, S, S) to mean and log-variance, maps (B, C, H, W) or vectors (B, F).

    ``actions`` (B, K-1[, A]) between the frames are optional: what the last of them did to the velocity
    is not visible yet. Those that are not given, and some in training, count as unknown.
    """

    def __init__(self, config: VisualConfig, medium: Medium, image_size: int) -> None:
        super().__init__()
        self.action: ActionEmbedding | None = None
        told = 0
        if config.encoder_actions:
            size = config.dynamics.action_embedding
            self.action = ActionEmbedding(medium, size)
            told = (config.encoder_frames - 1) * size
        self.told = told
        count = halvings(image_size, config.spatial_size)
        widths = [max(config.width // 2 ** (count - 1 - k), 4) for k in range(count)]
        sizes = [3 * config.encoder_frames + 2, *widths]
        self.halving = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.deepening = nn.ModuleList(
            nn.Conv2d(widths[-1] + (2 + told) * (k == 0), widths[-1], 3, padding=1)
            for k in range(config.depth)
        )
        self.flat: nn.Module | None = None
        if config.spatial:
            self.out: nn.Module = nn.Conv2d(widths[-1], 2 * config.latent_channels, 1)
        else:
            self.flat = nn.Linear(widths[-1] * config.spatial_size**2, 2 * config.flat_size)
        self._start()

    def _start(self) -> None:
        """Log-variances begin at -4, so that a fresh sample is mostly its mean."""
        last: Any = self.out if self.flat is None else self.flat
        with torch.no_grad():
            last.bias.chunk(2)[1].fill_(-4.0)

    def forward(self, frames: Tensor, actions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = located(frames)
        for module in self.halving:
            x = F.silu(module(x))
        for index, module in enumerate(self.deepening):
            y = F.silu(module(self._informed(x, actions) if index == 0 else x))
            x = y if index == 0 else x + y
        x = self.out(x) if self.flat is None else self.flat(x.flatten(1))
        mean, log_variance = x.chunk(2, 1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def _informed(self, x: Tensor, actions: Tensor | None) -> Tensor:
        """Features with coordinates, and the actions where the encoder is told them."""
        x = located(x)
        if self.action is None:
            return x
        if actions is None:
            known = x.new_zeros(x.shape[0], self.told)
        else:
            known = self.action(actions.flatten(0, 1)).reshape(x.shape[0], self.told)
            if self.training:
                known = known * (torch.rand_like(known[:, :1]) > UNKNOWN_SHARE)
        return torch.cat((x, tile(known.to(x.dtype), x)), 1)


class Transform(nn.Module):
    """A sample of the VAE to a state of positions and momenta of the same shape: three layers, tanh between."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__()
        features = config.latent_channels if config.spatial else config.flat_size
        width = config.transform_width if config.spatial else 4 * config.transform_width
        sizes = (features, width, width, features)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) if config.spatial else nn.Linear(a, b)
            for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, z: Tensor) -> Tensor:
        first, second, third = self.layers
        return third(torch.tanh(second(torch.tanh(first(z)))))


class Decoder(nn.Module):
    """Positions (B, C/2, H, W) or (B, F/2) to the picture (B, 3, S, S), not clamped."""

    def __init__(self, config: VisualConfig, image_size: int) -> None:
        super().__init__()
        count = halvings(image_size, config.spatial_size)
        self.spatial, self.side, self.width = config.spatial, config.spatial_size, config.width
        if config.spatial:
            self.first: nn.Module = nn.Conv2d(config.latent_channels // 2 + 2, config.width, 1)
        else:
            self.first = nn.Linear(config.flat_size // 2, config.width * self.side**2)
        widths = [max(config.width // 2**k, 8) for k in range(count)] + [3]
        self.blocks = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.up = nn.ModuleList(
            nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, q: Tensor) -> Tensor:
        if self.spatial:
            x = self.first(located(q))
        else:
            x = self.first(q).unflatten(1, (self.width, self.side, self.side))
        for block, up in zip(self.blocks, self.up, strict=True):
            x = F.pixel_shuffle(up(F.silu(block(x))), 2)
        return x
