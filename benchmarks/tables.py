"""The tables of the documents, made of `results/*.json`, so that the two cannot part.

    python benchmarks/tables.py

writes every table between the marks `<!-- table: NAME, from benchmarks/results/FILE -->` and
`<!-- end of table -->` of README.md and docs/*.md anew. A test compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent_tables import loop, never_saw, planning_gap
from picture_tables import (
    keypoints,
    latents,
    longer,
    pictures,
    pixel_agents,
    robustness,
    structures,
    throughput,
)
from published_tables import hgn, hnn, hwm, lyapunov, symoden
from speed_tables import agent_pace, collection, growth, imagination, many_models, training_step
from speed_tables import pixels as pixels_a_second
from table_parts import SYSTEMS, Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(
    r"(?P<begin><!-- table: (?P<name>\w+), from benchmarks/results/(?P<file>\w+\.json) -->\n)"
    r"(?P<table>.*?)"
    r"(?P<end><!-- end of table -->)",
    flags=re.DOTALL,
)
CLASSIC = {
    "cart_pole": "cart-pole",
    "acrobot": "acrobot",
    "mass_spring": "mass on a spring, undamped",
    "n_body": "two bodies (`n_body`)",
}
"""Systems that have baselines and errors of the truth, and that no model of these tables learned."""
HORIZONS = {"oscillator": 100, "pendulum": 100, "spaceship": 100, "three_body": 50}
"""Steps after which the error of a system is shown: three bodies are chaotic before 100."""
FLOORS = ("copy-last-state", "constant-velocity", "linear-fit")
MODELS = ("jump", "lstm", "first_order", "velocity", "newtonian", "port_hamiltonian")
CONSERVED = {"free_oscillator": "oscillator, undamped", "kepler": "Kepler orbit"}


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


def accuracy(result: dict[str, Any]) -> Table:
    """Worst error of the default integrator, and of the reference, against DOP853."""
    table = [["", "start", "default integrator", "worst error", '`integrator="dop853"`']]
    for row in result["against_dop853"]:
        start = row["start"].replace("_", " ")
        errors = [_short(row[key]) for key in ("worst", "dop853_worst")]
        table.append([(SYSTEMS | CLASSIC)[row["system"]], start, f"`{row['integrator']}`", *errors])
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


def tasks(result: dict[str, Any]) -> Table:
    """Returns of doing nothing, of chance and of the controllers."""
    columns = ("nothing", "random", "controller")
    table = [["", "nothing", "random", "hand-written controller", "most possible"]]
    found = {row["system"]: row for row in result["rows"] if not row["randomize"]}
    for system, name in (SYSTEMS | CLASSIC).items():
        row = found[system]
        table.append([name, *(f"{row[c]:.0f}" for c in columns), str(row["most"])])
    return table


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], Table]]] = {
    "learning": ("learning.json", learning),
    "energy": ("learning.json", energy),
    "pictures": ("visual_small.json", pictures),
    "longer": ("longer.json", longer),
    "latents": ("visual_small.json", latents),
    "accuracy": ("physics.json", accuracy),
    "closed_forms": ("physics.json", closed_forms),
    "speed": ("env_steps.json", speed),
    "throughput": ("visual_throughput_cpu.json", throughput),
    "tasks": ("baselines.json", tasks),
    "keypoints": ("keypoints.json", keypoints),
    "hwm": ("hwm.json", hwm),
    "lyapunov": ("hwm.json", lyapunov),
    "hnn": ("hnn.json", hnn),
    "symoden": ("symoden.json", symoden),
    "hgn": ("hgn.json", hgn),
    "structures": ("keypoints.json", structures),
    "robustness": ("robustness.json", robustness),
    "pixel_agents": ("pixel_agents.json", pixel_agents),
    "loop": ("loop.json", loop),
    "planning_gap": ("planning_gap.json", planning_gap),
    "never_saw": ("never_saw.json", never_saw),
    "imagination": ("imagination.json", imagination),
    "training_step": ("training_step.json", training_step),
    "many_models": ("many_models.json", many_models),
    "agent_pace": ("agent_pace.json", agent_pace),
    "pixels": ("pixels.json", pixels_a_second),
    "collection": ("collection.json", collection),
    "growth": ("growth.json", growth),
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
