"""What every benchmark does with its rows: one table on the screen, one JSON file, and where that lies."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str) -> None:
    """Print `columns` of `rows`; numbers with three significant digits."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console()
    if not console.is_terminal:  # lines of a file or a pipe may be as long as they are
        console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result` with the versions and the kind of machine it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packages = {
        name: _version(name) for name in ("physgym", "numpy", "torch", "gymnasium", "llvmlite")
    }
    where = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": packages,
    }
    path.write_text(json.dumps({"where": where, **result}, indent=2) + "\n")
    print(f"Written to {path}")


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a result that is there already; none where it is not."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def settled(arguments: argparse.Namespace, name: str, seeds: Sequence[int]) -> argparse.Namespace:
    """`arguments` of `benchmarks/NAME.py`, with what was not told: its result, or with `quick` one of its own
    among the runs, of the first seed.
    """
    if arguments.quick:
        arguments.runs /= "quick"
    results = Path(__file__).parent / "results"
    usual = arguments.runs / f"{name}_quick.json" if arguments.quick else results / f"{name}.json"
    arguments.out = arguments.out or usual
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else list(seeds))
    return arguments


def train_missing(config: Any) -> Path:
    """The run folder `config.out`, trained to its end: from the beginning, from where it was ended, or not at all."""
    from worldmodels.storage.runs import RunFolder
    from worldmodels.training import experiment
    from worldmodels.training.sweeps import skipped

    path = Path(config.out)
    if not (path / "config.json").is_file():
        experiment.train(config)
    elif skipped(path) is None:
        run = RunFolder.open(path)
        experiment.train(experiment.reopen(run), run=run, resume=True)
    return path


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, float):
        return (
            f"{value:.3g}"
            if (abs(value) < 1e5 and abs(value) >= 1e-3) or value == 0
            else f"{value:.2e}"
        )
    return str(value)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
