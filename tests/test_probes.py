"""Probes find what is there, on episodes they have not seen, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import physgym
from worldmodels.evaluation.pixels import probes
from worldmodels.evaluation.pixels.probes import Samples
from worldmodels.evaluation.statistics import affine_r_squared


def samples(count: int, seed: int, wide: int = 12, curved: bool = False) -> Samples:
    """Targets of two kinds, behind ``wide`` features that mix them, with noise."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(count, 2)) * (1.0, 100.0)
    hidden = targets / (1.0, 100.0)
    if curved:
        hidden = np.hstack([np.cos(0.6 * hidden), np.sin(0.6 * hidden)])
    mix = np.random.default_rng(99).normal(size=(hidden.shape[1], wide))
    return Samples(hidden @ mix + 0.01 * rng.normal(size=(count, wide)), targets)


@pytest.mark.parametrize("wide", [12, 400])
def test_a_linear_probe_reads_what_is_linear(wide: int) -> None:
    probe = probes.fit_linear(samples(200, 0, wide), samples(100, 1, wide))
    found = probes.scores(probe, samples(100, 2, wide), ["a", "b"])
    assert min(found.values()) > 0.99 and list(found) == ["a", "b"]
    assert probe.error < 0.01


def test_a_linear_probe_is_least_squares_where_nothing_is_penalised() -> None:
    train, test = samples(500, 0), samples(50, 1)
    probe = probes.fit_linear(train, train)
    ones = np.ones((500, 1))
    solved, *_ = np.linalg.lstsq(np.hstack([train.features, ones]), train.targets, rcond=None)
    expected = np.hstack([test.features, ones[:50]]) @ solved
    assert np.abs(probe.predict(test.features) - expected).max() < 0.01 * train.targets.std()


def test_noise_explains_nothing() -> None:
    rng = np.random.default_rng(0)

    def noise(count: int) -> Samples:
        return Samples(rng.normal(size=(count, 50)), rng.normal(size=(count, 2)))

    found = probes.scores(probes.fit_linear(noise(100), noise(100)), noise(200), ["a", "b"])
    assert max(found.values()) < 0.1


def test_a_network_reads_what_is_curved_better() -> None:
    train, val, test = (samples(600, seed, curved=True) for seed in range(3))
    linear, network = probes.fit_linear(train, val), probes.fit_network(train, val)
    assert network.error < 0.7 * linear.error
    found = probes.scores(network, test, ["a", "b"])
    assert min(found.values()) > 0.95


def test_a_network_is_bounded_far_from_what_it_knows() -> None:
    train, val = samples(200, 0), samples(100, 1)
    far = 1e6 * train.features
    assert np.abs(probes.fit_linear(train, val).predict(far)).max() > 1e6
    network = probes.fit_network(train, val, epochs=5)
    assert np.abs(network.predict(far) / (1.0, 100.0)).max() < 100
    assert network.predict(far.reshape(4, 50, -1)).shape == (4, 50, 2)


def test_probes_repeat_and_leave_torch_alone() -> None:
    train, val = samples(100, 0), samples(50, 1)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with torch.inference_mode():
        one = probes.fit_network(train, val, epochs=3)
    assert torch.equal(torch.rand(3), expected)
    other = probes.fit_network(train, val, epochs=3)
    np.testing.assert_array_equal(one.predict(val.features), other.predict(val.features))


def test_r_squared_by_hand() -> None:
    truth = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    predicted = np.array([[1.0, 5.0], [2.0, 5.0], [2.0, 5.0]])
    first, second = probes.r_squared(truth, predicted)
    assert first == pytest.approx(1 - 1 / 2)
    assert np.isnan(second), "a target that never varies has no R^2"
    assert affine_r_squared(truth[:, 0], 7 - 3 * truth[:, 0]) == pytest.approx(1.0)
    assert np.isnan(affine_r_squared(truth[:, 0], truth[:, 1]))
    assert np.isnan(affine_r_squared(truth[:, 0], np.array([1.0, np.nan, 2.0])))


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_targets_and_states_are_the_same_thing(name: str) -> None:
    system = physgym.get_system(name)
    states = np.random.default_rng(0).uniform(-3, 3, (4, 5, system.state_size))
    targets = probes.targets_of(states, system.angles)
    names = probes.target_names(system.state_names, system.angles)
    assert targets.shape == (4, 5, len(names))
    assert len(names) == system.state_size + len(system.angles)
    back = probes.states_of(targets, system.angles, system.state_size)
    np.testing.assert_allclose(back, states, atol=1e-12)


def test_an_angle_is_its_cosine_and_sine() -> None:
    assert probes.target_names(("theta", "omega"), (0,)) == ["cos theta", "sin theta", "omega"]
    assert probes.targets_of(np.array([np.pi / 2, 7.0]), (0,)).tolist() == pytest.approx([0, 1, 7])
