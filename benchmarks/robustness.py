"""What a model of keypoints makes of pictures that are not as clean as the default's.

    python benchmarks/robustness.py --cases noise texture randomised_told

Each case trains `keypoint_hamiltonian` on the pendulum with the defaults and scores rollouts of the test split
by the distance of the imagined body from where the true state puts it, in pixels. A case that cannot be read as
points has the message in place of numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import kept_rows, print_table, write_json

from worldmodels.configs.training import TrainConfig, default_config

HERE = Path(__file__).parent
HORIZONS = (20, 60, 100)
COLUMNS = ("case", "px_20", "px_60", "px_100", "energy_r_squared", "cpu_seconds", "refused")


class Changed:
    """Pictures of a buffer, each changed as it is read."""

    def __init__(self, pixels: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.pixels, self.change = pixels, change

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Any) -> Changed:
        return Changed(self.pixels.take(rows), self.change)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.change(self.pixels[rows])


def noisy(frames: np.ndarray) -> np.ndarray:
    """Gaussian noise of 0.02, another for each picture and the same each time it is read."""
    rng = np.random.default_rng(int(frames[..., ::7].sum()) % 2**32)
    shaken = frames + 255.0 * 0.02 * rng.standard_normal(frames.shape, np.float32)
    return shaken.clip(0, 255).astype(np.uint8)


def textured(frames: np.ndarray) -> np.ndarray:
    """A fixed texture of up to 0.4 wherever nothing is."""
    size = frames.shape[-2]
    texture = np.random.default_rng(3).uniform(0.0, 102.0, (size, size, 3))
    share = frames.max(-1, keepdims=True) / 230.0
    return (frames + (1.0 - share.clip(0.0, 1.0)) * texture).clip(0, 255).astype(np.uint8)


def recoloured(frames: np.ndarray) -> np.ndarray:
    """Red and blue exchanged."""
    return np.ascontiguousarray(frames[..., ::-1])


def doubled(frames: np.ndarray) -> np.ndarray:
    """A second body of the same colour: the picture's mirror image."""
    return np.maximum(frames, frames[..., ::-1, :])


CASES: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    "noise": {"change": noisy},
    "px_32": {"data": {"image_size": 32}},
    "px_128": {"data": {"image_size": 128}},
    "texture": {"change": textured},
    "colours_at_test": {"test": recoloured},
    "one_colour_twice": {"change": doubled},
    "damping_1": {"env": {"params": {"damping": 1.0}}},
    "continuous": {"env": {"action_mode": "continuous"}},
    "randomised_untold": {"env": {"randomize": True}},
    "randomised_told": {"env": {"randomize": True}, "condition": "params"},
}
"""What differs from the defaults."""


def config_of(arguments: argparse.Namespace, case: dict[str, Any]) -> TrainConfig:
    """The defaults with what differs."""
    config = default_config("pendulum", "visual", "keypoint_hamiltonian")
    data = replace(config.data, episodes=arguments.episodes, **case.get("data", {}))
    config = replace(config, data=data, env=replace(config.env, **case.get("env", {})))
    model: Any = config.model
    dynamics = replace(model.dynamics, condition=case.get("condition", "none"))
    return replace(config, model=replace(model, dynamics=dynamics), device="cpu")


def row_of(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Train and score one case."""
    import worldmodels
    from worldmodels.data import dataset_for
    from worldmodels.data.batches import TrainingError
    from worldmodels.training import experiment

    case = CASES[name]
    config = config_of(arguments, case)
    dataset = dataset_for(config)
    if "change" in case:
        pixels = Changed(dataset.pixels, case["change"])
        mark = f"{dataset.hash}-{name}"
        dataset = replace(dataset, pixels=pixels, hash=mark, path=Path(f"{dataset.path}-{name}"))
    run = experiment.start(replace(config, out=str(arguments.runs / name)))
    cpu = time.process_time()
    try:
        experiment.train(config, dataset, run)
    except TrainingError as error:
        return {"case": name, "refused": str(error).partition(": ")[2]}
    row: dict[str, Any] = {"case": name, "cpu_seconds": round(time.process_time() - cpu, 1)}
    model = worldmodels.load(run.path)
    test = dataset.subset("test")
    if "test" in case:
        test = replace(test, pixels=Changed(test.pixels, case["test"]))
    return row | scores(model, test, arguments.problems)


def scores(model: Any, test: Any, count: int) -> dict[str, Any]:
    """Pixels between imagined and true bodies, medians over ``count`` episodes; R^2 of H."""
    from worldmodels.evaluation.statistics import affine_r_squared
    from worldmodels.imagination import evaluating, read

    many, size, steps = model.context_frames, model.spec.image_size, max(HORIZONS)
    rows = np.flatnonzero(test.lengths >= many - 1 + steps)[:count]
    told = np.stack([test.params[name][rows] for name in model.spec.param_names], 1)
    frames = np.stack([test.pixels[int(row)][:many] for row in rows])
    actions = torch.as_tensor(test.actions[rows])
    found: dict[str, Any] = {"windows": len(rows)}
    with evaluating(model):
        latent = read(model, frames, test.actions[rows][:, : many - 1], told)
        learned = model.energy(latent).double().numpy()
        for step in range(1, steps + 1):
            latent = model.step(latent, actions[:, many - 2 + step])
            if step in HORIZONS:
                true = true_places(test, rows, many - 1 + step)
                off = np.linalg.norm(model.places(latent).numpy() - true, axis=2).max(1) * size / 2
                found[f"px_{step}"] = float(np.median(np.nan_to_num(off, nan=np.inf)))
    found["energy_r_squared"] = affine_r_squared(test.energy[rows, many - 1], learned)
    return found


def true_places(test: Any, rows: np.ndarray, step: int) -> np.ndarray:
    """(B, K, 2) where the true bodies are, in half-widths of the picture."""
    import physgym

    system = physgym.get_system(test.env_name)
    places = []
    for row in rows:
        params = system.Params(**{name: float(values[row]) for name, values in test.params.items()})
        scene = system.scene(tuple(test.states[row, step].tolist()), None, params, False)
        places.append([(disc.x / system.view, -disc.y / system.view) for disc in scene])
    return np.array(places)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--episodes", type=int, default=1000, help="of each buffer")
    parser.add_argument("--problems", type=int, default=100, help="episodes scored")
    parser.add_argument("--runs", type=Path, default=Path("outputs/robustness"), help="run folders")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "robustness.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    for name in arguments.cases:
        if name not in {row["case"] for row in rows}:
            rows.append(row_of(arguments, name))
            write_json(arguments.out, {"episodes": arguments.episodes, "rows": rows})
    print_table(rows, COLUMNS, "keypoint_hamiltonian, pendulum, medians in pixels")


if __name__ == "__main__":
    main()
