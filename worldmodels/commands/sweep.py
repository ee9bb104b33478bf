"""Train many models as one: every model, seed and setting a cell, and a report at the end.

    physgym sweep --env pendulum --models jump lstm port_hamiltonian --seeds 0 1 2
    physgym sweep --env pendulum --models jump --set optim.lr=1e-3,3e-3 --seeds 0 1

A cell is a run in outputs/<date>/<time>/<name>-s<seed>. Finished cells are skipped and killed ones go on:
give the same command with --out FOLDER. A cell that fails stops no other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from worldmodels.commands import terminal as cli
from worldmodels.configs.training import KINDS, PREDICTORS, TrainConfig, default_config, to_dict
from worldmodels.storage.runs import dated
from worldmodels.training.sweeps import Cell, plan, with_option, write_plan


@dataclass(frozen=True)
class SweepConfig:
    """What to train, and where."""

    env: str = "pendulum"
    """System to learn: a name or an env id."""
    models: tuple[str, ...] = ()
    """Structures over states."""
    predictors: tuple[str, ...] = ()
    """Predictors of the visual model, such as spatial_jump, instead of models."""
    size: Literal["tiny", "small", "base"] = "small"
    """Size of the visual model."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and batches; a group of cells that differ in nothing else has an interval."""
    set: tuple[str, ...] = ()
    """Options: name=value for every cell, name=value,value for a cell each (optim.lr=1e-3,3e-3)."""
    dataset: str | None = None
    """Buffer that all cells learn from; None: collected once, as the options of data say."""
    out: Path | None = None
    """Folder of the sweep; None: outputs/<date>/<time>. That of a sweep before goes on with it."""
    launcher: Literal["local", "ray", "slurm"] = "local"
    """Processes here, a Ray cluster, or Slurm (the last two: pip install "physgym[cluster]")."""
    workers: int | None = None
    """Cells at once; None: the processor cores, or 64 under Slurm."""
    threads: int = 1
    """Processor cores of a cell."""
    ray_address: str | None = None
    """Address of a Ray cluster; None: one is started here."""
    slurm: tuple[str, ...] = ()
    """Parameters of submitit, such as slurm_partition=gpu timeout_min=240 (cluster=local tries it here)."""
    report: bool = True
    """Write the report at the end."""


def main() -> int:
    """Train every cell, show how far they are, and report on them."""
    config = cli.parse(SweepConfig, description=__doc__)
    cells, folder = prepare(config)
    results: dict[str, dict[str, Any]] = {cell.name: {"status": "waiting"} for cell in cells}
    print(f"sweep   {folder}: {len(cells)} cells", flush=True)
    with cli.progress("training, cells done", len(cells)) as advance:
        for cell, result in launched(config, cells, folder):
            results[cell.name] = result
            advance()
    show(results)
    failed = [name for name, result in results.items() if result["status"] == "failed"]
    if config.report and len(failed) < len(cells):
        from worldmodels.commands.report import ReportConfig, write

        write(ReportConfig(paths=(str(folder),)))
    if failed:
        print(
            f"{len(failed)} of {len(cells)} cells failed; the same command with --out {folder} tries again"
        )
    return 1 if failed else 0


def prepare(config: SweepConfig) -> tuple[list[Cell], Path]:
    """The cells, planned or gone on with, with the buffer that they all learn from."""
    from worldmodels.data import dataset_for

    folder = config.out or dated()
    settings = _settings(config.set)
    fixed = {name: values[0] for name, values in settings.items() if len(values) == 1}
    varied = {name: values for name, values in settings.items() if len(values) > 1}
    bases = {name: _base(config, name, fixed) for name in _names(config)}
    # Once before anything is collected: it says what cannot be.
    plan(bases, config.seeds, varied, folder.absolute())
    for name, base in bases.items():
        dataset = dataset_for(base)
        bases[name] = replace(base, dataset=str(dataset.path.absolute()))
    cells = plan(bases, config.seeds, varied, folder.absolute())
    write_plan(folder, cells)
    return cells, folder


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
        base = default_config(config.env, "visual", name, config.size)
    else:
        base = default_config(config.env, name)
    base = replace(base, dataset=config.dataset)
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


def launched(
    config: SweepConfig, cells: Sequence[Cell], folder: Path
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Cells and what became of them, as they end; told at once on a line each."""
    from worldmodels.training.launchers import launch
    from worldmodels.training.sweeps import run_cell

    most = 64 if config.launcher == "slurm" else max(1, (os.cpu_count() or 1) // config.threads)
    given = [(to_dict(cell.config), config.threads) for cell in cells]
    slurm: dict[str, Any] = dict(word.partition("=")[::2] for word in config.slurm)
    slurm = {name: int(value) if value.isdigit() else value for name, value in slurm.items()}
    ended = launch(
        config.launcher,
        run_cell,
        given,
        config.workers or most,
        config.threads,
        address=config.ray_address,
        logs=folder / "slurm",
        slurm=slurm,
    )
    for index, result in ended:
        print(_line(cells[index].name, result), flush=True)
        yield cells[index], result


def _line(name: str, result: Mapping[str, Any]) -> str:
    if result["status"] == "failed":
        return f"  {name}: failed: {result['error']}"
    best = result.get("best_nmse")
    score = "" if best is None else f", validation error {best:.2g}"
    return f"  {name}: {result['status']}{score}, {result['seconds']:.0f} s"


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of the cells."""
    rows = []
    for name, result in results.items():
        best = result.get("best_nmse")
        rows.append([name, result["status"], "n/a" if best is None else f"{best:.2e}"])
    cli.print_table(
        "validation error: 1 is no better than the mean", ["cell", "status", "error"], rows
    )
    sys.stdout.flush()
