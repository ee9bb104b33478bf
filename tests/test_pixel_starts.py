"""Starts of learned envs in pixels: real frames, from the truth taken back in time or from a buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from model_doubles import Glow, make_pixel_spec, visual_model

import physgym
from physgym.task import Task
from worldmodels.data import CollectConfig, collect, load_dataset
from worldmodels.envs.pixel_starts import BufferFrames, TrueFrames, rewind
from worldmodels.envs.single import WorldModelVectorEnv, make_truth
from worldmodels.envs.task import task_of

SYSTEMS = list(physgym.SYSTEMS)
KINDS = [(name, kind) for name, s in physgym.SYSTEMS.items() for kind in s.integrators]


@pytest.mark.parametrize(("name", "integrator"), KINDS)
def test_time_runs_back_to_where_it_came_from(name: str, integrator: str) -> None:
    task = Task(name, randomize=True, integrator=integrator, obs_mode="pixels")
    system, rng = task.system, np.random.default_rng(3)
    tolerance = 1e-2 if integrator.endswith("euler") else 1e-5
    for _ in range(5):
        state, params = task.sample(rng, {})
        control = system.control((1.0,) * system.action_size, params)
        earlier = rewind(task, state, control, params, task.dt)
        again = system.step(earlier, control, params, task.dt, integrator)
        assert np.abs(np.subtract(earlier, state)).max() > 1e-3
        np.testing.assert_allclose(again, state, rtol=tolerance, atol=tolerance)


def test_a_damped_past_had_more_energy() -> None:
    task = Task("oscillator", params={"damping": 1.0})
    state = (0.5, 0.3)
    earlier = rewind(task, state, (0.0,), task.base, task.dt)
    assert task.system.energy(earlier, task.base) > 1.05 * task.system.energy(state, task.base)


def test_time_stops_where_bodies_met() -> None:
    task = Task("spaceship")
    leaving = (0.6, 0.0, 6.0, 0.0)  # from the surface, 0.1 m and 0.02 s ago
    met = rewind(task, leaving, (0.0, 0.0), task.base, 0.1)
    assert 0.4 < met[0] < 0.5
    assert rewind(task, met, (0.0, 0.0), task.base, 0.1) == met


@pytest.mark.parametrize("substeps", [1, 3, 7])
def test_the_env_own_sub_steps_are_taken_back(substeps: int) -> None:
    task = Task("pendulum", integrator="leapfrog", substeps=substeps, params={"damping": 0.0})
    earlier = rewind(task, (1.0, 0.5), (0.0,), task.base, task.dt)
    again = task.system.step(earlier, (0.0,), task.base, task.dt, "leapfrog", substeps)
    np.testing.assert_allclose(again, (1.0, 0.5), rtol=1e-12)


@pytest.mark.parametrize("kwargs", [{}, {"randomize": True, "action_mode": "continuous"}])
@pytest.mark.parametrize("name", SYSTEMS)
def test_frames_lead_to_the_true_start(name: str, kwargs: dict[str, Any]) -> None:
    spec = make_pixel_spec(name, **kwargs)
    task = task_of(Glow(spec), {})
    starts, truth = TrueFrames(task, spec, 4), make_truth(spec)
    for seed in range(3):
        first, info = truth.reset(seed=seed)
        start = starts.draw(gym.utils.seeding.np_random(seed)[0], {})
        assert start.context.shape == (4, 64, 64, 3)
        np.testing.assert_array_equal(start.context[-1], first)
        assert dict(start.params._asdict()) == info["params"]
        state = tuple(info["state"])
        control = (0.0,) * task.system.control_size
        for _ in range(3):
            state = rewind(task, state, control, start.params, spec.dt)
        given = {"state": state, "params": info["params"]}
        seen = [truth.reset(options=given)[0], *(truth.step(a)[0] for a in start.actions)]
        for ours, theirs in zip(start.context, seen, strict=True):
            assert np.abs(ours.astype(int) - theirs).max() <= 8  # a disc off by 1e-7 pixels
        assert len(np.unique(start.context.reshape(4, -1), axis=0)) > 1, "nothing moves"


def test_frames_are_as_far_apart_as_in_training() -> None:
    spec = make_pixel_spec("pendulum")
    model = Glow(spec)
    model.any_dt = True
    usual, slow = (TrueFrames(task_of(model, kwargs), spec, 2) for kwargs in ({}, {"dt": 0.2}))
    first, second = (s.draw(np.random.default_rng(0), {}).context for s in (usual, slow))
    np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few short episodes of the pendulum with pictures."""
    config = CollectConfig(
        env="pendulum", name="pixels", episodes=8, steps=6, randomize=True, pixels=True
    )
    return collect(config, tmp_path_factory.mktemp("buffers"), progress=False)


