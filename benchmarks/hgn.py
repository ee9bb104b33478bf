"""The pictures of Hamiltonian Generative Networks (arXiv:1909.13789) with our media: 5 frames of 32 x 32 are seen.

    python benchmarks/hgn.py --films mass_spring pendulum two_bodies three_bodies
    python benchmarks/hgn.py --films pendulum --predictors spatial_hamiltonian --size tiny

Free motion from the published starts, dt 0.125 s, filmed as `hgn_films.py` says; after 5 frames 25 more make a rollout
of 30 as published, and 60 further ones show how long a model stays right, forward and backward. What is there already
is kept, row by row; `--quick` tries all of it with few episodes and updates, into a file of its own. Films whose name
ends in `_noise` show every phase point with the published noise, which no model can foresee: "floor_1e4" is what the
pictures of the true motion without noise are off by. Rules of the verdicts, written down before the first whole run of
these films:

- goal: on every seed of `keypoint_hamiltonian` (small) the mean squared error of the 25 frames is at or below the
  paper's, of films without noise; "missed" where one seed is not, "open" where a seed
  has not run. It speaks of the re-implementation's way to draw: how large the paper's own discs are is not known.
- three bodies, whose force 600 updates do not find, have 3,000: so chosen after seed 0 had missed with 600 (17.3).
- "bright_1e4" is the mean square of the true frames, what drawing nothing would be off by: it says how hard a film is.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any, NamedTuple

import hgn_films
import numpy as np
import published_tables
import torch
from experiments import (
    SEEDS,
    Page,
    cost,
    on_every_seed,
    parser_of,
    print_verdicts,
    run_missing,
    trained,
)
from keypoints import THRESHOLD, rolled
from reporting import print_table, settled

import physgym
from worldmodels.configs.training import (
    PREDICTORS,
    DataConfig,
    EnvConfig,
    TrainConfig,
    VisualConfig,
    default_config,
)

SIZE, SEEN, SHOWN, FURTHER = hgn_films.PIXELS, 5, 25, 60
"""Pixels of a side, frames seen, frames of the published rollout behind them, and steps beyond it."""
TESTED = "keypoint_hamiltonian"


class Film(NamedTuple):
    """A system as it is filmed: parameters, starts by energy, and what was published, times 1e4."""

    system: str
    params: dict[str, float]
    energy: tuple[float, float] | None
    """None: the system's own starts are the published ones."""
    paper: float
    seen: float
    """The re-implementation's, inferred from all frames, and ..."""
    inferred: float
    """... from 5."""
    epochs: int = 6
    """Of 100 updates, of a keypoint model."""
    noise: bool = False
    """Whether every picture shows another phase point."""


_PENDULUM = {"mass": 0.5, "gravity": 3.0, "damping": 0.0}
_BODIES = {"softening": 0.0}
_SPRING = {"mass": 0.5, "stiffness": 2.0}
FILMS: dict[str, Film] = {
    "mass_spring": Film("hgn_spring", _SPRING, (0.01, 1.0), 6.23, 7.12, 12.21),
    "pendulum": Film(  # energies of radii from 1.3 to 2.3 in the plane of angle and momentum
        "hgn_pendulum", _PENDULUM, (0.37, 1.76), 11.72, 14.97, 44.12
    ),
    "two_bodies": Film("hgn_pair", _BODIES, None, 16.47, 3.36, 6.33),
    "three_bodies": Film("hgn_three", _BODIES, None, 9.8, 8.81, 3.35, epochs=30),
}
FILMS |= {
    f"{name}_noise": film._replace(system=f"{film.system}_noise", noise=True)
    for name, film in FILMS.items()
}
COLUMNS = (
    "film", "predictor", "size", "seed", "mse_1e4", "bright_1e4", "floor_1e4", "paper_1e4", "inferred_1e4",
    "valid_forward", "valid_backward", "energy_spread", "parameters", "cpu_seconds",
)  # fmt: skip


