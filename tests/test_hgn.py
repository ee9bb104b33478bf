"""The pictures of a published experiment: their energies and their scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import hgn
import numpy as np
import pytest

import physgym
from worldmodels.configs.training import PREDICTORS
from worldmodels.data import dataset_for


def arguments(path: Path) -> argparse.Namespace:
    return argparse.Namespace(quick=True, episodes=300, epochs=None, runs=path, problems=4)


@pytest.mark.parametrize("env", hgn.FILMS)
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_predictor_is_asked_for_in_the_same_way(
    env: str, predictor: str, tmp_path: Path
) -> None:
    config = hgn.config_of(arguments(tmp_path), env, predictor, 0)
    assert config.data.image_size == hgn.SIZE and config.data.policy == "zero"
    assert config.env.dt == 0.125
    model: Any = config.model
    assert model.context_frames == hgn.SEEN
    assert not getattr(model.dynamics, "damping", False)


@pytest.mark.parametrize("env", hgn.FILMS)
def test_films_show_the_published_energies(env: str) -> None:
    """H = p^2 / (2 m) + k q^2 / 2 at radii 0.1 to 1; of the pendulum, at 1.3 to 2.3."""
    film = hgn.FILMS[env]
    system = physgym.get_system(env)
    params = system.check_params(film.params)
    unit = system.energy_unit(params)
    radius = np.array([0.1, 1.0] if env == "mass_spring" else [1.3, 2.3])
    turned = np.linspace(0.0, 2.0 * np.pi, 1000)[:, None]
    states = np.stack((radius * np.cos(turned), radius * np.sin(turned) / 0.5), 2)
    lowest = system.energy(np.zeros((1, 2)), params)
    found = (system.energy(states.reshape(-1, 2), params) - lowest).reshape(1000, 2) / unit
    assert film.energy[0] == pytest.approx(found[:, 0].min(), abs=0.01)
    assert film.energy[1] == pytest.approx(found[:, 1].max(), abs=0.01)


class Knowing:
    """Draws what it is asked for: the truth, up to `right` steps."""

    reversible, has_energy = True, False


def test_a_rollout_is_right_until_the_first_step_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = dataset_for(hgn.config_of(arguments(tmp_path), "mass_spring", "keypoint_jump", 0))

    def rolled(model: Any, batch: Any) -> tuple[Any, Any]:
        frames = batch.truth.float() / 255.0
        frames[:, 40 if batch.backward else 30 :] = 0.0
        return frames, None

    monkeypatch.setattr(hgn, "rolled", rolled)
    row = hgn.scores(Knowing(), dataset, 4)
    assert row["mse_1e4"] == 0.0
    assert (row["valid_forward"], row["valid_backward"]) == (30.0, 40.0)
    assert row["valid_capped_at"] == 85 and row["energy_spread"] is None
