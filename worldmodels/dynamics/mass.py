"""M > 0 in p = M v: nothing, a diagonal, a full matrix, or a network of the positions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.configs.training import ModelConfig
from worldmodels.dynamics.fields import (
    Coefficients,
    activate_with_slope,
    along,
    embed,
    embed_adjoint,
    embedded_size,
    layer,
    layer_adjoint,
    located,
    tile,
    without,
)
from worldmodels.interface import Medium

_INVERSE_SOFTPLUS_1 = 0.5413248546129181
FLOOR = 1e-2
"""Least entry of the diagonal of a learned factor: M >= FLOOR^2 > 0 wherever q is."""


class Mass(nn.Module):
    """M > 0 in p = M v: nothing to learn, a diagonal, or a full matrix."""

    def __init__(self, kind: str, size: int, condition_size: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = size
        if kind == "diagonal":
            start = torch.full((size,), _INVERSE_SOFTPLUS_1)
            self.raw = Coefficients(start, condition_size, 16)
        elif kind == "full":
            self.raw = Coefficients(torch.eye(size).flatten(), condition_size, 16)

    def forward(self, condition: Tensor | None) -> Tensor | None:
        """None, the diagonal (..., F), or the matrix (..., F, F)."""
        if self.kind == "identity":
            return None
        raw = self.raw(condition)
        if self.kind == "diagonal":
            return F.softplus(raw) + 1e-3
        factor = raw.unflatten(-1, (self.size, self.size))
        return factor @ factor.mT + 1e-3 * torch.eye(self.size, dtype=raw.dtype, device=raw.device)

    def times(self, mass: Tensor | None, v: Tensor) -> Tensor:
        """p = M v over axis 1, ``mass`` as ``forward`` gives it."""
        if mass is None:
            return v
        return along(mass, v) * v if self.kind == "diagonal" else _apply(mass, v)

    def over(self, mass: Tensor | None, p: Tensor) -> Tensor:
        """v = M^-1 p over axis 1."""
        if mass is None:
            return p
        return p / along(mass, p) if self.kind == "diagonal" else _apply(torch.linalg.inv(mass), p)


def _apply(matrix: Tensor, v: Tensor) -> Tensor:
    """(B, F[, H, W]) vectors under one matrix (F, F), or one a row (B, F, F)."""
    return (
        (matrix @ v.flatten(2)).reshape(v.shape)
        if v.ndim > 2
        else (matrix @ v.unsqueeze(-1)).squeeze(-1)
    )


class MassNetwork(nn.Module):
    """M(q) = L L^T, its Cholesky factor L a network of the positions; on maps, one matrix a site.

    The diagonal of L is a softplus above ``FLOOR``, and M begins near 1. Angles enter as (cos, sin), and
    positions ``unseen`` not at all. T = p^T M^-1 p / 2 = |w|^2 / 2 with L w = p. Its slope by q is written out
    as everywhere in this package: dT/dL_ij = -v_i w_j with L^T v = w, and then back through the network.
    """

    seen: Tensor | None

    def __init__(
        self, config: ModelConfig, medium: Medium, size: int, unseen: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.register_buffer("seen", without(unseen, size, medium.angles), persistent=False)
        self.size, self.angles, self.activation = size, medium.angles, config.activation
        size_in = embedded_size(size, medium.angles) + medium.condition_size + 2 * medium.spatial
        widths = [size_in] + [config.hidden] * config.layers
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.hidden = nn.ModuleList(layer(a, b, medium.spatial) for a, b in pairs)
        final: Any = layer(widths[-1], size * (size + 1) // 2, medium.spatial)
        with torch.no_grad():  # M begins near 1: then momenta are what velocities are
            final.weight.mul_(0.3)
            final.bias.zero_()
            final.bias[:size] = _INVERSE_SOFTPLUS_1
        self.out: nn.Module = final

    def factor(self, q: Tensor, condition: Tensor | None) -> Factor:
        """L at positions ``q`` (B, F[, H, W])."""
        return Factor(self._raw(q, condition)[0], self.size)

    def slopes(self, q: Tensor, p: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """(dT/dq, dT/dp), each shaped as ``q``; the second is v = M^-1 p."""
        raw, layers = self._raw(q, condition)
        factor = Factor(raw, self.size)
        w = factor.forward(p)
        v = factor.backward(w)
        gradient = layer_adjoint(self.out, factor.adjoint(v, w))
        for module, slope in zip(reversed(self.hidden), reversed(layers), strict=True):
            gradient = layer_adjoint(module, gradient * slope)
        kept = embedded_size(self.size, self.angles)
        gradient = gradient[:, :kept]
        gradient = gradient if self.seen is None else gradient * along(self.seen, q)
        return embed_adjoint(q, gradient, self.angles), torch.stack(v, 1)

    def _raw(self, q: Tensor, condition: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the factor is made of, (B, F (F + 1) / 2[, H, W]), and the slopes on the way to it."""
        y = embed(q, self.angles)
        y = y if self.seen is None else y * along(self.seen, q)
        y = located(y if condition is None else torch.cat((y, tile(condition, q)), 1))
        slopes = []
        for module in self.hidden:
            y, slope = activate_with_slope(self.activation, module(y))
            slopes.append(slope)
        return self.out(y), slopes


