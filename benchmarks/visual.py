"""How well, and how fast, visual world models learn: the table of scores, and frames a second in training.

    python benchmarks/visual.py table --size small --envs pendulum --predictors spatial_jump
    python benchmarks/visual.py throughput --size base --device cuda

`table` trains with the defaults of scripts/train.py and scores the test split; a row is written as soon as its
run is done, and an interrupted benchmark goes on where it was. `throughput` times whole training steps against
the same steps in plain eager float32, in alternating blocks of one process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reporting import print_table, write_json

from worldmodels.configs.training import (
    PREDICTORS,
    TrainConfig,
    config_hash,
    default_config,
    to_dict,
)

HERE = Path(__file__).parent
SYSTEMS = ("oscillator", "pendulum", "spaceship", "three_body")
COMPARED = ("spatial_jump", "spatial_newtonian", "spatial_hamiltonian")
HORIZONS = ("1", "5", "10", "20", "40", "60", "100")
"""Steps after which a run is scored, where its report reaches them."""
COLUMNS = (
    "env", "predictor", "seed", "versus_copy_20", "ceiling_20", "psnr_20", "ssim_20",
    "centroid_px_20", "centroid_px_60", "valid_time", "energy_r_squared", "energy_drift", "cpu_seconds",
)  # fmt: skip


def config_of(arguments: argparse.Namespace, env: str, predictor: str, seed: int) -> TrainConfig:
    """The defaults of a system, predictor and size, with what the command line overrides."""
    config = default_config(env, "visual", predictor, arguments.size)
    config = replace(config, seed=seed, device=arguments.device)
    config = replace(config, data=replace(config.data, episodes=arguments.episodes, seed=1))
    return config if arguments.epochs is None else replace(config, epochs=arguments.epochs)


def trained_row(arguments: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """Train (or go on with) one run, and score it."""
    import worldmodels
    from worldmodels.data import dataset_for
    from worldmodels.storage.runs import RunFolder
    from worldmodels.training import experiment

    model: Any = config.model
    dataset = dataset_for(config)
    path = arguments.runs / f"{config.env_name}-{model.predictor}-{model.size}-s{config.seed}"
    resume = (path / "checkpoints" / "last").is_dir()
    run = RunFolder.open(path) if resume else experiment.start(replace(config, out=str(path)))
    wall, cpu = time.perf_counter(), time.process_time()
    result = experiment.train(config, dataset, run, resume=resume)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    (path / "cpu_seconds").write_text(f"{cpu:.1f}\n")
    learned = worldmodels.load(str(path))
    report = worldmodels.evaluate(
        {"model": learned}, dataset, arguments.horizon, arguments.problems
    )
    row = {"env": config.env_name, "predictor": model.predictor, "seed": config.seed}
    row |= {"size": model.size, "config": config_hash(to_dict(config)), "steps": result["steps"]}
    row |= {"resumed": resume, "seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
    row |= {"parameters": sum(p.numel() for p in learned.parameters())}
    return row | headline(report)


def headline(report: dict[str, Any], name: str = "model") -> dict[str, Any]:
    """The numbers of a report that stand in the table; centroids are those of the worst body."""
    scores, ceiling = report["rows"][name], report["rows"][f"{name}, reconstruction"]
    values: dict[str, Any] = {"valid_time": scores["valid_time"]["median"]}
    for horizon in HORIZONS:
        if horizon not in scores["copy_ratio"]:
            continue
        values[f"versus_copy_{horizon}"] = scores["copy_ratio"][horizon]
        values[f"ceiling_{horizon}"] = ceiling["copy_ratio"][horizon]
        for measure in ("mse", "nmse", "psnr", "ssim"):
            values[f"{measure}_{horizon}"] = (scores[measure] or {}).get(horizon, {}).get("median")
        bodies = [cells[horizon]["median"] for cells in scores["centroid_pixels"].values()]
        values[f"centroid_px_{horizon}"] = None if None in bodies else max(bodies)
    values["probes"] = report["probes"].get(name)
    learned = report["learned_energy"].get(name)
    if learned is not None:
        last = str(max(map(int, learned["drift"])))
        values["energy_r_squared"] = learned["r_squared"]
        values["energy_drift"] = learned["drift"][last]["median"]
        values["energy_wander"] = learned["wander"]["median"]
    return values


def table(arguments: argparse.Namespace) -> None:
    """Train what is missing, row by row, and print the table."""
    rows: list[dict[str, Any]] = []
    if arguments.out.exists():
        rows = json.loads(arguments.out.read_text())["rows"]
    known = {(row["env"], row["predictor"], row["seed"], row["config"]) for row in rows}
    for seed in arguments.seeds:
        for env in arguments.envs:
            for predictor in arguments.predictors:
                config = config_of(arguments, env, predictor, seed)
                if (env, predictor, seed, config_hash(to_dict(config))) in known:
                    continue
                rows.append(trained_row(arguments, config))
                write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "Visual world models on the test split, medians")


def throughput(arguments: argparse.Namespace) -> None:
    """Time training steps of each predictor as trained, against plain eager float32."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from worldmodels.training.devices import mixed_dtype, quick_matrices, resolve_device

    device = resolve_device(arguments.device)
    best = fastest_products(device)
    rows = []
    for predictor in arguments.predictors:
        config = config_of(arguments, "pendulum", predictor, 0)
        batch, frames = noise_batch(config, device)
        dtype, compiled = mixed_dtype("auto", device), device.startswith("cuda")
        steps = {
            "eager float32": training_step(config, batch, device, None, False, False),
            "as trained": training_step(config, batch, device, dtype, compiled, True),
        }
        counter = FlopCounterMode(display=False)
        with counter:
            steps["eager float32"]()
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.blocks):
            for name, step in steps.items():
                with quick_matrices(device if name == "as trained" else "cpu"):
                    step()
                    times[name].append(seconds_of(step, device))
        median = {name: float(np.median(values)) for name, values in times.items()}
        rate = counter.get_total_flops() / median["as trained"]
        rows.append(
            {
                "predictor": predictor,
                "frames_per_s": frames / median["as trained"],
                "eager_float32_frames_per_s": frames / median["eager float32"],
                "ratio": median["eager float32"] / median["as trained"],
                "gflop_per_s": rate / 1e9,
                "share_of_measured_peak": rate / best,
                "threads": torch.get_num_threads(),
                "compiled": compiled,
                "dtype": str(dtype),
            }
        )
    title = f"Training steps, size {arguments.size}, {device} (peak {best / 1e12:.2f} TFLOP/s)"
    print_table(rows, list(rows[0]), title)
    write_json(arguments.out, {"size": arguments.size, "peak_flop_per_s": best, "rows": rows})


