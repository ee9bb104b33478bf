"""A report as files to read, to print and to go on with: HTML, Markdown, CSV, LaTeX, PNG and PDF."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from worldmodels.evaluation.comparison import comparison_of, header, markdown, write_texts
from worldmodels.evaluation.summary import HALVES
from worldmodels.evaluation.tables import Table

TEMPLATE = "page.html.j2"


def write_pages(
    report: Mapping[str, Any], folder: Path, title: str, notes: list[str] | None = None
) -> list[Path]:
    """Write report.html, .md, .csv, .tex and .json, and the plots as PNG and PDF; returns the paths.

    ``title``: what is compared; ``notes``: lines for the reader, such as which runs failed.
    """
    comparison = comparison_of(report["kind"])
    plots = comparison.plots(report, folder)
    tables, notes = comparison.tables(report), notes or []
    texts = {
        "report.html": html(
            title, header(report), notes, tables, plots,
            comparison.definitions(report).split("\n\n"), report.get("confidence"),
        ),
        "report.md": "\n".join([*markdown(report, comparison), "", *notes]) + "\n",
        "report.csv": comma_separated(report),
        "report.tex": "\n\n".join(latex(table) for table in tables) + "\n",
        "report.json": json.dumps(report, allow_nan=False),
    }  # fmt: skip
    written = write_texts(texts, folder)
    return [*written, *plots, *comparison.plots(report, folder, ".pdf")]


def html(
    title: str,
    header: str,
    notes: list[str],
    tables: list[Table],
    plots: list[Path],
    definitions: list[str],
    confidence: float | None = None,
) -> str:
    """One page with its pictures inside, that needs no script and no network."""
    import jinja2

    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = _interval
    pictures = [
        (path.stem.replace("_", " "), base64.b64encode(path.read_bytes()).decode())
        for path in plots
    ]
    return environment.from_string(source).render(
        title=title,
        header=header,
        notes=notes,
        tables=tables,
        pictures=pictures,
        definitions=definitions,
        confidence=confidence,
    )


def _interval(text: str) -> Any:
    """Quartiles in a line of their own, under their median."""
    import markupsafe

    found = re.fullmatch(r"(\S+) (\([^()]+, [^()]+\))", text)
    if found is None:
        return text
    return markupsafe.Markup("{}<small>{}</small>").format(*found.groups())


def comma_separated(report: Mapping[str, Any]) -> str:
    """Every number of the rows, one a line: row, measure, its value and interval (or quartiles)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "kind", "runs", "measure", "value", "low", "high"])
    for name, row in report["rows"].items():
        for measure, value, low, high in _numbers(row):
            writer.writerow([name, row["kind"], row.get("runs", 1), measure, value, low, high])
    return text.getvalue()


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    if isinstance(value, Mapping):
        if "median" not in value:
            halves = value.get(HALVES, {})
            for key, inner in value.items():
                label, half = f"{name}.{key}".lstrip("."), halves.get(key)
                if half is not None and inner is not None:
                    yield label, inner, inner - half, inner + half
                elif key != HALVES:
                    yield from _numbers(inner, label)
        elif not isinstance(value["median"], list):
            yield name, value["median"], value["q25"], value["q75"]
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "runs":
        yield name, value, None, None


def latex(table: Table) -> str:
    """A table for a paper: needs the package booktabs."""
    columns = "l" + "r" * (len(table.head) - 1)
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    return "\n".join(
        [
            f"% {table.title}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_escaped, table.head)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


_SPECIAL = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_SIGNS = {"±": r"$\pm$", "²": "$^2$", "µ": r"$\mu$", ">=": r"$\geq$", "~": r"\textasciitilde{}"}


def _escaped(text: str) -> str:
    """Text for LaTeX; numbers such as 1.2e-5 as powers of ten."""
    found = "".join(_SPECIAL.get(sign, sign) for sign in text.replace("\\", "/"))
    for sign, code in _SIGNS.items():
        found = found.replace(sign, code)
    found = re.sub(r"(\d\.\d+)e0(?!\d)", r"\1", found)
    return re.sub(r"(\d(?:\.\d+)?)e(-?\d+)", r"$\1\\times10^{\2}$", found)
