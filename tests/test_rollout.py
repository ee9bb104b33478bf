"""Many steps in one call are those steps; and the torch backend takes them by machine code where it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from system_cases import NAMES
from vector_cases import native

from physgym.compile.tensors import TensorRows

STEPS, ROWS = 40, 3
MODES = ["NextStep", "SameStep"]


def leaves(value: Any) -> list[np.ndarray]:
    """Arrays in nested dicts and tuples."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        return [x for part in value for x in leaves(part)]
    return [np.asarray(value)]


VARIANTS: dict[str, dict[str, Any]] = {
    "state": {},
    "drawn": {"obs_mode": "embedded", "randomize": True, "observe_params": True},
    "continuous": {"action_mode": "continuous", "reward": "sparse"},
    "both": {"obs_mode": "state_pixels"},
}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_rollout_is_its_steps(name: str, variant: str, mode: str, backend: str) -> None:
    """Over the ends of episodes, whether or not machine code takes them together."""
    arguments: dict[str, Any] = {
        "autoreset_mode": mode,
        "max_episode_steps": 15,
        **VARIANTS[variant],
    }
    envs, twin = (native(name, ROWS, backend=backend, **arguments) for _ in range(2))
    envs.action_space.seed(1)
    actions = np.stack([envs.action_space.sample() for _ in range(STEPS)])
    first, _ = envs.reset(seed=5)
    twin.reset(seed=5)
    found = envs.rollout(actions)
    taken = [twin.step(row) for row in actions]
    wanted = ([first, *(s[0] for s in taken)], *([s[i] for s in taken] for i in (1, 2, 3)))
    for part, rows in zip(found, wanted, strict=True):
        for one, other in zip(leaves(part), zip(*map(leaves, rows), strict=True), strict=True):
            assert one.dtype == other[0].dtype
            assert np.array_equal(one, np.stack(other))
    for one, other in zip(
        leaves(envs.step(actions[0])), leaves(twin.step(actions[0])), strict=True
    ):
        assert one.dtype == object or np.array_equal(one, other)


def test_a_bad_rollout_says_what_is_wrong() -> None:
    envs = native("pendulum", 2)
    with pytest.raises(ResetNeeded, match="rollout"):
        envs.rollout([[0, 0]])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="no step"):
        envs.rollout([])
    with pytest.raises(InvalidAction):
        envs.rollout([[0, 5]])
    disabled = native("pendulum", 2, autoreset_mode="Disabled", max_episode_steps=2)
    disabled.reset(seed=0)
    with pytest.raises(ResetNeeded, match="disabled"):
        disabled.rollout(np.zeros((3, 2), dtype=np.int64))


@pytest.mark.parametrize("name", NAMES)
def test_tensors_step_by_machine_code_unless_they_carry_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same to rounding either way, and a rollout is differentiable in its actions."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("llvmlite")
    calls = []
    plain = TensorRows._plain
    monkeypatch.setattr(
        TensorRows, "_plain", lambda self, x: calls.append(plain(self, x)) or calls[-1]
    )
    size = native(name, 1, action_mode="continuous").action_space.shape[-1]
    actions = 0.1 * torch.ones(3, ROWS, size, dtype=torch.float64)
    found = []
    for wanted in (False, True):
        envs = native(name, ROWS, backend="torch", action_mode="continuous", obs_mode="embedded")
        envs.reset(seed=2)
        given = actions.clone().requires_grad_(wanted)
        found.append(envs.rollout(given))
        assert calls[-1] is not wanted
        calls.clear()
    rewards = found[1].rewards
    assert (rewards - found[0].rewards).abs().max() < 1e-11
    (gradient,) = torch.autograd.grad(rewards.sum() + found[1].observations.sum(), given)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient != 0.0).any())
