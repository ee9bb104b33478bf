"""What the public functions of a system take: states, controls and parameters of every kind, and no others."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from gymnasium.error import Error
from system_cases import NAMES

from physgym import SYSTEMS, PhysicsEnv, PhysicsVectorEnv

torch = pytest.importorskip("torch")


def calls(system: Any, state: Any, control: Any, params: Any) -> dict[str, Any]:
    """Every public function of whole states, ready to be called."""
    return {
        "step": lambda: system.step(state, control, params),
        "derivative": lambda: system.derivative(state, control, params),
        "energy": lambda: system.energy(state, params),
        "power": lambda: system.power(state, control, params),
        "dissipation": lambda: system.dissipation(state, params),
        "reward": lambda: system.reward(state, control, state, params),
        "alive": lambda: system.reward(state, control, state, params, "alive"),
        "events": lambda: system.events(state, params),
        "terminated": lambda: system.terminated(state, params),
        "within_bounds": lambda: system.within_bounds(state, params),
    }


def start_of(system: Any) -> tuple[float, ...]:
    return system.sample_state(np.random.default_rng(3), system.Params())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_state_is_refused_alike_by_every_function(name: str) -> None:
    system = SYSTEMS[name]
    good, push = start_of(system), (0.0,) * system.control_size
    whole = np.array(good)
    wrong = [
        "ab", None, 3, {}, good[:1], (*good, 0.0), whole.astype(str), whole.astype(complex), whole > 0,
        np.array(1.0), torch.tensor(whole) > 0, torch.tensor(1.0), ["x"] * len(good), [[0.0]] * len(good),
    ]  # fmt: skip
    for state in wrong:
        for what, call in calls(system, state, push, None).items():
            with pytest.raises(ValueError, match=r"components|is no state"):
                call()
                pytest.fail(f"{what} takes {state!r}")
    for control in ("ab", None, 1.0, (*push, 0.0), np.array(1.0)):
        for what in ("step", "derivative", "power", "reward"):
            with pytest.raises(ValueError, match=r"components|is no state"):
                calls(system, good, control, None)[what]()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_may_be_left_out_or_told_in_part_everywhere(name: str) -> None:
    system = SYSTEMS[name]
    state, push, field = start_of(system), (0.5,) * system.control_size, system.Params._fields[0]
    full = system.Params()._replace(**{field: 2.0})
    for told, same in ((None, system.Params()), ({field: 2}, full)):
        expected = {k: call() for k, call in calls(system, state, push, same).items()}
        assert {k: call() for k, call in calls(system, state, push, told).items()} == expected
    for params in ("x", 3, (1.0, 2.0), {"nothing": 1.0}, {field: "1"}):
        for call in calls(system, state, push, params).values():
            with pytest.raises(ValueError, match="param"):
                call()
    env, twin = PhysicsEnv(name, params=full), PhysicsEnv(name, params={field: 2.0})
    assert env.reset(seed=0)[1]["params"] == twin.reset(seed=0)[1]["params"]
    given = PhysicsEnv(name, params={field: 2.0}).reset(seed=0, options={"params": full})[1]
    assert given["params"] == full._asdict()


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_among_floats_makes_a_step_of_tensors(name: str) -> None:
    system = SYSTEMS[name]
    state, push = start_of(system), (0.25,) * system.control_size
    expected = system.step(state, push, None)
    control = torch.tensor(push, dtype=torch.float64, requires_grad=True)
    got = torch.stack(system.step(state, control, None))
    assert np.allclose(got.detach().numpy(), expected, rtol=1e-12)
    got.sum().backward()
    assert control.grad is not None and control.grad.isfinite().all()
    told = system.Params()._replace(**{system.Params._fields[0]: torch.tensor(1.5).double()})
    assert torch.is_tensor(system.step(state, push, told)[0])
    for call in ("step", "derivative"):
        with pytest.raises(ValueError, match="mix NumPy arrays with tensors"):
            calls(system, np.array([state]), torch.tensor([push]), None)[call]()


@pytest.mark.parametrize("bounds", [{1.0, 2.0}, {1.0: 0, 2.0: 0}, "12", 1, (1,), None])
def test_a_range_is_two_numbers_in_their_order(bounds: Any) -> None:
    with pytest.raises(ValueError, match=r"must be \(low, high\)"):
        PhysicsEnv("pendulum", randomize={"mass": bounds})
    with pytest.raises(ValueError, match=r"must be \(low, high\)"):
        PhysicsEnv("pendulum").reset(options={"randomize": {"mass": bounds}})


@pytest.mark.parametrize("params", [{"length": 1e200}, {"mass": 1e308}])
def test_parameters_whose_starts_have_no_finite_energy_are_refused(params: Any) -> None:
    for make in (PhysicsEnv, PhysicsVectorEnv):
        with pytest.raises(ValueError, match="no finite energy"):
            make("pendulum", params=params)
        with pytest.raises(ValueError, match="no finite energy"):
            make("pendulum").reset(options={"params": params})


def test_switches_are_true_or_false() -> None:
    for value in ("false", "no", 2, None):
        with pytest.raises(ValueError, match="observe_params=.*True or False"):
            PhysicsEnv("pendulum", observe_params=value)
        with pytest.raises(ValueError, match="flat_info=.*True or False"):
            PhysicsVectorEnv("pendulum", 1, flat_info=value)
    assert PhysicsEnv("pendulum", observe_params=np.True_).observation_space.shape == (7,)


def test_one_seed_may_be_of_any_kind_of_integer() -> None:
    expected = PhysicsVectorEnv("pendulum", 2).reset(seed=3)[0]
    for seed in (np.array(3), torch.tensor(3), np.uint8(3)):
        assert np.array_equal(PhysicsVectorEnv("pendulum", 2).reset(seed=seed)[0], expected)
    with pytest.raises(Error, match="is not an integer"):
        PhysicsVectorEnv("pendulum", 2).reset(seed=np.array(3.0))


def test_parameters_may_carry_gradients_to_make_and_reset_alike() -> None:
    params = {"mass": torch.tensor(2.0, requires_grad=True)}
    made = PhysicsEnv("pendulum", params=params).reset(seed=0)[1]["params"]
    assert (
        made["mass"]
        == PhysicsEnv("pendulum").reset(seed=0, options={"params": params})[1]["params"]["mass"]
    )


def test_an_env_made_in_inference_mode_lives_outside_it() -> None:
    with torch.inference_mode():
        envs = PhysicsVectorEnv(
            "pendulum", 2, backend="torch", autoreset_mode="SameStep", max_episode_steps=2,
            action_mode="continuous",
        )  # fmt: skip
        envs.reset(seed=0)
    push = torch.full((2, 1), 0.1, requires_grad=True)
    for _ in range(3):
        observed = envs.step(push)[0]
    observed.sum().backward()
    assert not observed.is_inference() and push.grad is not None and bool(push.grad.any())
    twin = copy.deepcopy(envs)
    assert torch.equal(twin.step(push.detach())[0], envs.step(push.detach())[0])


@pytest.mark.parametrize("device", ["meta", "no such", 1.5])
def test_a_device_that_keeps_no_numbers_is_refused(device: Any) -> None:
    with pytest.raises(ValueError, match="device="):
        PhysicsVectorEnv("pendulum", 1, backend="torch", device=device)
