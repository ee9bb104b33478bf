"""What a training draws from its dataset, by the kind of model: batches, and rollouts to choose by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from worldmodels.configs.training import PixelConfig, TrainConfig
from worldmodels.data.batches import OutcomeWindows, TrainingError, Windows
from worldmodels.data.frames import FrameWindows
from worldmodels.evaluation.states import metrics
from worldmodels.interface import Batch, Spec, shortened
from worldmodels.models.backgrounds import background_of
from worldmodels.training.beginning import thinned
from worldmodels.training.ranks import Ranks
from worldmodels.training.sight import Sighted
from worldmodels.training.validation import FrameValidation, PointValidation, Validation


class Loader(Protocol):
    """What a training draws from its dataset."""

    windows: Windows
    validation: Any

    def batch(self, number: int, step: int, total: int) -> Batch:
        """Batch ``number`` of all, for step ``step`` of ``total``."""
        ...


class StateLoader:
    """Windows and rollouts of states."""

    def __init__(self, config: TrainConfig, dataset: Any, device: str, spec: Spec) -> None:
        model: Any = config.model
        windowed = model.objective == "shooting" or config.model_name == "lstm"
        train, size = dataset.subset("train"), config.optim.batch_size
        length = model.rollout_steps if windowed else 1
        kind = OutcomeWindows if spec.foreign else Windows
        self.windows = kind(train, length, size, config.seed, device)
        self.grows = model.rollout_growth and model.objective == "shooting"
        scale = metrics.state_scale(thinned(train), spec.angles)
        held = dataset.subset(_validation_split(dataset))
        self.validation = Validation(held, spec, scale, config.validation_steps, device)

    def batch(self, number: int, step: int, total: int) -> Batch:
        """Windows, which grow from 1 step where the config says so."""
        return self.grown(self.windows.batch(number), step, total)

    def grown(self, batch: Batch, step: int, total: int) -> Batch:
        """As much of a batch as step ``step`` of ``total`` learns from."""
        if not self.grows:
            return batch
        grown = math.ceil(self.windows.length * min(1.0, 2.0 * (step + 1) / total))
        return shortened(batch, max(1, grown))


class PixelLoader:
    """Windows and rollouts of pictures."""

    def __init__(self, config: TrainConfig, dataset: Any, device: str, spec: Spec) -> None:
        model: Any = config.model
        self.before = model.context_frames - 1
        self.grows, self.steps = model.rollout_growth, model.rollout_steps
        pushed = model.pushforward_steps if model.training_mode == "hgn" else 0
        train, size = dataset.subset("train"), config.optim.batch_size
        self.windows: Windows = FrameWindows(
            train, self.before + self.steps + pushed, size, config.seed, device
        )
        held = dataset.subset(_validation_split(dataset))
        black = background_of(train).mean if spec.foreign else 0.0  # ours are drawn on black
        self.validation = FrameValidation(
            held, model.context_frames, config.validation_steps, device, black
        )

    def batch(self, number: int, step: int, total: int) -> Batch:
        """Windows, whose rollout grows from 2 steps where the config says so."""
        batch = self.windows.batch(number)
        if not self.grows:
            return batch
        grown = min(max(2, math.ceil(self.steps * 2.0 * (step + 1) / total)), self.steps)
        return batch if grown == self.steps else shortened(batch, self.before + grown)


class PointLoader:
    """Windows and rollouts of coordinates that were read from pictures.

    The first ``short_share`` of a training draws rollouts from smoothed states, which grow from one step over
    two thirds of it; the rest, windows whose first frames are filtered.
    """

    def __init__(self, config: TrainConfig, dataset: Any, device: str, made: Sighted) -> None:
        model, readings = made.config, made.readings
        train, size = readings.subset("train"), config.optim.batch_size
        self.observed, self.share = model.context_frames, model.short_share
        self.short = OutcomeWindows(train, model.short_steps, size, config.seed, device)
        length = model.context_frames - 1 + model.rollout_steps
        self.windows: Windows = OutcomeWindows(train, length, size, config.seed, device)
        if self.windows.length <= model.context_frames - 1:
            longest = self.windows.length
            raise TrainingError(
                f"no train episode is read without a gap for longer than {longest} steps, and a rollout "
                f"behind context_frames={model.context_frames} needs {model.context_frames}: lower it, or "
                "collect longer episodes"
            )
        self.validation = PointValidation(
            dataset, _validation_split(dataset), made, config.validation_steps, device
        )

    def batch(self, number: int, step: int, total: int) -> Batch:
        """Short rollouts first, then long ones behind filtered frames."""
        first = self.share * total
        if step >= first:
            return self.windows.batch(number)._replace(observed=self.observed)
        grown = math.ceil(self.short.length * min(1.0, 1.5 * (step + 1) / first))
        return shortened(self.short.batch(number), max(1, grown))


def _validation_split(dataset: Any) -> str:
    return "val" if len(dataset.splits.get("val", ())) else "train"


@contextmanager
def noise(seed: int, number: int, device: str) -> Iterator[None]:
    """torch's generators as a function of seed and batch; the caller's are as before afterwards."""
    kind = torch.device(device)
    devices = [kind] if kind.type == "cuda" else []  # that of MPS cannot be put back by device
    drawn = (seed * 1_000_003 + number) % 2**63
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed also leaves word for devices that nobody uses, which costs as much as a small step
        torch.default_generator.manual_seed(drawn)
        if kind.type != "cpu":
            torch.get_device_module(kind).manual_seed(drawn)
        yield


def take_share(loader: Loader, ranks: Ranks) -> None:
    """Have a loader draw the rows of each batch that are this process's; ``TrainingError`` where there are none."""
    for windows in vars(loader).values():
        if isinstance(windows, Windows):
            if windows.batch_size < ranks.count:
                raise TrainingError(
                    f"a batch of {windows.batch_size} windows cannot be shared by {ranks.count} processes: "
                    "raise --optim.batch-size, the whole batch, or start fewer processes"
                )
            windows.rows = ranks.rows


def loader_of(
    config: TrainConfig, dataset: Any, device: str, spec: Spec, made: Sighted | None = None
) -> Loader:
    """The loader of ``config``'s model; ``made`` is what one of keypoints has read."""
    if made is not None:
        return PointLoader(config, dataset, device, made)
    if isinstance(config.model, PixelConfig):
        return PixelLoader(config, dataset, device, spec)
    return StateLoader(config, dataset, device, spec)
