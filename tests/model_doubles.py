"""World models made for tests: a perfect one, and one that does what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import physgym
from worldmodels.configs.training import MODELS, to_dict
from worldmodels.configs.visual import visual_config
from worldmodels.envs.judging import controls_of, judge
from worldmodels.envs.task import task_of
from worldmodels.interface import Batch, Latent, Spec, WorldModel
from worldmodels.models.building import build
from worldmodels.models.inputs import idle_action
from worldmodels.storage.checkpoint import save_checkpoint


def make_spec(name: str, **env_kwargs: Any) -> Spec:
    """The spec of a model of system `name`, trained on an env with `env_kwargs`."""
    system = physgym.get_system(name)
    continuous = env_kwargs.get("action_mode") == "continuous"
    spec = Spec(
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
    return replace(spec, idle=idle_action(spec))


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


def build_model(spec: Spec, config: Any) -> Any:
    """The model that `config` describes, with weights from torch's global generator."""
    return build(spec, config.name, config)


def small_model(name: str, spec: Spec, **options: Any) -> Any:
    """An untrained model of structure `name`, always the same one."""
    torch.manual_seed(0)
    return build_model(spec, MODELS[name](hidden=8, **options))


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


def make_pixel_spec(name: str, image_size: int = 64, **env_kwargs: Any) -> Spec:
    """The spec of a model of pictures of system `name`."""
    return replace(make_spec(name, **env_kwargs), image_size=image_size)


class PerfectPixels(Perfect):
    """The true env behind the verbs of a model of pixels, which knows the state of each first frame."""

    context_frames = 3

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.known: dict[bytes, np.ndarray] = {}
        self.task = task_of(self, {})
        self.register_buffer("reach", torch.zeros(()))

    def encode(self, context: Any, params: Any = None, actions: Any = None) -> Latent:
        size = self.spec.image_size
        assert (context.shape[1:], context.dtype) == ((3, size, size, 3), torch.uint8)
        assert actions.shape[:2] == (len(context), 2)
        assert actions.is_floating_point() == (self.spec.action_kind == "continuous")
        nothing = np.ones(self.spec.state_size)
        states = [self.known.get(frames[-1].numpy().tobytes(), nothing) for frames in context]
        return Latent(torch.from_numpy(np.stack(states)), (), params)

    def decode(self, latent: Latent) -> torch.Tensor:
        pictures = self.task.observe_rows(latent.z.numpy(), latent.condition.numpy())
        return torch.from_numpy(pictures / 255.0)

    def judge(self, latent: Latent, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        params = self.system.Params(*latent.condition.numpy().T)
        control = controls_of(self.task, action.numpy(), params)
        states = latent.z.numpy()
        outcome = judge(self.task, states, states, control, params)
        ended = torch.from_numpy(outcome.terminated)
        return torch.from_numpy(outcome.rewards), torch.where(ended, 9.0, -9.0)


class Glow(WorldModel):
    """Pictures of one grey level, which rises by 0.01 a step, apart from what `change(z, count)` says."""

    context_frames = 2

    def __init__(self, spec: Spec, change: Callable[..., Any] = lambda z, count, told: z) -> None:
        super().__init__()
        self.spec, self.change = spec, change
        self.verdict = (0.5, -9.0)
        self.register_buffer("reach", torch.ones(()))

    def encode(self, context: Any, params: Any = None, actions: Any = None) -> Latent:
        z = context[:, -1].float().mean((1, 2, 3))[:, None] / 255.0
        return Latent(z.expand(-1, 2), (torch.zeros(len(z), dtype=torch.int64),), params)

    def step(self, latent: Latent, action: torch.Tensor, dt: Any = None) -> Latent:
        count = latent.memory[0] + 1
        z = self.change(latent.z + 0.01, count, latent.condition)
        return latent._replace(z=z, memory=(count,))

    def decode(self, latent: Latent) -> torch.Tensor:
        size = self.spec.image_size
        return latent.z[:, :1, None, None].clamp(0.0, 1.0).expand(-1, size, size, 3)

    def judge(self, latent: Latent, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ones = torch.ones(len(latent.z))
        return ones * self.verdict[0], ones * self.verdict[1]

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        raise NotImplementedError


def visual_model(name: str, predictor: str = "spatial_jump", **options: Any) -> Any:
    """An untrained tiny visual model of system `name`, always the same one."""
    spec = options.pop("spec", None) or make_pixel_spec(name)
    torch.manual_seed(0)
    return build_model(spec, replace(visual_config(predictor, "tiny"), **options))


def save_untrained(folder: Path, name: str = "pendulum") -> Path:
    """Write the checkpoint of an untrained jump model into ``folder``, and return it."""
    spec, config = make_spec(name), MODELS["jump"](hidden=8)
    described = {"spec": spec.to_dict(), "model_name": "jump", "model": to_dict(config)}
    save_checkpoint(folder, described, build_model(spec, config).state_dict())
    return folder