class Factor:
    """A lower triangle L at every row, and site: its diagonal first, then the rows below it.

    Substitution goes entry by entry: for the few coordinates of a mechanism that takes a fraction of the
    time of a batched solver.
    """

    def __init__(self, raw: Tensor, size: int) -> None:
        self.raw_diagonal = raw[:, :size]
        self.size = size
        self.diagonal = (F.softplus(self.raw_diagonal) + FLOOR).unbind(1)
        self.below = raw[:, size:].unbind(1)

    def entry(self, i: int, j: int) -> Tensor:
        """L_ij, j <= i."""
        return self.diagonal[i] if i == j else self.below[i * (i - 1) // 2 + j]

    def forward(self, p: Tensor) -> list[Tensor]:
        """w with L w = ``p``, coordinate by coordinate."""
        w: list[Tensor] = []
        for i, rest in enumerate(p.unbind(1)):
            for j in range(i):
                rest = rest - self.entry(i, j) * w[j]
            w.append(rest / self.diagonal[i])
        return w

    def backward(self, w: list[Tensor]) -> list[Tensor]:
        """v with L^T v = ``w``, coordinate by coordinate."""
        v: list[Tensor] = []
        for j in reversed(range(self.size)):
            rest = w[j]
            for i in range(j + 1, self.size):
                rest = rest - self.entry(i, j) * v[self.size - 1 - i]
            v.append(rest / self.diagonal[j])
        return v[::-1]

    def over(self, p: Tensor) -> Tensor:
        """v = M^-1 p."""
        return torch.stack(self.backward(self.forward(p)), 1)

    def times(self, v: Tensor) -> Tensor:
        """p = M v."""
        parts = v.unbind(1)
        w = [
            sum(
                (self.entry(i, j) * parts[i] for i in range(j + 1, self.size)),
                self.diagonal[j] * parts[j],
            )
            for j in range(self.size)
        ]
        p = [
            sum((self.entry(i, j) * w[j] for j in range(i)), self.diagonal[i] * w[i])
            for i in range(self.size)
        ]
        return torch.stack(p, 1)

    def adjoint(self, v: list[Tensor], w: list[Tensor]) -> Tensor:
        """dT by what the factor was made of, shaped as that: -v_i w_j for L_ij."""
        diagonal = torch.stack([-a * b for a, b in zip(v, w, strict=True)], 1)
        diagonal = diagonal * torch.sigmoid(self.raw_diagonal)
        below = [-v[i] * w[j] for i in range(self.size) for j in range(i)]
        return torch.cat((diagonal, torch.stack(below, 1)), 1) if below else diagonal
