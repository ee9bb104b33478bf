"""One training run, from its configuration to its folder.

The seam that scripts, benchmarks and sweeps share: `train(config)` takes a frozen configuration and
leaves a run folder from which everything else (evaluation, envs, agents) starts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels import plugins
from worldmodels.configs.effects import without_effect
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require
from worldmodels.configs.training import TrainConfig, from_dict, to_dict
from worldmodels.data.progress import Progress
from worldmodels.storage.runs import OUTPUTS, RunError, RunFolder
from worldmodels.training.interruption import Interruption
from worldmodels.training.ranks import Ranks, joined
from worldmodels.training.results import record_best
from worldmodels.training.tracking import Logger, Unlogged

if TYPE_CHECKING:
    from worldmodels.data import Dataset
    from worldmodels.training.fit import Steps


def start(
    config: TrainConfig, argv: list[str] | None = None, root: str | Path = OUTPUTS
) -> RunFolder:
    """A new run folder for `config`: `config.out`, or a dated one under `root`.

    Its `config.json` leaves `out` empty, so that the same file starts the same run elsewhere.
    Raises RunError where the folder is taken, or the device is not there.
    """
    check_device(config.device)
    return RunFolder.create(to_dict(replace(config, out=None)), config.out, argv, root)


def reopen(run: RunFolder, changed: TrainConfig | None = None) -> TrainConfig:
    """The configuration to continue `run` with.

    Args:
        run: an existing run folder.
        changed: what the user asks for; only the fields of `MAY_CHANGE` may differ.

    Raises:
        RunError: another field differs, and is named with both values; or no such device is there.
        CheckpointError: `config.json` is not what the run's last checkpoint was trained with.
    """
    from worldmodels.training.resumption import (
        MAY_CHANGE,
        check_config,
        difference,
        first_change,
        newest_document,
    )

    old = _config_of(run)
    changed = changed or old
    check_device(changed.device)
    if change := first_change(old, changed):
        name, before, after = change
        raise RunError(
            f"a resumed run keeps its configuration, but {name} differs: "
            f"{difference(before, after, 'asked')}. Only {', '.join(MAY_CHANGE)} may change; "
            "start a new run with --config for the rest"
        )
    if document := newest_document(run.checkpoints):
        check_config(document, old, run.checkpoints / "last")
    return replace(changed, out=None)


def _config_of(run: RunFolder) -> TrainConfig:
    """What a run was asked for. Raises RunError where that needs a plugin, which it names."""
    try:
        return from_dict(run.config)
    except ValueError as error:
        if told := plugins.recorded(run.record):
            raise RunError(f"{run.path}: {error}{told}") from error
        raise


def dataset_to_resume(run: RunFolder, config: TrainConfig, progress: bool = True) -> Dataset:
    """The dataset that `run` began with, to go on with `config`: by its hash, wherever it lies now.

    What it was collected as is collected again where it is nowhere, and has the same bytes. Raises
    DatasetError, or RunError where `config.dataset` names another one.
    """
    from worldmodels.data import dataset_for
    from worldmodels.data.cache import find_recorded
    from worldmodels.data.dataset import load_dataset

    recorded = run.record.get("dataset")
    named = config.dataset != from_dict(run.config).dataset
    found = find_recorded(recorded, run.path) if recorded and not named else None
    dataset = load_dataset(found) if found else dataset_for(config, progress=progress)
    _check_dataset(run, dataset)
    return dataset


def check_device(device: str) -> None:
    """Raise RunError unless `device` ("cpu", "cuda:1", "auto" ...) is one that this machine has."""
    from worldmodels.training.devices import DeviceError, resolve_device

    try:
        resolve_device(device)
    except DeviceError as error:
        raise RunError(str(error)) from None


@known_keywords
def train(
    config: TrainConfig,
    dataset: Dataset | None = None,
    run: RunFolder | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    announce: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Train a world model as `config` says.

    Args:
        config: what to train.
        dataset: what to learn from; None: `worldmodels.data.dataset_for(config)`, which collects it
            where it is not there, or that of the run to resume.
        run: the folder to write to; None: `start(config)`, a new one.
        resume: continue from the run's last checkpoint, bit for bit, or from step 0 where it was
            ended before the first.
        progress: whether to show on stderr how far it is.
        announce: told in words what was loaded of `config.pretrained`.

    Returns:
        The results of `worldmodels.training.fit`, and the folder's path as `"run"`.

    Raises:
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once the state is saved.
        DatasetError: the dataset was collected otherwise than the config asks for.
        RunError: the dataset is not the one a resumed run began with.
        LockedError: another process writes to the run.

    Of several processes that torchrun started, each calls this; the first's arguments hold for all.
    """
    from worldmodels.training.fit import driven

    with joined() as ranks:
        if not ranks.first:
            return serve(ranks) or {}
        return driven(training(config, dataset, run, resume, progress, announce, ranks))


