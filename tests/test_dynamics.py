"""Laws of every structure on every medium."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodels.configs.training import ADAPTIVE, MODELS, NewtonianConfig, PortHamiltonianConfig
from worldmodels.dynamics import build_dynamics
from worldmodels.dynamics.fields import Energy, embed, embed_adjoint
from worldmodels.interface import STRUCTURES, DivergenceError, Dynamics, Latent, Medium

MEDIA = {
    "vector": Medium(4, action_size=3),
    "angles": Medium(4, angles=(1,), action_size=3),
    "wide": Medium(12, action_kind="continuous", action_size=2),
    "told": Medium(4, angles=(0,), action_size=3, condition_size=2),
    "map": Medium(8, spatial=True, action_size=3),
    "map told": Medium(8, spatial=True, action_kind="continuous", action_size=2, condition_size=3),
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "jump": [{}, {"dt_input": True}],
    "newtonian": [{}, {"velocity_input": False, "integrator": "leapfrog"}],
    "port_hamiltonian": [
        {},
        {"integrator": "leapfrog", "mass": "diagonal"},
        {"integrator": "rk4", "mass": "full", "input_map": "state"},
        {"integrator": "yoshida4", "kinetic": "network", "damping": False},
        {"integrator": "implicit_midpoint", "separable": False, "substeps": 2},
        {"mass": "network"},
        {"mass": "network", "integrator": "extended4", "damping": False},
        {"mass": "network", "integrator": "rk4", "cyclic": (1,)},
        {"separable": False, "integrator": "rk4", "cyclic": (0, 1)},
    ],
}
KINDS = [(name, options) for name in MODELS for options in OPTIONS.get(name, [{}])]
CASES = list(itertools.product(KINDS, MEDIA))


def made(name: str, options: dict[str, Any], medium: Medium) -> Dynamics:
    torch.manual_seed(0)
    config = replace(MODELS[name](), hidden=8, **options)
    return build_dynamics(config, medium)


def example(dynamics: Dynamics, batch: int = 3) -> tuple[Latent, Tensor]:
    medium = dynamics.medium
    generator = torch.Generator().manual_seed(1)
    sites = (4, 4) if medium.spatial else ()
    dtype = next(dynamics.parameters()).dtype
    z = torch.randn(batch, medium.features, *sites, generator=generator).to(dtype)
    action = torch.arange(batch) % medium.action_size
    if medium.action_kind == "continuous":
        action = torch.rand(batch, medium.action_size, generator=generator) * 2 - 1
    condition = None
    if medium.condition_size:
        condition = torch.randn(batch, medium.condition_size, generator=generator).to(dtype)
    return Latent(z, dynamics.initial_memory(z), condition), action


def hamiltonian(integrator: str, **options: Any) -> PortHamiltonianConfig:
    return PortHamiltonianConfig(integrator=integrator, **options)


def test_every_config_has_a_structure_and_every_structure_a_config() -> None:
    assert set(STRUCTURES) == set(MODELS)


@pytest.mark.parametrize(("kind", "medium"), CASES, ids=lambda value: str(value))
class TestEveryStructure:
    def test_keeps_the_shape_and_is_finite(self, kind: Any, medium: str) -> None:
        dynamics = made(*kind, MEDIA[medium])
        latent, action = example(dynamics)
        after = dynamics.step(latent, action, 0.1)
        assert after.z.shape == latent.z.shape
        assert after.z.isfinite().all()
        assert not torch.equal(after.z, latent.z)

    def test_gives_every_parameter_a_gradient(self, kind: Any, medium: str) -> None:
        dynamics = made(*kind, MEDIA[medium])
        latent, action = example(dynamics)
        for _ in range(2):
            latent = dynamics.step(latent, action, 0.1)
        (latent.z**2).sum().backward()
        for name, parameter in dynamics.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_rows_do_not_depend_on_one_another(self, kind: Any, medium: str) -> None:
        dynamics = made(*kind, MEDIA[medium]).double()
        latent, action = example(dynamics, 4)
        together = dynamics.step(latent, action, 0.1).z
        for row in range(4):
            told = None if latent.condition is None else latent.condition[row : row + 1]
            memory = tuple(part[row : row + 1] for part in latent.memory)
            alone = Latent(latent.z[row : row + 1], memory, told)
            after = dynamics.step(alone, action[row : row + 1], 0.1).z
            torch.testing.assert_close(after[0], together[row], rtol=1e-12, atol=1e-12)

    def test_leaves_the_callers_tensors_alone(self, kind: Any, medium: str) -> None:
        dynamics = made(*kind, MEDIA[medium])
        latent, action = example(dynamics)
        before = latent.z.clone()
        dynamics.step(latent, action, 0.1)
        assert torch.equal(latent.z, before)
        assert not latent.z.requires_grad

    def test_steps_the_same_without_gradients(self, kind: Any, medium: str) -> None:
        dynamics = made(*kind, MEDIA[medium])
        latent, action = example(dynamics)
        expected = dynamics.step(latent, action, 0.1).z.detach()
        with torch.no_grad():
            assert torch.equal(dynamics.step(latent, action, 0.1).z, expected)
        with torch.inference_mode():
            own, action = example(dynamics)
            after = dynamics.step(own, action, 0.1).z
            assert after.grad_fn is None
            assert torch.equal(after, expected)

    def test_takes_one_dt_a_row(self, kind: Any, medium: str) -> None:
        dynamics = made(*kind, MEDIA[medium])
        latent, action = example(dynamics, 2)
        both = dynamics.step(latent, action, torch.tensor([0.1, 0.2])).z
        if not dynamics.any_dt:
            assert torch.equal(both, dynamics.step(latent, action, 0.1).z)
            return
        for row, dt in enumerate((0.1, 0.2)):
            single = dynamics.step(latent, action, dt).z[row]
            torch.testing.assert_close(both[row], single, rtol=1e-5, atol=1e-6)


def in_double(name: str, **options: Any) -> Dynamics:
    return made(name, options, MEDIA["angles"]).double()


ORDERS = [
    ("first_order", {"integrator": "euler"}, 1),
    ("first_order", {"integrator": "rk4"}, 4),
    ("velocity", {"integrator": "rk4"}, 4),
    ("newtonian", {"integrator": "rk4"}, 4),
    ("newtonian", {"integrator": "semi_implicit_euler", "velocity_input": False}, 1),
    ("newtonian", {"integrator": "leapfrog", "velocity_input": False}, 2),
    ("port_hamiltonian", {"integrator": "leapfrog"}, 2),
    ("port_hamiltonian", {"integrator": "leapfrog", "mass": "diagonal"}, 2),
    ("port_hamiltonian", {"integrator": "yoshida4"}, 4),
    ("port_hamiltonian", {"integrator": "suzuki4"}, 4),
    ("port_hamiltonian", {"integrator": "rk4", "mass": "full"}, 4),
    ("port_hamiltonian", {"integrator": "rk4", "separable": False}, 4),
    ("port_hamiltonian", {"integrator": "implicit_midpoint", "separable": False}, 2),
    ("port_hamiltonian", {"integrator": "implicit_midpoint", "mass": "network"}, 2),
    ("port_hamiltonian", {"integrator": "gauss4", "mass": "network"}, 4),
    ("port_hamiltonian", {"integrator": "extended4", "mass": "network"}, 4),
    ("port_hamiltonian", {"integrator": "extended4", "separable": False}, 4),
]


@pytest.mark.parametrize(("name", "options", "order"), ORDERS, ids=str)
def test_integrators_converge_at_their_order(name: str, options: Any, order: int) -> None:
    counts = (8, 16, 32) if order == 4 else (32, 64, 128)
    finals = []
    for substeps in counts:
        dynamics = in_double(name, **options, substeps=substeps)
        latent, action = example(dynamics)
        finals.append(dynamics.step(latent, action, 2.0).z.detach())
    coarse, middle, fine = finals  # differences of halved steps need no reference
    errors = [float((a - b).abs().max()) for a, b in ((coarse, middle), (middle, fine))]
    slope = math.log2(errors[0] / errors[1])
    assert abs(slope - order) <= 0.2, errors


@pytest.mark.parametrize("medium", ["angles", "told", "map", "map told"])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "silu", "sin"])
def test_an_energys_gradient_is_that_of_its_value(medium: str, activation: Any) -> None:
    chosen = MEDIA[medium]
    config = PortHamiltonianConfig(hidden=8, layers=3, activation=activation)
    energy = Energy(config, chosen, chosen.features, chosen.angles).double()
    torch.manual_seed(3)
    sites = (3, 3) if chosen.spatial else ()
    x = torch.randn(2, chosen.features, *sites, dtype=torch.float64)
    told = torch.randn(2, chosen.condition_size, dtype=torch.float64)
    condition = told if chosen.condition_size else None
    gradient = energy.gradient(x, condition).detach().flatten(1)
    flat = x.flatten(1)
    for index in range(flat.shape[1]):
        shift = torch.zeros_like(flat)
        shift[:, index] = 1e-5
        above = energy((flat + shift).reshape(x.shape), condition)
        below = energy((flat - shift).reshape(x.shape), condition)
        difference = (above - below).detach() / 2e-5
        torch.testing.assert_close(gradient[:, index], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separable": False, "integrator": "rk4"},
        {"mass": "full", "integrator": "rk4"},
        {"mass": "network"},
    ],
)
def test_the_hamiltonians_gradient_is_that_of_its_energy(options: dict[str, Any]) -> None:
    dynamics = in_double("port_hamiltonian", **options)
    latent, _ = example(dynamics)
    q, v = latent.z.chunk(2, 1)
    p = dynamics.momenta(q, v).detach()
    z = torch.cat((q, p), 1).requires_grad_()

    def energy_of(state: Tensor) -> Tensor:
        q, p = state.chunk(2, 1)
        return dynamics.energy(Latent(torch.cat((q, dynamics.velocities(q, p)), 1))).sum()

    (expected,) = torch.autograd.grad(energy_of(z), z)
    torch.testing.assert_close(dynamics.gradient(z), expected)


@pytest.mark.parametrize("integrator", ["leapfrog", "yoshida4"])
def test_energy_is_conserved_without_damping_and_input(integrator: str) -> None:
    dynamics = in_double("port_hamiltonian", integrator=integrator, damping=False)
    with torch.no_grad():
        dynamics.input_matrix.base.zero_()
        latent, action = example(dynamics)
        start = dynamics.energy(latent)
        for _ in range(500):
            latent = dynamics.step(latent, action, 0.02)
    scale = (start - start.mean()).abs().max()
    assert (dynamics.energy(latent) - start).abs().max() < 1e-3 * scale


def test_energy_only_falls_under_damping_alone() -> None:
    dynamics = in_double("port_hamiltonian", integrator="rk4")
    with torch.no_grad():
        dynamics.input_matrix.base.zero_()
        dynamics.raw_damping.base.fill_(1.0)
        latent, action = example(dynamics)
        energies = [dynamics.energy(latent)]
        for _ in range(200):
            latent = dynamics.step(latent, action, 0.02)
            energies.append(dynamics.energy(latent))
    assert (torch.stack(energies).diff(dim=0) < 1e-9).all()


@pytest.mark.parametrize(
    "options",
    [
        {"integrator": "leapfrog"},
        {"mass": "network"},
        {"mass": "network", "integrator": "implicit_midpoint"},
    ],
    ids=str,
)
def test_symmetric_methods_are_reversible_without_damping(options: dict[str, Any]) -> None:
    dynamics = in_double("port_hamiltonian", **options, damping=False)
    assert dynamics.reversible
    latent, action = example(dynamics)
    there = dynamics.step(latent, action, 0.3)
    back = dynamics.step(there, action, -0.3)
    torch.testing.assert_close(back.z, latent.z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", [name for name, kind in MODELS.items() if name not in ("jump", "lstm")]
)
def test_adaptive_methods_agree_with_fixed_steps(name: str) -> None:
    options = {"integrator": "dopri5", "rtol": 1e-9, "atol": 1e-9}
    adaptive = in_double(name, **options)
    fixed = in_double(name, integrator="rk4", substeps=50)
    latent, action = example(adaptive)
    torch.testing.assert_close(
        adaptive.step(latent, action, 1.0).z,
        fixed.step(latent, action, 1.0).z,
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_solver_that_cannot_go_on_says_diverged() -> None:
    dynamics = made("first_order", {"integrator": "dopri5"}, MEDIA["vector"])
    latent, action = example(dynamics)
    with pytest.raises(DivergenceError, match="dopri5"):
        dynamics.step(latent._replace(z=latent.z * float("nan")), action, 0.1)


def test_momenta_of_a_learned_mass_leave_velocities_as_latents() -> None:
    """With forces off, a latent's velocities stay whatever the mass is, and positions move by them."""
    for mass in ("identity", "diagonal", "full"):
        dynamics = in_double("port_hamiltonian", mass=mass, integrator="rk4", damping=False)
        with torch.no_grad():
            dynamics.potential.out.weight.zero_()
            dynamics.input_matrix.base.zero_()
            if mass == "diagonal":
                dynamics.mass.raw.base.copy_(torch.tensor([-1.0, 2.0]))
        latent, action = example(dynamics)
        q, v = latent.z.chunk(2, 1)
        moved, kept = dynamics.step(latent, action, 0.5).z.chunk(2, 1)
        torch.testing.assert_close(kept, v)
        torch.testing.assert_close(moved, q + 0.5 * v)


