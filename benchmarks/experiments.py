"""What published experiments share: the rows that are missing, a trained model with its cost, marks on every seed."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from reporting import kept_rows, print_table, settled, train_missing, write_json

SEEDS = (0, 1, 2)
Row = dict[str, Any]
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""States (N, D) and actions (N, T, A) to states (N, T, D)."""


def parser_of(description: str, name: str) -> argparse.ArgumentParser:
    """The arguments of every experiment; ``name`` is that of its script."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, help="0 1 2; 0 with --quick")
    parser.add_argument("--quick", action="store_true", help="all of it, in ten minutes")
    parser.add_argument("--runs", type=Path, default=Path("outputs") / name)
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument(
        "--out",
        type=Path,
        help=f"benchmarks/results/{name}.json, or {name}_quick.json among the runs",
    )
    return parser


def run_missing(
    arguments: argparse.Namespace,
    names: Sequence[str],
    wanted: Iterable[tuple[Any, ...]],
    row_of: Callable[..., Row],
    verdicts: Callable[[list[Row]], list[Row]],
    page: Page,
) -> list[Row]:
    """The rows of ``arguments.out`` with those of ``wanted`` that it lacks, each written as soon as it is there.

    A row is known by its values under ``names``, and made by ``row_of(arguments, *values)``; before the rows stands
    what ``verdicts`` says of them, and beside the runs the ``page`` that `physgym report` shows of them.
    """
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    write_page(arguments.runs, page, rows, verdicts(rows))
    for values in wanted:
        if values not in {tuple(row[name] for name in names) for row in rows}:
            rows.append(row_of(arguments, *values))
            said = verdicts(rows)
            write_json(arguments.out, {"verdicts": said, "rows": rows})
            write_page(arguments.runs, page, rows, said)
    return rows


class Page(NamedTuple):
    """What `physgym report` shows of an experiment."""

    description: str
    """The docstring of its script."""
    title: str
    """Of its table."""
    table: Callable[[dict[str, Any]], list[list[str]]]
    """The table of a result, its first row the header."""
    curves: Callable[[list[Row]], list[dict[str, Any]]] = lambda rows: []
    """Lines over something, see `worldmodels.evaluation.experiments`."""


def write_page(folder: Path, page: Page, rows: list[Row], verdicts: Sequence[Row]) -> None:
    """Leave in ``folder`` what `physgym report` makes a page of."""
    from worldmodels.evaluation.experiments import EXPERIMENT

    title, *about = (
        " ".join(text.split()) for text in re.split(r"\n\n|\n(?=- )", page.description)
    )
    head, *lines = [[cell.replace("`", "") for cell in line] for line in page.table({"rows": rows})]
    said = [list(map(str, line.values())) for line in verdicts]
    tables = [
        {"title": page.title, "head": head, "rows": lines},
        {"title": "verdicts", "head": list(verdicts[0]), "rows": said},
    ]
    told = [text for text in about if not text.startswith("python ")]
    document = {"title": title, "about": told, "tables": tables, "curves": page.curves(rows)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPERIMENT).write_text(json.dumps(document, indent=1) + "\n")


def trained(config: Any) -> tuple[Any, float | None]:
    """The best model of ``config.out``, trained now to its end, and the CPU seconds of that; None where it was begun
    before.
    """
    import worldmodels

    begun = (Path(config.out) / "config.json").is_file()
    began = time.process_time()
    run = train_missing(config)
    seconds = None if begun else round(time.process_time() - began, 1)
    return worldmodels.load(run), seconds


def cost(config: Any, model: Any, seconds: float | None) -> Row:
    """What stands beside every score."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "updates": config.epochs * config.optim.steps_per_epoch,
        "cpu_seconds": seconds,
    }


def predictor(model: Any) -> Predict:
    """Open loop from true starts."""
    from worldmodels.imagination import imagine

    def predict(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            latent = model.encode(torch.as_tensor(starts, dtype=torch.float32).unsqueeze(1))
            return imagine(model, latent, torch.as_tensor(actions)).double().numpy()

    return predict


def errors_of(rows: Iterable[Row], system: str, model: str, key: str) -> list[float | None]:
    """``key`` by seed; infinite where a rollout was lost, None where none ran."""
    found = {
        row["seed"]: row[key] for row in rows if (row["system"], row["model"]) == (system, model)
    }
    lost = {seed: float("inf") for seed, error in found.items() if error is None}
    return [(found | lost).get(seed) for seed in SEEDS]


def pays(own: Sequence[float | None], other: Sequence[float | None]) -> str:
    """Whether on every seed an error is at most a tenth of the other's: "pays", "does not pay", or "open"."""
    pairs = [(a, b) for a, b in zip(own, other, strict=True) if a is not None and b is not None]
    if len(pairs) < len(own):
        return "open"
    return "pays" if all(a <= 0.1 * b for a, b in pairs) else "does not pay"


def on_every_seed(values: Sequence[float | None], holds: Callable[[float], bool]) -> str:
    """Of a value a seed, None where it has not run: "missed" where one does not hold, else "reached", or "open" where
    one has not run.
    """
    known = [value for value in values if value is not None]
    if not all(holds(value) for value in known):
        return "missed"
    return "reached" if len(known) == len(values) else "open"


def print_verdicts(lines: Iterable[Mapping[str, Any]], system: str) -> None:
    """Print what is decided; ``system`` names the column of the systems."""
    said = [line for line in lines if line["verdict"] != "open"]
    print_table(said, (system, "question", "verdict"), "verdicts that are not open")


def run_systems(
    name: str,
    systems: Iterable[str],
    models: Iterable[str],
    row_of: Callable[..., Row],
    verdicts: Callable[[list[Row]], list[Row]],
    columns: Sequence[str],
    page: Page,
) -> None:
    """An experiment that trains every one of ``models`` on every one of ``systems``: its command line, what is
    missing of it, seed by seed, and its tables.
    """
    parser = parser_of(page.description, name)
    for what, known in (("--systems", list(systems)), ("--models", list(models))):
        parser.add_argument(what, nargs="+", choices=known, default=known)
    parser.add_argument("--epochs", type=int, default=30, help="of 120 updates of 256 steps")
    asked = settled(parser.parse_args(), name, SEEDS)
    wanted = (
        (system, model, seed)
        for seed in asked.seeds
        for system in asked.systems
        for model in asked.models
    )
    rows = run_missing(asked, ("system", "model", "seed"), wanted, row_of, verdicts, page)
    print_table(rows, columns, page.title)
    print_verdicts(verdicts(rows), "system")
