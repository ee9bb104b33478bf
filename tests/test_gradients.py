"""Gradients of the systems and of the torch envs: finite at special points, cut by a reset."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from system_cases import NAMES, SMOOTH

from physgym import SYSTEMS, PhysicsVectorEnv
from physgym.choreography import figure_eight
from physgym.system import SYSTEM_REWARDS

torch = pytest.importorskip("torch")

POINTS: list[tuple[str, str, list[float]]] = [
    ("oscillator", "rest", [0.0, 0.0]),
    ("oscillator", "set point", [0.3, 0.0]),
    ("pendulum", "hanging", [0.0, 0.0]),
    ("pendulum", "upright", [math.pi, 0.0]),
    ("pendulum", "upright from below", [-math.pi, 0.0]),
    ("pendulum", "a whole turn, at the cost's kink", [2.0 * math.pi, 8.0]),
    ("spaceship", "centre", [0.0, 0.0, 0.0, 0.0]),
    ("spaceship", "still", [3.0, 0.0, 0.0, 0.0]),
    ("spaceship", "radial", [3.0, 0.0, 1.0, 0.0]),
    ("spaceship", "goal", [0.0, 3.0, math.sqrt(10.0 / 3.0), 0.0]),
    ("spaceship", "surface", [0.5, 0.0, 0.0, 0.0]),
    ("cart_pole", "hanging", [0.0, 0.0, 0.0, 0.0]),
    ("cart_pole", "upright", [0.5, math.pi, 0.0, 0.0]),
    ("acrobot", "hanging", [0.0, 0.0, 0.0, 0.0]),
    ("acrobot", "upright", [math.pi, 0.0, 0.0, 0.0]),
    ("acrobot", "folded", [1.0, -math.pi, 0.0, 1.0]),
    ("mass_spring", "rest", [0.0, 0.0]),
    ("n_body", "origin", [0.0] * 8),
    ("n_body", "coincident", [0.5] * 4 + [0.0] * 4),
    ("n_body", "ring", [0.0, 1.0, 0.0, -1.0, -0.5, 0.0, 0.5, 0.0]),
    ("three_body", "origin", [0.0] * 12),
    ("three_body", "coincident", [0.5] * 6 + [0.0] * 6),
    ("three_body", "on a line", [-1.0, 0.0, 1.0] + [0.0] * 9),
    ("three_body", "still", [*figure_eight(0.5)[:6].tolist(), *[0.0] * 6]),
    ("three_body", "orbit", figure_eight(0.0).tolist()),
]


def public_functions(system: Any, x: Any, action: Any, params: Any) -> dict[str, Any]:
    """Every public function of a system that tensors can go through, by name."""
    control = system.control(action, params)
    functions = {
        "control": control,
        "derivative": system.derivative(x, control, params),
        "energy": system.energy(x, params),
        "power": system.power(x, control, params),
        "dissipation": system.dissipation(x, params),
    }
    for kind in SYSTEM_REWARDS:
        functions[f"reward {kind}"] = system.reward(x, control, x, params, kind)
    for integrator in system.integrators:
        if integrator != "dop853":
            functions[integrator] = system.step(x, control, params, integrator=integrator)
    return functions


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("push", [0.0, 1.0])
@pytest.mark.parametrize("softening", [0.0, 0.2])
@pytest.mark.parametrize(("name", "point", "state"), POINTS)
def test_gradients_are_finite_wherever_values_are(
    name: str, point: str, state: list[float], softening: float, push: float, dtype: Any
) -> None:
    system = SYSTEMS[name]
    values = system.Params()._asdict()
    values |= {"softening": softening} if "softening" in values else {}
    leaves = {n: torch.tensor(v, dtype=dtype, requires_grad=True) for n, v in values.items()}
    x = torch.tensor(state, dtype=dtype, requires_grad=True)
    action = torch.full((system.action_size,), push, dtype=dtype, requires_grad=True)
    checked = 0
    for label, value in public_functions(system, x, action, system.Params(**leaves)).items():
        if not value.requires_grad or not bool(torch.isfinite(value).all()):
            continue
        found = torch.autograd.grad(
            value.sum(), [x, action, *leaves.values()], retain_graph=True, allow_unused=True
        )
        for what, gradient in zip(("x", "action", *leaves), found, strict=True):
            fine = gradient is None or bool(torch.isfinite(gradient).all())
            assert fine, f"{label} at {point}: gradient in {what} is {gradient}"
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize("name", ["spaceship", "three_body"])
def test_thrust_has_its_slope_at_zero_and_none_outwards_beyond_the_limit(name: str) -> None:
    system = SYSTEMS[name]
    for action, slope in (
        ([0.0, 0.0], [0.5, 0.5]),
        ([0.3, 0.4], [0.5, 0.5]),
        ([3.0, 0.0], [0.0, 0.5 / 3]),
    ):
        x = torch.tensor(action, dtype=torch.float64, requires_grad=True)
        system.control(x, system.Params()).sum().backward()
        assert x.grad.tolist() == pytest.approx(slope)


# -- integers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int64", "int32", "int8", "uint8"])
@pytest.mark.parametrize("name", NAMES)
def test_integers_are_not_cut(name: str, kind: str) -> None:
    """Arrays and tensors of integers are the numbers that they hold, products included."""
    system = SYSTEMS[name]
    whole = np.round(np.array(SMOOTH[name]) * 3.0)
    whole = np.abs(whole) if kind == "uint8" else whole
    if name == "three_body":  # three bodies on three different places
        whole[:6] = [0, 0, 2, 0, 0, 2]
    push = np.ones(system.control_size)
    args = system.Params()
    for x, u in (
        (whole.astype(kind), push.astype(kind)),
        (torch.tensor(whole).to(getattr(torch, kind)), torch.tensor(push).to(getattr(torch, kind))),
    ):
        for got, right in (
            (system.step(x, u, args), system.step(whole, push, args)),
            (system.derivative(x, u, args), system.derivative(whole, push, args)),
            (system.energy(x, args), system.energy(whole, args)),
            (system.reward(x, u, x, args), system.reward(whole, push, whole, args)),
            (system.control(u, args), system.control(push, args)),
        ):
            assert np.abs(np.asarray(got) - np.asarray(right)).max() < 1e-10


# -- torch envs --------------------------------------------------------------------------


def torch_env(name: str = "pendulum", num_envs: int = 2, **arguments: Any) -> PhysicsVectorEnv:
    """A batch on tensors with continuous actions, after its first reset."""
    arguments = {"action_mode": "continuous", "reward": "quadratic", **arguments}
    envs = PhysicsVectorEnv(name, num_envs, backend="torch", **arguments)
    envs.reset(seed=0)
    return envs


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_differentiable_in_every_action_of_the_episode(name: str) -> None:
    """Against finite differences, through four steps."""

    def total(pushes: Any) -> Any:
        envs = torch_env(name)
        return sum(envs.step(push)[1].sum() for push in pushes)

    size = SYSTEMS[name].action_size
    pushes = torch.full((4, 2, size), 0.1, dtype=torch.float64, requires_grad=True)
    total(pushes).backward()
    eps = 1e-5
    for at in ((0, 0, 0), (1, 1, size - 1), (3, 0, 0)):
        bump = torch.zeros_like(pushes)
        bump[at] = eps
        with torch.no_grad():
            slope = (total(pushes + bump) - total(pushes - bump)) / (2.0 * eps)
        assert float(pushes.grad[at]) == pytest.approx(float(slope), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_reset_cuts_the_graph(mode: str) -> None:
    envs = torch_env(autoreset_mode=mode, max_episode_steps=3, render_mode="rgb_array")
    for _ in range(3):
        push = torch.full((2, 1), 0.1, requires_grad=True)
        _, rewards, _, truncated, _ = envs.step(push)
        rewards.sum().backward(retain_graph=True)
    assert truncated.all()
    pictures = envs.render()
    assert pictures is not None and pictures[0].any()
    if mode == "Disabled":
        obs, info = envs.reset()
    elif mode == "NextStep":
        obs, rewards, _, _, info = envs.step(push)
        assert not rewards.any()
    else:
        obs, _, _, _, info = envs.step(torch.zeros(2, 1))
    assert not obs.requires_grad
    assert not info["state"].requires_grad


def test_rows_that_restart_alone_leave_the_others_their_gradient() -> None:
    envs = torch_env(autoreset_mode="Disabled")
    first = torch.full((2, 1), 0.1, requires_grad=True)
    envs.step(first)
    envs.reset(options={"reset_mask": torch.tensor([True, False])})
    envs.step(torch.zeros(2, 1))[1].sum().backward()
    assert first.grad[0] == 0.0
    assert first.grad[1] != 0.0


def test_detach_lets_a_long_run_go_on_without_its_past() -> None:
    envs = torch_env()
    for _ in range(3):
        push = torch.full((2, 1), 0.1, requires_grad=True)
        envs.step(push)[1].sum().backward()
        envs.detach()
    assert not envs.step(torch.zeros(2, 1))[0].requires_grad


def test_envs_in_the_midst_of_a_graph_can_be_copied() -> None:
    envs = torch_env()
    envs.step(torch.full((2, 1), 0.1, requires_grad=True))
    for twin in (copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):
        mine, its = copy.deepcopy(envs).step(torch.ones(2, 1)), twin.step(torch.ones(2, 1))
        assert torch.equal(mine[0], its[0])
        assert not its[0].requires_grad


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_leaves_no_trace(name: str, mode: str) -> None:
    """Steps and resets inside it, then steps, resets and gradients outside, as without it: to rounding, as
    steps with gradients are torch's and those without are machine code.
    """
    envs, twin = (torch_env(name, 3, autoreset_mode=mode, max_episode_steps=4) for _ in range(2))
    size = SYSTEMS[name].action_size
    for step in range(12):
        push = torch.full((3, size), 0.1, dtype=torch.float64, requires_grad=step % 2 == 1)
        with torch.inference_mode(mode=step % 2 == 0):
            if step == 6:
                envs.reset(seed=2, options={"reset_mask": torch.tensor([True, False, True])})
            here = envs.step(push.clone() if step % 2 == 0 else push)
        if step == 6:
            twin.reset(seed=2, options={"reset_mask": torch.tensor([True, False, True])})
        there = twin.step(push.detach())
        for a, b in zip(here[:4], there[:4], strict=True):
            assert a.dtype == b.dtype
            assert torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-9)
        if step % 2 == 0:
            envs.detach()
    envs.reset(seed=1)
    push = torch.zeros((3, size), requires_grad=True)
    envs.step(push)[0].sum().backward()
    assert bool(torch.isfinite(push.grad).all())
