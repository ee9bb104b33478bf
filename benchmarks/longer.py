"""What keeps a beta-VAE's rollouts right beyond the length they were trained on, at equal time.

    python benchmarks/longer.py --envs oscillator pendulum --predictors spatial_jump

Trains a model with the defaults (or goes on from a run folder of `benchmarks/visual.py table`), then trains it
further in each way of `WAYS`, for about the same CPU time, and scores all of them on the same windows of the test
split: as they are, and reading their own pictures again every `rollout_steps` (`--model.refresh-steps`).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from reporting import kept_rows, print_table, train_missing, write_json
from visual import HERE, config_of, headline

from worldmodels.configs.training import TrainConfig

WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (6, {}),
    "consistency": (4, {"consistency_weight": 0.3}),
    "pushforward": (5, {"pushforward_steps": 30}),
}
"""Epochs and options of each further training; the epochs are those of about equal CPU time."""
COLUMNS = (
    "env",
    "predictor",
    "further",
    "refresh_steps",
    "cpu_seconds",
    "versus_copy_20",
    "versus_copy_40",
    "versus_copy_60",
    "versus_copy_100",
    "centroid_px_60",
    "centroid_px_100",
    "energy_r_squared",
)


def base_config(arguments: argparse.Namespace, env: str, predictor: str) -> TrainConfig:
    """What is trained first: the defaults, with the epochs of the command line."""
    config = config_of(arguments, env, predictor, arguments.seed)
    name = f"{env}-{predictor}-{arguments.size}-s{arguments.seed}"
    return replace(config, out=str(arguments.runs / name))


def further_config(config: TrainConfig, way: str, share: float) -> TrainConfig:
    """The same run trained on in one of `WAYS`, at full length from the start and at a lower rate."""
    epochs, options = WAYS[way]
    model = replace(config.model, rollout_growth=False, **options)  # type: ignore[arg-type]
    optim = replace(config.optim, lr=1.5e-3)
    epochs = max(1, round(share * epochs))
    out = f"{config.out}-{way}"
    return replace(config, model=model, optim=optim, epochs=epochs, pretrained=config.out, out=out)


def cpu_seconds(config: TrainConfig) -> float | None:
    """CPU seconds of a training, run now where it is not there; None: nobody noted them."""
    noted, began = Path(str(config.out)) / "cpu_seconds", time.process_time()
    if not (noted.parent / "checkpoints" / "best").is_dir():
        train_missing(config)
        noted.write_text(f"{time.process_time() - began:.1f}\n")
    return float(noted.read_text()) if noted.exists() else None


def scored(
    arguments: argparse.Namespace, config: TrainConfig, shared: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of one run: as it is, and reading its pictures again."""
    import worldmodels
    from worldmodels.data import dataset_for

    every = config.model.rollout_steps  # type: ignore[union-attr]
    models: dict[str, Any] = {}
    for steps in (0, every):
        model: Any = worldmodels.load(str(config.out))
        model.config = replace(model.config, refresh_steps=steps)
        models[f"refresh {steps}"] = model
    report = worldmodels.evaluate(
        models, dataset_for(config), arguments.horizon, arguments.problems
    )
    return [
        {**shared, "refresh_steps": steps, **headline(report, f"refresh {steps}")}
        for steps in (0, every)
    ]


def rows_of(arguments: argparse.Namespace, env: str, predictor: str) -> list[dict[str, Any]]:
    """Train once, go on in every way, score."""
    base = base_config(arguments, env, predictor)
    rows = []
    for way in ("", *arguments.ways):
        config = further_config(base, way, arguments.share) if way else base
        seconds = cpu_seconds(config)
        shared = {
            "env": env,
            "predictor": predictor,
            "seed": arguments.seed,
            "size": arguments.size,
        }
        shared |= {"further": way or "none", "epochs": config.epochs, "cpu_seconds": seconds}
        rows += scored(arguments, config, shared)
    return rows


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=["oscillator", "pendulum"])
    parser.add_argument("--predictors", nargs="+", default=["spatial_jump"])
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--episodes", type=int, default=1000, help="of the buffer")
    parser.add_argument("--epochs", type=int, default=None, help="of the first training")
    parser.add_argument("--share", type=float, default=1.0, help="of the epochs of each way")
    parser.add_argument("--horizon", type=int, default=100, help="steps of the rollouts scored")
    parser.add_argument("--problems", type=int, default=128, help="rollouts scored")
    parser.add_argument("--runs", type=Path, default=Path("outputs/visual"), help="run folders")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "longer.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    done = {(row["env"], row["predictor"], row["seed"]) for row in rows}
    for env in arguments.envs:
        for predictor in arguments.predictors:
            if (env, predictor, arguments.seed) not in done:
                rows += rows_of(arguments, env, predictor)
                write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "beyond the training length: errors over those of copying")


if __name__ == "__main__":
    main()
