"""Rollouts by machine code: torch's numbers and torch's gradients, whichever structure is trained."""

from __future__ import annotations

import copy
import pickle
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodels.configs.training import MODELS
from worldmodels.dynamics import build_dynamics
from worldmodels.dynamics.fields import Network, nonnegative
from worldmodels.interface import Dynamics, Latent, Medium
from worldmodels.native import selection
from worldmodels.native.recording import NotRecordable
from worldmodels.native.rollouts import NativeRollout
from worldmodels.native.selection import rolled_out

pytest.importorskip("llvmlite")


@pytest.fixture(autouse=True)
def _all_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FEW_CALLS", 0)


STRUCTURES = ("jump", "lstm", "first_order", "newtonian", "velocity", "port_hamiltonian")
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in STRUCTURES),
    ("jump", {"dt_input": True}),
    *(("first_order", {"activation": kind}) for kind in ("softplus", "sin", "silu")),
    *(("port_hamiltonian", {"activation": kind}) for kind in ("softplus", "sin", "silu")),
    ("newtonian", {"velocity_input": False, "integrator": "yoshida4"}),
    ("first_order", {"integrator": "euler", "substeps": 2, "layers": 1}),
    ("port_hamiltonian", {"integrator": "leapfrog", "layers": 3}),
    ("port_hamiltonian", {"separable": False, "integrator": "rk4"}),
    ("port_hamiltonian", {"mass": "diagonal", "input_map": "state", "integrator": "leapfrog"}),
    ("port_hamiltonian", {"kinetic": "network", "damping": False, "integrator": "leapfrog"}),
    ("port_hamiltonian", {"mass": "network", "integrator": "rk4"}),
]


def structure(
    name: str, kind: str = "discrete", told: int = 0, features: int = 4, **options: Any
) -> Dynamics:
    """Dynamics of one angle and other coordinates, their weights large enough to bend."""
    torch.manual_seed(0)
    medium = Medium(features, False, (0,), kind, 3, told)
    made = build_dynamics(replace(MODELS[name](hidden=20), **options), medium)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def beginning(
    dynamics: Dynamics, rows: int = 7, steps: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Latent, Tensor]:
    """Latents and actions in the type of the weights."""
    medium = dynamics.medium
    z = torch.randn(rows, medium.features, dtype=dtype, requires_grad=True)
    memory = tuple(torch.randn_like(x).requires_grad_() for x in dynamics.initial_memory(z))
    told = torch.rand(rows, medium.condition_size, dtype=dtype) if medium.condition_size else None
    actions = torch.randint(0, 3, (rows, steps))
    if medium.action_kind == "continuous":
        actions = torch.randn(rows, steps, medium.action_size, dtype=dtype)
    return Latent(z, memory, told), actions


def by_torch(dynamics: Dynamics, latent: Latent, actions: Tensor, dt: float = 0.3) -> Tensor:
    states = [latent.z]
    for t in range(actions.shape[1]):
        latent = dynamics.step(latent, actions[:, t], dt)
        states.append(latent.z)
    return torch.stack(states, 1)


def gradients(dynamics: Dynamics, latent: Latent, states: Tensor) -> dict[str, Tensor]:
    """Of a sum with unequal weights, by the start and every parameter."""
    weight = torch.linspace(-1.0, 1.0, states.numel(), dtype=states.dtype)
    wanted = {"z": latent.z, **{f"memory {k}": x for k, x in enumerate(latent.memory)}}
    wanted |= {name: p for name, p in dynamics.named_parameters() if p.requires_grad}
    total = (states * weight.view_as(states)).sum()
    found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}


def assert_same(dynamics: Dynamics, latent: Latent, actions: Tensor, rtol: float = 1e-9) -> None:
    """States and gradients by machine code are torch's."""
    states = rolled_out(dynamics, latent, actions, 0.3)
    assert states is not None
    known = by_torch(dynamics, latent, actions)
    torch.testing.assert_close(states, known, rtol=rtol, atol=rtol)
    ours, theirs = gradients(dynamics, latent, states), gradients(dynamics, latent, known)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        size = float(gradient.norm()) + 1e-6
        assert float((ours[name] - gradient).norm()) <= rtol * 10 * size, name


