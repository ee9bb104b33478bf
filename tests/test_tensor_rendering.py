"""Pictures by torch are OpenCV's but for shades along edges, and have the slopes that they look to have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from system_cases import NAMES, SMOOTH
from vector_cases import native

from physgym import SYSTEMS
from physgym.plain import scene as plain_scene
from physgym.primitives import Disc, Polyline
from physgym.rendering import render_batch
from physgym.system import System
from physgym.task import Task

torch = pytest.importorskip("torch")
from physgym.tensor_rendering import render  # noqa: E402

ROWS = 24


def sampled(name: str, **arguments: Any) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task, and states and parameters of starts of it."""
    task, rng = Task(name, randomize=True, **arguments), np.random.default_rng(3)
    drawn = [task.sample(rng) for _ in range(ROWS)]
    return task, np.array([s for s, _ in drawn]), np.array([p for _, p in drawn])


@pytest.mark.parametrize("size", [33, 64])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_those_of_opencv(name: str, size: int) -> None:
    """Within half a shade of 255 on average in every picture, an eighth of the range where something is."""
    task, states, params = sampled(name, obs_mode="pixels", image_size=size)
    wanted = task.observe_rows(states, params).astype(np.float64)
    rows = task.system.Params(*map(torch.as_tensor, params.T))
    found = render(task.system, torch.as_tensor(states), rows, size).numpy()
    difference = np.abs(found - wanted)
    assert found.shape == wanted.shape
    assert difference.mean(axis=(1, 2, 3)).max() < 0.5
    assert difference[(wanted > 0.0) | (found > 0.0)].mean() < 32.0
    assert found.min() >= 0.0
    assert found.max() <= 255.0
    one = render(name, torch.as_tensor(states[:1]), params_of(task.system, params[0]), size)
    assert torch.allclose(one[0], torch.as_tensor(found[0]), atol=1e-9)


def params_of(system: System, row: np.ndarray) -> Any:
    """Parameters of one row, as floats."""
    return system.Params(*row.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    """Of a loss of pixels, along every position."""
    system, half = SYSTEMS[name], SYSTEMS[name].state_size // 2
    state = torch.tensor([SMOOTH[name]], dtype=torch.float64)
    target = render(system, state + 0.05)

    def loss(s: Any) -> Any:
        return ((render(system, s) - target) ** 2).mean()

    given = state.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(given), given)
    for i in range(half):
        nudge = torch.zeros_like(state)
        nudge[0, i] = 1e-6
        wanted = float(loss(state + nudge) - loss(state - nudge)) / 2e-6
        assert abs(float(slope[0, i]) - wanted) <= 1e-4 * abs(wanted) + 1e-6
    assert bool((slope[0, :half].abs() > 0.0).any())
    assert not bool(slope[0, half:].any()), "a picture shows no velocities"


def test_lines_are_drawn_too_and_the_rest_is_refused() -> None:
    class Plain(type(SYSTEMS["cart_pole"])):  # type: ignore[misc]
        def scene(self, state: Any, control: Any, params: Any, detail: bool) -> Any:
            return plain_scene(state[:2], (1,), self.view, True)

    class Curved(Plain):
        def scene(self, state: Any, control: Any, params: Any, detail: bool) -> Any:
            return [Polyline(((0.0, 0.0), (1.0, 1.0)), 0.1, (9, 9, 9))]

    states = torch.tensor([[0.4, 0.9, 0.0, 0.0], [-0.7, -2.0, 0.0, 0.0]])
    system = Plain()
    scenes = [system.scene(tuple(row), None, None, False) for row in states.tolist()]
    wanted = render_batch(scenes, system.view, 64).astype(np.float64)
    assert np.abs(render(system, states).numpy() - wanted).mean(axis=(1, 2, 3)).max() < 2.0

    class Floats(Plain):
        def scene(self, state: Any, control: Any, params: Any, detail: bool) -> Any:
            return [Disc(math.sin(state[0]), 0.0, 0.1, (9, 9, 9))]

    for system, given in ((Curved(), states), (Floats(), states), (Floats(), states[:1])):
        with pytest.raises(TypeError, match="OpenCV"):
            render(system, given)


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(TypeError, match="tensor"):
        render("pendulum", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        render("pendulum", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="size"):
        render("pendulum", torch.zeros(2, 2), size=0)
    with pytest.raises(ValueError, match='backend="torch"'):
        native("pendulum", 2, obs_mode="pixels", renderer="torch")
    with pytest.raises(ValueError, match="opencv"):
        native("pendulum", 2, obs_mode="pixels", renderer="cv2")
    assert render("pendulum", torch.zeros(0, 2)).shape == (0, 64, 64, 3)
    assert not bool(render("pendulum", torch.full((1, 2), torch.nan)).any())


@pytest.mark.parametrize("obs_mode", ["pixels", "state_pixels"])
@pytest.mark.parametrize("name", NAMES)
def test_a_vector_env_observes_them(name: str, obs_mode: str) -> None:
    """As uint8 tensors, beside the same states, over restarts."""
    arguments = {"obs_mode": obs_mode, "randomize": True, "max_episode_steps": 2}
    envs = native(name, 3, backend="torch", renderer="torch", **arguments)
    twin = native(name, 3, backend="torch", **arguments)
    envs.reset(seed=1), twin.reset(seed=1)
    action = np.zeros(3, dtype=np.int64)
    for _ in range(4):
        here, there = envs.step(action)[0], twin.step(action)[0]
        if obs_mode == "state_pixels":
            assert np.allclose(here["state"].numpy(), there["state"])
            here, there = here["pixels"], there["pixels"]
        assert here.dtype == torch.uint8
        difference = np.abs(here.numpy().astype(float) - there)
        assert difference.mean(axis=(1, 2, 3)).max() < 0.6
