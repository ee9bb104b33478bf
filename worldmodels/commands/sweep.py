"""Train many models as one: every model, seed and setting a cell, and a report at the end.

    physgym sweep --env pendulum --models jump lstm newtonian --seeds 0 1 2
    physgym sweep --models jump --seeds 0 1 --set optim.lr=1e-3,3e-3
    physgym sweep cells.json

A cell is a run in outputs/<date>/<time>/<name>-s<seed>. The same command again goes on with a sweep that
was killed: finished cells are skipped, others go on. A cell that fails stops no other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.configs.training import (
    KINDS,
    PREDICTORS,
    TrainConfig,
    default_config,
    scores_one,
    to_dict,
)
from worldmodels.storage.runs import dated
from worldmodels.training.sweeps import (
    Cell,
    is_done,
    moved,
    plan,
    skipped,
    unfinished,
    with_buffers,
    with_option,
    write_plan,
)

ENV = "pendulum"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class SweepConfig:
    """What to train, and where."""

    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = None
    """Sweep file: a list of configs in JSON or Python, instead of --env, --models and --predictors."""
    env: str | None = None
    """System to learn: a name or an env id; None: pendulum."""
    models: tuple[str, ...] = ()
    """Structures over states."""
    predictors: tuple[str, ...] = ()
    """Predictors of the visual model, such as spatial_jump, instead of models."""
    size: Literal["tiny", "small", "base"] = "small"
    """Size of the visual model."""
    seeds: tuple[int, ...] = ()
    """Seeds of weights and batches, over which a report has an interval; none named: 0 1 2, or those of the file."""
    set: tuple[str, ...] = ()
    """Options: name=value for every cell, name=value,value for a cell each (optim.lr=1e-3,3e-3)."""
    dataset: str | None = None
    """Buffer that all cells learn from; None: collected once, as the options of data (or the file) say."""
    out: Path | None = None
    """Folder of the sweep, new or to go on with; None: that of the last such sweep that is not done, or
    outputs/<date>/<time>."""
    launcher: Literal["local", "ray", "slurm"] = "local"
    """Processes here, a Ray cluster, or Slurm (the last two: pip install "physgym[cluster]")."""
    workers: int | None = None
    """Cells at once; None: the processor cores, or 64 under Slurm."""
    threads: int = 1
    """Processor cores of a cell."""
    together: int | None = None
    """Seeds of one model that one process trains at once: less work, numbers equal to rounding. None: as many
    as leave no worker idle; 1: each by itself, with the bits of `physgym train`."""
    ray_address: str | None = None
    """Address of a Ray cluster; None: one is started here."""
    slurm: tuple[str, ...] = ()
    """Parameters of submitit, such as slurm_partition=gpu timeout_min=240 (cluster=local tries it here)."""
    report: bool = True
    """Write the report at the end."""


def main() -> int:
    """Train every cell, show how far they are, and report on them."""
    from worldmodels.storage.files import RunLock

    config = cli.parse(SweepConfig, description=__doc__)
    cells, folder = prepare(config)
    done = sum(map(is_done, cells))
    told = f", {done} of them done" if done else ""
    print(f"sweep   {folder}: {len(cells)} cells{told}", flush=True)
    try:
        with RunLock(folder):
            results = _train(config, cells, folder)
    except KeyboardInterrupt:
        print(f"the same command goes on with {folder}", file=sys.stderr)
        raise
    show(results, scores_one(cells[0].config))
    failed = [name for name, result in results.items() if result["status"] == "failed"]
    buffers = {cell.config.dataset for cell in cells}
    if config.report and len(buffers) > 1:
        print(
            f"no report: the cells learned from {len(buffers)} buffers; to compare them on one: "
            f"{cli.command('report')} {folder} --dataset BUFFER"
        )
    elif config.report and len(failed) < len(cells):
        from worldmodels.commands.report import ReportConfig, write

        write(ReportConfig(paths=(str(folder),)))
    if failed:
        print(f"{len(failed)} of {len(cells)} cells failed; the same command tries them again")
    return 1 if failed else 0


def prepare(config: SweepConfig) -> tuple[list[Cell], Path]:
    """The cells, planned or gone on with, with the buffers that they learn from."""
    if config.together is not None and config.together < 1:
        raise cli.UsageError(f"--together {config.together} is not valid: expected 1 or more")
    _slurm(config)
    folder = config.out or dated()
    cells = with_buffers(planned(config, folder.absolute()))
    if config.out is None and (begun := unfinished(cells)):
        print(f"going on with {begun}: it holds this sweep, unfinished (--out NEW begins another)")
        folder, cells = begun, moved(cells, begun.absolute())
    write_plan(folder, cells)
    return cells, folder


def planned(config: SweepConfig, folder: Path) -> list[Cell]:
    """Cells as the options or the sweep file say; nothing is made. Raises for what cannot be."""
    settings = _settings(config.set)
    fixed = {name: values[0] for name, values in settings.items() if len(values) == 1}
    varied = {name: values for name, values in settings.items() if len(values) > 1}
    if config.file is None:
        bases = {name: _base(config, name, fixed) for name in _names(config)}
        return plan(bases, config.seeds or SEEDS, varied, folder)
    cells = []
    for name, base in _in_file(config, config.file):
        changed = _with(base, fixed)
        cells += plan({name: changed}, config.seeds or (changed.seed,), varied, folder)
    doubled = {cell.name for cell in cells if sum(cell.name == c.name for c in cells) > 1}
    if doubled:
        raise cli.UsageError(
            f"{', '.join(sorted(doubled)[:4])}: more than one config of {config.file} comes to this cell; "
            "leave out --seeds, or what --set makes alike"
        )
    return cells


def _in_file(config: SweepConfig, file: Path) -> list[tuple[str, TrainConfig]]:
    from worldmodels.training.sweep_files import read_sweep

    given = {"--env": config.env, "--models": config.models, "--predictors": config.predictors}
    if named := [option for option, value in given.items() if value]:
        raise cli.UsageError(f"{file} says what to train: leave out {' '.join(named)}")
    found = read_sweep(file)
    if config.dataset is None:
        return found
    return [(name, replace(base, dataset=config.dataset)) for name, base in found]


def _names(config: SweepConfig) -> tuple[str, ...]:
    if bool(config.models) == bool(config.predictors):
        raise cli.UsageError(
            f"name --models ({', '.join(name for name in KINDS if name != 'visual')}) or --predictors "
            f"({', '.join(PREDICTORS)}), one of the two"
        )
    names = config.models or config.predictors
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise cli.UsageError(f"{', '.join(sorted(doubled))} stands there twice: name each once")
    if "visual" in names:
        raise cli.UsageError("visual is swept by its predictors: --predictors spatial_jump ...")
    return names


def _base(config: SweepConfig, name: str, fixed: Mapping[str, str]) -> TrainConfig:
    if config.predictors:
        base = default_config(config.env or ENV, "visual", name, config.size)
    else:
        base = default_config(config.env or ENV, name)
    return _with(replace(base, dataset=config.dataset), fixed)


def _with(base: TrainConfig, fixed: Mapping[str, str]) -> TrainConfig:
    for key, value in fixed.items():
        base = with_option(base, key, value)
    return base


def _settings(words: Sequence[str]) -> dict[str, list[str]]:
    """Values by option name of "name=value,value"."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, sign, values = word.partition("=")
        if not sign or not name or not values:
            raise cli.UsageError(
                f"--set {word} is not valid: expected name=value or name=value,value"
            )
        if name in found:
            raise cli.UsageError(
                f"--set {name} stands there twice: give its values once, as {name}=a,b"
            )
        found[name] = values.split(",")
    return found


