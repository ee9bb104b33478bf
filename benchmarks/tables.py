"""The tables of the documents, made of `results/*.json`, so that the two cannot part.

    python benchmarks/tables.py

writes every table between the marks `<!-- table: NAME, from benchmarks/results/FILE -->` and
`<!-- end of table -->` of README.md and docs/*.md anew. A test compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(
    r"(?P<begin><!-- table: (?P<name>\w+), from benchmarks/results/(?P<file>\w+\.json) -->\n)"
    r"(?P<table>.*?)"
    r"(?P<end><!-- end of table -->)",
    flags=re.DOTALL,
)
SYSTEMS = {
    "oscillator": "oscillator",
    "pendulum": "pendulum",
    "spaceship": "spaceship",
    "three_body": "three bodies",
}
CLASSIC = {
    "cart_pole": "cart-pole",
    "acrobot": "acrobot",
    "mass_spring": "mass on a spring, undamped",
    "n_body": "two bodies (`n_body`)",
}
"""Systems whose tasks have baselines, and that no model of these tables learned."""
HORIZONS = {"oscillator": 100, "pendulum": 100, "spaceship": 100, "three_body": 50}
"""Steps after which the error of a system is shown: three bodies are chaotic before 100."""
FLOORS = ("copy-last-state", "constant-velocity", "linear-fit")
MODELS = ("jump", "lstm", "first_order", "velocity", "newtonian", "port_hamiltonian")
CONSERVED = {"free_oscillator": "oscillator, undamped", "kepler": "Kepler orbit"}

Table = list[list[str]]
"""Rows of cells; the first is the header."""


def learning(result: dict[str, Any]) -> Table:
    """Median error of every structure on every system, with seeds and cost."""
    found = {(row["task"], row["model"]): row for row in result["summary"]}

    def error(task: str, model: str) -> float:
        return found[task, model][f"nmse_{HORIZONS[task]}"]

    columns = [f"{name}, {HORIZONS[task]}" for task, name in SYSTEMS.items()]
    table = [["model", *columns, "seeds", "CPU s"]]
    for model in (*FLOORS, *MODELS):
        cells = [_short(error(task, model)) for task in SYSTEMS]
        trained = model in MODELS
        seeds = str(found["pendulum", model]["seeds"]) if trained else ""
        table.append([f"`{model}`", *cells, seeds, _cost(result, model) if trained else ""])
    ratios = [error(task, "jump") / error(task, "port_hamiltonian") for task in SYSTEMS]
    table.append(["`jump` over `port_hamiltonian`", *(f"{ratio:.2g}" for ratio in ratios), "", ""])
    return table


def _cost(result: dict[str, Any], model: str) -> str:
    runs = [r for r in result["rows"] if r["model"] == model and r["task"] in SYSTEMS]
    seconds = [run["cpu_seconds"] for run in runs]
    return f"{min(seconds):.0f}-{max(seconds):.0f}"


def energy(result: dict[str, Any]) -> Table:
    """How far the true energy strays where nothing changes it."""
    models = ("jump", "newtonian", "port_hamiltonian")
    found = {(row["task"], row["model"]): row for row in result["summary"]}
    table = [["", *(f"`{model}`" for model in models)]]
    for task, name in CONSERVED.items():
        rows = [found[task, model] for model in models]
        table.append([name, *(f"{_short(row['energy_error'])} ({row['seeds']})" for row in rows)])
    return table


def pictures(result: dict[str, Any]) -> Table:
    """Errors of imagined pictures after 20 steps, a column a run."""
    runs = _from_scratch(result)
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "mean MSE over that of copying the last frame": lambda r: _part(r["versus_copy_20"]),
        "the same of the VAE's own reconstruction": lambda r: _part(r["ceiling_20"]),
        "centroid error, median, in pixels of 64": lambda r: _pixels(r["centroid_px_20"]),
        "PSNR, SSIM": lambda r: f"{r['psnr_20']:.1f} dB, {r['ssim_20']:.3f}",
        "core-minutes of the training": lambda r: f"{r['cpu_seconds'] / 60:.0f}",
    }
    return [_run_names(runs), *([name, *map(show, runs)] for name, show in lines.items())]


def longer(result: dict[str, Any]) -> Table:
    """The pendulum's `spatial_jump` before and after the training on what it imagines."""
    pair = [r for r in result["rows"] if (r["env"], r["predictor"]) == ("pendulum", "spatial_jump")]
    pair.sort(key=lambda run: "pretrained" in run)
    header = ["steps", "MSE over that of copying: before", "after", "centroid in pixels: before"]
    table = [[*header, "after"]]
    for steps in (20, 40, 60):
        errors = [_part(run[f"versus_copy_{steps}"]) for run in pair]
        table.append([str(steps), *errors, *(_pixels(run[f"centroid_px_{steps}"]) for run in pair)])
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
                " / ".join(_pixels(value) for value in off),
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
            cells.append(" / ".join(_pixels(run.get(f"px_{h}")) for h in (20, 60, 100)))
            cells += [f"{run['valid_median']:.0f}", f"{run['cpu_seconds']:.0f}"]
        table.append([f"`{predictor}`", *cells])
    return table


