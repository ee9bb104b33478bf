"""Port-Hamiltonian: an energy, what dissipates it and what feeds it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.configs.training import SPLIT, SYMMETRIC, PortHamiltonianConfig
from worldmodels.dynamics.fields import (
    ActionEmbedding,
    Coefficients,
    Energy,
    Network,
    along,
    embed,
    embedded_size,
    nonnegative,
    tile,
)
from worldmodels.dynamics.flow import flow, split_flow
from worldmodels.interface import Dynamics, Latent, Medium, register

_INVERSE_SOFTPLUS_1 = 0.5413248546129181


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


@register("port_hamiltonian")
class PortHamiltonian(Dynamics):
    """dz/dt = (J - R) grad H(z) + G(z) u(a), z = (q, p), J canonical.

    Port-Hamiltonian systems: van der Schaft and Jeltsema 2014, doi:10.1561/2600000002. R >= 0 is diagonal
    and acts on the momenta; G feeds the momenta. u is zero for the action that does nothing, where the
    medium names one: then H holds all that acts without a control. Separable (default): H = T(p) + V(q) with
    T = p^T M^-1 p / 2 (or a network). The second half of the features is taken as velocities v, and
    p = M v: M is the identity (equal masses, coordinates of one kind) or learned, diagonal or full.
    With ``separable=False`` H(q, p) is one network, and M still says what p is. Without damping, a splitting
    that is symmetric in time can be reversed.
    """

    any_dt = True
    has_energy = True
    recordable = True

    def __init__(self, config: PortHamiltonianConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.reversible = not config.damping and config.integrator in SYMMETRIC
        self.pairs = half = medium.features // 2
        told = medium.condition_size
        self.action = ActionEmbedding(medium, config.action_embedding, relative=True)
        self.mass = Mass(config.mass, half, told)
        if config.separable:
            self.potential = Energy(config, medium, half, medium.angles)
            if config.kinetic == "network":
                self.kinetic = Energy(config, medium, half)
        else:
            self.hamiltonian = Energy(config, medium, 2 * half, medium.angles)
        if config.damping:
            self.raw_damping = Coefficients(torch.full((half,), 0.05), told, 16)
        if config.input_map == "constant":
            start = torch.randn(half * config.action_embedding) / config.action_embedding
            self.input_matrix = Coefficients(start, told, 16)
        else:
            size = embedded_size(half, medium.angles) + told
            self.input_network = Network(config, medium, size, half * config.action_embedding)

    def dissipation(self, condition: Tensor | None = None) -> Tensor | None:
        """Diagonal of R >= 0 on the momenta: (F/2,), (B, F/2) where told parameters, or None."""
        return nonnegative(self.raw_damping(condition)) if self.config.damping else None

    def energy(self, latent: Latent) -> Tensor:
        """H of a latent, (B,), up to scale and offset."""
        condition = latent.condition
        q, v = latent.z.chunk(2, 1)
        p = self.mass.times(self.mass(condition), v)
        if not self.config.separable:
            return self.hamiltonian(torch.cat((q, p), 1), condition)
        potential = self.potential(q, condition)
        if self.config.kinetic == "network":
            return potential + self.kinetic(p, condition)
        return potential + 0.5 * (p * v).flatten(1).sum(1)

    def gradient(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """grad H at z = (q, p), shaped as ``z``."""
        if not self.config.separable:
            return self.hamiltonian.gradient(z, condition)
        q, p = z.chunk(2, 1)
        by_p = self._velocity(p, self.mass(condition), condition)
        return torch.cat((self.potential.gradient(q, condition), by_p), 1)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        fed = self._input(self.action(action), latent.condition, latent.z.chunk(2, 1)[0])
        dissipation = self.dissipation(latent.condition)
        rates = None if dissipation is None else along(dissipation, latent.z)
        return self._flow(latent, fed, rates, dt)

    def conserve(self, latent: Latent, dt: Tensor | float) -> Latent:
        """Latent ``dt`` later with neither input nor dissipation: H stays, to the integrator's order."""
        return self._flow(latent, torch.zeros_like, None, dt)

    def _flow(
        self,
        latent: Latent,
        fed: Callable[[Tensor], Tensor],
        rates: Tensor | None,
        dt: Tensor | float,
    ) -> Latent:
        condition = latent.condition
        mass = self.mass(condition)
        q, v = latent.z.chunk(2, 1)
        z = latent.z if mass is None else torch.cat((q, self.mass.times(mass, v)), 1)
        if self.config.integrator in SPLIT:
            z = self._split(z, fed, rates, mass, condition, dt)
        else:

            def derivative(state: Tensor) -> Tensor:
                by_q, by_p = self.gradient(state, condition).chunk(2, 1)
                force = fed(state.chunk(2, 1)[0]) - by_q
                return torch.cat((by_p, force if rates is None else force - rates * by_p), 1)

            z = flow(self.config, derivative, z, dt)
        if mass is not None:
            q, p = z.chunk(2, 1)
            z = torch.cat((q, self.mass.over(mass, p)), 1)
        return latent._replace(z=z)

    def _split(
        self,
        z: Tensor,
        fed: Callable[[Tensor], Tensor],
        rates: Tensor | None,
        mass: Tensor | None,
        condition: Tensor | None,
        dt: Tensor | float,
    ) -> Tensor:
        """The same step by a splitting: there -R grad T is linear, R M^-1 p."""
        if rates is not None and mass is not None:
            rates = rates / along(mass, z)

        def force(q: Tensor) -> Tensor:
            return fed(q) - self.potential.gradient(q, condition)

        def velocity(p: Tensor) -> Tensor:
            return self._velocity(p, mass, condition)

        return split_flow(self.config, force, velocity, z, dt, rates)

    def _velocity(self, p: Tensor, mass: Tensor | None, condition: Tensor | None) -> Tensor:
        """grad T at momenta ``p``."""
        if self.config.kinetic == "network":
            return self.kinetic.gradient(p, condition)
        return self.mass.over(mass, p)

    def _input(
        self, control: Tensor, condition: Tensor | None, like: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """q -> G(q) u, shaped as ``q``; ``control`` (B, E)."""
        if self.config.input_map == "constant":
            matrix = self.input_matrix(condition).unflatten(-1, (self.pairs, -1))
            fed = along((matrix @ control.unsqueeze(-1)).squeeze(-1), like)
            return lambda q: fed

        def fed_at(q: Tensor) -> Tensor:
            inputs = embed(q, self.medium.angles)
            if condition is not None:
                inputs = torch.cat((inputs, tile(condition, q)), 1)
            entries = self.input_network(inputs).unflatten(1, (self.pairs, -1))
            return (entries * along(control.unsqueeze(1), entries[:, 0])).sum(2)

        return fed_at


def _apply(matrix: Tensor, v: Tensor) -> Tensor:
    """(B, F[, H, W]) vectors under one matrix (F, F), or one a row (B, F, F)."""
    return (
        (matrix @ v.flatten(2)).reshape(v.shape)
        if v.ndim > 2
        else (matrix @ v.unsqueeze(-1)).squeeze(-1)
    )