def serve(ranks: Ranks) -> dict[str, Any] | None:
    """Do a share of what the first process trains next; its results, or None where it trains no more."""
    from worldmodels.data.dataset import load_dataset
    from worldmodels.training.fit import fit

    task = ranks.share()
    if task is None:
        return None
    plugins.load_inherited()
    config, run = from_dict(task["config"]), RunFolder(Path(task["run"]))
    dataset = load_dataset(task["dataset"])
    fit(config, dataset, run, Unlogged(), resume=task["resume"], ranks=ranks)
    return ranks.share()


def training(
    config: TrainConfig,
    dataset: Dataset | None,
    run: RunFolder | None,
    resume: bool,
    progress: bool,
    announce: Callable[[str], object],
    ranks: Ranks,
    interruption: Interruption | None = None,
) -> Steps:
    """`train` in the first process, or in the only one, step by step: see ``fit.fitting``."""
    from worldmodels.data import dataset_for, settled

    _check_asked(config, dataset, run, resume)
    if run is None:
        dataset = dataset_for(config, progress=progress) if dataset is None else dataset
        config = settled(config, dataset)
        run = start(config)
    with run.lock():
        config, dataset = _agreed(config, dataset, run, resume, progress)
        run.update(dataset=_origin(run, dataset), error=None)
        with _recorded(run) as done, Progress("training, epoch", config.epochs, progress) as bar:
            logger, ended = _logger(config, dataset, run, resume), "failed"
            try:
                result = yield from _fit(
                    config, dataset, run, logger, resume, bar.reach, announce, ranks, interruption
                )
                result = ranks.share({**result, "run": str(run.path)})
                ended = "done"
                done()
                record_best(config, dataset, run, logger, result, announce)
            finally:
                logger.finish(ended)
    return result


def _check_asked(config: Any, dataset: Any, run: Any, resume: bool) -> None:
    """Raise what cannot be before anything is collected; warn of what has no effect."""
    from worldmodels.training.pretrained import check_source
    from worldmodels.training.resumption import has_none

    made = "worldmodels.default_config makes one"
    require("config", config, isinstance(config, TrainConfig), f"a TrainConfig; {made}")
    if isinstance(dataset, (str, Path)):
        raise ValueError(
            f"dataset={str(dataset)!r} is not valid: expected a Dataset (worldmodels.load_dataset reads "
            "one); the config takes a name: replace(config, dataset=...)"
        )
    valid = dataset is None or hasattr(dataset, "metadata")
    require("dataset", dataset, valid, "a Dataset (worldmodels.load_dataset reads one)")
    valid = run is None or isinstance(run, RunFolder)
    require("run", run, valid, "a RunFolder: RunFolder.open(path), or start(config) for a new one")
    if resume and run is None:
        raise RunError("resume=True goes on with a run: give it as run=RunFolder.open(path)")
    if run is not None and not resume and not has_none(run.checkpoints):
        raise RunError(
            f"{run.path} holds checkpoints, and runs never overwrite one another: give resume=True to "
            "go on, or a new run"
        )
    for line in [] if resume else without_effect(config):
        warnings.warn(line, stacklevel=2)
    if config.pretrained and not resume:
        check_source(config.pretrained, config)