def noise_batch(config: TrainConfig, device: str) -> tuple[Any, int]:
    """A full training batch of noise, and its number of frames."""
    import torch

    from worldmodels.interface import Batch

    model: Any = config.model
    rows, steps = config.optim.batch_size, model.context_frames - 1 + model.rollout_steps
    frames = torch.randint(0, 256, (rows, steps + 1, 64, 64, 3), dtype=torch.uint8)
    batch = Batch(
        torch.zeros(rows, steps + 1, 2),
        torch.randint(0, 3, (rows, steps)),
        torch.zeros(rows, 0),
        torch.ones(rows, steps, dtype=torch.bool),
        frames,
        torch.zeros(rows, steps),
        torch.zeros(rows, steps, dtype=torch.bool),
    )
    moved = {k: v.to(device) for k, v in batch._asdict().items() if hasattr(v, "to")}
    return batch._replace(**moved), rows * (steps + 1)


def training_step(
    config: TrainConfig, batch: Any, device: str, dtype: Any, compiled: bool, quick: bool
) -> Callable[[], None]:
    """A function that does one whole step: loss, gradients, optimiser."""
    import torch

    from worldmodels.interface import Spec
    from worldmodels.models.building import build
    from worldmodels.training.optimisers import optimiser

    torch.manual_seed(0)
    spec = Spec("pendulum", dt=0.05, angles=(0,), image_size=64)
    model = build(spec, "visual", config.model).to(device)
    if quick:
        model.accelerate(dtype, compiled)
    moved = optimiser(config.optim, model)

    def step() -> None:
        moved.zero_grad()
        loss, _ = model.loss(batch)
        loss.backward()
        moved.step()

    return step


def seconds_of(step: Callable[[], None], device: str, count: int = 3) -> float:
    """Seconds of one call, over a few."""
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    for _ in range(count):
        step()
    wait()
    return (time.perf_counter() - began) / count


def fastest_products(device: str) -> float:
    """FLOP/s of large matrix products in the fastest type of the device: what could be had at most."""
    import torch

    from worldmodels.training.devices import mixed_dtype

    size = 8192 if device.startswith("cuda") else 1536
    a = torch.randn(size, size, device=device, dtype=mixed_dtype("auto", device) or torch.float32)
    a @ a
    return 2 * size**3 / min(seconds_of(lambda: a @ a, device) for _ in range(5))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("table", "throughput"))
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--envs", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--predictors", nargs="+", choices=list(PREDICTORS), default=list(COMPARED))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--episodes", type=int, default=1000, help="of the buffer")
    parser.add_argument("--epochs", type=int, default=None, help="other than the defaults")
    parser.add_argument("--horizon", type=int, default=60, help="steps of the rollouts scored")
    parser.add_argument("--problems", type=int, default=256, help="rollouts scored")
    parser.add_argument("--blocks", type=int, default=5, help="alternating blocks of timed steps")
    parser.add_argument("--runs", type=Path, default=Path("outputs/visual"), help="run folders")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.out = arguments.out or HERE / "results" / f"visual_{arguments.what}.json"
    return arguments


if __name__ == "__main__":
    chosen = parse()
    {"table": table, "throughput": throughput}[chosen.what](chosen)
