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
from experiments import (
    SEEDS,
    cost,
    on_every_seed,
    parser_of,
    predictor,
    print_verdicts,
    run_missing,
    trained,
)
from reporting import print_table, settled

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
    found = {(row["system"], row["model"], row["seed"]): row for row in rows}
    lines = []
    for system, task in protocol.TASKS.items():
        own, other = (
            [_error(found.get((system, model, seed))) for seed in SEEDS]
            for model in (TESTED, RIVAL)
        )
        goal = task.published[1]
        if goal is not None:
            lines.append(
                {"system": system, "question": "goal", "verdict": on_every_seed(own, goal.__ge__)}
            )
        pairs = [(a, b) for a, b in zip(own, other, strict=True) if a is not None and b is not None]
        verdict = "pays" if all(a <= 0.1 * b for a, b in pairs) else "does not pay"
        verdict = verdict if len(pairs) == len(SEEDS) else "open"
        lines.append({"system": system, "question": "structure", "verdict": verdict})
    return lines


def _error(row: dict[str, Any] | None) -> float | None:
    if row is None:
        return None
    return float("inf") if row["energy_error"] is None else float(row["energy_error"])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, "hnn")
    parser.add_argument(
        "--systems", nargs="+", choices=protocol.TASKS, default=list(protocol.TASKS)
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--epochs", type=int, default=30, help="of 120 updates of 256 steps")
    return settled(parser.parse_args(), "hnn", SEEDS)


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    arguments = parse()
    wanted = (
        (system, model, seed)
        for seed in arguments.seeds
        for system in arguments.systems
        for model in arguments.models
    )
    rows = run_missing(arguments, ("system", "model", "seed"), wanted, row_of, verdicts)
    print_table(rows, COLUMNS, "mean squared error of the energy along a rollout")
    print_verdicts(verdicts(rows), "system")


if __name__ == "__main__":
    main()