@pytest.mark.parametrize(("name", "options"), CASES)
def test_states_and_gradients_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    dynamics = structure(name, **options).double()
    assert_same(dynamics, *beginning(dynamics))


@pytest.mark.parametrize("name", STRUCTURES)
def test_continuous_actions_and_told_parameters(name: str) -> None:
    dynamics = structure(name, "continuous", told=2).double()
    assert_same(dynamics, *beginning(dynamics))


@pytest.mark.parametrize("rows", [1, 3, 64, 65, 130])
def test_any_number_of_rows_in_float32(rows: int) -> None:
    dynamics = structure("port_hamiltonian", integrator="leapfrog")
    assert_same(dynamics, *beginning(dynamics, rows, 3, torch.float32), rtol=2e-5)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    dynamics = structure("first_order")
    latent, actions = beginning(dynamics, 70, 3, torch.float32)
    whole = rolled_out(dynamics, latent, actions, 0.3)
    alone = rolled_out(dynamics, latent._replace(z=latent.z[66:67]), actions[66:67], 0.3)
    assert whole is not None and alone is not None
    assert torch.equal(whole[66:67], alone)


def test_rows_that_are_not_finite_spoil_no_others() -> None:
    dynamics = structure("jump")
    latent, actions = beginning(dynamics, 9, 3, torch.float32)
    good = rolled_out(dynamics, latent, actions, 0.3)
    with torch.no_grad():
        latent.z[4] = float("nan")
    states = rolled_out(dynamics, latent, actions, 0.3)
    assert states is not None and good is not None
    kept = [k for k in range(9) if k != 4]
    assert torch.equal(states[kept], good[kept]) and bool(states[4, 1:].isnan().all())


def test_threads_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = structure("velocity").double()
    latent, actions = beginning(dynamics, 200)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert_same(dynamics, latent, actions)


def test_weights_are_read_anew_at_every_call() -> None:
    dynamics = structure("lstm").double()
    latent, actions = beginning(dynamics)
    assert_same(dynamics, latent, actions)
    with torch.no_grad():
        for weight in dynamics.parameters():
            weight.mul_(1.1)
    assert_same(dynamics, latent, actions)


def test_other_parameters_in_the_place_of_the_first_are_noticed() -> None:
    dynamics = structure("jump").double()
    latent, actions = beginning(dynamics)
    assert_same(dynamics, latent, actions)
    out: Any = dynamics.f.out  # type: ignore[attr-defined]
    out.weight = torch.nn.Parameter(torch.randn_like(out.weight))
    assert_same(dynamics, latent, actions)


def test_frozen_parameters_have_no_gradients() -> None:
    dynamics = structure("port_hamiltonian").double()
    for name, weight in dynamics.named_parameters():
        weight.requires_grad_("potential" not in name)
    assert_same(dynamics, *beginning(dynamics))


def test_a_leaf_that_was_changed_in_between_is_refused() -> None:
    dynamics = structure("jump")
    latent, actions = beginning(dynamics, dtype=torch.float32)
    states = rolled_out(dynamics, latent, actions, 0.3)
    assert states is not None
    with torch.no_grad():
        next(dynamics.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        states.sum().backward()


def test_gradients_are_taken_once() -> None:
    dynamics = structure("jump")
    latent, actions = beginning(dynamics, dtype=torch.float32)
    states = rolled_out(dynamics, latent, actions, 0.3)
    assert states is not None
    states.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="roll out again"):
        states.sum().backward()


def test_two_rollouts_may_be_open_at_once() -> None:
    dynamics = structure("first_order").double()
    (one, acts), (two, others) = beginning(dynamics), beginning(dynamics)
    first = rolled_out(dynamics, one, acts, 0.3)
    second = rolled_out(dynamics, two, others, 0.3)
    assert first is not None and second is not None
    for latent, actions, states in ((one, acts, first), (two, others, second)):
        known = gradients(dynamics, latent, by_torch(dynamics, latent, actions))
        torch.testing.assert_close(gradients(dynamics, latent, states), known)


