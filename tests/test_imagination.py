"""Open loop: rows never cost each other their future, and a solver always stops."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import Still, make_spec, small_model

from worldmodels.dynamics import flow
from worldmodels.imagination import imagine, placed, step_rows, unroll
from worldmodels.interface import DivergenceError, Latent


class Fragile(Still):
    """Gives up where any row is beyond 50, as a joint solver does; else adds its action to the first number."""

    def __init__(self) -> None:
        super().__init__(make_spec("pendulum"), lambda z, count: z)
        self.calls = 0

    def step(self, latent: Latent, action: torch.Tensor, dt: Any = None) -> Latent:
        self.calls += 1
        if bool((latent.z.abs() > 50).any()):
            raise DivergenceError("cannot go on")
        step = action.double() * (1.0 if dt is None else dt)
        moved = latent.z + torch.stack((step, 0.0 * step), 1)
        return latent._replace(z=moved, memory=(latent.memory[0] + 1,))


def fragile_latent(starts: list[float]) -> Latent:
    z = torch.tensor([[start, 0.0] for start in starts], dtype=torch.float64)
    return Latent(z, (torch.zeros(len(starts)),))


@pytest.mark.parametrize("bad", [[], [7], [0, 3, 4], list(range(8))])
def test_only_the_rows_that_cannot_go_on_are_lost(bad: list[int]) -> None:
    starts = [99.0 if row in bad else float(row) for row in range(8)]
    model, actions = Fragile(), torch.ones(8, 5, dtype=torch.int64)
    states = imagine(model, fragile_latent(starts), actions)
    good = [row for row in range(8) if row not in bad]
    assert states.shape == (8, 5, 2)
    assert states[bad].isnan().all()
    expected = torch.tensor(good, dtype=torch.float64)[:, None] + torch.arange(1.0, 6.0).double()
    torch.testing.assert_close(states[good, :, 0], expected, rtol=0, atol=0)
    if not bad:
        assert model.calls == 5
    if len(bad) == 8:
        assert model.calls == 15, "rows that are lost are not tried again"


def test_a_row_is_lost_from_the_step_at_which_it_fails() -> None:
    states = imagine(Fragile(), fragile_latent([0.0, 48.0]), torch.full((2, 6), 1))
    assert states[1].isfinite().all(1).tolist() == [True, True, True, False, False, False]
    assert states[0].isfinite().all()


def test_every_row_keeps_its_own_dt() -> None:
    dt = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    states = imagine(Fragile(), fragile_latent([99.0, 1.0, 2.0]), torch.full((3, 2), 2), dt)
    assert states[1:, :, 0].tolist() == [[3.0, 5.0], [6.0, 10.0]]


def test_lost_rows_leave_the_gradient_of_the_others() -> None:
    latent = fragile_latent([1.0, 99.0])
    z = latent.z.requires_grad_(True)
    states = imagine(Fragile(), latent, torch.ones(2, 3, dtype=torch.int64))
    states[states.isfinite()].sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_other_errors_than_those_asked_for_are_raised() -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        step_rows(broken, fragile_latent([1.0, 2.0]), torch.ones(2))


def test_unrolled_rows_can_be_put_back() -> None:
    model, latent = Fragile(), fragile_latent([99.0, 1.0, 99.0])
    seen = list(unroll(model.step, latent, torch.ones(3, 4, dtype=torch.int64)))
    for moved, going in seen:
        assert going is not None
        assert going.tolist() == [1]
        assert len(moved.z) == len(moved.memory[0]) == 1
    whole = placed(seen[-1][0].z, seen[-1][1], 3)
    np.testing.assert_equal(whole[:, 0].numpy(), [np.nan, 5.0, np.nan])


@pytest.mark.parametrize("name", ["first_order", "newtonian", "velocity", "port_hamiltonian"])
def test_a_start_that_an_adaptive_solver_gives_up_on_is_alone(name: str) -> None:
    model = small_model(name, make_spec("pendulum"), integrator="dopri5")
    starts = torch.zeros(6, 1, 2)
    starts[4] = float("nan")
    params = torch.ones(6, len(model.spec.param_names))
    with torch.no_grad():
        states = imagine(model, model.encode(starts, params), torch.ones(6, 3, dtype=torch.int64))
    assert states.isfinite().all(2).all(1).tolist() == [True] * 4 + [False, True]


@pytest.mark.parametrize("flags", [[], ["-O"]])
@pytest.mark.parametrize("value", ["float('nan')", "1e30"])
def test_an_adaptive_solver_stops_whatever_python_was_told(flags: list[str], value: str) -> None:
    code = f"""
import torch
from worldmodels.configs.training import FirstOrderConfig
from worldmodels.dynamics.flow import flow
from worldmodels.interface import DivergenceError
z = torch.tensor([[{value}, 1.0]])
try:
    flow(FirstOrderConfig(integrator="dopri5"), lambda z: z * z, z, 1.0)
except DivergenceError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert "dopri5 could not go on" in done.stdout, done.stderr


def test_an_adaptive_solver_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from worldmodels.configs.training import FirstOrderConfig

    monkeypatch.setattr(flow, "MAX_STEPS", 20)
    calls = []

    def stiff(z: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 1e4 * torch.sin(1e4 * z) - z

    with pytest.raises(DivergenceError, match="20 steps"):
        flow.flow(FirstOrderConfig(integrator="dopri5"), stiff, torch.ones(1, 2), 1.0)
    assert len(calls) <= 20 * 7 + 2


def test_a_solver_first_used_without_gradients_has_them_later() -> None:
    """torchdiffeq's tables are made when it is imported: that must not be in inference mode."""
    code = """
import torch
from worldmodels.configs.training import FirstOrderConfig
from worldmodels.dynamics.flow import flow
config = FirstOrderConfig(integrator="dopri5")
with torch.inference_mode():
    flow(config, torch.sin, torch.ones(1, 2), 1.0)
z = torch.ones(1, 2, requires_grad=True)
flow(config, torch.sin, z, 1.0).sum().backward()
print(bool(z.grad.isfinite().all()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "True", done.stderr
