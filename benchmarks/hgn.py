"""The pictures of Hamiltonian Generative Networks (arXiv:1909.13789) with our media: 5 frames of 32 x 32 are seen.

    python benchmarks/hgn.py --envs mass_spring pendulum --predictors keypoint_hamiltonian spatial_hamiltonian

Free motion from starts by energy, dt 0.125 s; after 5 frames 25 more make a rollout of 30 as published, and 60 further
ones show how long a model stays right, forward and backward. What is there already is kept, row by row; `--quick`
tries all of it with few episodes and updates, into a file of its own.

There is no verdict: ours are small bodies on black, theirs fill the picture, and a squared error says how much is drawn
before it says how well. "bright_1e4" is the mean square of the true frames, what drawing nothing would be off by.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from keypoints import THRESHOLD, rolled
from reporting import kept_rows, print_table, settled, train_missing, write_json

from worldmodels.configs.training import (
    PREDICTORS,
    DataConfig,
    EnvConfig,
    TrainConfig,
    VisualConfig,
    default_config,
)

SEEDS = (0, 1, 2)
SIZE, SEEN, SHOWN, FURTHER = 32, 5, 25, 60
"""Pixels of a side, frames seen, frames of the published rollout behind them, and steps beyond it."""


class Film(NamedTuple):
    """A system as the paper films it: parameters, starts by energy, and what was published, times 1e4."""

    params: dict[str, float]
    energy: tuple[float, float]
    paper: float
    inferred: float
    """The re-implementation's, inferred from 5 frames."""


FILMS: dict[str, Film] = {
    "mass_spring": Film({"mass": 0.5, "stiffness": 2.0}, (0.01, 1.0), 6.23, 12.21),
    "pendulum": Film(  # energies of radii from 1.3 to 2.3 in the plane of angle and momentum
        {"mass": 0.5, "gravity": 3.0, "damping": 0.0}, (0.37, 1.76), 11.72, 44.12
    ),
}
COLUMNS = (
    "env", "predictor", "seed", "mse_1e4", "paper_1e4", "inferred_1e4", "valid_forward", "valid_backward",
    "energy_spread", "parameters", "cpu_seconds",
)  # fmt: skip


def config_of(arguments: argparse.Namespace, env: str, predictor: str, seed: int) -> TrainConfig:
    """The library's defaults of the predictor on free motion, reading 5 frames; energies without damping, as
    published, so that time can run backward.
    """
    film = FILMS[env]
    base = default_config(env, "visual", predictor, "small")
    model: Any = replace(base.model, context_frames=SEEN)
    if isinstance(model, VisualConfig):
        model = replace(model, encoder_frames=min(SEEN, model.encoder_frames), spatial_size=4)
    if hasattr(model.dynamics, "damping"):
        model = replace(model, dynamics=replace(model.dynamics, damping=False))
    episodes = 40 if arguments.quick else arguments.episodes
    return replace(
        base,
        env=EnvConfig(dt=0.125, params=film.params, energy=film.energy),
        model=model,
        data=DataConfig(episodes, "zero", seed, SIZE),
        epochs=1 if arguments.quick else arguments.epochs or base.epochs,
        seed=seed,
        out=str(arguments.runs / f"{env}-{predictor}-s{seed}"),
    )


def row_of(arguments: argparse.Namespace, env: str, predictor: str, seed: int) -> dict[str, Any]:
    """One model, trained and scored."""
    import worldmodels
    from worldmodels.data import dataset_for

    config = config_of(arguments, env, predictor, seed)
    dataset = dataset_for(config)
    config = replace(config, dataset=str(dataset.path))
    trained = (Path(config.out or "") / "checkpoints" / "best").is_dir()
    began = time.process_time()
    model = worldmodels.load(train_missing(config))
    seconds = None if trained else round(time.process_time() - began, 1)
    return {
        "env": env,
        "predictor": predictor,
        "seed": seed,
        **scores(model, dataset, 20 if arguments.quick else arguments.problems),
        "paper_1e4": FILMS[env].paper,
        "inferred_1e4": FILMS[env].inferred,
        "parameters": sum(p.numel() for p in model.parameters()),
        "episodes": config.data.episodes,
        "updates": config.epochs * config.optim.steps_per_epoch,
        "cpu_seconds": seconds,
    }


def scores(model: Any, dataset: Any, count: int) -> dict[str, Any]:
    """Errors and valid steps of rollouts on windows of the test split, and how far H strays along them."""
    from worldmodels.evaluation.pixels import problems
    from worldmodels.evaluation.pixels.baselines import learned_energies

    windows = problems.cut(dataset.subset("test"), SEEN, SHOWN + FURTHER, count)
    names = ("error", "bright", "forward", "backward", "energy")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for _, batch in problems.batches(windows):
        error, right = _judged(model, batch)
        parts["error"].append(error[:, :SHOWN])
        parts["bright"].append(((batch.truth[:, :SHOWN].float() / 255.0) ** 2).numpy())
        parts["forward"].append(right)
        if model.reversible:
            parts["backward"].append(_judged(model, problems.reverse(batch))[1])
        if model.has_energy:
            parts["energy"].append(learned_energies(model, batch))
    found = {name: np.concatenate(values) for name, values in parts.items() if values}
    row: dict[str, Any] = {"mse_1e4": 1e4 * float(found["error"].mean())}
    row["bright_1e4"] = 1e4 * float(found["bright"].mean())
    for name in ("forward", "backward"):
        row[f"valid_{name}"] = float(np.median(found[name])) if name in found else None
    row["valid_capped_at"], row["windows"] = SHOWN + FURTHER, len(found["error"])
    row["energy_spread"] = None
    if "energy" in found:
        along = np.ptp(found["energy"], axis=1)
        row["energy_spread"] = float(np.median(along) / np.ptp(found["energy"][:, 0]))
    return row


def _judged(model: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors (B, T) of the pictures, and the steps (B,) for which a rollout is right."""
    imagined, _ = rolled(model, batch)
    truth = batch.truth.float() / 255.0
    error = ((imagined - truth) ** 2).mean((2, 3, 4)).nan_to_num(torch.inf)
    right = (error / (truth**2).mean((2, 3, 4)).clamp(min=1e-6) <= THRESHOLD).numpy()
    return error.numpy(), np.where(right.all(1), right.shape[1], right.argmin(1))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", choices=FILMS, default=list(FILMS))
    parser.add_argument(
        "--predictors", nargs="+", choices=list(PREDICTORS), default=["keypoint_hamiltonian"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="0 1 2; 0 with --quick")
    parser.add_argument("--episodes", type=int, default=300, help="of 200 steps, of the buffer")
    parser.add_argument("--epochs", type=int, help="the library's own where it is not given")
    parser.add_argument("--problems", type=int, default=100, help="windows scored")
    parser.add_argument("--quick", action="store_true", help="all of it, in ten minutes")
    parser.add_argument("--runs", type=Path, default=Path("outputs/hgn"))
    parser.add_argument(
        "--out", type=Path, help="benchmarks/results/hgn.json, or hgn_quick.json among the runs"
    )
    return settled(parser.parse_args(), "hgn", SEEDS)


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    arguments = parse()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    for seed in arguments.seeds:
        for env in arguments.envs:
            for predictor in arguments.predictors:
                ran = {(r["env"], r["predictor"], r["seed"]) for r in rows}
                if (env, predictor, seed) not in ran:
                    rows.append(row_of(arguments, env, predictor, seed))
                    write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "pictures of 32 x 32, 5 frames seen")


if __name__ == "__main__":
    main()