def test_models_with_code_can_be_copied_pickled_and_used_in_threads() -> None:
    dynamics = structure("newtonian").double()
    latent, actions = beginning(dynamics)
    assert_same(dynamics, latent, actions)
    for other in (copy.deepcopy(dynamics), pickle.loads(pickle.dumps(dynamics))):
        assert_same(other, latent, actions)
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            assert_same(dynamics, latent, actions)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_cannot_be_compiled_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    adaptive = structure("first_order", integrator="dopri5")
    assert rolled_out(adaptive, *beginning(adaptive, dtype=torch.float32), 0.3) is None
    implicit = structure("port_hamiltonian", mass="network", integrator="gauss4")
    assert rolled_out(implicit, *beginning(implicit, dtype=torch.float32), 0.3) is None
    half = structure("jump").half()
    assert rolled_out(half, *beginning(half, dtype=torch.float16), 0.3) is None
    jump = structure("jump", "continuous")
    latent, actions = beginning(jump, dtype=torch.float32)
    assert rolled_out(jump, latent, actions.requires_grad_(), 0.3) is None
    monkeypatch.setenv("PHYSGYM_NATIVE", "0")
    assert rolled_out(jump, latent, actions.detach(), 0.3) is None


class Hiding(Dynamics):
    """Says that it can be recorded, and computes a part of itself out of sight of gradients."""

    recordable = True

    def __init__(self, medium: Medium) -> None:
        super().__init__(medium)
        self.f = Network(MODELS["jump"](hidden=8), medium, medium.features, medium.features)

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        with torch.no_grad():
            pushed = self.f(latent.z)
        return latent._replace(z=latent.z * 0.9 + pushed)


class Straight(Hiding):
    """Reads 0 or more, with a gradient that does not see the cut."""

    recordable = True

    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        return latent._replace(z=latent.z + nonnegative(self.f(latent.z)))


def test_gradients_that_are_hidden_from_are_noticed() -> None:
    dynamics = Hiding(Medium(2))
    with pytest.warns(RuntimeWarning, match="trained by torch"):
        assert rolled_out(dynamics, *beginning(dynamics, dtype=torch.float32), 0.3) is None


def test_detached_parts_get_no_gradient() -> None:
    dynamics = Straight(Medium(2)).double()
    assert_same(dynamics, *beginning(dynamics))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_first_call_without_gradients_does_not_spoil_later_ones(mode: Any) -> None:
    dynamics = structure("port_hamiltonian", integrator="leapfrog").double()
    latent, actions = beginning(dynamics)
    with mode():
        states = rolled_out(dynamics, latent, actions, 0.3)
    assert states is not None and not states.requires_grad
    assert_same(dynamics, latent, actions)


def test_nothing_is_kept_without_gradients() -> None:
    dynamics = structure("port_hamiltonian")
    latent, actions = beginning(dynamics, 8, 50, torch.float32)
    plan = NativeRollout(dynamics, latent, actions[:, 0], 0.3)
    with torch.no_grad():
        plan(latent, actions)
    free = plan._spare[-1].numel()
    plan(latent, actions).sum().backward()
    assert plan._spare[-1].numel() == 50 * free


def test_a_model_is_compiled_once_for_all_of_its_shape() -> None:
    first, second = structure("jump"), structure("jump")
    latent, actions = beginning(first, dtype=torch.float32)
    one = NativeRollout(first, latent, actions[:, 0], 0.3)
    two = NativeRollout(second, latent, actions[:, 0], 0.3)
    assert one._compiled is two._compiled


def test_a_rollout_of_few_operations_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    dynamics = structure("jump")
    latent, actions = beginning(dynamics, 8, 20, torch.float32)
    assert rolled_out(dynamics, latent, actions[:, :1], 0.3) is None
    assert rolled_out(dynamics, latent, actions, 0.3) is not None


def test_shared_parameters_are_not_guessed_at() -> None:
    dynamics = structure("jump")
    layers: Any = dynamics.f.hidden  # type: ignore[attr-defined]
    layers[1].weight.data = layers[1].weight.data.clone()
    layers[1].bias.data = layers[0].bias.data
    latent, actions = beginning(dynamics, dtype=torch.float32)
    with pytest.raises(NotRecordable, match="share their memory"):
        NativeRollout(dynamics, latent, actions[:, 0], 0.3)
    assert rolled_out(dynamics, latent, actions, 0.3) is None
