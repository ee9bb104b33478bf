"""World models of one medium held against the truth: the steps that all media share.

`Comparison` knows what differs between media (problems, baselines, scores, tables, plots); whoever
compares, reports or logs speaks to it and never asks whether a model sees states or pictures.
"""

from __future__ import annotations

import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from worldmodels.configs.schema import converted, require, require_number
from worldmodels.evaluation.conditions import describe
from worldmodels.evaluation.problems import check_source
from worldmodels.evaluation.statistics import plain
from worldmodels.evaluation.tables import Table, grid
from worldmodels.storage.files import atomic_write, make_parent


class Comparison(ABC):
    """How models of one medium are asked, scored and shown; a medium has one, without state."""

    medium: ClassVar[str]
    """Name in ``interface.MEDIA``."""
    horizon: ClassVar[int]
    """Steps of the rollouts where nobody says."""
    reports: ClassVar[ModuleType]
    """How a report reads and looks: a module with ``tables, definitions, legend`` and ``plots_of``."""

    def check(self, name: str, model: Any, dataset: Any) -> None:
        """Raise ``ValueError`` where ``dataset`` is not what the model ``name`` can be asked about."""
        check_source(name, model.spec, dataset)

    def longest(self, models: Mapping[str, Any], dataset: Any) -> int:
        """Steps of the longest rollout that the test split of ``dataset`` can be asked for."""
        return int(dataset.subset("test").lengths.max(initial=0))

    @abstractmethod
    def problems(self, models: Mapping[str, Any], dataset: Any, horizon: int, count: int) -> Any:
        """At most ``count`` problems of ``horizon`` steps of the test split, with what scales their errors.

        Raises ``ValueError`` where no episode is as long.
        """

    @abstractmethod
    def entries(self, models: Mapping[str, Any], problems: Any, dataset: Any) -> dict[str, Any]:
        """Every row by name: the models, what no model should fall short of, and what none can exceed."""

    @abstractmethod
    def score(
        self,
        models: Mapping[str, Any],
        entries: Mapping[str, Any],
        problems: Any,
        dataset: Any,
        dt_values: Sequence[float],
        advance: Callable[[float], object],
    ) -> dict[str, Any]:
        """A report of every entry; ``advance`` is told shares of the work as they are done."""

    def tables(
        self, report: Mapping[str, Any], quartiles: bool = True, join: str = " "
    ) -> list[Table]:
        """Every table of a report, the most telling first; ``join`` stands before quartiles."""
        return self.reports.tables(report, quartiles, join)

    def definitions(self, report: Mapping[str, Any]) -> str:
        """What columns and rows mean, for a reader who has nothing else."""
        return self.reports.definitions(report)

    def legend(self, report: Mapping[str, Any]) -> str:
        """What a terminal prints below the brief tables."""
        return self.reports.legend(report)

    def plots(self, report: Mapping[str, Any], folder: Path, suffix: str = ".png") -> list[Path]:
        """Draw the report's plots into ``folder``, in the format of ``suffix``, and return their paths."""
        return self.reports.plots_of(report, folder, suffix)


def comparison_of(medium: str) -> Comparison:
    """The comparison of a medium: the object ``COMPARISON`` in the folder that has its name."""
    return importlib.import_module(f"{__package__}.{medium}.comparison").COMPARISON


def medium_of(specs: Mapping[str, Any]) -> str:
    """The medium that all ``specs``, by row name, share. Raises ``ValueError`` where there are several."""
    found = {spec.medium: name for name, spec in specs.items()}
    if len(found) > 1:
        words = " and ".join(f"{name} learned from {medium}" for medium, name in found.items())
        raise ValueError(f"{words}: compare models of one medium at a time")
    if not found:
        raise ValueError("there is no model to compare: name one at least")
    return next(iter(found))


