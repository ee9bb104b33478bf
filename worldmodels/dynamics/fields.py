"""The networks: functions of features on axis 1, an MLP on vectors and a ConvNet on maps.

An energy's gradient is written out by hand beside its value. It is therefore plain forward code: it runs
under ``no_grad`` and ``inference_mode``, inside ``vmap``, and training differentiates it once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.configs.training import ModelConfig
from worldmodels.interface import Medium


def activate(name: str, x: Tensor) -> Tensor:
    """The nonlinearity ``name`` of ``x``."""
    if name == "tanh":
        return torch.tanh(x)
    if name == "softplus":
        return F.softplus(x)
    if name == "silu":
        return F.silu(x)
    if name == "sin":
        return torch.sin(x)
    raise ValueError(f"activation={name!r} is not known: expected tanh, softplus, silu or sin")


def activate_with_slope(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The nonlinearity ``name`` of ``x`` and its derivative there."""
    if name == "tanh":
        y = torch.tanh(x)
        return y, 1.0 - y * y
    if name == "softplus":
        return F.softplus(x), torch.sigmoid(x)
    if name == "silu":
        s = torch.sigmoid(x)
        y = x * s
        return y, s + y * (1.0 - s)
    if name == "sin":
        return torch.sin(x), torch.cos(x)
    raise ValueError(f"activation={name!r} is not known: expected tanh, softplus, silu or sin")


def nonnegative(raw: Tensor) -> Tensor:
    """``raw`` cut off at 0, its gradient let through: what is truly 0 is learned as exactly 0.

    (A softplus only creeps towards 0, and the damping that is left spoils a conserved energy.)
    """
    return raw + (raw.clamp(min=0.0) - raw).detach()


def along(values: Tensor, like: Tensor) -> Tensor:
    """``values`` (B, F) or (F,) shaped to broadcast over ``like`` (B, F) or (B, F, H, W)."""
    return values.reshape(*values.shape, *[1] * (like.ndim - 2))


def tile(values: Tensor, like: Tensor) -> Tensor:
    """``values`` (B, E) as features beside ``like``: itself, or tiled over H x W."""
    if like.ndim == 2:
        return values
    return along(values, like).expand(*values.shape, *like.shape[2:])


def embedded_size(features: int, angles: tuple[int, ...]) -> int:
    """Features that ``embed`` makes of ``features``."""
    return features + len(angles)


def embed(x: Tensor, angles: tuple[int, ...]) -> Tensor:
    """Features with each angle replaced by its cosine, and the sines behind: (B, F + angles)."""
    if not angles:
        return x
    columns = list(x.unbind(1))
    for index in angles:
        columns[index] = torch.cos(x[:, index])
    columns += [torch.sin(x[:, index]) for index in angles]
    return torch.stack(columns, 1)


def embed_adjoint(x: Tensor, gradient: Tensor, angles: tuple[int, ...]) -> Tensor:
    """Gradient by ``x`` (B, F) of a function whose gradient by ``embed(x)`` is given."""
    if not angles:
        return gradient
    size = x.shape[1]
    columns = list(gradient[:, :size].unbind(1))
    for k, index in enumerate(angles):
        angle = x[:, index]
        columns[index] = gradient[:, size + k] * torch.cos(angle) - columns[index] * torch.sin(
            angle
        )
    return torch.stack(columns, 1)


def without(indices: tuple[int, ...], features: int, angles: tuple[int, ...]) -> Tensor | None:
    """(F + angles,) ones, and zeros where ``embed`` puts what comes of ``indices``; None where there are none."""
    if not indices:
        return None
    columns = [*indices, *(features + k for k, index in enumerate(angles) if index in indices)]
    return torch.ones(features + len(angles)).index_fill(0, torch.tensor(columns), 0.0)


