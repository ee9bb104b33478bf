"""Laws of measures and baselines."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import physgym
from worldmodels.evaluation import statistics, tables
from worldmodels.evaluation.states import baselines, metrics


def test_angles_are_compared_the_shorter_way_round() -> None:
    truth = np.array([[[3.1, 0.0]]])
    predicted = np.array([[[-3.1 + 20 * np.pi, 0.0]]])
    error = metrics.state_error(truth, predicted, (0,))
    np.testing.assert_allclose(error[0, 0], [2 * np.pi - 6.2, 0.0], atol=1e-12)
    assert metrics.normalised_mse(truth, predicted, np.ones(2), (0,))[0, 0] < 0.01
    assert metrics.normalised_mse(truth, predicted, np.ones(2))[0, 0] > 100


def test_the_normalised_error_of_the_mean_is_one() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(3.0, (1.0, 50.0), (400, 11, 2))
    data = SimpleNamespace(states=states, lengths=np.full(400, 10))
    scale = metrics.state_scale(data, ())
    mean = np.broadcast_to(states.mean((0, 1)), states.shape)
    assert metrics.normalised_mse(states, mean, scale).mean() == pytest.approx(1.0, rel=1e-6)


def test_states_behind_an_episodes_end_do_not_count_in_scales() -> None:
    states = np.zeros((2, 6, 2))
    states[:, :3, 0] = [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
    states[:, 3:] = 1e6
    scale = metrics.state_scale(SimpleNamespace(states=states, lengths=np.array([2, 2])), ())
    np.testing.assert_allclose(scale, [np.sqrt(2 / 3), 1.0])


def test_what_is_not_finite_counts_as_infinite() -> None:
    truth = np.zeros((3, 2, 2))
    predicted = truth + 0.1
    predicted[0, 1] = np.nan
    predicted[1, 1] = np.inf
    errors = metrics.normalised_mse(truth, predicted, np.ones(2))
    assert np.isinf(errors[:2, 1]).all()
    row = statistics.at_horizon(errors, np.ones((3, 2), bool), 2)
    assert row["median"] == np.inf
    assert row["finite"] == pytest.approx(1 / 3)
    assert metrics.finite_share(predicted) == pytest.approx(1 / 3)


def test_only_episodes_that_last_count_at_a_horizon() -> None:
    errors = np.array([[1.0, 5.0], [2.0, 7.0], [3.0, 100.0]])
    valid = np.array([[True, True], [True, True], [True, False]])
    assert statistics.at_horizon(errors, valid, 2)["median"] == 6.0
    assert statistics.at_horizon(errors, valid, 2)["count"] == 2
    assert statistics.at_horizon(errors, np.zeros_like(valid), 1)["count"] == 0
    with pytest.raises(ValueError, match="horizon=3"):
        statistics.at_horizon(errors, valid, 3)


def test_prediction_is_valid_until_the_error_first_exceeds_the_threshold() -> None:
    errors = np.array([[0.0, 0.2, 0.0, 0.2], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.2]])
    valid = np.array([[True] * 4, [True] * 4, [True, True, True, False]])
    np.testing.assert_allclose(
        statistics.valid_prediction_time(errors, valid, 0.5), [0.5, 2.0, 1.5]
    )


def test_energy_measures() -> None:
    assert statistics.energy_error(np.array([[1.0, 2.0]]), np.array([[np.nan, 2.5]])).tolist() == [
        [np.inf, 0.5]
    ]
    np.testing.assert_allclose(statistics.energy_drift(np.array([[-2.0, -2.0, -2.0]])), [0.0])
    np.testing.assert_allclose(
        statistics.energy_drift(np.array([[-2.0, -1.0]])), [np.sqrt(0.5) / 2]
    )


def truth_of(name: str, steps: int = 12, count: int = 64) -> SimpleNamespace:
    """Random episodes of a true system, stepped by hand."""
    system = physgym.get_system(name)
    params = system.Params()
    rng = np.random.default_rng(0)
    starts = [system.sample_state(rng, params) for _ in range(count)]
    states = [np.array(starts, dtype=np.float64)]
    actions = rng.integers(0, len(system.discrete_actions), (count, steps))
    for t in range(steps):
        control = system.control(system.discrete_actions[actions[:, t]], params)
        states.append(np.asarray(system.step(states[-1], control, params, system.dt)))
    return SimpleNamespace(
        system=system,
        states=np.stack(states, 1),
        actions=actions,
        lengths=np.full(count, steps),
        dt=system.dt,
    )


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_baselines_and_oracle_predict_in_shape_and_order(name: str) -> None:
    data = truth_of(name)
    angles = data.system.angles
    scale = metrics.state_scale(data, angles)
    rows = baselines.baselines_of(data, angles)
    rows["oracle"] = baselines.oracle(data.system)
    errors = {}
    for label, predict in rows.items():
        predicted = predict(data.states[:, :1], data.actions, data.dt)
        assert predicted.shape == data.states[:, 1:].shape
        errors[label] = metrics.normalised_mse(data.states[:, 1:], predicted, scale, angles)
    first = {label: np.median(error[:, 0]) for label, error in errors.items()}
    assert first["oracle"] <= 1e-20
    assert first["constant-velocity"] < first["copy-last-state"]
    assert first["linear-fit"] < first["constant-velocity"]
    assert np.median(errors["oracle"][:, -1]) <= 1e-16


def test_the_linear_fit_is_exact_on_a_linear_system() -> None:
    data = truth_of("oscillator")
    predicted = baselines.linear_fit(data, ridge=1e-12)(data.states[:, :1], data.actions, data.dt)
    np.testing.assert_allclose(predicted, data.states[:, 1:], atol=1e-6)


def test_the_oracle_takes_parameters_by_row() -> None:
    system = physgym.get_system("oscillator")
    soft, stiff = system.Params(stiffness=1.0), system.Params(stiffness=3.0)
    params = np.array([list(soft), list(stiff)])
    start = np.ones((2, 1, 2))
    actions = np.zeros((2, 5), dtype=np.int64)
    both = baselines.oracle(system)(start, actions, 0.1, params)
    for row in range(2):
        one = baselines.oracle(system)(start[:1], actions[:1], 0.1, params[row : row + 1])
        np.testing.assert_allclose(both[row], one[0], rtol=1e-12)
    assert not np.allclose(both[0], both[1])


def test_a_valid_time_at_the_end_is_a_lower_bound() -> None:
    errors, valid = np.full((4, 10), 0.01), np.ones((4, 10), bool)
    assert tables.seconds(statistics.valid_time(errors, valid, 0.5, 0.1)) == ">= 5.00"
    errors[:, 6:] = 1.0
    assert tables.seconds(statistics.valid_time(errors, valid, 0.5, 0.1)) == "3.00"
    errors[:2] = 0.01
    assert statistics.valid_time(errors, valid, 0.5, 0.1)["at_least"]
    assert tables.seconds(statistics.valid_time(errors, ~valid, 0.5, 0.1)) == "n/a"