def _agreed(
    config: TrainConfig, dataset: Dataset | None, run: RunFolder, resume: bool, progress: bool
) -> tuple[TrainConfig, Dataset]:
    """The dataset of a run, and the config as it is true of it; one that is resumed keeps its own."""
    from worldmodels.data import dataset_for, settled

    if resume:
        if dataset is None:
            return config, dataset_to_resume(run, config, progress)
        _check_dataset(run, dataset)
        return config, dataset
    dataset = dataset_for(config, progress=progress) if dataset is None else dataset
    return settled(config, dataset), dataset


@contextmanager
def _recorded(run: RunFolder) -> Iterator[Callable[[], None]]:
    """Have `run.json` say how the block ended: "done" as soon as the function given is called."""
    status, error = "failed", None

    def end() -> None:
        with Interruption().watched() as late:
            try:
                run.finish(status, error=error)
            except RunError as problem:  # the reason why the block ended is worth more
                warnings.warn(
                    f"{problem}; the run ended as {status!r}", RuntimeWarning, stacklevel=2
                )
        if late.signal is not None:
            late.stop()

    def done() -> None:
        nonlocal status
        status = "done"
        end()

    run.update(status="running")
    try:
        yield done
    except (KeyboardInterrupt, SystemExit):
        if status != "done":
            status = "interrupted"
            end()
        raise
    except BaseException as problem:
        if status != "done":
            error = " ".join(str(problem).split()) or type(problem).__name__
            end()
        raise


def _logger(config: TrainConfig, dataset: Dataset, run: RunFolder, resume: bool) -> Logger:
    """Where the run's metrics go; one that goes on goes on at Weights & Biases, too."""
    logger = Logger(
        run.path,
        config.log,
        {**to_dict(config), "dataset_hash": dataset.hash},
        name=f"{config.env_name}-{config.model_name}-s{config.seed}",
        run_id=run.record.get("wandb_id") if resume else None,
    )
    run.update(wandb_id=logger.run_id)
    return logger


def _fit(
    config: TrainConfig,
    dataset: Dataset,
    run: RunFolder,
    logger: Logger,
    resume: bool,
    on_step: Callable[[float, str], None],
    announce: Callable[[str], object],
    ranks: Ranks,
    interruption: Interruption | None,
) -> Steps:
    """`fit` between the record of what goes in and of what comes out."""
    from worldmodels.training.fit import fitting

    origin = {"sha256": dataset.hash, "episodes": len(dataset), "dt": dataset.dt}
    logger.artifact(f"buffer-{config.env_name}", "dataset", dataset.path, origin, used=True)
    if ranks.count > 1:
        where = {"dataset": os.path.abspath(dataset.path), "run": os.path.abspath(run.path)}
        ranks.share({"config": to_dict(config), "resume": resume, **where})
    return fitting(config, dataset, run, logger, resume, on_step, announce, ranks, interruption)


def _check_dataset(run: RunFolder, dataset: Dataset) -> None:
    """Raise RunError unless a resumed run finds the very bytes that it began with."""
    recorded = run.record.get("dataset")
    if recorded and recorded["sha256"] != dataset.hash:
        raise RunError(
            f"the dataset at {dataset.path} is not the one this run began with "
            f"({dataset.hash[:8]} instead of {recorded['sha256'][:8]}): bring it back to resume"
        )


def _origin(run: RunFolder, dataset: Dataset) -> dict[str, str]:
    """How to find the run's dataset again: by its hash, where it lies, and where from the run."""
    path = os.path.abspath(dataset.path)
    try:
        from_run = os.path.relpath(path, os.path.abspath(run.path))
    except ValueError:  # another drive
        from_run = path
    return {"path": path, "from_run": from_run, "sha256": dataset.hash}
