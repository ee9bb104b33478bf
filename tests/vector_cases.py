"""Native batches and SyncVectorEnv side by side, for laws over both."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from system_cases import IDS

from physgym import SYSTEMS

MODES = ("NextStep", "SameStep", "Disabled")
KWARGS: dict[str, dict[str, Any]] = {
    "default": {},
    "randomized": {"randomize": True, "observe_params": True},
    "continuous": {"action_mode": "continuous", "obs_mode": "embedded"},
    "sparse": {"reward": "sparse", "dt": 0.13, "integrator": "leapfrog"},
    "quadratic": {"reward": "quadratic", "integrator": "rk4", "substeps": 3},
    "none": {"reward": "none", "integrator": "yoshida4"},
}
LIMIT = 17


def kwargs_of(name: str, variant: str) -> dict[str, Any]:
    """The arguments of a variant, by Runge-Kutta where a system cannot be split."""
    given = KWARGS[variant]
    able = given.get("integrator") in (None, *SYSTEMS[name].integrators)
    return given if able else {**given, "integrator": "rk4"}


def native(name: str, num_envs: int = 5, **kwargs: Any) -> Any:
    """The native batch, by `make_vec`."""
    kwargs.setdefault("max_episode_steps", LIMIT)
    return gym.make_vec(
        IDS[name], num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
    )


def synchronous(
    name: str, num_envs: int = 5, autoreset_mode: str = "NextStep", **kwargs: Any
) -> Any:
    """SyncVectorEnv over single envs."""
    kwargs.setdefault("max_episode_steps", LIMIT)
    return gym.make_vec(
        IDS[name],
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode(autoreset_mode)},
        **kwargs,
    )


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal to the bit, types and masks included."""
    for a, b in zip(ours, theirs, strict=True):
        assert data_equivalence(a, b, exact=True), (a, b)


def run_beside(ours: Any, theirs: Any, steps: int, **reset: Any) -> dict[str, int]:
    """Step both with the same actions, comparing everything; counts the ends seen."""
    ours.action_space.seed(1)
    assert_same(ours.reset(**reset), theirs.reset(**reset))
    seen = {"terminated": 0, "truncated": 0}
    for _ in range(steps):
        actions = ours.action_space.sample()
        x, y = ours.step(actions), theirs.step(actions)
        assert_same(x, y)
        seen["terminated"] += int(x[2].sum())
        seen["truncated"] += int(x[3].sum())
        over = x[2] | x[3]
        if ours.autoreset_mode is AutoresetMode.DISABLED and over.any():
            mask = {"reset_mask": over}
            assert_same(
                ours.reset(options={k: v.copy() for k, v in mask.items()}),
                theirs.reset(options={k: v.copy() for k, v in mask.items()}),
            )
    return seen