def accuracy(result: dict[str, Any]) -> Table:
    """Worst error of the default integrator, and of the reference, against DOP853."""
    rows = result["against_dop853"]
    starts = [row["start"].replace("_", " ") for row in rows if row["system"] == "three_body"]
    names = [name for name in SYSTEMS.values() if name != "three bodies"]
    table = [["", *names, f"three bodies: {', '.join(starts)}"]]
    for name, key in (("default integrator", "worst"), ('`integrator="dop853"`', "dop853_worst")):
        cells = [", ".join(_short(r[key]) for r in rows if r["system"] == task) for task in SYSTEMS]
        table.append([name, *cells])
    return table


def closed_forms(result: dict[str, Any]) -> Table:
    """Errors against formulas."""
    table = [["closed form", "default integrator", '`integrator="dop853"`']]
    for row in result["closed_forms"]:
        name = row["closed form"].replace("three_body", "three bodies")
        table.append([name, _short(row["default"]), _short(row["dop853"])])
    return table


def speed(result: dict[str, Any]) -> Table:
    """Time of a step beside a peer's."""
    table = [["", "ours", "peer", "ratio", "goal"]]
    for row in result["rows"]:
        ours, peer = _microseconds(row["microseconds"]), _microseconds(row["peer_microseconds"])
        cells = [row["what"], ours, f"{row['peer']}: {peer}", f"{row['ratio']:.2f}", row["goal"]]
        table.append(cells)
    return table


def throughput(result: dict[str, Any]) -> Table:
    """Frames a second in training."""
    table = [["predictor", "frames a second", "over plain eager float32", "threads", "precision"]]
    for row in result["rows"]:
        rate, ratio = f"{row['frames_per_s']:,.0f}", f"{row['ratio']:.2f}"
        kind = row["dtype"].removeprefix("torch.")
        table.append([f"`{row['predictor']}`", rate, ratio, str(row["threads"]), kind])
    return table


def tasks(result: dict[str, Any]) -> Table:
    """Returns of doing nothing, of chance and of the controllers."""
    columns = ("nothing", "random", "controller")
    table = [["", "nothing", "random", "hand-written controller", "most possible"]]
    found = {row["system"]: row for row in result["rows"] if not row["randomize"]}
    for system, name in (SYSTEMS | CLASSIC).items():
        row = found[system]
        table.append([name, *(f"{row[c]:.0f}" for c in columns), str(row["most"])])
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
        off = " / ".join(_pixels(row[f"px_{h}"]) for h in (20, 60, 100))
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


