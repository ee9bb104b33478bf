"""One page of a whole sweep, or of any runs: tables, plots, means and intervals over seeds.

    physgym report                       the last sweep or run under outputs/
    physgym report 2026-01-01/12-00-00   a sweep, or the runs that lie there
    physgym report outputs/.../jump outputs/.../lstm
    physgym report outputs/hwm           a published experiment (benchmarks/)

Writes report.html (one file, pictures inside), report.md, .csv, .tex, .json, and the plots as PNG and PDF.
Runs of one model that differ in their seed alone are one row: the mean over runs, and its t-interval.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.commands.evaluate import check_physics, find_test_data
from worldmodels.storage.files import StorageError
from worldmodels.storage.runs import (
    OUTPUTS,
    RECORD,
    RunError,
    RunFolder,
    run_of,
    runs_by_depth,
)
from worldmodels.training.sweeps import PLAN, read_plan


@dataclass(frozen=True)
class ReportConfig:
    """What to report on."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = ("last",)
    """<date>/<time>, a folder of runs, runs, or last: what was begun last under outputs/."""
    per_run: bool = False
    """A row a run, instead of a row a model."""
    dataset: str | None = None
    """Buffer whose test split is asked; None: the one that the runs learned from."""
    horizon: int | None = None
    """Steps of the rollouts. None: 100, in pixels 60, or as many as the episodes have."""
    dt_values: tuple[float, ...] = ()
    """Step lengths [s] to ask for over the same time, actions held for the longest of them."""
    problems: int = 256
    """Rollouts, at most."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of each run."""
    out: Path | None = None
    """Folder to write to; None: `report` in the folder of the runs, or outputs/report-<time>."""


def main() -> None:
    """Report on what the command line names."""
    config = cli.parse(ReportConfig, description=__doc__)
    if (experiment := _experiment(config.paths)) is not None:
        show_experiment(experiment, config.out or experiment.parent / "report")
    else:
        write(config)


def _experiment(paths: Sequence[str]) -> Path | None:
    """The file of the experiment that ``paths`` mean: one folder that holds it."""
    from worldmodels.evaluation.experiments import EXPERIMENT

    if len(paths) != 1:
        return None
    found = (Path(paths[0]) / EXPERIMENT, OUTPUTS / paths[0] / EXPERIMENT)
    return next((path for path in found if path.is_file()), None)


def show_experiment(path: Path, folder: Path) -> None:
    """Write the pages of the experiment of ``path`` to ``folder``, and say where they lie."""
    from worldmodels.evaluation.experiments import read_experiment, write_experiment

    cli.check_writable(folder, folder=True)
    experiment = read_experiment(path)
    files = write_experiment(experiment, folder)
    print(experiment["title"])
    print(f"report  {files[0]}")


def write(config: ReportConfig) -> None:
    """Compare the runs and write the report, then show its first table and where it lies."""
    import worldmodels
    from worldmodels.evaluation.comparison import comparison_of, evaluate
    from worldmodels.evaluation.pages import write_pages
    from worldmodels.evaluation.summary import grouped
    from worldmodels.training.sweeps import group_of

    runs, unfinished = runs_of(config.paths)
    folder = config.out or _folder(config.paths, runs)
    cli.check_writable(folder, folder=True)
    models = {name: worldmodels.load(str(run), config.checkpoint) for name, run in runs.items()}
    spec = next(iter(models.values())).spec
    dataset = find_test_data(config.dataset, next(iter(runs.values())), spec.env_name)
    check_physics(config.dataset, models, dataset)
    if config.dataset is None:
        _check_one_buffer(runs)
    with cli.progress_in_shares("evaluating") as advance:
        report = evaluate(
            models, dataset, config.horizon, config.problems, config.dt_values,
            origin=cli.from_here(dataset.path), advance=advance,
        )  # fmt: skip
    if not config.per_run:
        report = grouped(report, {name: group_of(name) for name in runs})
    files = write_pages(report, folder, f"{report['env']}: {len(runs)} runs", unfinished)
    comparison = comparison_of(report["kind"])
    table = comparison.tables(report, quartiles=cli.width() >= 130, join="\n")[0]
    cli.print_table(table.title, table.head, table.rows)
    for line in unfinished:
        print(line)
    print(f"report  {files[0]}")


