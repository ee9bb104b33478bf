"""Energies that cannot be split: M(q), and the methods that keep what such a flow keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_doubles import make_spec, small_model
from test_dynamics import MEDIA, example, in_double, made
from torch import Tensor

import worldmodels
from worldmodels.dynamics import nonseparable
from worldmodels.dynamics.mass import FLOOR, MassNetwork
from worldmodels.interface import Latent

IMPLICIT = ("implicit_midpoint", "gauss4")


def alone(**options: Any) -> Any:
    """M(q) with neither damping nor input, its entries far from 1."""
    dynamics = in_double("port_hamiltonian", mass="network", damping=False, **options)
    with torch.no_grad():
        dynamics.mass.out.weight.mul_(3.0)
        dynamics.input_matrix.base.zero_()
    return dynamics


@pytest.mark.parametrize("medium", ["angles", "wide", "told", "map"])
def test_a_mass_is_symmetric_positive_and_its_own_inverse_s_inverse(medium: str) -> None:
    dynamics = made("port_hamiltonian", {"mass": "network"}, MEDIA[medium]).double()
    assert isinstance(dynamics.mass, MassNetwork)
    latent, _ = example(dynamics)
    q, v = latent.z.chunk(2, 1)
    factor, other = dynamics.mass.factor(q, latent.condition), torch.randn_like(v)
    torch.testing.assert_close(factor.over(factor.times(v)), v)
    torch.testing.assert_close((other * factor.times(v)).sum(1), (v * factor.times(other)).sum(1))
    assert ((v * factor.times(v)).sum(1) > FLOOR**2 * (v * v).sum(1) * 1e-3).all()


@pytest.mark.parametrize("medium", ["angles", "wide", "told", "map", "map told"])
def test_the_slopes_of_the_kinetic_energy_are_those_of_its_value(medium: str) -> None:
    dynamics = made("port_hamiltonian", {"mass": "network"}, MEDIA[medium]).double()
    latent, _ = example(dynamics)
    q, p = (part.clone().requires_grad_() for part in latent.z.chunk(2, 1))
    kinetic = 0.5 * (p * dynamics.mass.factor(q, latent.condition).over(p)).sum()
    expected = torch.autograd.grad(kinetic, (q, p))
    for found, wanted in zip(dynamics.mass.slopes(q, p, latent.condition), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("integrator", IMPLICIT)
def test_a_step_solves_its_equation_to_the_stated_tolerance(integrator: str) -> None:
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(5, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))

        def field(z: Tensor) -> Tensor:
            q, p = z.chunk(2, 1)
            return torch.cat((p * torch.cos(q), torch.sin(q) * (0.5 * p * p - 1.0)), 1)

        after = getattr(nonseparable, integrator)(field, z, 0.3)
        back = getattr(nonseparable, integrator)(field, after, -0.3)
        allowed = 2 * nonseparable.TOLERANCE * torch.finfo(dtype).eps * float(z.abs().max() + 1)
        assert float((back - z).abs().max()) <= allowed


@pytest.mark.parametrize("integrator", IMPLICIT)
def test_gradients_of_a_solution_are_those_of_many_unrolled_iterations(
    integrator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients() -> list[Tensor]:
        dynamics = in_double("port_hamiltonian", mass="network", integrator=integrator)
        latent, action = example(dynamics)
        start = latent.z.requires_grad_()
        for _ in range(2):
            latent = dynamics.step(latent, action, 0.4)
        parameters = [start, *dynamics.parameters()]
        return list(torch.autograd.grad((latent.z**3).sum(), parameters))

    monkeypatch.setattr(nonseparable, "GRADIENT_TOLERANCE", 1e-12)
    implicit = gradients()

    def unrolled(step: Any, guess: Tensor) -> Tensor:
        for _ in range(60):
            guess = step(guess)
        return guess

    monkeypatch.setattr(nonseparable, "solved", unrolled)
    for one, other in zip(implicit, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_gradients_that_are_solved_loosely_are_near() -> None:
    def field(z: Tensor) -> Tensor:
        return torch.stack((z[:, 1], -torch.sin(z[:, 0])), 1)

    z = torch.tensor([[1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    (loose,) = torch.autograd.grad(nonseparable.gauss4(field, z, 0.3).sum(), z)
    shift = torch.tensor([[1e-6, 0.0]], dtype=torch.float64)
    ends = [nonseparable.gauss4(field, (z + s).detach(), 0.3).sum() for s in (shift, -shift)]
    assert abs(float((ends[0] - ends[1]) / 2e-6 - loose[0, 0])) < 1e-3


def test_a_row_without_a_solution_is_not_finite_and_the_others_are() -> None:
    def field(z: Tensor) -> Tensor:
        return torch.stack((z[:, 1], -1000.0 * z[:, 0] * (z[:, 0] > 10)), 1)

    z = torch.tensor([[20.0, 1.0], [1.0, 0.5]])
    after = nonseparable.gauss4(field, z, 1.0)
    assert not after[0].isfinite().any()
    torch.testing.assert_close(after[1], torch.tensor([1.5, 0.5]))


@pytest.mark.parametrize(
    ("integrator", "allowed"), [("implicit_midpoint", 1e-2), ("gauss4", 1e-5), ("extended4", 1e-3)]
)
def test_energy_is_kept_where_nothing_changes_it(integrator: str, allowed: float) -> None:
    dynamics = alone(integrator=integrator)
    latent, action = example(dynamics)
    with torch.no_grad():
        start = dynamics.energy(latent)
        for _ in range(100):
            latent = dynamics.step(latent, action, 0.1)
        assert (dynamics.energy(latent) - start).abs().max() < allowed * start.abs().max()


def test_energy_only_falls_under_damping_alone_whatever_the_mass() -> None:
    dynamics = in_double("port_hamiltonian", mass="network")
    with torch.no_grad():
        dynamics.input_matrix.base.zero_()
        dynamics.raw_damping.base.fill_(1.0)
        latent, action = example(dynamics)
        energies = [dynamics.energy(latent)]
        for _ in range(60):
            latent = dynamics.step(latent, action, 0.1)
            energies.append(dynamics.energy(latent))
    assert (torch.stack(energies).diff(dim=0) < 1e-6).all()


def test_velocities_that_a_mass_turns_stay_rates_of_positions() -> None:
    dynamics = alone()
    latent, action = example(dynamics)
    v = latent.z.chunk(2, 1)[1]
    short = dynamics.step(latent, action, 1e-5).z
    torch.testing.assert_close((short - latent.z).chunk(2, 1)[0] / 1e-5, v, rtol=1e-3, atol=1e-4)


def test_both_copies_of_a_phase_space_stay_together() -> None:
    """A step that splits them differs little from the implicit one."""
    latent, action = example(alone())
    one, other = (
        alone(integrator=name).step(Latent(latent.z), action, 0.1).z
        for name in ("gauss4", "extended4")
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_learned_env_takes_a_band_of_its_own() -> None:
    """Whatever band its buffer began in, and none where other starts are asked for."""
    spec = make_spec("acrobot", energy=(0.05, 0.4))
    model = small_model("port_hamiltonian", spec, mass="network")
    unit = 58.86
    for given, low, high in (
        ({}, 0.05, 0.4),
        ({"energy": (0.5, 0.8)}, 0.5, 0.8),
        ({"start": "energy", "energy": (0.5, 0.8)}, 0.5, 0.8),
        ({"start": "default"}, 0.0, 9.0),
    ):
        _, told = worldmodels.make_env(model, num_envs=4, **given).reset(seed=0)  # type: ignore[arg-type]
        assert (told["energy"] >= low * unit - 1e-6).all()
        assert (told["energy"] <= high * unit + 1e-6).all()
