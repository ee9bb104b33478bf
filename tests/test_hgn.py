"""The pictures of a published experiment: their energies and their scores."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hgn
import hgn_films
import numpy as np
import pytest

import physgym
from physgym import plugins
from physgym.rendering import render
from worldmodels.configs.training import PREDICTORS
from worldmodels.data import dataset_for


@pytest.fixture(autouse=True)
def _films() -> Iterator[None]:
    """The filmed systems are known while a test of this file runs, and gone after it."""
    count = len(plugins.JOURNAL)
    hgn_films.register()
    yield
    while len(plugins.JOURNAL) > count:
        plugins.JOURNAL.pop().undo()


def arguments(path: Path) -> argparse.Namespace:
    return argparse.Namespace(quick=True, episodes=300, epochs=None, runs=path, problems=4)


@pytest.mark.parametrize("film", hgn.FILMS)
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_predictor_is_asked_for_in_the_same_way(
    film: str, predictor: str, tmp_path: Path
) -> None:
    config = hgn.config_of(arguments(tmp_path), film, predictor, "small", 0)
    assert config.data.image_size == hgn.SIZE and config.data.policy == "zero"
    assert config.env.dt == 0.125
    model: Any = config.model
    assert model.context_frames == hgn.SEEN
    assert not getattr(model.dynamics, "damping", False)


@pytest.mark.parametrize("name", ["mass_spring", "pendulum"])
def test_films_show_the_published_energies(name: str) -> None:
    """H = p^2 / (2 m) + k q^2 / 2 at radii 0.1 to 1; of the pendulum, at 1.3 to 2.3."""
    film = hgn.FILMS[name]
    system = physgym.get_system(film.system)
    params = system.check_params(film.params)
    unit = system.energy_unit(params)
    radius = np.array([0.1, 1.0] if name == "mass_spring" else [1.3, 2.3])
    turned = np.linspace(0.0, 2.0 * np.pi, 1000)[:, None]
    states = np.stack((radius * np.cos(turned), radius * np.sin(turned) / 0.5), 2)
    lowest = system.energy(np.zeros((1, 2)), params)
    found = (system.energy(states.reshape(-1, 2), params) - lowest).reshape(1000, 2) / unit
    assert film.energy is not None
    assert film.energy[0] == pytest.approx(found[:, 0].min(), abs=0.01)
    assert film.energy[1] == pytest.approx(found[:, 1].max(), abs=0.01)


@pytest.mark.parametrize(("name", "low", "high"), [("hgn_pair", 0.5, 1.5), ("hgn_three", 0.9, 1.2)])
def test_bodies_begin_on_the_published_rings(name: str, low: float, high: float) -> None:
    """At those radii, in either sense, at the speed of a circle but for a tenth."""
    system = physgym.get_system(name)
    params = system.check_params({"softening": 0.0})
    rng = np.random.default_rng(0)
    states = np.array(
        [system.start_of(system.draw_start(rng, None), params, None) for _ in range(300)]
    )
    count = system.bodies
    q, v = (part.reshape(300, count, 2) for part in np.split(states, 2, axis=1))
    radius = np.linalg.norm(q, axis=2)
    np.testing.assert_allclose(radius, radius[:, :1].repeat(count, 1))
    assert low <= radius.min() < low + 0.02 and high - 0.02 < radius.max() <= high
    assert np.abs(q.mean(1)).max() < 1e-12 and np.abs(v.mean(1)).max() < 1e-12
    spin = q[..., 0] * v[..., 1] - q[..., 1] * v[..., 0]
    assert 0.3 < (spin[:, 0] > 0).mean() < 0.7
    circular = radius**0.5 * (0.5 if count == 2 else 3.0**-0.25)
    assert np.abs(np.abs(spin) / circular - 1.0).max() < 0.11
    half = 2 * count
    pulled = np.array(system.acceleration(tuple(states[0][:half]), (), (0.0, 0.0), params))
    rate = np.linalg.norm(pulled.reshape(count, 2), axis=1) / radius[0]
    np.testing.assert_allclose(rate, system.ring_rate(params, radius[0, 0]) ** 2)


@pytest.mark.parametrize("system", hgn_films.FILMED)
def test_noise_moves_what_is_seen_and_not_the_motion(system: Any) -> None:
    clean = physgym.get_system(system.name)
    noisy = physgym.get_system(f"{system.name}_noise")
    params, rng = clean.Params(), np.random.default_rng(0)
    half = clean.state_size // 2
    states = rng.uniform(-1.0, 1.0, (400, clean.state_size))
    seen = np.array([hgn_films.shaken(state, half, noisy.noise) for state in states])
    off = seen - states[:, :half]
    assert off.std() == pytest.approx(noisy.noise, rel=0.1) and abs(off.mean()) < 0.02
    assert np.abs(np.corrcoef(off[1:, 0], off[:-1, 0])[0, 1]) < 0.2
    state = tuple(states[0].tolist())
    first, again = (noisy.scene(state, None, params, False) for _ in range(2))
    assert first == again != clean.scene(state, None, params, False)
    np.testing.assert_array_equal(clean.energy(states, params), noisy.energy(states, params))


def test_discs_are_as_bright_as_the_published_ones() -> None:
    """Filled circles of 4, 2 and 2 whole pixels, each blurred twice by 2 x 2."""
    cv2 = pytest.importorskip("cv2")
    sizes = {"hgn_spring": 4, "hgn_pendulum": 4, "hgn_pair": 2, "hgn_three": 2}
    for name, pixels in sizes.items():
        system = physgym.get_system(name)
        for disc in system.scene((0.0,) * system.state_size, None, system.Params(), False):
            ours = render([disc._replace(x=0.0, y=0.0)], system.view, hgn.SIZE) / 255.0
            colour = tuple(c / 255.0 for c in disc.color)
            theirs = cv2.circle(np.zeros((32, 32, 3)), (16, 16), pixels, colour, -1)
            theirs = cv2.blur(cv2.blur(theirs, (2, 2)), (2, 2))
            assert (ours**2).sum() == pytest.approx((theirs**2).sum(), rel=0.1)


def row(film: str, seed: int, error: float) -> dict[str, Any]:
    model = {"predictor": hgn.TESTED, "size": "small"}
    return {"film": film, **model, "seed": seed, "mse_1e4": error}


def test_the_verdict_follows_the_rule_that_was_written_down() -> None:
    def answer(rows: list[dict[str, Any]]) -> str:
        (line,) = (line for line in hgn.verdicts(rows) if line["film"] == "two_bodies")
        return str(line["verdict"])

    good = [row("two_bodies", seed, 16.47) for seed in range(3)]
    assert answer(good) == "reached" and answer(good[:2]) == "open"
    assert answer([row("two_bodies", 1, 16.5)]) == "missed"
    assert answer([row("two_bodies_noise", 1, 16.5)]) == "open"
    assert {line["verdict"] for line in hgn.verdicts([])} == {"open"}
    assert {line["film"] for line in hgn.verdicts([])} == {
        "mass_spring", "pendulum", "two_bodies", "three_bodies",
    }  # fmt: skip


class Knowing:
    """Draws what it is asked for: the truth, up to `right` steps."""

    reversible, has_energy = True, False


def test_a_rollout_is_right_until_the_first_step_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = hgn.config_of(arguments(tmp_path), "mass_spring", "keypoint_jump", "small", 0)
    dataset = dataset_for(config)

    def rolled(model: Any, batch: Any) -> tuple[Any, Any]:
        frames = batch.truth.float() / 255.0
        frames[:, 40 if batch.backward else 30 :] = 0.0
        return frames, None

    monkeypatch.setattr(hgn, "rolled", rolled)
    row = hgn.scores(Knowing(), dataset, 4)
    assert row["mse_1e4"] == 0.0
    assert (row["valid_forward"], row["valid_backward"]) == (30.0, 40.0)
    assert row["valid_capped_at"] == 85 and row["energy_spread"] is None
