"""Learned envs: a perfect model is the true env bit for bit, a bad one ends only its own row."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

import physgym
from worldmodels.config import MODELS
from worldmodels.env import WorldModelEnv, WorldModelVectorEnv, make_env, make_truth
from worldmodels.interface import Batch, DivergenceError, Latent, Spec, WorldModel
from worldmodels.state import build

SYSTEMS = list(physgym.SYSTEMS)
torch.set_num_threads(1)


def make_spec(name: str, **env_kwargs: Any) -> Spec:
    """The spec of a model of system `name`, trained on an env with `env_kwargs`."""
    system = physgym.get_system(name)
    continuous = env_kwargs.get("action_mode") == "continuous"
    return Spec(
        env_name=name,
        env_kwargs=env_kwargs,
        dt=env_kwargs.get("dt", system.dt),
        state_size=system.state_size,
        angles=tuple(system.angles),
        action_kind="continuous" if continuous else "discrete",
        action_size=system.action_size if continuous else len(system.discrete_actions),
        param_names=system.Params._fields,
        max_episode_steps=system.max_episode_steps,
    )


class Perfect(WorldModel):
    """The true system behind the four verbs, in float64; the latent is the state."""

    any_dt = True

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.system = spec, physgym.get_system(spec.env_name)
        self.register_buffer("one", torch.ones((), dtype=torch.float64))

    def encode(self, context: torch.Tensor, params: torch.Tensor | None = None) -> Latent:
        return Latent(context[:, -1], (), params)

    def step(self, latent: Latent, action: torch.Tensor, dt: Any = None) -> Latent:
        params = self.system.Params(*latent.condition.numpy().T)
        discrete = self.spec.action_kind == "discrete"
        action = self.system.discrete_actions[action.numpy()] if discrete else action.numpy()
        control = self.system.control(action, params)
        integrator = self.spec.env_kwargs.get("integrator")
        moved = self.system.step(latent.z.numpy(), control, params, dt or self.spec.dt, integrator)
        return latent._replace(z=torch.from_numpy(moved))

    def decode(self, latent: Latent) -> torch.Tensor:
        return latent.z

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        raise NotImplementedError


class Still(Perfect):
    """Stays where it is, apart from what `change(z, count)` says; `count` is an env's own step."""

    def __init__(self, spec: Spec, change: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__(spec)
        self.change = change

    def encode(self, context: torch.Tensor, params: torch.Tensor | None = None) -> Latent:
        z = context[:, -1]
        return Latent(z, (torch.zeros(len(z), dtype=torch.int64),), params)

    def step(self, latent: Latent, action: torch.Tensor, dt: Any = None) -> Latent:
        count = latent.memory[0] + 1
        return latent._replace(z=self.change(latent.z.clone(), count), memory=(count,))


def assert_same(a: Any, b: Any, skip: tuple[str, ...] = ("diverged", "uncertainty")) -> None:
    """Equal values, types, dtypes and shapes through dicts, tuples and object arrays."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        left, right = ({k for k in d if k.lstrip("_") not in skip} for d in (a, b))
        assert left == right
        for key in left:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


VARIANTS: list[dict[str, Any]] = [
    {},
    {"randomize": True, "action_mode": "continuous", "obs_mode": "embedded"},
    {"obs_mode": "state_pixels", "reward": "sparse", "observe_params": True},
]


@pytest.mark.parametrize("kwargs", VARIANTS, ids=["default", "continuous", "pixels"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_perfect_model_is_the_true_env(name: str, kwargs: dict[str, Any]) -> None:
    truth = gym.make(physgym.get_system(name).env_id, **kwargs)
    learned = WorldModelEnv(Perfect(make_spec(name, **kwargs)))
    assert learned.observation_space == truth.observation_space
    assert learned.action_space == truth.action_space
    truth.action_space.seed(1)
    steps = 60 if "obs_mode" in kwargs else truth.spec.max_episode_steps + 5
    assert_same(truth.reset(seed=4), learned.reset(seed=4))
    for _ in range(steps):
        action = truth.action_space.sample()
        true, predicted = truth.step(action), learned.step(action)
        assert_same(true, predicted)
        if true[2] or true[3]:
            assert_same(truth.reset(), learned.reset())


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", SYSTEMS)
def test_perfect_rows_are_sync_vector_env(name: str, mode: AutoresetMode) -> None:
    kwargs: dict[str, Any] = {"randomize": True}
    system = physgym.get_system(name)
    limit = 40
    truth = SyncVectorEnv(
        [lambda: gym.make(system.env_id, max_episode_steps=limit, **kwargs)] * 4,
        autoreset_mode=mode,
    )
    learned = WorldModelVectorEnv(
        Perfect(make_spec(name, **kwargs)), 4, max_episode_steps=limit, autoreset_mode=mode
    )
    assert learned.metadata["autoreset_mode"] is mode
    assert learned.observation_space == truth.observation_space
    assert_same(truth.reset(seed=[3, 1, 4, 9]), learned.reset(seed=[3, 1, 4, 9]))
    rng = np.random.default_rng(2)
    for step in range(100):
        actions = rng.integers(0, len(system.discrete_actions), 4)
        true, predicted = truth.step(actions), learned.step(actions)
        assert_same(true, predicted)
        done = true[2] | true[3]
        if mode is AutoresetMode.DISABLED and done.any():
            masks = [{"reset_mask": done.copy()} for _ in range(2)]
            assert_same(truth.reset(options=masks[0]), learned.reset(options=masks[1]))
        if step == 50:
            truth.reset(), learned.reset()
