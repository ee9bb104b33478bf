"""What a finished training leaves beside its checkpoints: artifacts, pictures, a film."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from worldmodels.configs.training import TrainConfig
from worldmodels.storage.files import StorageError
from worldmodels.storage.runs import RunFolder
from worldmodels.training.tracking import Logger

if TYPE_CHECKING:
    from worldmodels.data import Dataset


def record_best(
    config: TrainConfig,
    dataset: Dataset,
    run: RunFolder,
    logger: Logger,
    result: dict[str, Any],
    announce: Callable[[str], object],
) -> None:
    """The best model to where the metrics go, and pictures of a visual one."""
    best = run.checkpoints / "best"
    if not best.is_dir():
        return
    name = f"model-{config.env_name}-{config.model_name}"
    scores = {"seed": config.seed, "best_nmse": result["best_nmse"]}
    logger.artifact(name, "model", best, scores, aliases=("best",))
    logger.summary({"best_nmse": result["best_nmse"]})
    _show(config, dataset, run, logger, announce)


def _show(
    config: TrainConfig,
    dataset: Dataset,
    run: RunFolder,
    logger: Logger,
    announce: Callable[[str], object],
) -> None:
    """Pictures of a model in the run's folder, and a film where Weights & Biases shows it."""
    from worldmodels.films.recording import record
    from worldmodels.films.video import write_video
    from worldmodels.films.viewer import viewer_of
    from worldmodels.storage.checkpoint import load

    viewer, folder = viewer_of(config.model.medium), run.path / "pictures"
    if not viewer.after_training:
        return
    try:
        model = load(run.path)
        for path in viewer.pictures(model, dataset, folder, config.seed):
            logger.image(f"pictures/{path.stem}", path)
        announce(f"pictures in {folder}")
        if config.log.wandb != "disabled":
            recording = record(model.spec.env_name, model.spec.env_kwargs, "random")
            frames = viewer.film(model, recording, 240, lambda: None)
            film = write_video(frames, folder / "beside.mp4", 1 / recording.dt)
            logger.video("pictures/beside", film)
    except (ValueError, OSError, StorageError) as error:
        # The run is whole without: its episodes are too short, or the disk is full.
        announce(f"no pictures: {error}")
