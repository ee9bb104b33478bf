"""Bodies are read from pictures where they are, in pixels and in metres."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import physgym
from physgym.primitives import Disc, Segment
from physgym.rendering import render, render_batch
from worldmodels.evaluation.pixels.readout import centroid_error, centroids, readout_of, weights


def drawn(name: str, start: str, size: int = 64) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures of random starts of a system, and the true places (B, N, 2) of its bodies."""
    system, rng = physgym.get_system(name), np.random.default_rng(0)
    params = system.Params()
    states = [system.sample_state(rng, params, start) for _ in range(100)]
    scenes = [system.scene(state, None, params, False) for state in states]
    places = np.array([[[disc.x, disc.y] for disc in scene] for scene in scenes])
    return torch.from_numpy(render_batch(scenes, system.view, size)), places


STARTS = [(name, start) for name in physgym.SYSTEMS for start in physgym.get_system(name).starts]


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_true_pictures_are_read_to_a_tenth_of_a_pixel(name: str, start: str) -> None:
    frames, places = drawn(name, start)
    readout = readout_of(physgym.get_system(name), 64)
    found, visible = centroids(readout, frames)
    assert bool(visible.all())
    errors = np.linalg.norm(found.numpy() - places, axis=-1) / readout.meters_per_pixel
    assert errors.mean() < 0.1 and errors.max() < 0.2


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_floats_and_bytes_are_read_alike(name: str) -> None:
    frames, _ = drawn(name, physgym.get_system(name).starts[0])
    readout = readout_of(physgym.get_system(name), 64)
    for one, other in zip(
        centroids(readout, frames), centroids(readout, frames.float() / 255), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_pixel_is_as_wide_as_the_view_says() -> None:
    system = physgym.get_system("oscillator")
    readout = readout_of(system, 64)
    assert readout.meters_per_pixel == pytest.approx(2 * system.view / 64)
    frame = torch.zeros(64, 64, 3)
    frame[10:14, 40:44] = torch.tensor(readout.colors[0], dtype=torch.float32)
    (place,), (visible,) = centroids(readout, frame)
    assert bool(visible)
    expected = [(41.5 - 31.5) * 4.8 / 64, -(11.5 - 31.5) * 4.8 / 64]
    assert place.tolist() == pytest.approx(expected, abs=1e-6)


def test_weights_are_shares_of_a_body_and_small_ones_are_none() -> None:
    readout = readout_of(physgym.get_system("three_body"), 64)
    frame = torch.zeros(64, 64, 3)
    colors = torch.tensor(readout.colors, dtype=torch.float32)
    frame[0, 0], frame[0, 1], frame[0, 2] = colors[1], 0.5 * colors[2], 0.05 * colors[0]
    frame[0, 3] = 0.5 * colors[0] + 0.5 * colors[1]
    shares = weights(readout, frame)[0, :5]
    expected = torch.zeros(5, 3)
    expected[0, 1], expected[1, 2], expected[3, 0], expected[3, 1] = 1.0, 0.5, 0.5, 0.5
    torch.testing.assert_close(shares, expected, atol=1e-5, rtol=0)


def test_a_body_that_is_not_there_has_no_place() -> None:
    system = physgym.get_system("three_body")
    readout = readout_of(system, 64)
    scene: list[Any] = system.scene(
        system.sample_state(np.random.default_rng(0), system.Params()), None, system.Params(), False
    )
    truth = torch.from_numpy(render(scene, system.view, 64))
    partial = torch.from_numpy(render([scene[0], scene[2]], system.view, 64))
    places, _ = centroids(readout, truth)
    found, visible = centroids(readout, partial)
    assert visible.tolist() == [True, False, True]
    assert torch.isnan(found[1]).all()
    errors = centroid_error(places, found)
    assert torch.isinf(errors[1]) and float(errors[[0, 2]].max()) < 0.05


def test_frames_that_are_not_finite_show_nothing() -> None:
    readout = readout_of(physgym.get_system("pendulum"), 64)
    found, visible = centroids(readout, torch.full((2, 64, 64, 3), torch.nan))
    assert not bool(visible.any())
    assert torch.isinf(centroid_error(torch.zeros(2, 1, 2), found)).all()


def test_what_cannot_be_read_is_refused() -> None:
    class Scenes:
        name, state_size, view = "odd", 2, 1.0
        shapes: tuple[Any, ...] = ()

        def Params(self) -> None:
            return None

        def scene(self, *_: Any) -> list[Any]:
            return list(self.shapes)

    system = Scenes()
    disc = Disc(0.0, 0.0, 0.1, (200, 0, 0))
    for shapes in (
        (disc, disc._replace(color=(100, 0, 0))),
        (disc, Segment(0.0, 0.0, 1.0, 1.0, 0.1, (0, 200, 0))),
    ):
        system.shapes = shapes
        with pytest.raises(ValueError, match="odd cannot be read.*independent colours"):
            readout_of(system, 32)