def config_of(
    arguments: argparse.Namespace, name: str, predictor: str, size: Any, seed: int
) -> TrainConfig:
    """The library's defaults of the predictor on free motion, reading 5 frames; energies without damping, as
    published, so that time can run backward.
    """
    film = FILMS[name]
    base = default_config(film.system, "visual", predictor, size)
    model: Any = replace(base.model, context_frames=SEEN)
    if isinstance(model, VisualConfig):
        model = replace(model, encoder_frames=min(SEEN, model.encoder_frames), spatial_size=4)
    if hasattr(model.dynamics, "damping"):
        model = replace(model, dynamics=replace(model.dynamics, damping=False))
    episodes = 40 if arguments.quick else arguments.episodes
    own = base.epochs if isinstance(model, VisualConfig) else film.epochs
    epochs = arguments.epochs or own
    return replace(
        base,
        env=EnvConfig(dt=0.125, params=film.params, energy=film.energy),
        model=model,
        data=DataConfig(episodes, "zero", seed, SIZE),
        epochs=1 if arguments.quick else epochs,
        seed=seed,
        out=str(arguments.runs / f"{name}-{predictor}-{size}-s{seed}-e{epochs}"),
    )


def row_of(
    arguments: argparse.Namespace, name: str, predictor: str, size: str, seed: int
) -> dict[str, Any]:
    """One model, trained and scored."""
    from worldmodels.data import dataset_for

    config = config_of(arguments, name, predictor, size, seed)
    dataset = dataset_for(config, str(arguments.datasets))
    config = replace(config, dataset=str(dataset.path))
    model, seconds = trained(config)
    film = FILMS[name]
    return {
        "film": name,
        "predictor": predictor,
        "size": size,
        "seed": seed,
        **scores(model, dataset, 20 if arguments.quick else arguments.problems),
        "floor_1e4": floor(dataset, film) if film.noise else 0.0,
        "paper_1e4": film.paper,
        "seen_1e4": film.seen,
        "inferred_1e4": film.inferred,
        "episodes": config.data.episodes,
        **cost(config, model, seconds),
    }


def floor(dataset: Any, film: Film, episodes: int = 20) -> float:
    """Mean squared error, times 1e4, of pictures of the true motion without the noise that is on those of the data."""
    from physgym.rendering import render_batch

    test = dataset.subset("test")
    system = physgym.get_system(film.system.removesuffix("_noise"))
    params = system.check_params(film.params)
    wrong = []
    for row in range(min(episodes, len(test))):
        states = test.states[row, : int(test.lengths[row]) + 1].tolist()
        scenes = [system.scene(tuple(state), None, params, False) for state in states]
        clean = render_batch(scenes, system.view, SIZE) / 255.0
        wrong.append(((test.pixels[row][: len(states)] / 255.0 - clean) ** 2).mean())
    return 1e4 * float(np.mean(wrong))


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rule at the head of this file says of ``rows``, a line a film."""
    lines = []
    for name, film in FILMS.items():
        if film.noise:
            continue
        found = {
            row["seed"]: row["mse_1e4"]
            for row in rows
            if (row["film"], row["predictor"], row["size"]) == (name, TESTED, "small")
        }
        said = on_every_seed([found.get(seed) for seed in SEEDS], film.paper.__ge__)
        lines.append({"film": name, "question": "goal", "verdict": said})
    return lines


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
    parser = parser_of(__doc__, "hgn")
    clean = [name for name, film in FILMS.items() if not film.noise]
    parser.add_argument("--films", nargs="+", choices=FILMS, default=clean)
    parser.add_argument("--predictors", nargs="+", choices=list(PREDICTORS), default=[TESTED])
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--episodes", type=int, default=300, help="of the buffer")
    parser.add_argument(
        "--epochs", type=int, help="6 of keypoints (three bodies 30), else the library's own"
    )
    parser.add_argument("--problems", type=int, default=100, help="windows scored")
    return settled(parser.parse_args(), "hgn", SEEDS)


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    arguments = parse()
    hgn_films.register()
    wanted = (
        (film, predictor, arguments.size, seed)
        for seed in arguments.seeds
        for film in arguments.films
        for predictor in arguments.predictors
    )
    names = ("film", "predictor", "size", "seed")
    title = "pictures of 32 x 32, 5 frames seen"
    page = Page(__doc__, title, published_tables.hgn)
    rows = run_missing(arguments, names, wanted, row_of, verdicts, page)
    print_table(rows, COLUMNS, title)
    print_verdicts(verdicts(rows), "film")


if __name__ == "__main__":
    main()
