"""The controlled systems of a published experiment: their equations, their scores and their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import symoden
import symoden_protocol as protocol

import physgym

NAMES = tuple(protocol.TASKS)


def truth(name: str) -> Any:
    """The system itself as a model, its angles wrapped as a learned one may have them."""
    task = protocol.TASKS[name]
    system = physgym.get_system(task.system)
    params = system.check_params(task.params)
    angles = list(system.angles)

    def predict(state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = []
        for t in range(actions.shape[1]):
            control = system.control(actions[:, t].astype(float), params)
            state = system.step(state, control, params, task.dt)
            states.append(state)
        found = np.stack(states, 1)
        found[..., angles] = np.angle(np.exp(1j * found[..., angles]))
        return np.asarray(found)

    return predict


def still(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return np.repeat(starts[:, None], actions.shape[1], 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_has_no_error_and_standing_still_has_one(name: str) -> None:
    right, wrong = (protocol.scores(name, model, 0) for model in (truth(name), still))
    for key in ("test_error", "prediction_error"):
        assert right[key] < 1e-8, key
        assert wrong[key] > 0.1, key


def rates(name: str, state: np.ndarray, control: float) -> np.ndarray:
    """q'' of our system."""
    task = protocol.TASKS[name]
    system = physgym.get_system(task.system)
    params = system.check_params(task.params)
    half = len(state) // 2
    found = system.acceleration(tuple(state[:half]), tuple(state[half:]), (control,), params)
    return np.array(found)


def test_the_pendulum_is_that_of_the_paper() -> None:
    """H = 5 (1 - cos q) + 1.5 p^2, p' = -dH/dq + u."""
    for q, p, u in np.random.default_rng(0).uniform(-2.0, 2.0, (20, 3)):
        assert rates("pendulum", np.array([q, 3.0 * p]), u) == pytest.approx(
            3.0 * (u - 5.0 * np.sin(q))
        )
        seen = protocol.features("pendulum", np.array([q, 3.0 * p]))
        np.testing.assert_allclose(seen, (q, p))


def test_the_cart_carries_a_uniform_pole() -> None:
    """(M + m) x'' + m l (cos q q'' - sin q q'^2) = F, 4/3 l q'' + cos q x'' + g sin q = 0, l half the pole."""
    for x, q, v, w, force in np.random.default_rng(0).uniform(-2.0, 2.0, (20, 5)):
        a, b = rates("cart_pole", np.array([x, q, v, w]), force)
        assert a + 0.25 * (np.cos(q) * b - np.sin(q) * w * w) == pytest.approx(force)
        assert 2.0 / 3.0 * b + np.cos(q) * a + 9.8 * np.sin(q) == pytest.approx(0.0, abs=1e-12)


def test_the_acrobot_has_the_inertia_of_two_rods() -> None:
    """Kinetic energy of rods whose inertia is 1 kg m^2 about their middles; the shoulder's pull is 1.5 times theirs."""
    system = physgym.get_system("acrobot")
    params = system.check_params(protocol.TASKS["acrobot"].params)
    for q1, q2, w1, w2 in np.random.default_rng(0).uniform(-2.0, 2.0, (20, 4)):
        both = w1 + w2
        kinetic = 0.5 * ((0.25 + 1.0 + 1.0) * w1**2 + 1.25 * both**2 + np.cos(q2) * w1 * both)
        potential = 9.8 * (2.25 * (1.0 - np.cos(q1)) + 0.5 * (1.0 - np.cos(q1 + q2)))
        found = system.energy(np.array([q1, q2, w1, w2]), params)
        assert found == pytest.approx(kinetic + potential)


@pytest.mark.parametrize("name", NAMES)
def test_every_control_acts_on_the_same_starts(name: str) -> None:
    begin = protocol.starts(name, 0)[:3]
    made = protocol.trajectories(name, begin, protocol.CONTROLS, 4)
    assert made.states.shape == (15, 4, begin.shape[1])
    np.testing.assert_array_equal(made.states[3:6, 0], made.states[:3, 0])
    assert sorted(set(made.actions.ravel())) == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert (np.ptp(made.actions, axis=1) == 0.0).all(), "throughout"
    other = protocol.starts(name, 1)
    assert not np.isclose(other, protocol.starts(name, 0)).any(1).all()


def test_the_buffer_holds_training_starts_alone(tmp_path: Path) -> None:
    data = protocol.buffer("cart_pole", 0, tmp_path)
    assert data.states.shape == (320, 20, 4) and len(data.splits["test"]) == 0
    begin = np.unique(data.states[:, 0], axis=0)
    np.testing.assert_allclose(
        begin, np.unique(protocol.starts("cart_pole", 0)[:64], axis=0), atol=1e-6
    )


def test_a_lost_rollout_leaves_no_mean() -> None:
    def lost(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        found = truth("acrobot")(starts, actions)
        found[0] = np.nan
        return np.asarray(found)

    row = protocol.scores("acrobot", lost, 0)
    assert row["test_error"] is None and row["test_median"] is not None


def row(model: str, seed: int, error: float | None, system: str = "acrobot") -> dict[str, Any]:
    keys = {"test_error": error, "prediction_error": error}
    return {"system": system, "model": model, "seed": seed, **keys}


def answers(rows: list[dict[str, Any]], system: str = "acrobot") -> dict[str, str]:
    lines = [line for line in symoden.verdicts(rows) if line["system"] == system]
    return {line["question"]: line["verdict"] for line in lines}


def test_verdicts_follow_the_rules_that_were_written_down() -> None:
    own = [row(symoden.TESTED, seed, 4.83e-2) for seed in range(3)]
    assert answers(own)["test goal"] == answers(own)["prediction goal"] == "reached"
    assert answers(own[:2])["test goal"] == "open"
    for worse in (4.84e-2, None):
        assert answers([row(symoden.TESTED, 1, worse)])["test goal"] == "missed"
    assert answers([row(symoden.TESTED, 1, 0.8)])["prediction goal"] == "open"
    assert answers([row(symoden.TESTED, 1, 0.81)])["prediction goal"] == "missed"
    other = [row(symoden.RIVAL, seed, 4.83e-1) for seed in range(3)]
    assert answers([*own, *other])["structure"] == "pays"
    assert answers([*own, *other[:2]])["structure"] == "open"
    near = [*other[:2], row(symoden.RIVAL, 2, 0.4)]
    assert answers([*own, *near])["structure"] == "does not pay"
    assert {line["system"] for line in symoden.verdicts([])} == set(NAMES)
