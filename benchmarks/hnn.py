"""The four conservative systems of Hamiltonian Neural Networks with our structures: what becomes of the energy?

    python benchmarks/hnn.py --systems spring two_bodies --models port_hamiltonian --seeds 0 1 2

The protocol is that of `hnn_protocol.py`. What is there already is kept, row by row; `--quick` tries all of it with few
episodes and updates in ten minutes, into a file of its own. Rules of the verdicts, written down before the first run:

- goal: on every seed the energy error of `port_hamiltonian` is at or below the published one of the HNN; "missed" where
  one seed is not, "open" where a seed has not run. Systems named `_exact`, which have no noise, have no goal.
- structure: `port_hamiltonian` pays where on every seed its energy error is at most a tenth of that of `first_order`,
  which learns the same rates without an energy.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import hnn_protocol as protocol
import published_tables
from experiments import Page, cost, errors_of, on_every_seed, pays, predictor, run_systems, trained

from worldmodels.configs.training import EnvConfig, TrainConfig, default_config

MODELS: dict[str, dict[str, Any]] = {
    "first_order": {},
    "port_hamiltonian": {"damping": False, "integrator": "suzuki4"},
}
TESTED, RIVAL = "port_hamiltonian", "first_order"
COLUMNS = (
    "system", "model", "seed", "energy_error", "energy_median", "published", "parameters", "cpu_seconds",
)  # fmt: skip


def config_of(arguments: argparse.Namespace, system: str, model: str, seed: int) -> TrainConfig:
    """The library's defaults of the structure, on the buffer of the protocol."""
    task = protocol.TASKS[system]
    count = min(task.trajectories, 100) if arguments.quick else task.trajectories
    data = protocol.buffer(system, seed, arguments.datasets, count)
    base = default_config(task.system, model)
    return replace(
        base,
        env=EnvConfig("continuous", task.dt, params=task.params),
        model=replace(base.model, **MODELS[model]),
        dataset=str(data.path),
        epochs=2 if arguments.quick else arguments.epochs,
        seed=seed,
        out=str(arguments.runs / f"{system}-{model}-s{seed}-e{arguments.epochs}"),
    )


def row_of(arguments: argparse.Namespace, system: str, model: str, seed: int) -> dict[str, Any]:
    """One structure, trained and scored."""
    config = config_of(arguments, system, model, seed)
    learned, seconds = trained(config)
    count = 20 if arguments.quick else protocol.TEST
    mean, median, lost = protocol.energy_errors(system, predictor(learned), seed + 1000, count)
    return {
        "system": system,
        "model": model,
        "seed": seed,
        "energy_error": mean,
        "energy_median": median,
        "lost": lost,
        "published": protocol.TASKS[system].published[model == TESTED],
        **cost(config, learned, seconds),
    }


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rules at the head of this file say of ``rows``, a line a system and question."""
    lines = []
    for system, task in protocol.TASKS.items():
        own, other = (errors_of(rows, system, model, "energy_error") for model in (TESTED, RIVAL))
        goal = task.published[1]
        if goal is not None:
            said = on_every_seed(own, goal.__ge__)
            lines.append({"system": system, "question": "goal", "verdict": said})
        lines.append({"system": system, "question": "structure", "verdict": pays(own, other)})
    return lines


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    page = Page(__doc__, "mean squared error of the energy along a rollout", published_tables.hnn)
    run_systems("hnn", protocol.TASKS, MODELS, row_of, verdicts, COLUMNS, page)


if __name__ == "__main__":
    main()
