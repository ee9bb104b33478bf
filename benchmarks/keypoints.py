"""How long a learned simulator of pictures stays right: keypoints, every structure, beside what they replace.

    python benchmarks/keypoints.py --envs oscillator pendulum --seeds 0 1 2
    python benchmarks/keypoints.py --envs pendulum --predictors keypoint_jump keypoint_lstm spatial_jump

Trains with the defaults of `physgym train` and scores windows of the test split: 8 frames are seen, 150 steps
imagined. CPU seconds are all of a training's: seeing, reading the buffer, moving, heads. A row is written as soon
as its run is done, and an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import kept_rows, print_table, write_json

from worldmodels.configs.training import PREDICTORS, config_hash, default_config, to_dict

HERE = Path(__file__).parent
SYSTEMS = ("oscillator", "pendulum", "spaceship", "three_body")
HORIZONS = (10, 20, 40, 60, 100, 150)
THRESHOLD = 0.025
"""Normalised image MSE up to which a prediction is valid (Botev et al. 2021, arXiv:2111.05986)."""
LONG = 84
"""Steps that a good prediction stays valid for."""
COLUMNS = (
    "env", "predictor", "seed", "cpu_seconds", "valid_median", "valid_beyond_84", "px_20", "px_40", "px_60",
    "px_100", "px_150", "versus_copy_60", "energy_r_squared", "reward_r_squared_100",
)  # fmt: skip


def trained(arguments: argparse.Namespace, env: str, predictor: str, seed: int) -> dict[str, Any]:
    """Train one run with the defaults, or take the finished one, and score it."""
    import worldmodels
    from worldmodels.data import dataset_for
    from worldmodels.storage.runs import RunFolder
    from worldmodels.training import experiment

    config = replace(default_config(env, "visual", predictor), seed=seed, device=arguments.device)
    config = replace(config, data=replace(config.data, episodes=arguments.episodes))
    dataset = dataset_for(config)
    path = arguments.runs / f"{env}-{predictor}-s{seed}"
    resume = (path / "checkpoints" / "last").is_dir()
    run = RunFolder.open(path) if resume else experiment.start(replace(config, out=str(path)))
    cpu = time.process_time()
    experiment.train(config, dataset, run, resume=resume)
    cpu = time.process_time() - cpu
    model = worldmodels.load(str(path))
    row = {"env": env, "predictor": predictor, "seed": seed, "resumed": resume}
    row |= {"config": config_hash(to_dict(config)), "cpu_seconds": round(cpu, 1)}
    row |= {"parameters": sum(p.numel() for p in model.parameters())}
    return row | scores(model, dataset, arguments.problems)


def scores(model: Any, dataset: Any, count: int, steps: int = max(HORIZONS)) -> dict[str, Any]:
    """Scores of open-loop rollouts of ``model`` on ``count`` windows of the test split of ``dataset``."""
    from worldmodels.evaluation.pixels import problems
    from worldmodels.evaluation.pixels.readout import centroid_error, centroids, readout_of

    test, many = dataset.subset("test"), model.context_frames
    steps = min(steps, int(test.lengths.max()) - many + 1)
    windows = problems.cut(test, many, steps, count)
    readout = readout_of(windows.tasks.system, model.spec.image_size)
    parts: dict[str, list[np.ndarray]] = {}
    for _, batch in problems.batches(windows):
        imagined, rewards = rolled(model, batch)
        truth = batch.truth.float() / 255.0
        error = ((imagined - truth) ** 2).mean((2, 3, 4)).nan_to_num(torch.inf)
        copied = ((batch.context[:, -1:].float() / 255.0 - truth) ** 2).mean((2, 3, 4))
        bright = (truth**2).mean((2, 3, 4))
        places, visible = centroids(readout, truth)
        off = centroid_error(places, centroids(readout, imagined)[0]) / readout.meters_per_pixel
        values = {
            "error": error,
            "copied": copied,
            "nmse": error / bright.clamp(min=1e-6),
            "pixels": torch.where(visible, off, -1.0).amax(2),
            "reward": rewards,
            "wanted": torch.as_tensor(batch.rewards),
            "valid": torch.as_tensor(batch.tasks.valid),
        }
        for name, value in values.items():
            parts.setdefault(name, []).append(value.numpy())
    return summary({name: np.concatenate(value) for name, value in parts.items()}) | energies(
        model, test
    )


def summary(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Medians and ratios of values (B, T); the worst body counts, where the true picture shows it."""
    valid, steps = found["valid"], found["valid"].shape[1]
    right = (found["nmse"] <= THRESHOLD) | ~valid
    length = np.where(right.all(1), steps, right.argmin(1))
    row: dict[str, Any] = {"windows": len(valid), "steps": steps}
    row["valid_median"], row["valid_capped_at"] = float(np.median(length)), steps
    row["valid_beyond_84"] = float((length >= LONG).mean()) if steps >= LONG else None
    for horizon in (h for h in HORIZONS if h <= steps):
        at = horizon - 1
        shown = valid[:, at] & (found["pixels"][:, at] >= 0.0)
        alive = valid[:, at]
        row[f"px_{horizon}"] = float(np.median(found["pixels"][shown, at])) if shown.any() else None
        row[f"shown_{horizon}"] = int(shown.sum())
        ratio = found["error"][alive, at].mean() / max(found["copied"][alive, at].mean(), 1e-12)
        row[f"versus_copy_{horizon}"] = float(ratio)
    last = min(100, steps)
    kept = valid[:, last - 1]
    wanted, given = found["wanted"][kept, last - 1], found["reward"][kept, last - 1]
    row["reward_r_squared_100"] = 1.0 - float(((given - wanted) ** 2).mean() / wanted.var())
    row["reward_step"] = last
    return row


