"""Sweeps: many trainings as one, over models, seeds and settings; interrupted and gone on with at will.

A sweep is a folder of runs, `<folder>/<name>-s<seed>`, and `sweep.json`, which says what they are. A cell
is one of them. `run_cell` is a pure function of plain values under every launcher: a cell that is done is
left alone, one that was killed goes on, and one that fails is told apart and stops no other.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels import plugins
from worldmodels.configs.schema import merge, suggestion
from worldmodels.configs.training import TrainConfig, from_dict, to_dict
from worldmodels.storage.files import RunLock, StorageError, atomic_write, read_json
from worldmodels.storage.runs import OUTPUTS, RunError, RunFolder

if TYPE_CHECKING:
    from worldmodels.data import Dataset
    from worldmodels.training.fit import Steps
    from worldmodels.training.interruption import Interruption

PLAN = "sweep.json"
MOST_CELLS = 10_000


@dataclass(frozen=True)
class Cell:
    """One training of a sweep."""

    name: str
    """Name of its folder: model, settings and seed."""
    config: TrainConfig
    """What to train; its ``out`` is the folder."""

    @property
    def group(self) -> str:
        """The name without the seed: cells that differ in nothing else are runs of one model."""
        return group_of(self.name)


def group_of(name: str) -> str:
    """The name of a run, without the seed at its end."""
    return re.sub(r"-s\d+$", "", name)


def plan(
    models: Mapping[str, TrainConfig],
    seeds: Sequence[int],
    settings: Mapping[str, Sequence[Any]],
    folder: Path,
) -> list[Cell]:
    """Every cell of models x settings x seeds, in that order.

    Args:
        models: configurations by name.
        seeds: of weights and batches; the buffer's own seed stays.
        settings: values by dotted option name, such as "optim.lr"; each is tried with each other.
        folder: where the runs go.

    Raises:
        ValueError: an option that a model has not, a value of another type, a seed or value twice, no cell.
    """
    for name, values in [("seeds", seeds), *settings.items()]:
        if len(set(map(repr, values))) < len(values):
            raise ValueError(f"{name} {' '.join(map(str, values))}: a value stands there twice")
    cells = []
    for (name, config), *chosen in itertools.product(
        models.items(), *([(key, value) for value in values] for key, values in settings.items())
    ):
        changed, words = config, [name]
        for key, value in chosen:
            changed = with_option(changed, key, value)
            words.append(f"{key.rpartition('.')[2]}{short(value)}")
        for seed in seeds:
            own = f"{'-'.join(words)}-s{seed}"
            cells.append(Cell(own, replace(changed, seed=seed, out=str(folder / own))))
    if not cells:
        raise ValueError("the sweep has no cell: name one model and one seed at least")
    if len(cells) > MOST_CELLS:
        raise ValueError(f"the sweep has {len(cells)} cells: expected {MOST_CELLS} at most")
    return cells


def with_option(config: TrainConfig, key: str, value: Any) -> TrainConfig:
    """``config`` with the option of dotted name ``key`` set to ``value``, text as the command line has it.

    Raises ``ValueError`` for an option that is not there (with a close match) or a value it cannot have.
    """
    key, options = key.replace("-", "_"), option_names(config)
    if key not in options:
        raise ValueError(
            f"--set {key}: no such option of {config.model_name}{suggestion(key, options)}"
        )
    *path, last = key.split(".")
    nested: Any = {last: _parsed(value)}
    for part in reversed(path):
        nested = {part: nested}
    return merge(config, nested, "config")


def option_names(config: Any, before: str = "") -> list[str]:
    """Dotted names of every option of a config."""
    names = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            names += option_names(value, f"{before}{field.name}.")
        else:
            names.append(f"{before}{field.name}")
    return names


def _parsed(value: Any) -> Any:
    """Text as a number or truth value where it is one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return value


def short(value: Any) -> str:
    """A value as part of a folder's name."""
    return "".join(sign if sign.isalnum() or sign in "._+-" else "_" for sign in str(value))


def with_buffers(cells: Sequence[Cell]) -> list[Cell]:
    """Cells that name the buffer they learn from; what is not there yet is collected, once for all that share it.

    Raises DatasetError as ``worldmodels.data.dataset_for``.
    """
    from worldmodels.data import dataset_for

    found: dict[str, str] = {}
    named = []
    for cell in cells:
        own = cell.config
        key = repr((own.dataset, own.env_name, own.env, own.data, own.model_name == "visual"))
        if key not in found:
            found[key] = str(dataset_for(own).path.absolute())
        named.append(replace(cell, config=replace(own, dataset=found[key])))
    return named


