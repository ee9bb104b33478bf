"""The controlled systems of Symplectic ODE-Net with our structures: how far are short and long predictions off?

    python benchmarks/symoden.py --systems pendulum cart_pole --models port_hamiltonian --seeds 0 1 2

The protocol is that of `symoden_protocol.py`. What is there already is kept, row by row; `--quick` tries all of it with
few updates in ten minutes, into a file of its own. Rules of the verdicts, written down before the first run:

- test goal and prediction goal: on every seed the error of `port_hamiltonian` is at or below the published one of
  SymODEN; "missed" where one seed is not, "open" where a seed has not run.
- structure: `port_hamiltonian` pays where on every seed its prediction error is at most a tenth of that of
  `first_order`, which learns the same rates without an energy.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import published_tables
import symoden_protocol as protocol
from experiments import Page, cost, errors_of, on_every_seed, pays, predictor, run_systems, trained

from worldmodels.configs.training import EnvConfig, TrainConfig, default_config

MODELS = ("first_order", "port_hamiltonian")
TESTED, RIVAL = "port_hamiltonian", "first_order"
COLUMNS = (
    "system", "model", "seed", "test_error", "published_test", "prediction_error",
    "published_prediction", "parameters", "cpu_seconds",
)  # fmt: skip


def config_of(arguments: argparse.Namespace, system: str, model: str, seed: int) -> TrainConfig:
    """The library's defaults of the structure, on the buffer of the protocol."""
    task = protocol.TASKS[system]
    data = protocol.buffer(system, seed, arguments.datasets)
    base = default_config(task.system, model)
    options = {"damping": False} if model == TESTED else {}
    return replace(
        base,
        env=EnvConfig("continuous", task.dt, params=task.params),
        model=replace(base.model, **options),
        dataset=str(data.path),
        epochs=2 if arguments.quick else arguments.epochs,
        seed=seed,
        out=str(arguments.runs / f"{system}-{model}-s{seed}-e{arguments.epochs}"),
    )


def row_of(arguments: argparse.Namespace, system: str, model: str, seed: int) -> dict[str, Any]:
    """One structure, trained and scored."""
    config = config_of(arguments, system, model, seed)
    learned, seconds = trained(config)
    task = protocol.TASKS[system]
    test, prediction = task.published if model == TESTED else task.naive
    return {
        "system": system,
        "model": model,
        "seed": seed,
        **protocol.scores(system, predictor(learned), seed),
        "published_test": test,
        "published_prediction": prediction,
        **cost(config, learned, seconds),
    }


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rules at the head of this file say of ``rows``, a line a system and question."""
    lines = []
    for system, task in protocol.TASKS.items():
        marks = dict(zip(("test", "prediction"), task.published, strict=True))
        for name, mark in marks.items():
            errors = errors_of(rows, system, TESTED, f"{name}_error")
            said = on_every_seed(errors, mark.__ge__)
            lines.append({"system": system, "question": f"{name} goal", "verdict": said})
        own, other = (
            errors_of(rows, system, model, "prediction_error") for model in (TESTED, RIVAL)
        )
        lines.append({"system": system, "question": "structure", "verdict": pays(own, other)})
    return lines


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    page = Page(__doc__, "squared errors, summed over a trajectory", published_tables.symoden)
    run_systems("symoden", protocol.TASKS, MODELS, row_of, verdicts, COLUMNS, page)


if __name__ == "__main__":
    main()
