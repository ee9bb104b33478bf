"""Fit a world model to a buffer: one loop, as a function.

Everything random is a function of the config's seed and the number of the step, and everything else
that a step depends on is saved: a run that was killed and resumed ends bit-equal to one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from worldmodels.configs.training import TrainConfig, VisualConfig
from worldmodels.data.batches import TrainingError
from worldmodels.storage.checkpoint import load_checkpoint
from worldmodels.training.devices import quick_matrices, resolve_device
from worldmodels.training.interruption import Interruption
from worldmodels.training.pretrained import load_fitting
from worldmodels.training.ranks import Ranks
from worldmodels.training.resumption import has_none
from worldmodels.training.trainer import LoggerLike, RunFolderLike, Trainer

Steps = Generator[Trainer, None, dict[str, Any]]
"""A training in progress: yields its trainer wherever a step of the optimiser is to be made."""


def fit(
    config: TrainConfig,
    dataset: Any,
    run: RunFolderLike,
    logger: LoggerLike,
    resume: bool = False,
    on_step: Callable[[float, str], None] | None = None,
    announce: Callable[[str], object] = lambda line: None,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Train as ``config`` says on ``dataset``; checkpoints go to ``run.checkpoints``.

    ``resume`` goes on from the last of them, or from step 0 where the run was ended before the first.

    ``on_step`` is told after every step how many epochs are done, fractions included, and the pace in
    words; ``announce`` what was taken from a pretrained run. ``ranks``: the processes that train together,
    each of which calls this; the first alone writes, validates and logs.
    Returns ``epochs``, ``steps``, ``best_nmse`` and that of copying (``copy_nmse``), ``best_epoch``,
    ``skipped`` and the last epoch's values.
    On SIGINT or SIGTERM the step in hand is finished and the state saved; then KeyboardInterrupt or
    SystemExit(143) is raised, unless that was the last step: then all is done. Raises ``TrainingError``
    where losses stay not finite, or no step could be taken; the best and last checkpoints on disk are
    then the last good ones. Raises ``CheckpointError`` where a resumed run cannot go on.
    """
    steps = fitting(config, dataset, run, logger, resume, on_step, announce, ranks or Ranks())
    return driven(steps)


def driven(steps: Steps) -> dict[str, Any]:
    """What a training returns whose steps are made here, one after the other."""
    try:
        trainer = next(steps)
        while True:
            try:
                trainer.descend()
            except Exception as error:
                trainer = steps.throw(error)
            else:
                trainer = next(steps)
    except StopIteration as end:
        return end.value


def fitting(
    config: TrainConfig,
    dataset: Any,
    run: RunFolderLike,
    logger: LoggerLike,
    resume: bool,
    on_step: Callable[[float, str], None] | None,
    announce: Callable[[str], object],
    ranks: Ranks,
    interruption: Interruption | None = None,
) -> Steps:
    """`fit` that yields its trainer for each step of the optimiser, and goes on when it is made.

    Who makes it may make that of other trainings with it; ``interruption``: theirs, watched already.
    """
    watching = Interruption().watched() if interruption is None else nullcontext(interruption)
    with _settings(config), watching as interruption:
        trainer = Trainer(config, dataset, run, logger, on_step, ranks)
        if trainer.seen is not None:
            announce("\n".join(trainer.seen.lines))
        if ranks.share(resume and not has_none(run.checkpoints)):
            trainer.resume()
            ranks.share()  # all have read what the first will write over
        else:
            if resume:
                announce("the run was ended before its first checkpoint: it begins at step 0")
                logger.rewind(0)
            if config.pretrained:
                announce("\n".join(load_fitting(trainer.model, config.pretrained).lines()))
            trainer.save("last")
        values = yield from _loop(trainer, interruption, on_step)
    progress = trainer.progress
    return {
        "epochs": progress.step // trainer.steps_per_epoch,
        "steps": progress.step,
        "best_nmse": progress.best,
        "copy_nmse": trainer.copying,
        "best_epoch": progress.best_epoch,
        "skipped": progress.skipped,
        **values,
    }


def _loop(
    trainer: Trainer, interruption: Interruption, on_step: Callable[[float, str], None] | None
) -> Generator[Trainer, None, dict[str, float]]:
    values: dict[str, float] = {}
    progress = trainer.progress
    while progress.step < trainer.total:
        yield trainer
        if on_step is not None:
            on_step(progress.step / trainer.steps_per_epoch, trainer.note())
        if progress.step % trainer.steps_per_epoch == 0:
            values = trainer.end_epoch()
            _check_learned(trainer)
            late = time.monotonic() - trainer.saved_at >= trainer.config.save_seconds
            if late or progress.step >= trainer.total:
                trainer.save("last")
        signal = trainer.ranks.most(interruption.signal or 0)
        if signal and progress.step < trainer.total:
            trainer.save("last")
            interruption.signal = signal
            interruption.stop()
    return values


def _check_learned(trainer: Trainer) -> None:
    """Raise ``TrainingError`` at the end of a run in which not one step moved the weights."""
    steps = trainer.progress.step
    if steps >= trainer.total and trainer.progress.skipped >= steps:
        raise TrainingError(
            f"nothing was learned: the loss or its gradient was not finite in each of the {steps} "
            f"steps; lower --optim.lr (now {trainer.config.optim.lr:g}), or check the data"
        )


@contextmanager
def _settings(config: TrainConfig) -> Iterator[None]:
    """torch's settings for a run, as they were afterwards.

    Small networks of states are fastest on one thread, and results then do not depend on the machine's
    cores; pictures take them all.
    """
    device = resolve_device(config.device)
    before = torch.get_num_threads()
    if torch.device(device).type == "cpu" and not isinstance(config.model, VisualConfig):
        torch.set_num_threads(1)
    try:
        with quick_matrices(device):
            yield
    finally:
        torch.set_num_threads(before)


def best_of(run: RunFolderLike) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """(config, tensors, meta) of a run's best checkpoint."""
    return load_checkpoint(run.checkpoints / "best")