def test_angles_are_periodic_to_networks() -> None:
    for name in MODELS:
        dynamics = in_double(name)
        latent, action = example(dynamics)
        turned = latent.z.clone()
        turned[:, 1] += 2 * torch.pi
        a = dynamics.step(latent, action, 0.1).z - latent.z
        b = dynamics.step(latent._replace(z=turned), action, 0.1).z - turned
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_adjoint_of_the_angle_embedding() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((embed(x, (0, 2)) * weight).sum(), x)
    torch.testing.assert_close(embed_adjoint(x.detach(), weight, (0, 2)), expected)


def test_dissipation_and_damping_are_never_negative() -> None:
    for name, verb in (("newtonian", "damping"), ("port_hamiltonian", "dissipation")):
        dynamics = made(name, {}, MEDIA["told"])
        with torch.no_grad():
            dynamics.raw_damping.base.fill_(-50.0)
            assert (getattr(dynamics, verb)(torch.randn(9, 2)) >= 0).all()


def test_velocities_are_not_frozen() -> None:
    """An earlier velocity model had dv/dt = 0."""
    dynamics = made("velocity", {}, MEDIA["vector"])
    latent, action = example(dynamics)
    assert (dynamics.step(latent, action, 0.1).z[:, 2:] != latent.z[:, 2:]).all()


