"""The conservative systems of a published experiment: their data, their score and their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hnn
import hnn_protocol as protocol
import numpy as np
import pytest

import physgym

NAMES = tuple(protocol.TASKS)


def energies(name: str, states: np.ndarray) -> np.ndarray:
    task = protocol.TASKS[name]
    system = physgym.get_system(task.system)
    return np.asarray(system.energy(states, system.check_params(task.params)))


def truth(name: str) -> Any:
    """The system itself as a model."""
    task = protocol.TASKS[name]
    system = physgym.get_system(task.system)
    params = system.check_params(task.params)

    def predict(state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = []
        for _ in range(actions.shape[1]):
            still = np.zeros((len(state), system.control_size))
            state = system.step(state, still, params, task.dt)
            states.append(state)
        return np.stack(states, 1)

    return predict


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_keeps_its_energy(name: str) -> None:
    mean, median, lost = protocol.energy_errors(name, truth(name), seed=0, count=6)
    assert mean is not None and median is not None
    assert mean < 1e-8 and median < 1e-9 and lost == 0


@pytest.mark.parametrize("name", ["spring", "pendulum"])
def test_energies_are_those_of_the_published_hamiltonians(name: str) -> None:
    """q^2 + p^2, and 3 (1 - cos q) + p^2, with v = 2 p."""
    starts = protocol.TASKS[name].starts(np.random.default_rng(0), 500)
    q, p = starts[:, 0], starts[:, 1] / 2.0
    potential = q**2 if name == "spring" else 3.0 * (1.0 - np.cos(q))
    found = energies(name, starts)
    np.testing.assert_allclose(
        found - found[0], potential + p**2 - (potential + p**2)[0], atol=1e-9
    )
    radius = np.hypot(q, p)
    low, high = (0.1, 1.0) if name == "spring" else (1.3, 2.3)
    assert low <= radius.min() < low + 0.05 and high - 0.05 < radius.max() <= high


@pytest.mark.parametrize(("name", "bodies"), [("two_bodies", 2), ("three_bodies", 3)])
def test_bodies_begin_near_circular_orbits(name: str, bodies: int) -> None:
    """Of a circular orbit the kinetic energy is half of the potential one, with the other sign."""
    starts = protocol.TASKS[name].starts(np.random.default_rng(0), 500)
    q, v = (part.reshape(500, bodies, 2) for part in np.split(starts, 2, axis=1))
    assert np.abs(q.mean(1)).max() < 1e-12
    kinetic = 0.5 * (v**2).sum((1, 2))
    potential = energies(name, starts) - kinetic
    assert np.median(-2.0 * kinetic / potential) == pytest.approx(1.0, abs=0.03)
    assert np.abs((q * v).sum(2)).max() < 0.4, "nearly at right angles"


def test_noise_lies_on_the_points_and_not_on_what_happens_to_them(tmp_path: Path) -> None:
    data = protocol.buffer("spring", 0, tmp_path, 25)
    clean = protocol.trajectories("spring", np.random.default_rng([0, 25]), 25, 30)
    pairs = np.stack((clean[:, :-1], clean[:, 1:]), 2).reshape(-1, 2, 2)
    assert data.states.shape == pairs.shape
    np.testing.assert_allclose(np.diff(data.states, axis=1), np.diff(pairs, axis=1), atol=1e-12)
    noise = data.states[:, 0] - pairs[:, 0]
    assert noise.std(0) == pytest.approx([0.1, 0.2], rel=0.1)
    exact = protocol.buffer("spring_exact", 0, tmp_path, 25)
    assert exact.states.shape == (25, 30, 2)
    np.testing.assert_allclose(exact.states, clean[:, :30], atol=1e-12)


def test_a_rollout_that_is_lost_has_no_mean() -> None:
    def lost(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = truth("spring")(starts, actions)
        states[0] = np.nan
        return np.asarray(states)

    mean, median, count = protocol.energy_errors("spring", lost, 0, 6)
    assert mean is None and median is not None and count == 1


def row(system: str, model: str, seed: int, error: float | None) -> dict[str, Any]:
    return {"system": system, "model": model, "seed": seed, "energy_error": error}


def answer(rows: list[dict[str, Any]], system: str, question: str) -> str:
    lines = [x for x in hnn.verdicts(rows) if (x["system"], x["question"]) == (system, question)]
    (line,) = lines
    return str(line["verdict"])


def test_verdicts_follow_the_rules_that_were_written_down() -> None:
    own = [row("spring", hnn.TESTED, seed, 3.84e-4) for seed in range(3)]
    assert answer(own, "spring", "goal") == "reached"
    assert answer(own[:2], "spring", "goal") == "open"
    for worse in (3.85e-4, None):
        assert answer([own[0], row("spring", hnn.TESTED, 1, worse)], "spring", "goal") == "missed"
    other = [row("spring", hnn.RIVAL, seed, 3.84e-3) for seed in range(3)]
    assert answer([*own, *other], "spring", "structure") == "pays"
    assert answer([*own, *other[:2]], "spring", "structure") == "open"
    near = [*other[:2], row("spring", hnn.RIVAL, 2, 3.0e-3)]
    assert answer([*own, *near], "spring", "structure") == "does not pay"
    assert (
        answer(
            [*own, *(row("spring", hnn.RIVAL, s, None) for s in range(3))], "spring", "structure"
        )
        == "pays"
    )
    assert {line["system"] for line in hnn.verdicts([]) if line["question"] == "goal"} == {
        "spring", "pendulum", "two_bodies", "three_bodies",
    }  # fmt: skip
