"""How well each structure learns each system: median normalised MSE of open-loop rollouts.

    python benchmarks/learning.py --systems pendulum --models jump port_hamiltonian --seeds 0 1 2

Trains with the defaults of scripts/train.py, scores the best checkpoint on the test split, and prints
one table beside the baselines. A row is written as soon as its run is done: a benchmark that was
interrupted goes on where it was. The tasks `free_oscillator` (no damping, no force) and `kepler`
(no thrust) ask how well energy is kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from reporting import write_json

from worldmodels.configs.training import MODELS, TrainConfig, config_hash, default_config, to_dict

SYSTEMS = ("oscillator", "pendulum", "spaceship", "three_body")
CONSERVED = {"free_oscillator": "oscillator", "kepler": "spaceship"}
HORIZONS = (1, 10, 50, 100)
LONG = 2000
"""Steps over which energy is watched where it is conserved: long enough for drift to tell."""
HERE = Path(__file__).parent


class Quiet:
    """A logger that keeps nothing."""

    def log(self, values: Any, step: int) -> None:
        """Forget ``values``."""

    def rewind(self, step: int) -> None:
        """Nothing to forget."""


def config_of(
    task: str, model: str, seed: int, epochs: int | None, data_seed: int = 0
) -> TrainConfig:
    """The defaults of ``task``, which is a system, or one of ``CONSERVED``."""
    config = replace(default_config(CONSERVED.get(task, task), model), seed=seed)
    config = replace(config, data=replace(config.data, seed=data_seed))
    if task in CONSERVED:
        config = replace(config, data=replace(config.data, policy="zero"))
    if task == "free_oscillator":
        config = replace(config, env=replace(config.env, params={"damping": 0.0}))
    return config if epochs is None else replace(config, epochs=epochs)


def train_and_score(task: str, config: TrainConfig, datasets: str) -> dict[str, Any]:
    """One run: its row of the result."""
    import torch

    from worldmodels.data import dataset_for
    from worldmodels.imagination import imagine
    from worldmodels.storage.checkpoint import load
    from worldmodels.training.fit import fit

    torch.set_num_threads(1)
    dataset = dataset_for(config, root=datasets, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        run = SimpleNamespace(checkpoints=Path(folder) / "checkpoints")
        wall, cpu = time.perf_counter(), time.process_time()
        result = fit(config, dataset, run, Quiet())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        model = load(run.checkpoints / "best")

    def predict(states0: np.ndarray, actions: np.ndarray, dt: float, params: np.ndarray) -> Any:
        with torch.inference_mode():
            told = torch.as_tensor(params, dtype=torch.float32)
            latent = model.encode(torch.as_tensor(states0, dtype=torch.float32), told)
            return imagine(model, latent, torch.as_tensor(actions), dt).double().numpy()

    row = {"task": task, "model": config.model_name, "seed": config.seed}
    row |= {"config": config_hash(to_dict(config)), "steps": result["steps"]}
    row |= {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
    row |= {"parameters": sum(p.numel() for p in model.parameters())}
    return row | score(task, dataset, predict)


def score(task: str, dataset: Any, predict: Any) -> dict[str, Any]:
    """Errors of ``predict`` on the test split, from the start of each episode."""
    import physgym
    from worldmodels.evaluation import statistics
    from worldmodels.evaluation.states import metrics

    system = physgym.get_system(dataset.env_name)
    scale = metrics.state_scale(dataset.subset("train"), system.angles)
    test = dataset.subset("test")
    steps = max(HORIZONS)
    params = np.stack(list(test.params.values()), 1)
    predicted = predict(test.states[:, :1], test.actions[:, :steps], test.dt, params)
    truth = test.states[:, 1 : steps + 1]
    valid = np.arange(steps)[None, :] < np.asarray(test.lengths)[:, None]
    errors = metrics.normalised_mse(truth, predicted, scale, system.angles)
    row: dict[str, Any] = {}
    for horizon in HORIZONS:
        at = statistics.at_horizon(errors, valid, horizon)
        row[f"nmse_{horizon}"] = finite(at["median"])
        row[f"finite_{horizon}"] = at["finite"]
    row["energy_error"] = None
    if task in CONSERVED:
        row["energy_error"] = long_energy_error(system, test, predict, params)
    return row


def long_energy_error(system: Any, test: Any, predict: Any, params: np.ndarray) -> float | None:
    """Largest relative error of the true energy in ``LONG`` unforced steps; the median over episodes."""
    from worldmodels.evaluation import statistics

    idle = np.repeat(test.actions[:, :1], LONG, 1)  # the buffer's only action is to do nothing
    states = predict(test.states[:, :1], idle, test.dt, params)
    named = system.Params(*(test.params[name][:, None] for name in system.Params._fields))
    with np.errstate(all="ignore"):
        start = np.asarray(system.energy(test.states[:, :1], named))
        off = statistics.energy_error(start, np.asarray(system.energy(states, named)))
    return finite(float(np.median(off.max(1) / np.abs(start[:, 0]))))


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None


def baseline_rows(task: str, datasets: str, data_seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the predictors that were not trained, and of the oracle."""
    import physgym
    from worldmodels.data import dataset_for
    from worldmodels.evaluation.states.baselines import baselines_of, oracle

    dataset = dataset_for(
        config_of(task, "jump", 0, None, data_seed), root=datasets, progress=False
    )
    system = physgym.get_system(dataset.env_name)
    rows = {**baselines_of(dataset.subset("train"), system.angles), "oracle": oracle(system)}
    for name, predict in rows.items():
        yield {
            "task": task,
            "model": name,
            "seed": 0,
            "config": "",
            **score(task, dataset, predict),
        }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median over seeds of each task and model, in the order they were asked for."""
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        made.setdefault((row["task"], row["model"]), []).append(row)
    table = []
    for (task, model), group in made.items():
        entry: dict[str, Any] = {"task": task, "model": model, "seeds": len(group)}
        for key in ("nmse_1", "nmse_10", "nmse_50", "nmse_100", "energy_error"):
            values = [np.inf if row[key] is None else row[key] for row in group]
            entry[key] = finite(float(np.median(values)))
        worst = [np.inf if row["nmse_100"] is None else row["nmse_100"] for row in group]
        entry["worst_100"] = finite(max(worst))
        entry["cpu_seconds"] = float(np.median([row.get("cpu_seconds", 0.0) for row in group]))
        table.append(entry)
    order = {name: index for index, name in enumerate((*SYSTEMS, *CONSERVED))}
    models = {name: index for index, name in enumerate(MODELS)}
    return sorted(table, key=lambda e: (order[e["task"]], models.get(e["model"], 99)))


def show(table: list[dict[str, Any]]) -> None:
    """Print the table: medians over test episodes, and then over seeds."""
    numbers = ("nmse_1", "nmse_10", "nmse_50", "nmse_100", "worst_100", "energy_error")
    print(
        "median normalised MSE on the test split; energy error: largest in 2000 unforced steps, relative"
    )
    print(
        f"{'task':<16}{'model':<19}{'n':>2}"
        + "".join(f"{name:>13}" for name in numbers)
        + "  cpu s"
    )
    for row in table:
        cells = (row[name] for name in numbers)
        text = "".join(f"{'-' if x is None else f'{x:.2e}':>13}" for x in cells)
        print(
            f"{row['task']:<16}{row['model']:<19}{row['seeds']:>2}{text}{row['cpu_seconds']:>7.0f}"
        )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = (*SYSTEMS, *CONSERVED)
    parser.add_argument("--systems", nargs="+", choices=tasks, default=list(tasks))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data-seed", type=int, default=1, help="of buffers and their splits")
    parser.add_argument("--epochs", type=int, default=None, help="other than the defaults")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--datasets", default="datasets", help="folder of collected buffers")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "learning.json")
    return parser.parse_args()


def main() -> None:
    """Train what is missing, row by row, and print the table."""
    arguments = parse()
    rows: list[dict[str, Any]] = []
    if arguments.out.exists():
        rows = json.loads(arguments.out.read_text())["rows"]
    known = {(row["task"], row["model"], row["seed"], row["config"]) for row in rows}
    wanted = []
    for seed in arguments.seeds:
        for task in arguments.systems:
            for model in arguments.models:
                if task in CONSERVED and model not in ("jump", "newtonian", "port_hamiltonian"):
                    continue
                config = config_of(task, model, seed, arguments.epochs, arguments.data_seed)
                if (task, model, seed, config_hash(to_dict(config))) not in known:
                    wanted.append((task, config))

    def keep(row: dict[str, Any]) -> None:
        same = (row["task"], row["model"], row["seed"])
        rows[:] = [old for old in rows if (old["task"], old["model"], old["seed"]) != same]
        rows.append(row)
        write_json(arguments.out, {"summary": summary(rows), "rows": rows})

    for task in arguments.systems:  # collects each buffer once, before runs share it
        for row in baseline_rows(task, arguments.datasets, arguments.data_seed):
            keep(row)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        runs = [pool.submit(train_and_score, *one, arguments.datasets) for one in wanted]
        for done, future in enumerate(as_completed(runs), 1):
            row = future.result()
            keep(row)
            name = f"{row['task']} {row['model']} seed {row['seed']}"
            print(f"{done}/{len(runs)} {name}: {row['nmse_100']} in {row['seconds']} s", flush=True)
    show(summary(rows))


if __name__ == "__main__":
    main()