def evaluate(
    models: Mapping[str, Any],
    dataset: Any,
    horizon: int | None = None,
    count: int = 256,
    dt_values: Sequence[float] = (),
    *,
    origin: str = "",
    advance: Callable[[float], object] = lambda share: None,
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """Hold ``models`` against the truth, beside baselines and oracles, on the test split of ``dataset``.

    Args:
        models: by row name, a world model or the path of a run; all of one medium.
        dataset: what ``worldmodels.load_dataset`` gives.
        horizon: steps of the open-loop rollouts; None: 100 over states and 60 over pixels, or as many as
            the episodes have.
        count: rollouts, at most.
        dt_values: step lengths [s] to ask for too, over the same time; they must divide the longest.
        origin: whose buffer it is, for the header.
        advance: told shares of the work as they are done; they add up to 1.
        comparison: what to compare by; None: that of the models' medium.

    Returns:
        a report of JSON types, None for what is not finite; ``write_report`` writes it.

    Raises:
        ValueError: no model, models of several media, a dataset of another env, action kind or dt, and
            episodes shorter than the horizon.
    """
    steps, count, dt_values = _checked(models, dataset, horizon, count, dt_values)
    loaded = {name: _loaded(name, model) for name, model in models.items()}
    medium = medium_of({name: model.spec for name, model in loaded.items()})
    comparison = comparison or comparison_of(medium)
    for name, model in loaded.items():
        comparison.check(name, model, dataset)
    if steps is None:
        steps = max(1, min(comparison.horizon, comparison.longest(loaded, dataset)))
    problems = comparison.problems(loaded, dataset, steps, count)
    entries = comparison.entries(loaded, problems, dataset)
    report = comparison.score(loaded, entries, problems, dataset, dt_values, advance)
    for name, model in loaded.items():
        report["rows"][name]["parameters"] = sum(p.numel() for p in model.parameters())
    return plain({"kind": medium, "dataset": source(dataset, origin), **report})


def _checked(
    models: Any, dataset: Any, horizon: Any, count: Any, dt_values: Any
) -> tuple[int | None, int, tuple[float, ...]]:
    """``horizon``, ``count`` and ``dt_values``, once all that was asked for is of the right kind."""
    valid = isinstance(models, Mapping) and all(isinstance(name, str) for name in models)
    require("models", models, valid, 'a table of row names and models or runs, {"jump": "runs/a"}')
    valid = all(hasattr(dataset, name) for name in ("actions", "lengths", "hash"))
    require("dataset", dataset, valid, "a Dataset (worldmodels.load_dataset reads one)")
    horizon = converted(int | None, horizon, "horizon")
    count = converted(int, count, "count")
    for name, value in (("horizon", horizon), ("count", count)):
        require(name, value, value is None or value >= 1, "1 or more")
    valid = isinstance(dt_values, (Sequence, np.ndarray)) and not isinstance(dt_values, str)
    require("dt_values", dt_values, valid, "step lengths in seconds, such as (0.05, 0.1)")
    lengths = tuple(converted(float, value, "a step length in dt_values") for value in dt_values)
    for value in lengths:
        require_number("a step length in dt_values", value, 1e-6, 10)
    return horizon, count, lengths


def _loaded(name: str, model: Any) -> Any:
    if not isinstance(model, (str, os.PathLike)):
        require(f"models[{name!r}]", model, hasattr(model, "spec"), "a WorldModel or a run's path")
        return model
    from worldmodels.storage.checkpoint import load

    return load(model)


def source(dataset: Any, origin: str = "") -> dict[str, str]:
    """What a report says of its buffer; ``origin``: whose it is."""
    return {
        "path": str(dataset.path),
        "sha256": dataset.hash,
        "origin": origin or str(dataset.path),
        "conditions": describe(dataset),
    }


def header(report: Mapping[str, Any]) -> str:
    """One line: the system, its arguments, and whose buffer the rollouts are from."""
    data = report["dataset"]
    return f"{report['env']} ({data['conditions']}); buffer: {data['origin']}"


def write_report(report: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write report.json, report.md and the plots into ``folder``; returns their paths."""
    folder, comparison = Path(folder), comparison_of(report["kind"])
    make_parent(folder / "file")  # a folder that nobody may write to costs no work
    texts = {
        "report.json": json.dumps(report, allow_nan=False),
        "report.md": "\n".join(markdown(report, comparison)) + "\n",
    }
    return [*write_texts(texts, folder), *comparison.plots(report, folder)]


def write_texts(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write texts by file name into ``folder``, which is made; returns their paths."""
    make_parent(folder / "file")
    for name, text in texts.items():
        # A path that the locale could not read is surrogates; they are the bytes of its name again.
        atomic_write(folder / name, text.encode("utf-8", "surrogateescape"))
    return [folder / name for name in texts]


def markdown(report: Mapping[str, Any], comparison: Comparison) -> Iterable[str]:
    """Lines of a report in Markdown."""
    yield from (f"# {report['env']}, seen as {report['kind']}", "", f"{header(report)}.", "")
    yield comparison.definitions(report)
    for table in comparison.tables(report):
        yield from ("", f"## {table.title[0].upper()}{table.title[1:]}", "")
        yield from grid(table.head, table.rows)