def coordinates(like: Tensor) -> Tensor:
    """(1, 2, H, W): column and row of each site of ``like`` (B, C, H, W), from -1 to 1."""
    height, width = like.shape[-2:]
    rows = torch.linspace(-1.0, 1.0, height, dtype=like.dtype, device=like.device)
    columns = torch.linspace(-1.0, 1.0, width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy")).unsqueeze(0)


def located(x: Tensor) -> Tensor:
    """Maps with two channels of ``coordinates`` behind, so that convolutions know where they are.

    (Liu et al. 2018, arXiv:1807.03247: without them a place is hard to learn.) Vectors stay as they are.
    """
    if x.ndim == 2:
        return x
    return torch.cat((x, coordinates(x).expand(x.shape[0], -1, -1, -1)), 1)


def layer(size_in: int, size_out: int, spatial: bool, bias: bool = True) -> nn.Module:
    """Linear map over axis 1; on maps a 3 x 3 convolution."""
    if spatial:
        return nn.Conv2d(size_in, size_out, 3, padding=1, bias=bias)
    return nn.Linear(size_in, size_out, bias=bias)


def layer_adjoint(module: nn.Module, gradient: Tensor) -> Tensor:
    """Gradient by the input of ``layer``, given that by its output."""
    if isinstance(module, nn.Conv2d):
        return F.conv_transpose2d(gradient, module.weight, padding=1)
    return gradient @ module.weight  # type: ignore[operator]


class Network(nn.Module):
    """Features to features: (B, I) to (B, O), or (B, I, H, W) to (B, O, H, W).

    Convolutions on maps are told where they are.
    """

    def __init__(self, config: ModelConfig, medium: Medium, size_in: int, size_out: int) -> None:
        super().__init__()
        widths = [size_in + 2 * medium.spatial] + [config.hidden] * config.layers
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.hidden = nn.ModuleList(layer(a, b, medium.spatial) for a, b in pairs)
        self.out = layer(widths[-1], size_out, medium.spatial)
        self.activation = config.activation

    def forward(self, x: Tensor) -> Tensor:
        x = located(x)
        for module in self.hidden:
            x = activate(self.activation, module(x))
        return self.out(x)


class Energy(nn.Module):
    """Scalar of features: (B, F[, H, W]) to (B,), with its gradient by the features.

    Angles enter as (cos, sin). On maps: convolutions, a global average and a linear map, times the
    number of sites, so that the force at a site does not shrink with the map. There is no last bias.
    It does not depend on the features ``unseen``.
    """

    seen: Tensor | None

    def __init__(
        self,
        config: ModelConfig,
        medium: Medium,
        features: int,
        angles: tuple[int, ...] = (),
        unseen: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.angles = angles
        self.register_buffer("seen", without(unseen, features, angles), persistent=False)
        self.activation = config.activation
        size_in = embedded_size(features, angles) + medium.condition_size + 2 * medium.spatial
        widths = [size_in] + [config.hidden] * config.layers
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.hidden = nn.ModuleList(layer(a, b, medium.spatial) for a, b in pairs)
        self.out = nn.Linear(widths[-1], 1, bias=False)

    def _inputs(self, x: Tensor, condition: Tensor | None) -> Tensor:
        inputs = embed(x, self.angles)
        inputs = inputs if self.seen is None else inputs * along(self.seen, x)
        return located(inputs if condition is None else torch.cat((inputs, tile(condition, x)), 1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        y = self._inputs(x, condition)
        for module in self.hidden:
            y = activate(self.activation, module(y))
        return self.out(y.flatten(2).sum(2) if y.ndim > 2 else y).squeeze(1)

    def gradient(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """d(energy)/dx, shaped as ``x``."""
        y = self._inputs(x, condition)
        slopes = []
        for module in self.hidden:
            y, slope = activate_with_slope(self.activation, module(y))
            slopes.append(slope)
        g = along(self.out.weight, x) * slopes[-1]
        for module, slope in zip(reversed(self.hidden[1:]), reversed(slopes[:-1]), strict=True):
            g = layer_adjoint(module, g) * slope
        g = layer_adjoint(self.hidden[0], g)
        kept = embedded_size(x.shape[1], self.angles)
        g = g[:, :kept] if self.seen is None else g[:, :kept] * along(self.seen, x)
        return embed_adjoint(x, g, self.angles)


class ActionEmbedding(nn.Module):
    """An action as E features: a table of discrete ones, a linear map of continuous ones.

    With ``relative`` the action that does nothing, where the medium knows one, is exactly zero.
    """

    def __init__(self, medium: Medium, size: int, relative: bool = False) -> None:
        super().__init__()
        self.discrete = medium.action_kind == "discrete"
        self.idle = medium.idle if relative else None
        self.table = (
            nn.Embedding(medium.action_size, size)
            if self.discrete
            else nn.Linear(medium.action_size, size, bias=self.idle is None)
        )

    def forward(self, action: Tensor) -> Tensor:
        if self.discrete:
            features = self.table(action)
            return features if self.idle is None else features - self.table.weight[self.idle]
        given = action.to(self.table.weight.dtype)
        return self.table(given) if self.idle is None else given @ self.table.weight.T


class Coefficients(nn.Module):
    """Learned numbers (N,), or numbers (B, N) that depend on the parameters the model is told."""

    def __init__(self, initial: Tensor, condition_size: int, hidden: int) -> None:
        super().__init__()
        self.base = nn.Parameter(initial.clone())
        self.shift: nn.Module | None = None
        if condition_size:
            self.shift = nn.Sequential(
                nn.Linear(condition_size, hidden),
                nn.Tanh(),
                nn.Linear(hidden, initial.numel(), bias=False),
            )

    def forward(self, condition: Tensor | None) -> Tensor:
        if self.shift is None:
            return self.base
        return self.base + self.shift(condition)
