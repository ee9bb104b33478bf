"""Trainings that differ in their seeds alone, step by step together in one process.

Each is the training that it would be alone (its weights, batches, checkpoints, metrics, errors); only the
gradients, and what SOAP does with them, are computed for all at once, which rounds otherwise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldmodels import plugins
from worldmodels.configs.structures import ADAPTIVE
from worldmodels.configs.training import PixelConfig, TrainConfig, from_dict
from worldmodels.data.batches import Windows
from worldmodels.dynamics import nonseparable
from worldmodels.interface import STRUCTURES, Batch
from worldmodels.models.ensemble import losses
from worldmodels.training.fit import Steps
from worldmodels.training.interruption import Interruption
from worldmodels.training.optimisers import Optimisers
from worldmodels.training.soap import SOAP, Together
from worldmodels.training.sweeps import Cell, run_cell, training_to_end
from worldmodels.training.trainer import Trainer

if TYPE_CHECKING:
    from worldmodels.data import Dataset


def alike(config: TrainConfig) -> TrainConfig:
    """What trainings have in common that may go together: all but the seed and the folder."""
    return replace(config, seed=0, out=None)


def obstacle(config: TrainConfig) -> str:
    """Why trainings of ``config`` cannot go together, in words; empty where they can."""
    model = config.model
    if config.log.wandb != "disabled":
        return "Weights & Biases follows one run of a process"
    if isinstance(model, PixelConfig):
        return "models of pictures are trained one by one"
    if model.ensemble > 1:
        return "the members of an ensemble go together already"
    method = getattr(model, "method", "")
    if method in ADAPTIVE or method in nonseparable.METHODS:
        return f"steps of {method} are not the same operations for all"
    if not vars(STRUCTURES[config.model_name]).get("recordable", False):
        return f"{config.model_name} does not say that it is recordable"
    return ""


def train_together(
    configs: Sequence[TrainConfig], dataset: Dataset | None = None
) -> list[dict[str, Any]]:
    """What ``sweeps.train_to_end`` answers of each; one that fails ("failed", with its "error") stops no other.

    The configs are ``alike`` and have no ``obstacle``; each leads to its folder by its ``out``. On SIGINT or
    SIGTERM all save, then KeyboardInterrupt or SystemExit(143) is raised.
    """
    if dataset is None:
        from worldmodels.data import dataset_for

        dataset = dataset_for(configs[0], progress=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Interruption().watched() as interruption:
            steps = [
                training_to_end(own, Path(own.out or ""), dataset, interruption) for own in configs
            ]
            found = Company(steps).to_the_end()
            if any(result["status"] == "interrupted" for result in found):
                interruption.stop()
    finally:
        torch.set_num_threads(before)
    return found


def run_cells(configs: Sequence[Mapping[str, Any]], threads: int = 1) -> dict[str, Any]:
    """`sweeps.run_cell` of each, trained together: as ``"cells"``, in the order given.

    ``seconds`` of a cell are its part of the time that all took.
    """
    if len(configs) == 1:
        return {"cells": [run_cell(configs[0], threads)]}
    began = time.perf_counter()
    try:
        plugins.load_inherited()
        torch.set_num_threads(threads)
        found = train_together([from_dict(dict(config)) for config in configs])
    except Exception as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        found = [{"status": "failed", "error": first} for _ in configs]
    seconds = (time.perf_counter() - began) / len(configs)
    pairs = zip(configs, found, strict=True)
    return {"cells": [{**own, "run": str(c["out"]), "seconds": seconds} for c, own in pairs]}


def bundled(cells: Sequence[Cell], workers: int, most: int | None) -> list[list[Cell]]:
    """Cells in bundles that one process trains together: seeds of one model, at most ``most``.

    None: as many as leave no worker without a bundle.
    """
    size = most or max(1, math.ceil(len(cells) / workers))
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        alone = cell.name if size == 1 or obstacle(cell.config) else ""
        kinds.setdefault(alone or repr(alike(cell.config)), []).append(cell)
    bundles = []
    for kind in kinds.values():
        count = math.ceil(len(kind) / size)
        bundles += [kind[number::count] for number in range(count)]
    return bundles


class Company:
    """Trainings in progress, each of which waits for its next step."""

    def __init__(self, steps: Sequence[Steps]) -> None:
        self.steps = list(steps)
        self.results: list[dict[str, Any]] = [{} for _ in steps]
        self.waiting: dict[int, Trainer] = {}
        self.joint: Joint | None = None

    def to_the_end(self) -> list[dict[str, Any]]:
        """What became of each. Those that are behind, after an interruption, catch up first."""
        for index in range(len(self.steps)):
            self._go_on(index, None)
        while self.waiting:
            least = min(trainer.progress.step for trainer in self.waiting.values())
            due = [i for i, trainer in self.waiting.items() if trainer.progress.step == least]
            for index, error in zip(due, self._descend(due), strict=True):
                self._go_on(index, error)
        return self.results

    def _go_on(self, index: int, error: Exception | None) -> None:
        """Let a training do what it does behind a step that is made, or was not for an ``error``."""
        self.waiting.pop(index, None)
        try:
            steps = self.steps[index]
            self.waiting[index] = next(steps) if error is None else steps.throw(error)
        except StopIteration as end:
            self.results[index] = end.value
        except (KeyboardInterrupt, SystemExit):
            self.results[index] = {"status": "interrupted"}
        except Exception as problem:  # it stops no other: the caller is told why
            first = next(iter(str(problem).splitlines()), "") or type(problem).__name__
            self.results[index] = {"status": "failed", "error": first}

    def _descend(self, due: Sequence[int]) -> list[Exception | None]:
        trainers = [self.waiting[index] for index in due]
        if len(trainers) == 1:
            self.joint = None
            return [descended(trainers[0])]
        if self.joint is None or self.joint.trainers != trainers:
            self.joint = Joint(trainers)
        try:
            return self.joint.descend()
        except Exception as error:  # of none of them alone
            return [error] * len(due)


def descended(trainer: Trainer) -> Exception | None:
    """What a step that a training makes by itself raised."""
    try:
        trainer.descend()
    except Exception as error:
        return error
    return None


class Joint:
    """Trainers at the same step, and what they share."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = list(trainers)
        for trainer in self.trainers[1:]:
            share_tensors(trainer.loader.windows, self.trainers[0].loader.windows)
        self._made: dict[tuple[int, ...], list[Together]] = {}

    def descend(self) -> list[Exception | None]:
        """One step of each, as `Trainer.descend`; what it raised, or None."""
        for trainer in self.trainers:
            trainer.prepare()
        logs, finite = self._gradients()
        moved, errors = [], list[Exception | None]()
        for index, trainer in enumerate(self.trainers):
            try:
                if trainer.settle(logs[index], finite[index]):
                    moved.append(index)
                errors.append(None)
            except Exception as error:
                errors.append(error)
        for skipped in {self.trainers[i].progress.skipped for i in moved}:
            same = (i for i in moved if self.trainers[i].progress.skipped == skipped)
            for optimiser in self._optimisers(tuple(same)):
                optimiser.step()
        return errors

    def _gradients(self) -> tuple[list[dict[str, float]], list[bool]]:
        """`Trainer._gradients` of each: logs, and whether all is finite."""
        first = self.trainers[0]
        parts, step = first.config.optim.accumulate, first.progress.step
        sums: list[dict[str, float]] = [{} for _ in self.trainers]
        models: Any = [trainer.model for trainer in self.trainers]
        finite = torch.ones(len(self.trainers), dtype=torch.bool)
        for part in range(parts):
            batch = self._batches(step * parts + part)
            found, logs = losses(models, batch, own=True)
            finite &= torch.isfinite(found).cpu()
            (found / parts).sum().backward()
            for name, values in logs.items():
                for own, value in zip(sums, values.tolist(), strict=True):
                    own[name] = own.get(name, 0.0) + value / parts
            for trainer in self.trainers:
                trainer.frames += batch.mask[0].numel()
        return sums, finite.tolist()

    def _batches(self, number: int) -> Batch:
        """Batch ``number`` of each, on axis 0: drawn at once, as all have the same windows in orders of their own."""
        loaders: Any = [trainer.loader for trainer in self.trainers]
        first, trainer = loaders[0], self.trainers[0]
        chosen = torch.cat([loader.windows.numbers(number) for loader in loaders])
        batch = first.grown(first.windows.of(chosen), trainer.progress.step, trainer.total)
        parts: dict[str, Any] = {
            name: value.unflatten(0, (len(loaders), -1))
            for name, value in batch._asdict().items()
            if isinstance(value, Tensor)
        }
        return batch._replace(**parts)

    def _optimisers(self, moved: tuple[int, ...]) -> list[Any]:
        """What steps trainers that have made as many steps: SOAPs of one part together, others one by one."""
        if moved not in self._made:
            made: list[Any] = []
            for parts in zip(*(parts_of(self.trainers[i].optimiser) for i in moved), strict=True):
                made += [Together(parts)] if isinstance(parts[0], SOAP) else parts
            self._made[moved] = made
        return self._made[moved]


def parts_of(optimiser: torch.optim.Optimizer | Optimisers) -> list[Any]:
    """The optimisers that one is made of."""
    return list(optimiser.parts.values()) if isinstance(optimiser, Optimisers) else [optimiser]


def share_tensors(windows: Windows, other: Windows) -> None:
    """Have windows of the same episodes hold them once."""
    for name, value in vars(other).items():
        if isinstance(value, Tensor) and name != "_order":
            setattr(windows, name, value)
