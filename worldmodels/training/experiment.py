"""One training run, from its configuration to its folder.

The seam that scripts, benchmarks and sweeps share: `train(config)` takes a frozen configuration and
leaves a run folder from which everything else (evaluation, envs, agents) starts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.configs.effects import without_effect
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require
from worldmodels.configs.training import TrainConfig, VisualConfig, from_dict, to_dict
from worldmodels.data.progress import Progress
from worldmodels.storage.files import RunLock
from worldmodels.storage.runs import OUTPUTS, RunError, RunFolder
from worldmodels.training.tracking import Logger

if TYPE_CHECKING:
    from worldmodels.data import Dataset

MAY_CHANGE = ("epochs", "device", "log", "save_seconds", "out")
"""Fields of a `TrainConfig` that a resumed run may change; all others decide its numbers."""


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
    """
    old = from_dict(run.config)
    changed = changed or old
    check_device(changed.device)
    for name in to_dict(old):
        before, after = getattr(old, name), getattr(changed, name)
        if name not in MAY_CHANGE and before != after:
            raise RunError(
                f"a resumed run keeps its configuration, but {name} differs: "
                f"{_difference(before, after)}. Only {', '.join(MAY_CHANGE)} may change; "
                "start a new run with --config for the rest"
            )
    return replace(changed, out=None)


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
            where it is not there.
        run: the folder to write to; None: `start(config)`, a new one.
        resume: continue from the run's last checkpoint, bit for bit.
        progress: whether to show on stderr how far it is.
        announce: told in words what was loaded of `config.pretrained`.

    Returns:
        The results of `worldmodels.training.fit`, and the folder's path as `"run"`.

    Raises:
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once the state is saved.
        DatasetError: the dataset was collected otherwise than the config asks for.
        RunError: the dataset is not the one a resumed run began with.
        LockedError: another process writes to the run.
    """
    from worldmodels.data import dataset_for, settled
    from worldmodels.training.pretrained import check_source

    made = "worldmodels.default_config makes one"
    require("config", config, isinstance(config, TrainConfig), f"a TrainConfig; {made}")
    if isinstance(dataset, (str, Path)):
        raise ValueError(
            f"dataset={str(dataset)!r} is not valid: expected a Dataset (worldmodels.load_dataset reads "
            "one); the config takes a name: replace(config, dataset=...)"
        )
    for line in [] if resume else without_effect(config):
        warnings.warn(line, stacklevel=2)
    if config.pretrained and not resume:
        check_source(config.pretrained, config)
    if dataset is None:
        dataset = dataset_for(config, progress=progress)
    config = settled(config, dataset)
    run = run or start(config)
    with RunLock(run.path):
        _check_dataset(run, dataset, resume)
        status = "failed"
        with Progress("training, epoch", config.epochs, progress) as bar:
            logger = Logger(
                run.path,
                config.log,
                {**to_dict(config), "dataset_hash": dataset.hash},
                name=f"{config.env_name}-{config.model_name}-s{config.seed}",
                run_id=run.record.get("wandb_id") if resume else None,
            )
            run.update(status="running", wandb_id=logger.run_id)
            try:
                result = _fit(config, dataset, run, logger, resume, bar.reach, announce)
                status = "done"
            except (KeyboardInterrupt, SystemExit):
                status = "interrupted"
                raise
            finally:
                logger.finish(status)
                run.finish(status)
    return {**result, "run": str(run.path)}


def _fit(
    config: TrainConfig,
    dataset: Dataset,
    run: RunFolder,
    logger: Logger,
    resume: bool,
    on_step: Callable[[float, str], None],
    announce: Callable[[str], object],
) -> dict[str, Any]:
    """`fit` between the record of what goes in and of what comes out."""
    from worldmodels.training.fit import fit

    origin = {"sha256": dataset.hash, "episodes": len(dataset), "dt": dataset.dt}
    logger.artifact(f"buffer-{config.env_name}", "dataset", dataset.path, origin, used=True)
    result = fit(config, dataset, run, logger, resume=resume, on_step=on_step, announce=announce)
    best = run.checkpoints / "best"
    if best.is_dir():
        name = f"model-{config.env_name}-{config.model_name}"
        scores = {"seed": config.seed, "best_nmse": result["best_nmse"]}
        logger.artifact(name, "model", best, scores, aliases=("best",))
        logger.summary({"best_nmse": result["best_nmse"]})
        if isinstance(config.model, VisualConfig):
            _show(config, dataset, run, logger, announce)
    return result


def _show(
    config: TrainConfig,
    dataset: Dataset,
    run: RunFolder,
    logger: Logger,
    announce: Callable[[str], object],
) -> None:
    """Pictures of a visual model in the run's folder, and a film where Weights & Biases shows it."""
    from worldmodels.films.pixel_recording import film_pixels
    from worldmodels.films.pixels import write_pictures
    from worldmodels.films.recording import record
    from worldmodels.films.video import write_video
    from worldmodels.storage.checkpoint import load

    model, folder = load(run.path), run.path / "pictures"
    try:
        for path in write_pictures(model, dataset, folder, config.seed):
            logger.image(f"pictures/{path.stem}", path)
        announce(f"pictures in {folder}")
        if config.log.wandb != "disabled":
            recording = record(model.spec.env_name, model.spec.env_kwargs, "random")
            frames = film_pixels(model, recording, 240)
            film = write_video(frames, folder / "beside.mp4", 1 / recording.dt)
            logger.video("pictures/beside", film)
    except ValueError as error:  # the run is whole without: a buffer of very short episodes, say
        announce(f"no pictures: {error}")


def _check_dataset(run: RunFolder, dataset: Dataset, resume: bool) -> None:
    """Record which buffer a run learns from; a resumed run must find the same bytes."""
    recorded = run.record.get("dataset")
    if resume and recorded and recorded["sha256"] != dataset.hash:
        raise RunError(
            f"the dataset at {dataset.path} is not the one this run began with "
            f"({dataset.hash[:8]} instead of {recorded['sha256'][:8]}): bring it back to resume"
        )
    run.update(dataset={"path": str(dataset.path), "sha256": dataset.hash})


def _difference(before: Any, after: Any) -> str:
    """The first differing leaf of two configurations, as text."""
    if type(before) is type(after) and hasattr(before, "__dataclass_fields__"):
        for name in before.__dataclass_fields__:
            if getattr(before, name) != getattr(after, name):
                inner = _difference(getattr(before, name), getattr(after, name))
                return f"{name} {inner}" if "was" in inner else inner
    return f"was {before!r}, asked {after!r}"
