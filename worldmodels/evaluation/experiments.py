"""Pages of whole experiments: the tables, verdicts and curves that a script left beside its runs.

Such a script writes ``experiment.json`` into the folder of its runs: "title" and "about" (paragraphs), "tables"
("title", "head", "rows" of strings) and "curves" ("title", "x", "y", and "lines" with "name", "structure", "x", "y").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.evaluation.comparison import write_texts
from worldmodels.evaluation.pages import html, latex
from worldmodels.evaluation.plots import lines_over
from worldmodels.evaluation.tables import Table, grid
from worldmodels.storage.files import StorageError, read_json

EXPERIMENT = "experiment.json"


def read_experiment(path: Path) -> dict[str, Any]:
    """The experiment that ``path`` (its file) describes.

    Raises:
        StorageError: it cannot be read, or is not what such a script writes.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read ({error}): run its script again") from error
    try:
        tables = [Table(own["title"], own["head"], own["rows"]) for own in found["tables"]]
        curves = [
            {
                **{key: str(own[key]) for key in ("title", "x", "y")},
                "lines": [_line(line) for line in own["lines"]],
            }
            for own in found.get("curves", [])
        ]
        told = {"title": str(found["title"]), "about": list(map(str, found["about"]))}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"{path} is no experiment ({error!r}): it needs title, about, tables and curves as "
            "benchmarks/experiments.py writes them"
        ) from error
    return {**told, "tables": tables, "curves": curves}


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    x, y = ([None if v is None else float(v) for v in line[key]] for key in ("x", "y"))
    if len(x) != len(y):
        raise ValueError(f"{line['name']} has {len(x)} x and {len(y)} y")
    return {"name": str(line["name"]), "structure": str(line["structure"]), "x": x, "y": y}


def write_experiment(experiment: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write report.html, .md, .tex and .json, and the curves as PNG and PDF; returns the paths."""
    title, about, tables = experiment["title"], experiment["about"], experiment["tables"]
    plots = [
        lines_over(curve, folder / f"curves-{index}{kind}")
        for kind in (".png", ".pdf")
        for index, curve in enumerate(experiment["curves"], 1)
    ]
    shown = [plot for plot in plots if plot.suffix == ".png"]
    markdown = [f"# {title}", *(line for text in about for line in ("", text))]
    for table in tables:
        markdown += ["", f"## {table.title}", "", *grid(table.head, table.rows)]
    texts = {
        "report.html": html(title, "", [], tables, shown, about),
        "report.md": "\n".join(markdown) + "\n",
        "report.tex": "\n\n".join(latex(table) for table in tables) + "\n",
        "report.json": json.dumps(
            {**experiment, "tables": [table._asdict() for table in tables]}, allow_nan=False
        ),
    }
    return [*write_texts(texts, folder), *plots]