def test_a_buffer_gives_windows_of_its_train_split(buffer: Path) -> None:
    dataset = load_dataset(buffer)
    spec = make_pixel_spec("pendulum", randomize=True)
    starts = BufferFrames(dataset, task_of(Glow(spec), {}), spec, 4)
    expected, rng = {}, np.random.default_rng(0)
    for episode in dataset.splits["train"]:
        for t in range(3, 6):
            frames = dataset.pixels[int(episode)][t - 3 : t + 1]
            told = dataset.actions[episode, t - 3 : t], dataset.params["mass"][episode]
            expected[frames.tobytes()] = (tuple(told[0]), told[1])
    seen = {}
    for _ in range(400):
        start = starts.draw(rng, {})
        assert start.context.shape == (4, 64, 64, 3)
        seen[start.context.tobytes()] = (tuple(start.actions), start.params.mass)
    assert seen == expected


def test_an_env_starts_from_a_buffer_or_where_the_caller_says(buffer: Path) -> None:
    model = Glow(make_pixel_spec("pendulum", randomize=True))
    env = WorldModelVectorEnv(model, 5, starts="buffer", dataset=str(buffer))
    observations, info = env.reset(seed=2)
    dataset = load_dataset(buffer)
    frames = {f.tobytes() for e in dataset.splits["train"] for f in dataset.pixels[int(e)][1:6]}
    assert all(picture.tobytes() in frames for picture in observations)
    assert set(info["params"]["mass"]) <= set(dataset.params["mass"][dataset.splits["train"]])
    options = {"state": np.linspace(-1, 1, 10).reshape(5, 2), "params": {"length": 1.1}}
    observations, info = env.reset(seed=3, options=options)
    truth = make_truth(model, num_envs=5)
    expected, true_info = truth.reset(seed=3, options=options)
    np.testing.assert_array_equal(observations, expected)
    np.testing.assert_array_equal(info["params"]["mass"], true_info["params"]["mass"])
    assert (info["params"]["length"] == 1.1).all()


def test_an_lstm_is_warmed_up_on_the_actions_between() -> None:
    model = visual_model("pendulum", "flat_lstm", context_frames=5)
    seen: list[Any] = []
    original = model.encode
    model.encode = lambda *given: seen.append(given) or original(*given)
    env = WorldModelVectorEnv(model, 2)
    env.reset(seed=0)
    context, _, actions = seen[-1]
    assert context.shape == (2, 5, 64, 64, 3)
    np.testing.assert_array_equal(actions, np.ones((2, 4)))  # action 1 turns the pendulum nowhere
    assert any(part.abs().max() > 0 for part in env.predictor.latent.memory)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pixels": False}, "--pixels"),
        ({"image_size": 32}, "--image-size 64"),
        ({"dt": 0.1}, "dt=0.1"),
        ({"action_mode": "continuous"}, "discrete"),
        ({"env": "oscillator"}, "oscillator"),
        ({"steps": 1}, "2 steps"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(
    change: dict[str, Any], word: str, tmp_path: Path
) -> None:
    values = {"env": "pendulum", "name": "x", "episodes": 3, "steps": 3, "pixels": True, **change}
    folder = collect(CollectConfig(**values), tmp_path, progress=False)
    with pytest.raises(ValueError, match=word) as caught:
        WorldModelVectorEnv(Glow(make_pixel_spec("pendulum")), 1, starts="buffer", dataset=folder)
    assert len(str(caught.value).splitlines()) == 1