def _train(config: SweepConfig, cells: Sequence[Cell], folder: Path) -> dict[str, dict[str, Any]]:
    """What became of each cell, shown while they are trained."""
    from worldmodels.commands.sweep_table import SweepTable, shown

    table = SweepTable(cells)
    live = sys.stderr is not None and sys.stderr.isatty()
    told = not live or sys.stdout is None or not sys.stdout.isatty()
    with shown(table):
        for cell, result in launched(config, cells, folder):
            table.results[cell.name] = result
            if told or result["status"] == "failed":
                print(
                    f"{_line(cell.name, result, scores_one(cell.config))}; {table.counted()}",
                    flush=True,
                )
    return {cell.name: table.results[cell.name] for cell in cells}


def launched(
    config: SweepConfig, cells: Sequence[Cell], folder: Path
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Cells and what became of them, as they end."""
    from worldmodels.training.launchers import launch
    from worldmodels.training.together import bundled, run_cells

    left = []
    for cell in cells:
        if (known := skipped(Path(cell.config.out or ""))) is not None:
            yield cell, known
        else:
            left.append(cell)
    if not left:
        return
    most = 64 if config.launcher == "slurm" else max(1, (os.cpu_count() or 1) // config.threads)
    workers = config.workers or most
    bundles = bundled(left, workers, config.together)
    _tell_alone(left, bundles)
    given = [([to_dict(cell.config) for cell in cells], config.threads) for cells in bundles]
    ended = launch(
        config.launcher,
        run_cells,
        given,
        workers,
        config.threads,
        address=config.ray_address,
        logs=folder / "slurm",
        slurm=_slurm(config),
    )
    for index, found in ended:  # of a process that died there is one result for all of its cells
        yield from zip(
            bundles[index], found.get("cells", [found] * len(bundles[index])), strict=True
        )


def _tell_alone(cells: Sequence[Cell], bundles: Sequence[Sequence[Cell]]) -> None:
    """Say which seeds are trained together, and why others are not."""
    from worldmodels.training.together import obstacle

    for bundle in bundles:
        if len(bundle) > 1:
            seeds = " ".join(str(cell.config.seed) for cell in bundle)
            print(f"  {bundle[0].group}: seeds {seeds} together, in one process", flush=True)
    for name in dict.fromkeys(cell.group for cell in cells):
        own = [cell.config for cell in cells if cell.group == name]
        if len(own) > 1 and (reason := obstacle(own[0])):
            print(f"  {name}: each seed by itself: {reason}", flush=True)


def _slurm(config: SweepConfig) -> dict[str, Any]:
    """Parameters of submitit, numbers as such. Raises UsageError for words that say nothing."""
    for option, value, launcher in (
        ("--slurm", config.slurm, "slurm"),
        ("--ray-address", config.ray_address, "ray"),
    ):
        if value and config.launcher != launcher:
            raise cli.UsageError(f"{option} has no effect without --launcher {launcher}")
    found: dict[str, Any] = {}
    for word in config.slurm:
        name, sign, value = word.partition("=")
        if not sign or not name or not value or name in found:
            raise cli.UsageError(
                f"--slurm {word} is not valid: expected name=value, each name once"
            )
        found[name] = int(value) if value.isdigit() else value
    return found


def _line(name: str, result: Mapping[str, Any], one: str) -> str:
    if result["status"] == "failed":
        return f"  {name}: failed: {result['error']}"
    best = result.get("best_nmse")
    score = "" if best is None else f", validation error {best:.2g}"
    score += "" if best is None or best < 1.0 else f" (no better than {one})"
    return f"  {name}: {result['status']}{score}, {result['seconds']:.0f} s"


def show(results: Mapping[str, Mapping[str, Any]], one: str) -> None:
    """A table of the cells; ``one``: what has an error of 1."""
    rows = []
    for name, result in results.items():
        best = result.get("best_nmse")
        error = "n/a" if best is None else f"{best:.2e}"
        rows.append([name, result["status"], error, f"{result['seconds']:.0f} s"])
    cli.print_table(
        f"validation error: 1 is no better than {one}", ["cell", "status", "error", "time"], rows
    )
    sys.stdout.flush()