def moved(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """The same cells as runs in ``folder``."""
    return [
        replace(cell, config=replace(cell.config, out=str(folder / cell.name))) for cell in cells
    ]


def unfinished(cells: Sequence[Cell], root: Path = OUTPUTS) -> Path | None:
    """Folder of the last sweep under ``root`` of the same cells that is not done; None: there is none.

    One that another process works on at this moment is none.
    """
    for path in sorted(root.glob(f"*/*/{PLAN}"), reverse=True):
        try:
            known = read_plan(path.parent)
        except (RunError, StorageError):
            continue
        if known is None or not _same(known, cells) or all(map(is_done, moved(known, path.parent))):
            continue
        try:
            with RunLock(path.parent):
                return path.parent
        except StorageError:
            continue
    return None


def is_done(cell: Cell) -> bool:
    """Whether a cell's run is there and has ended as it should."""
    return skipped(Path(cell.config.out or "")) is not None


def skipped(folder: Path) -> dict[str, Any] | None:
    """What ``run_cell`` answers of a run that is done; None: there is none."""
    try:
        run = RunFolder.open(folder)
        done = run.record.get("status") == "done"
    except RunError:
        return None
    if not done:
        return None
    return {"run": str(folder), "seconds": 0.0, "status": "skipped", "best_nmse": _best_of(run)}


def _same(some: Sequence[Cell], others: Sequence[Cell]) -> bool:
    return {c.name: _numbers(c) for c in some} == {c.name: _numbers(c) for c in others}


def write_plan(folder: Path, cells: Sequence[Cell]) -> None:
    """Record what the sweep in ``folder`` is. Raises ``RunError`` where another sweep stands there."""
    known = read_plan(folder)
    if known is not None and not _same(known, cells):
        raise RunError(
            f"{folder} holds another sweep ({', '.join(cell.name for cell in known[:4])}, ...): name "
            "another --out, or give the command that began it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    document = {"format_version": 1, "cells": {cell.name: to_dict(cell.config) for cell in cells}}
    atomic_write(folder / PLAN, (json.dumps(document, indent=1) + "\n").encode())


def read_plan(folder: Path) -> list[Cell] | None:
    """The cells of the sweep in ``folder``; None where there is none. Raises ``RunError`` for a damaged plan."""
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        cells = read_json(path)["cells"]
        return [Cell(name, from_dict(config)) for name, config in cells.items()]
    except (KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        raise RunError(f"{path} is no plan of a sweep: {error}") from error


def _numbers(cell: Cell) -> dict[str, Any]:
    """What decides a cell's numbers: everything but where it is written and logged."""
    return to_dict(replace(cell.config, out=None, log=type(cell.config.log)()))


def run_cell(config: Mapping[str, Any], threads: int = 1) -> dict[str, Any]:
    """Train one cell, or go on with it, or leave it where it is done.

    Args:
        config: a ``TrainConfig`` with ``out``, as plain values.
        threads: of torch in this process.

    Returns:
        ``status`` ("done", "skipped" or "failed"), ``run``, ``seconds``, and ``best_nmse`` or ``error``.
    """
    began = time.perf_counter()
    folder = str(config["out"])
    try:
        plugins.load_inherited()  # of workers that no process of this machine started
        found = _trained(from_dict(dict(config)), Path(folder), threads)
    except Exception as error:  # a cell that fails stops no other: the sweep says why
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        found = {"status": "failed", "error": first}
    return {**found, "run": folder, "seconds": time.perf_counter() - began}


def _trained(config: TrainConfig, folder: Path, threads: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(threads)
    return train_to_end(config, folder)


def train_to_end(
    config: TrainConfig, folder: Path, dataset: Dataset | None = None
) -> dict[str, Any]:
    """Train what ``folder`` is to hold: from its beginning, from where it was ended, or not at all if it is done.

    ``config`` leads to ``folder`` by its ``out``. Returns ``status`` ("done" or "skipped") and ``best_nmse``.
    """
    from worldmodels.training.fit import driven

    return driven(training_to_end(config, folder, dataset))


def training_to_end(
    config: TrainConfig,
    folder: Path,
    dataset: Dataset | None = None,
    interruption: Interruption | None = None,
) -> Steps:
    """``train_to_end`` step by step: see ``fit.fitting``."""
    from worldmodels.training import experiment
    from worldmodels.training.ranks import Ranks

    run, resume = None, (folder / "config.json").is_file()
    if resume:
        if (known := skipped(folder)) is not None:
            return known
        run = RunFolder.open(folder)
        # The run's own, as it is true of the buffer; the plan says that it is the same cell.
        kept = from_dict(run.config)
        config = experiment.reopen(run, replace(kept, device=config.device, log=config.log))
    result = yield from experiment.training(
        config, dataset, run, resume, False, lambda line: None, Ranks(), interruption
    )
    return {"status": "done", "best_nmse": result["best_nmse"]}


def _best_of(run: RunFolder) -> float | None:
    """The validation error of a run's best checkpoint, where its metrics know it."""
    from worldmodels.training.rows import read_metrics

    errors = [row.get("eval/nmse") for row in read_metrics(run.path)]
    return min((error for error in errors if isinstance(error, float)), default=None)
