"""Port-Hamiltonian: an energy, what dissipates it and what feeds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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
from worldmodels.dynamics.mass import Mass, MassNetwork
from worldmodels.interface import Dynamics, Latent, Medium, register


@register("port_hamiltonian")
class PortHamiltonian(Dynamics):
    """dz/dt = (J - R) grad H(z) + G(z) u(a), z = (q, p), J canonical.

    Port-Hamiltonian systems: van der Schaft and Jeltsema 2014, doi:10.1561/2600000002. R >= 0 is diagonal
    and acts on the momenta; G feeds the momenta. u is zero for the action that does nothing, where the
    medium names one: then H holds all that acts without a control. Separable (default): H = T(p) + V(q) with
    T = p^T M^-1 p / 2 (or a network). The second half of the features is taken as velocities v, and
    p = M v: M is the identity (equal masses, coordinates of one kind) or learned, diagonal or full.
    With ``mass="network"`` M(q) = L(q) L(q)^T is a network of the positions, as of a cart-pole or of a double
    pendulum: H = p^T M(q)^-1 p / 2 + V(q). With ``separable=False`` H(q, p) is one network, and M still says
    what p is. Neither can be split: see ``nonseparable`` for how such a flow is stepped.
    On positions that are ``cyclic``, none of these depends: where physics is the same everywhere along a
    track, a network that sees the place would say so of the data alone.
    Without damping, a method that is symmetric in time can be reversed.
    """

    any_dt = True
    has_energy = True
    recordable = True

    def __init__(self, config: PortHamiltonianConfig, medium: Medium) -> None:
        super().__init__(medium)
        self.config = config
        self.reversible = not config.damping and config.method in SYMMETRIC
        self.pairs = half = medium.features // 2
        told, cyclic = medium.condition_size, config.cyclic
        if max(cyclic, default=0) >= half:
            raise ValueError(
                f"model.cyclic={cyclic} is not valid: expected indices of the {half} positions, 0 to {half - 1}"
            )
        self.action = ActionEmbedding(medium, config.action_embedding, relative=True)
        self.moving_mass = config.mass == "network"
        self.mass: Any = (
            MassNetwork(config, medium, half, cyclic)
            if self.moving_mass
            else Mass(config.mass, half, told)
        )
        if config.separable:
            self.potential = Energy(config, medium, half, medium.angles, cyclic)
            if config.kinetic == "network" and not self.moving_mass:
                self.kinetic = Energy(config, medium, half)
        else:
            self.hamiltonian = Energy(config, medium, 2 * half, medium.angles, cyclic)
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
        p = self.momenta(q, v, condition)
        if not self.config.separable:
            return self.hamiltonian(torch.cat((q, p), 1), condition)
        potential = self.potential(q, condition)
        if self.config.kinetic == "network" and not self.moving_mass:
            return potential + self.kinetic(p, condition)
        return potential + 0.5 * (p * v).flatten(1).sum(1)

    def momenta(self, q: Tensor, v: Tensor, condition: Tensor | None = None) -> Tensor:
        """p = M v at positions ``q``, shaped as ``v``."""
        if self.moving_mass:
            return self.mass.factor(q, condition).times(v)
        return self.mass.times(self.mass(condition), v)

    def velocities(self, q: Tensor, p: Tensor, condition: Tensor | None = None) -> Tensor:
        """v = M^-1 p at positions ``q``, shaped as ``p``."""
        if self.moving_mass:
            return self.mass.factor(q, condition).over(p)
        return self.mass.over(self.mass(condition), p)

    def gradient(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """grad H at z = (q, p), shaped as ``z``."""
        if not self.config.separable:
            return self.hamiltonian.gradient(z, condition)
        q, p = z.chunk(2, 1)
        by_q = self.potential.gradient(q, condition)
        if self.moving_mass:
            turned, by_p = self.mass.slopes(q, p, condition)
            return torch.cat((by_q + turned, by_p), 1)
        return torch.cat((by_q, self._velocity(p, self.mass(condition), condition)), 1)

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
        q, v = latent.z.chunk(2, 1)
        same = self.config.mass == "identity"  # then velocities are momenta
        z = latent.z if same else torch.cat((q, self.momenta(q, v, condition)), 1)
        if self.config.method in SPLIT:
            z = self._split(z, fed, rates, condition, dt)
        else:

            def derivative(state: Tensor) -> Tensor:
                by_q, by_p = self.gradient(state, condition).chunk(2, 1)
                force = fed(state.chunk(2, 1)[0]) - by_q
                return torch.cat((by_p, force if rates is None else force - rates * by_p), 1)

            z = flow(self.config, derivative, z, dt)
        if not same:
            q, p = z.chunk(2, 1)
            z = torch.cat((q, self.velocities(q, p, condition)), 1)
        return latent._replace(z=z)

    def _split(
        self,
        z: Tensor,
        fed: Callable[[Tensor], Tensor],
        rates: Tensor | None,
        condition: Tensor | None,
        dt: Tensor | float,
    ) -> Tensor:
        """The same step by a splitting: there -R grad T is linear, R M^-1 p."""
        mass = self.mass(condition)
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
