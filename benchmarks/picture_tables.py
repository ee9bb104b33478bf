"""Rows of the tables of models of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from table_parts import SYSTEMS, Table, part, pixels


def pictures(result: dict[str, Any]) -> Table:
    """Errors of imagined pictures after 20 steps, a column a run."""
    runs = _from_scratch(result)
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "mean MSE over that of copying the last frame": lambda r: part(r["versus_copy_20"]),
        "the same of the VAE's own reconstruction": lambda r: part(r["ceiling_20"]),
        "centroid error, median, in pixels of 64": lambda r: pixels(r["centroid_px_20"]),
        "PSNR, SSIM": lambda r: f"{r['psnr_20']:.1f} dB, {r['ssim_20']:.3f}",
        "core-minutes of the training": lambda r: f"{r['cpu_seconds'] / 60:.0f}",
    }
    return [_run_names(runs), *([name, *map(show, runs)] for name, show in lines.items())]


def longer(result: dict[str, Any]) -> Table:
    """What each way of training on brings beyond the training length, as it is and re-reading its pictures."""
    shown = (20, 40, 60, 100)
    table = [
        [
            "",
            "trained further",
            "reads its pictures again",
            "MSE over that of copying at 20 / 40 / 60 / 100",
        ]
    ]
    table[0] += ["centroid, px", "CPU min"]
    spent = {
        (row["env"], row["predictor"]): row["cpu_seconds"]
        for row in result["rows"]
        if row["further"] == "none"
    }
    for row in result["rows"]:
        name = f"{SYSTEMS[row['env']]}, `{row['predictor']}`"
        first = 0.0 if row["further"] == "none" else spent[row["env"], row["predictor"]]
        every = f"every {row['refresh_steps']}" if row["refresh_steps"] else "never"
        errors = " / ".join(part(row[f"versus_copy_{steps}"]) for steps in shown)
        off = " / ".join(pixels(row[f"centroid_px_{steps}"]) for steps in shown)
        minutes = f"{(first + row['cpu_seconds']) / 60:.0f}"
        table.append([name, row["further"], every, errors, off, minutes])
    return table


def latents(result: dict[str, Any]) -> Table:
    """What stands in the latent, and how good an energy the learned H is."""
    runs = _from_scratch(result)

    def velocity(kind: str) -> list[str]:
        """R^2 of a probe of the velocity: the last quantity of every system here."""
        return [f"{list(run['probes'][kind].values())[-1]:.3f}" for run in runs]

    def position(kind: str) -> list[str]:
        return [f"{min(list(run['probes'][kind].values())[:-1]):.3f}" for run in runs]

    def learned(name: str, form: str) -> list[str]:
        return [format(run[name], form) if name in run else "n/a" for run in runs]

    return [
        _run_names(runs),
        ["R² of the position, linear probe", *position("linear")],
        ["the same under random weights", *position("random weights")],
        ["R² of the velocity, linear probe", *velocity("linear")],
        ["the same under random weights", *velocity("random weights")],
        ["drift of H over its spread, 60 steps", *learned("energy_drift", ".4f")],
        ["R² of H against the true energy", *learned("energy_r_squared", ".2f")],
    ]


def _from_scratch(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in result["rows"] if "pretrained" not in run]


def _run_names(runs: Iterable[dict[str, Any]]) -> list[str]:
    return ["", *(f"{run['env']}, `{run['predictor']}`" for run in runs)]


def keypoints(result: dict[str, Any]) -> Table:
    """How long `keypoint_hamiltonian` stays right: a row a system, the worst of its seeds."""
    header = ["", "valid steps (median), of", "beyond 84", "px at 20 / 40 / 60 / 100 steps"]
    table = [[*header, "R² of H", "R² of the reward", "CPU s", "seeds"]]
    for task, name in SYSTEMS.items():
        runs = [
            run
            for run in result["rows"]
            if (run["env"], run["predictor"]) == (task, "keypoint_hamiltonian")
        ]
        if not runs:
            continue
        beyond = [run["valid_beyond_84"] for run in runs if run["valid_beyond_84"] is not None]
        off = [
            max((run[f"px_{h}"] for run in runs if run.get(f"px_{h}") is not None), default=None)
            for h in (20, 40, 60, 100)
        ]
        table.append(
            [
                name,
                f"{min(run['valid_median'] for run in runs):.0f}, {runs[0]['steps']}",
                f"{100 * min(beyond):.0f} %" if beyond else "n/a",
                " / ".join(pixels(value) for value in off),
                _nearly_one(min(run["energy_r_squared"] for run in runs)),
                f"{min(run['reward_r_squared_100'] for run in runs):.3f}",
                "-".join(sorted({f"{f(r['cpu_seconds'] for r in runs):.0f}" for f in (min, max)})),
                str(len(runs)),
            ]
        )
    return table


def _nearly_one(value: float) -> str:
    return f"1 - {1.0 - value:.0e}" if value > 0.9995 else f"{value:.4f}"


def structures(result: dict[str, Any]) -> Table:
    """Structures of the keypoint medium, seed 0, where a system has several: pixels, and what they cost."""
    found = {(run["env"], run["predictor"]): run for run in result["rows"] if run["seed"] == 0}
    counts = {name: sum(env == name for env, _ in found) for name in SYSTEMS}
    names = [name for name in SYSTEMS if counts[name] > 1]
    predictors = sorted({predictor for env, predictor in found if env in names})
    header = [(f"{SYSTEMS[n]}: px at 20 / 60 / 100 steps", "valid steps", "CPU s") for n in names]
    table = [["", *(cell for cells in header for cell in cells)]]
    for predictor in predictors:
        cells = []
        for name in names:
            run = found.get((name, predictor))
            if run is None:
                cells += ["n/a"] * 3
                continue
            cells.append(" / ".join(pixels(run.get(f"px_{h}")) for h in (20, 60, 100)))
            cells += [f"{run['valid_median']:.0f}", f"{run['cpu_seconds']:.0f}"]
        table.append([f"`{predictor}`", *cells])
    return table


CASES = {
    "as_it_is": "as they are",
    "noise": "noise of 0.02 in every pixel",
    "px_32": "32 x 32 pixels",
    "px_128": "128 x 128 pixels",
    "texture": "a texture behind",
    "colours_at_test": "red and blue exchanged at test time",
    "one_colour_twice": "two bodies of one colour",
    "damping_1": "damping 1",
    "continuous": "continuous actions",
    "randomised_untold": "randomised parameters, untold",
    "randomised_told": "the same, told",
}
"""What differs from the default, in the order of the table."""


def robustness(result: dict[str, Any]) -> Table:
    """What other pictures cost a model of keypoints."""
    table = [["", "px at 20 / 60 / 100 steps", "R² of H", "CPU s"]]
    found = {row["case"]: row for row in result["rows"]}
    for case, name in CASES.items():
        row = found.get(case)
        if (
            row is None or "refused" in row
        ):  # what is refused has no figures: the words below say it
            continue
        off = " / ".join(pixels(row[f"px_{h}"]) for h in (20, 60, 100))
        table.append([name, off, _nearly_one(row["energy_r_squared"]), f"{row['cpu_seconds']:.0f}"])
    return table


def pixel_agents(result: dict[str, Any]) -> Table:
    """Agents trained in learned pictures beside those trained in the true ones."""
    table = [["", "steps", "trained in the model", "trained in the truth", "ratio"]]
    for row in result["rows"]:
        model = f"{row['in the model']:.1f} ± {row['error']:.1f}"
        truth = f"{row['in the truth']:.1f} ± {row['error of it']:.1f}"
        table.append(
            [SYSTEMS[row["env"]], f"{row['steps']:,}", model, truth, f"{row['ratio']:.3f}"]
        )
    return table


def throughput(result: dict[str, Any]) -> Table:
    """Frames a second in training."""
    table = [["predictor", "frames a second", "over plain eager float32", "threads", "precision"]]
    for row in result["rows"]:
        rate, ratio = f"{row['frames_per_s']:,.0f}", f"{row['ratio']:.2f}"
        kind = row["dtype"].removeprefix("torch.")
        table.append([f"`{row['predictor']}`", rate, ratio, str(row["threads"]), kind])
    return table
