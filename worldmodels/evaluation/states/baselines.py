"""What is compared: learned models, floors that any model must beat, and the oracle none can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import physgym
from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.states import floors
from worldmodels.evaluation.states.scoring import Entry
from worldmodels.films.recording import forecast


def model_entry(model: Any, model_name: str = "") -> Entry:
    """Row of a world model: it sees the true start and the actions, and nothing after."""

    def predict(tasks: Problems) -> np.ndarray:
        told = tasks.param_array(model.spec.param_names)
        return forecast(model, tasks.states[:, :1], tasks.actions, told, tasks.dt)

    return Entry(predict, bool(getattr(model, "any_dt", False)), "model", model_name)


def oracle_entry(integrator: str | None, substeps: int | None) -> Entry:
    """Row of the true right-hand side through ``integrator`` with ``substeps`` a step.

    It is what a perfect model with that integrator would score; None: the system's own.
    """

    def predict(tasks: Problems) -> np.ndarray:
        method = integrator or tasks.integrator
        state, states = tasks.states[:, 0], []
        for t in range(tasks.steps):
            control, dt = tasks.controls[:, t], tasks.dt
            with np.errstate(all="ignore"):
                state = tasks.system.step(state, control, tasks.params, dt, method, substeps)
            states.append(state)
        return np.stack(states, axis=1)

    return Entry(predict, True, "oracle")


def oracles_of(models: Mapping[str, Any]) -> dict[str, Entry]:
    """One oracle row for each fixed-step integrator and number of sub-steps among ``models``."""
    from worldmodels.configs.training import FIXED_STEP

    rows = {}
    for model in models.values():
        method = getattr(model.config, "integrator", None)
        if method in FIXED_STEP:
            count = model.config.substeps
            rows[f"oracle ({method} x {count})"] = oracle_entry(method, count)
    return rows or {"oracle (own integrator)": oracle_entry(None, None)}


def floor_entries(dataset: Any) -> dict[str, Entry]:
    """Rows of ``worldmodels.evaluation.states.floors``; the linear one fitted to ``dataset``, and bound to its dt."""
    angles = physgym.get_system(dataset.env_name).angles

    def entry(name: str, floor: floors.Predictor) -> Entry:
        def predict(tasks: Problems) -> np.ndarray:
            return floor(tasks.states[:, :1], tasks.actions, tasks.dt)

        return Entry(predict, name != "linear-fit", "floor")

    return {name: entry(name, floor) for name, floor in floors.floors_of(dataset, angles).items()}