def runs_of(paths: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Finished runs by row name, and a line on every other that was found.

    Raises UsageError where a path holds no run, or no run is finished.
    """
    found: list[Path] = []
    for path in paths:
        found += [run for run in _below(_resolved(path)) if run not in found]
    done = [run for run in found if (run / "checkpoints").is_dir() and _status(run) != "failed"]
    rest = [
        f"{run} is left out: its training is {_status(run)}" for run in found if run not in done
    ]
    if not done:
        told = f": {'; '.join(rest)}" if rest else ""
        raise cli.UsageError(f"{' '.join(paths)} holds no run with a checkpoint{told}")
    return dict(zip(_names(done), done, strict=True)), rest


def _resolved(text: str) -> Path:
    if text == "last":
        return _last()
    for path in (Path(text), OUTPUTS / text):
        if path.exists():
            return path
    raise cli.UsageError(
        f"no folder {text!r}, nor {OUTPUTS / text}: give <date>/<time>, a folder of runs, runs, or last"
    )


def _last() -> Path:
    """The run that was begun last under outputs/, or the sweep that it is a cell of."""
    began: dict[Path, str] = {}
    for run in itertools.chain(*runs_by_depth(OUTPUTS)):
        with contextlib.suppress(RunError):  # a damaged run is not the last one
            began[run] = RunFolder.open(run).record.get("started") or ""
    if not began:
        raise cli.UsageError(
            f"last: there is no run under {OUTPUTS}/: train one first (physgym train)"
        )
    last = max(began, key=lambda run: began[run])
    together = (last.parent / PLAN).is_file() or re.match(r"\d{4}-", last.parent.parent.name)
    return last.parent if together else last


def _below(path: Path) -> list[Path]:
    """The run that ``path`` means, or the runs one or two levels below it."""
    own = run_of(path)
    if (own / RECORD).is_file():
        return [own]
    runs = next(filter(None, runs_by_depth(path)), [])
    names: list[str] = []
    with contextlib.suppress(RunError, StorageError):
        names = [cell.name for cell in read_plan(path) or ()]
    # In the order that the sweep was asked for.
    return sorted(runs, key=lambda run: names.index(run.name) if run.name in names else len(names))


def _status(run: Path) -> str:
    return str(RunFolder.open(run).record.get("status", "unknown"))


def _names(runs: Sequence[Path]) -> list[str]:
    """Folder names, with their folders' where that is not enough."""
    names = [run.name for run in runs]
    for depth in range(2, 6):
        doubled = {name for name in names if names.count(name) > 1}
        if not doubled:
            break
        names = [
            "/".join(run.parts[-depth:]) if name in doubled else name
            for name, run in zip(names, runs, strict=True)
        ]
    return names


def _folder(paths: Sequence[str], runs: dict[str, Path]) -> Path:
    parents = {run.parent for run in runs.values()}
    if len(runs) > 1 and len(parents) == 1:
        return parents.pop() / "report"
    if len(runs) == 1:
        return next(iter(runs.values())) / "report"
    return OUTPUTS / time.strftime("report-%Y-%m-%d-%H-%M-%S")


def _check_one_buffer(runs: Mapping[str, Path]) -> None:
    """Raise UsageError unless all runs learned from one buffer."""
    hashes = {
        str((RunFolder.open(run).record.get("dataset") or {}).get("sha256")): name
        for name, run in runs.items()
    }
    if len(hashes) > 1:
        told = ", ".join(f"{name} from {sha256[:8]}" for sha256, name in hashes.items())
        raise cli.UsageError(
            f"the runs learned from different data ({told}): say on which to compare them with --dataset"
        )
