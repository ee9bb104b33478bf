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
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import hnn_protocol as protocol
import torch
from hwm import predictor
from reporting import kept_rows, print_table, settled, train_missing, write_json

from worldmodels.configs.training import EnvConfig, TrainConfig, default_config

SEEDS = (0, 1, 2)
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
    import worldmodels

    config = config_of(arguments, system, model, seed)
    trained = (Path(config.out or "") / "checkpoints" / "best").is_dir()
    began = time.process_time()
    run = train_missing(config)
    seconds = None if trained else round(time.process_time() - began, 1)
    learned = worldmodels.load(run)
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
        "parameters": sum(p.numel() for p in learned.parameters()),
        "updates": config.epochs * config.optim.steps_per_epoch,
        "cpu_seconds": seconds,
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
            lines.append({"system": system, "question": "goal", "verdict": _goal(own, goal)})
        pairs = [(a, b) for a, b in zip(own, other, strict=True) if a is not None and b is not None]
        verdict = "pays" if all(a <= 0.1 * b for a, b in pairs) else "does not pay"
        verdict = verdict if len(pairs) == len(SEEDS) else "open"
        lines.append({"system": system, "question": "structure", "verdict": verdict})
    return lines


def _error(row: dict[str, Any] | None) -> float | None:
    if row is None:
        return None
    return float("inf") if row["energy_error"] is None else float(row["energy_error"])


def _goal(values: list[float | None], goal: float) -> str:
    known = [value for value in values if value is not None]
    if any(value > goal for value in known):
        return "missed"
    return "reached" if len(known) == len(SEEDS) else "open"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--systems", nargs="+", choices=protocol.TASKS, default=list(protocol.TASKS)
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, help="0 1 2; 0 with --quick")
    parser.add_argument("--epochs", type=int, default=30, help="of 120 updates of 256 steps")
    parser.add_argument("--quick", action="store_true", help="all of it, in ten minutes")
    parser.add_argument("--runs", type=Path, default=Path("outputs/hnn"))
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument(
        "--out", type=Path, help="benchmarks/results/hnn.json, or hnn_quick.json among the runs"
    )
    return settled(parser.parse_args(), "hnn", SEEDS)


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    arguments = parse()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    for seed in arguments.seeds:
        for system in arguments.systems:
            for model in arguments.models:
                ran = {(r["system"], r["model"], r["seed"]) for r in rows}
                if (system, model, seed) not in ran:
                    rows.append(row_of(arguments, system, model, seed))
                    write_json(arguments.out, {"verdicts": verdicts(rows), "rows": rows})
    print_table(rows, COLUMNS, "mean squared error of the energy along a rollout")
    said = [line for line in verdicts(rows) if line["verdict"] != "open"]
    print_table(said, ("system", "question", "verdict"), "verdicts that are not open")


if __name__ == "__main__":
    main()