def loop(result: dict[str, Any]) -> Table:
    """Returns over true steps, with a model and without."""
    table = [["seed", "agent", "true steps: return", "steps to the threshold"]]
    pairs = sorted({(row["seed"], row["agent"]) for row in result["rows"]})
    for seed, agent in pairs:
        rows = [row for row in result["rows"] if (row["seed"], row["agent"]) == (seed, agent)]
        shown = "; ".join(f"{row['true_steps']:,}: {row['return']:.0f}" for row in rows)
        reached = rows[0]["steps_to_threshold"]
        table.append([str(seed), agent, shown, "not yet" if reached is None else f"{reached:,}"])
    return table


def planning_gap(result: dict[str, Any]) -> Table:
    """Returns of planning in a model and in the truth."""
    table = [["", "model", "planned in it", "in the truth", "chance", "score (95 %)", "verdict"]]
    for row in result["rows"]:
        score = f"{row['score']:.3f} ({row['low']:.3f}, {row['high']:.3f})"
        means = [f"{row[name]:.1f}" for name in ("return", "truth", "random")]
        name = SYSTEMS.get(row["env"], row["env"])
        table.append([name, f"`{row['model']}`", *means, score, row["verdict"]])
    return table


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], Table]]] = {
    "learning": ("learning.json", learning),
    "energy": ("learning.json", energy),
    "pictures": ("visual_small.json", pictures),
    "longer": ("visual_small.json", longer),
    "latents": ("visual_small.json", latents),
    "accuracy": ("physics.json", accuracy),
    "closed_forms": ("physics.json", closed_forms),
    "speed": ("env_steps.json", speed),
    "throughput": ("visual_throughput_cpu.json", throughput),
    "tasks": ("baselines.json", tasks),
    "keypoints": ("keypoints.json", keypoints),
    "structures": ("keypoints.json", structures),
    "robustness": ("robustness.json", robustness),
    "pixel_agents": ("pixel_agents.json", pixel_agents),
    "loop": ("loop.json", loop),
    "planning_gap": ("planning_gap.json", planning_gap),
}
"""Name of a table: the file of its figures, and what makes its rows of them."""


def drawn(text: str) -> str:
    """A document with its marked tables as the results have them.

    Raises ValueError where a mark names no table, or another file than the table's.
    """
    return MARKED.sub(lambda mark: mark["begin"] + _lines(mark) + mark["end"], text)


def _lines(mark: re.Match[str]) -> str:
    if mark["name"] not in TABLES:
        raise ValueError(f"no table {mark['name']!r}: choose one of {', '.join(TABLES)}")
    file, make = TABLES[mark["name"]]
    if mark["file"] != file:
        raise ValueError(f"table {mark['name']!r} is made of {file}, not of {mark['file']}")
    header, *rows = make(json.loads((RESULTS / file).read_text(encoding="utf-8")))
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def unmarked(text: str) -> Iterator[str]:
    """Rows with a figure in tables that no mark ties to a result; `code` and Name3 are no figures."""
    for block in re.split(r"\n\s*\n", MARKED.sub("", text)):
        lines = block.splitlines()
        if not any("|" in line and re.fullmatch(r"[\s|:-]*-[\s|:-]*", line) for line in lines):
            continue
        for line in lines:
            if re.search(r"\b\d", re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)):
                yield line


def _short(value: float) -> str:
    """Two digits and a power of ten, without a padded exponent: 4.9e-4."""
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(power)}"


def _part(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if ratio < 0.1 else f"1/{1 / ratio:.1f}"


def _pixels(value: float | None) -> str:
    return "lost" if value is None else f"{value:.2f}"


def _microseconds(value: float) -> str:
    return f"{value:.1f} µs" if value < 50 else f"{value:.0f} µs"


def main() -> None:
    """Write the tables of all documents."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if drawn(text) != text:
            document.write_text(drawn(text), encoding="utf-8")
            print(f"Written to {document.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
