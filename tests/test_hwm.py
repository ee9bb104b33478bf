"""The published experiment: its episodes, its scores and its verdicts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hwm
import hwm_protocol as protocol
import numpy as np
import pytest

import physgym

NAMES = tuple(protocol.PROBLEMS)


def truth(name: str) -> protocol.Predict:
    """The system itself as a model."""
    problem = protocol.PROBLEMS[name]
    system = physgym.get_system(problem.system)
    params = system.check_params(problem.params)

    def predict(state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = []
        for t in range(actions.shape[1]):
            control = system.control(actions[:, t].astype(float), params)
            state = system.step(state, control, params, protocol.DT, "rk4", protocol.SUBSTEPS)
            states.append(state)
        return np.stack(states, 1)

    return predict


@pytest.mark.parametrize("name", NAMES)
def test_episodes_start_in_their_band_and_a_quarter_is_passive(name: str) -> None:
    problem = protocol.PROBLEMS[name]
    system = physgym.get_system(problem.system)
    params = system.check_params(problem.params)
    for unseen, band in ((False, problem.band), (True, problem.unseen)):
        made = protocol.episodes(name, unseen, 8, seed=3)
        assert made.states.shape == (8, protocol.STEPS + 1, system.state_size)
        unit = system.energy_unit(params)
        start = system.energy(made.states[:, 0], params) / unit
        assert (start >= min(band) - 1e-9).all() and (start <= max(band) + 1e-9).all()
        still = (made.actions == 0).all((1, 2))
        assert still.tolist() == [True] * 2 + [False] * 6
        energy = system.energy(made.states[:2], params)
        assert np.abs(energy - energy[:, :1]).max() < 1e-6 * abs(unit)
        if name == "cart_pole":
            assert np.abs(made.states[..., 0]).max() <= 3.0


def test_references_are_those_of_the_systems() -> None:
    for name, problem in protocol.PROBLEMS.items():
        system = physgym.get_system(problem.system)
        unit = system.energy_unit(system.check_params(problem.params))
        wanted = 0.5 if name == "orbit" else unit
        assert problem.reference == pytest.approx(wanted)
    low, high = protocol.PROBLEMS["orbit"].unseen
    assert (3.0 / high, 3.0 / low) == pytest.approx((1.4, 1.8)), "semi-major axes"


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_has_no_error_and_no_drift(name: str) -> None:
    test = protocol.episodes(name, True, 4, seed=1)
    variance = protocol.features(name, test.states).var((0, 1))
    found = protocol.errors(name, truth(name), test, variance)
    assert max(found.values()) < 1e-6, "actions are stored in float32, and used so"
    value, diverged = protocol.drift(name, truth(name), seed=0, steps=20)
    assert value is not None and value < 1e-8 and diverged == 0


def test_what_is_not_finite_counts_as_infinite_and_as_the_cap() -> None:
    def lost(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.full((*actions.shape[:2], starts.shape[1]), np.nan)

    test = protocol.episodes("pendulum", False, 4, seed=1)
    found = protocol.errors("pendulum", lost, test, np.ones(3))
    assert set(found.values()) == {protocol.CAP}
    assert protocol.drift("pendulum", lost, 0, 5) == (None, protocol.PASSIVE)


def row(env: str, model: str, seed: int, drift: float | None, unseen: float) -> dict[str, Any]:
    return {"env": env, "model": model, "seed": seed, "drift": drift, "unseen_100": unseen}


def answer(rows: list[dict[str, Any]], env: str, question: str) -> str:
    (line,) = [x for x in hwm.verdicts(rows) if (x["env"], x["question"]) == (env, question)]
    return str(line["verdict"])


def test_verdicts_follow_the_rules_that_were_written_down() -> None:
    rows = [row("pendulum", "port_hamiltonian", s, 1e-4, 0.01 + 0.01 * s) for s in range(3)]
    assert answer(rows, "pendulum", "drift mark") == "reached"
    assert answer(rows[:2], "pendulum", "drift mark") == "open"
    assert (
        answer(
            [*rows[:2], row("pendulum", "port_hamiltonian", 2, None, 0.0)], "pendulum", "drift mark"
        )
        == "missed"
    )
    assert answer(rows, "pendulum", "unseen mark") == "reached"
    rivals = [row("pendulum", "jump", s, 1e-2, 0.5) for s in range(3)]
    assert answer([*rows, *rivals], "pendulum", "drift against jump") == "pays"
    assert answer([*rows, *rivals], "pendulum", "unseen against jump") == "beats"
    rivals[2] = row("pendulum", "jump", 2, 2e-4, 0.0)
    assert answer([*rows, *rivals], "pendulum", "drift against jump") == "does not pay"
    assert answer([*rows, *rivals], "pendulum", "unseen against jump") == "undecided"
    worse = [row("pendulum", "jump", s, 1e-5, 0.0) for s in range(3)]
    assert answer([*rows, *worse], "pendulum", "unseen against jump") == "loses"
    assert answer([*rows, *rivals[:2]], "pendulum", "unseen against jump") == "open"


def test_an_interval_of_three_seeds_is_from_the_worst_to_the_best() -> None:
    assert hwm.interval([1.0, 2.0, 4.0]) == (1.0, 4.0)


def test_what_was_added_after_a_miss_is_judged_by_no_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judged = {*hwm.TESTED.values(), *hwm.RIVALS}
    assert set(hwm.WEIGHT_DECAY) <= set(hwm.ONLY) and not judged & set(hwm.ONLY)
    data = SimpleNamespace(path=tmp_path)
    monkeypatch.setattr(protocol, "buffer", lambda *given: data)
    arguments = SimpleNamespace(quick=True, datasets=tmp_path, runs=tmp_path, epochs=1)
    for model, envs in hwm.ONLY.items():
        for env in envs:
            config = hwm.config_of(arguments, env, model, 0)  # type: ignore[arg-type]
            assert config.optim.weight_decay == hwm.WEIGHT_DECAY.get(model, 0.0)
            assert config.model.mass == "network"  # type: ignore[union-attr]