def rolled(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (B, T, S, S, 3) and rewards (B, T) that a model gives a batch of problems."""
    from worldmodels.evaluation.pixels.baselines import model_entry

    prediction = model_entry(model).predict(batch, False)
    return prediction.frames.float().cpu(), torch.as_tensor(prediction.rewards)


def energies(model: Any, test: Any) -> dict[str, Any]:
    """R^2 of the true energy under an affine map of the learned one, and learned damping a second."""
    from worldmodels.evaluation.pixels.probing import energies_of
    from worldmodels.evaluation.pixels.problems import sample
    from worldmodels.evaluation.statistics import affine_r_squared

    if not model.has_energy:
        return {"energy_r_squared": None, "damping": None}
    found = sample(test, model.context_frames, 1000, 100, seed=2)
    truth = found.tasks.energy(found.tasks.states)[:, 0]
    learned = energies_of(model, found)
    known = np.isfinite(learned)  # not where a body is seen in none of the frames
    row: dict[str, Any] = {"energy_r_squared": affine_r_squared(truth[known], learned[known])}
    row["energies_known"] = float(known.mean())
    rates = model.dynamics.dissipation() if model.config.dynamics.condition == "none" else None
    if rates is not None and hasattr(model, "own"):
        row["damping"] = (rates.detach() / model.own.time_scale).tolist()
    return row


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument(
        "--predictors", nargs="+", choices=list(PREDICTORS), default=["keypoint_hamiltonian"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    parser.add_argument("--episodes", type=int, default=1000, help="of the buffer")
    parser.add_argument("--problems", type=int, default=100, help="windows scored")
    parser.add_argument("--runs", type=Path, default=Path("outputs/keypoints"), help="run folders")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "keypoints.json")
    return parser.parse_args()


def main() -> None:
    """Train what is missing, row by row, and print the table."""
    arguments = parse()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    known = {(row["env"], row["predictor"], row["seed"]) for row in rows}
    for seed in arguments.seeds:
        for env in arguments.envs:
            for predictor in arguments.predictors:
                if (env, predictor, seed) not in known:
                    rows.append(trained(arguments, env, predictor, seed))
                    write_json(arguments.out, {"threshold": THRESHOLD, "rows": rows})
    print_table(rows, COLUMNS, "Keypoints on the test split, medians; worst body")


if __name__ == "__main__":
    main()
