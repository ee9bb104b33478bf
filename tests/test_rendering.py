"""Pictures say where things are: to a fraction of a pixel, for every primitive and every system."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest
from gymnasium import error

import physgym
from physgym import rendering
from physgym.primitives import Arc, Arrow, Disc, Polyline, Segment
from physgym.rendering import render, render_batch

pytest.importorskip("cv2")

WHITE = (255, 255, 255)
SHAPES = [
    Disc(0.2, 0.3, 0.2, WHITE),
    Segment(-0.5, 0.0, 0.5, 0.4, 0.1, WHITE),
    Arrow(-0.5, 0.0, 0.5, 0.4, 0.1, WHITE),
    Arc(0.0, 0.0, 0.5, -0.5, 2.0, 0.1, WHITE),
    Polyline([(-0.5, 0.0), (0.0, 0.5), (0.5, 0.0)], 0.1, WHITE),
]


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Centre of brightness in pixels from the picture's middle, y up."""
    weight = image.astype(float).sum(axis=-1)
    at = np.arange(len(weight)) + 0.5 - len(weight) / 2
    return (weight.sum(0) @ at) / weight.sum(), -(weight.sum(1) @ at) / weight.sum()


def centroid_error(view: float, size: int, radius: float, rng: np.random.Generator) -> float:
    """Mean distance [pixels] of a rendered disc's centroid from the truth, over 200 places."""
    reach, scale = view - 2 * radius, size / (2 * view)
    errors = []
    for x, y in rng.uniform(-reach, reach, (200, 2)):
        seen = centroid(render([Disc(x, y, radius, WHITE)], view, size))
        errors.append(math.dist(seen, (x * scale, y * scale)))
    return float(np.mean(errors))


@pytest.mark.parametrize("radius", [2.0, 2.5, 3.0, 4.0, 6.0, 9.0])
def test_discs_lie_within_a_twentieth_of_a_pixel(radius: float) -> None:
    assert centroid_error(32.0, 64, radius, np.random.default_rng(0)) < 0.05


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_bodies_of_every_system_lie_within_a_twentieth_of_a_pixel(name: str) -> None:
    system, rng = physgym.get_system(name), np.random.default_rng(1)
    params = system.sample_params(rng, False)
    state = system.sample_state(rng, params)
    discs = [p for p in system.scene(state, None, params, False) if isinstance(p, Disc)]
    assert discs, "a picture without a body shows no position"
    for radius in {disc.radius for disc in discs}:
        assert centroid_error(system.view, 64, radius, rng) < 0.05


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_every_system_draws_its_whole_state_space(name: str) -> None:
    system, rng = physgym.get_system(name), np.random.default_rng(2)
    params = system.sample_params(rng, True)
    for index in range(len(system.discrete_actions)):
        state = system.sample_state(rng, params)
        control = system.control(tuple(system.discrete_actions[index]), params)
        plain = render(system.scene(state, control, params, False), system.view)
        rich = render(system.scene(state, control, params, True), system.view, 480)
        assert plain.shape == (64, 64, 3) and plain.dtype == np.uint8 and plain.any()
        assert rich.shape == (480, 480, 3) and rich.dtype == np.uint8


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_people_see_the_action_and_the_model_does_not(name: str) -> None:
    system, rng = physgym.get_system(name), np.random.default_rng(3)
    params = system.sample_params(rng, False)
    state = system.sample_state(rng, params)
    rows = [tuple(row) for row in system.discrete_actions]
    off = system.control(min(rows, key=lambda row: math.hypot(*row)), params)
    on = system.control(max(rows, key=lambda row: math.hypot(*row)), params)

    def picture(control: tuple[float, ...], detail: bool) -> np.ndarray:
        return render(system.scene(state, control, params, detail), system.view, 240)

    assert (picture(off, True) != picture(on, True)).any()
    assert (picture(off, False) == picture(on, False)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_each_primitive_leaves_ink_and_only_near_itself(shape: object) -> None:
    image = render([shape], 1.0, 100)
    assert image.any()
    assert not image[:10].any() and not image[-10:].any()


def test_arrow_and_arc_point_where_they_say() -> None:
    arrow = render([Arrow(-0.5, 0.0, 0.5, 0.0, 0.04, WHITE)], 1.0, 200)[..., 0]
    assert arrow[90:110, 135:145].sum() > 1.5 * arrow[90:110, 60:70].sum(), "head at the end"
    up = render([Arc(0, 0, 0.5, 0.0, 0.5 * math.pi, 0.04, WHITE)], 1.0, 200)[..., 0]
    assert up[:100, 100:].sum() > 0.9 * up.sum(), "counter-clockwise is positive, y is up"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_not_finite_is_left_out(shape: object, value: float) -> None:
    if isinstance(shape, Polyline):
        broken = shape._replace(points=[(value, value), (value, 0.0)])
    else:
        field = "x" if isinstance(shape, (Disc, Arc)) else "x0"
        broken = shape._replace(**{field: value})
    assert not render([broken], 1.0).any()


def test_a_batch_is_its_single_pictures() -> None:
    scenes = [SHAPES[:k] for k in range(len(SHAPES) + 1)]
    batch = render_batch(scenes, 1.0, 64, (3, 4, 5))
    assert batch.shape == (len(scenes), 64, 64, 3)
    for row, scene in zip(batch, scenes, strict=True):
        np.testing.assert_array_equal(row, render(scene, 1.0, 64, (3, 4, 5)))


def test_pictures_are_new_arrays_with_the_background_and_the_caption_asked_for() -> None:
    first = render([], 1.0, 32, (1, 2, 3))
    first[:] = 9
    second = render([], 1.0, 32, (1, 2, 3))
    assert (second == (1, 2, 3)).all()
    assert (render([], 1.0, 240, caption="t 1.0 s") != 0).any()


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match="Arrow.*Disc"):
        render(["disc"], 1.0)
    with pytest.raises(ValueError, match="size must be a positive integer, got 0"):
        render([], 1.0, 0)


def test_missing_opencv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_cv2", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(error.DependencyNotInstalled, match="opencv-python-headless"):
        render([], 1.0)


@pytest.mark.parametrize("make", ["single", "vector"])
@pytest.mark.parametrize("given", ["make", "reset"])
def test_a_body_out_of_view_is_said_once(
    make: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_warned_of", set())
    long = {"params": {"length": 3.0}}
    kind = physgym.PhysicsEnv if make == "single" else physgym.PhysicsVectorEnv
    env = kind("pendulum", obs_mode="pixels", **(long if given == "make" else {}))
    with pytest.warns(UserWarning, match="PhysGym/Pendulum-v0 is empty.*1.45"):
        env.reset(seed=0, options={**(long if given == "reset" else {}), "state": [0.0, 0.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(1 if make == "single" else np.ones(1, int))


@pytest.mark.parametrize("name", sorted(physgym.SYSTEMS))
def test_bodies_of_ordinary_episodes_are_in_view(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = physgym.PhysicsVectorEnv(name, 8, obs_mode="pixels", image_size=32, randomize=True)
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(60):
            env.step(env.action_space.sample())