def test_an_lstm_remembers() -> None:
    dynamics = made("lstm", {}, MEDIA["vector"])
    latent, action = example(dynamics)
    once = dynamics.step(latent, action, 0.1)
    fresh = dynamics.step(Latent(once.z, dynamics.initial_memory(once.z)), action, 0.1)
    assert not torch.allclose(dynamics.step(once, action, 0.1).z, fresh.z)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NewtonianConfig(integrator="leapfrog"), "integrator='leapfrog'"),
        (lambda: hamiltonian("suzuki4", separable=False), "integrator='suzuki4'"),
        (lambda: hamiltonian("suzuki4", mass="full"), "integrator='suzuki4'"),
        (lambda: hamiltonian("suzuki4", kinetic="network"), "integrator='suzuki4'"),
        (lambda: hamiltonian("leapfrog", mass="network"), "leapfrog'.*auto, extended4"),
        (lambda: hamiltonian("extended4"), "extended4'.*auto, semi_implicit_euler, leapfrog"),
        (lambda: hamiltonian("auto", mass="network", separable=False), "leave one of them out"),
        (lambda: hamiltonian("auto", mass="netwrok"), "one of identity.*did you mean 'network'"),
        (lambda: MODELS["first_order"](integrator="verlet"), "expected one of euler"),
        (lambda: MODELS["jump"](hidden=0), "model.hidden=0"),
        (lambda: Medium(3), "features=3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_every_adaptive_method_is_known_to_torchdiffeq() -> None:
    from torchdiffeq._impl.odeint import SOLVERS

    assert set(ADAPTIVE) <= set(SOLVERS)


@pytest.mark.parametrize("medium", ["angles", "wide", "told", "map told"])
@pytest.mark.parametrize("options", [{"mass": "network"}, {"separable": False}, {"mass": "full"}])
def test_nothing_depends_on_where_a_cyclic_position_is(
    options: dict[str, Any], medium: str
) -> None:
    place = {"angles": 1, "wide": 4, "told": 0, "map told": 3}[medium]
    options = {**options, "integrator": "rk4", "damping": False, "cyclic": (place,)}
    dynamics = made("port_hamiltonian", options, MEDIA[medium]).double()
    latent, action = example(dynamics)
    away = torch.zeros_like(latent.z)
    away[:, place] = 50.0
    elsewhere = latent._replace(z=latent.z + away)
    torch.testing.assert_close(dynamics.energy(elsewhere), dynamics.energy(latent))
    moved, there = (dynamics.step(x, action, 0.1).z for x in (latent, elsewhere))
    torch.testing.assert_close(there, moved + away)
    free = made("port_hamiltonian", {**options, "cyclic": ()}, MEDIA[medium]).double()
    assert not torch.allclose(free.energy(elsewhere), free.energy(latent))
    before, after = (
        dynamics.momenta(*at.z.chunk(2, 1), latent.condition)[:, place]
        for at in (latent, dynamics.conserve(latent, 0.1))
    )
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(("cyclic", "named"), [((2,), "the 2 positions"), ((-1,), "different")])
def test_a_cyclic_position_that_is_none_is_refused(cyclic: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=rf"model.cyclic=\({cyclic[0]},\) is not valid.*{named}"):
        made("port_hamiltonian", {"cyclic": cyclic}, MEDIA["vector"])
