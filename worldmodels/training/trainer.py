"""What a training does to a model: descend, validate, save, and go on where it was."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from physgym.compile.native import available
from worldmodels.configs.training import (
    KeypointConfig,
    PixelConfig,
    TrainConfig,
    VisualConfig,
    scores_one,
    to_dict,
)
from worldmodels.data.batches import TrainingError
from worldmodels.interface import DivergenceError, WorldModel
from worldmodels.models.building import build
from worldmodels.storage.checkpoint import (
    check_finite,
    check_tensors,
    not_finite,
    resume_checkpoint,
    save_checkpoint,
)
from worldmodels.training.devices import mixed_dtype, resolve_device
from worldmodels.training.loaders import loader_of, noise
from worldmodels.training.optimisers import Optimisers, learning_rate, optimiser
from worldmodels.training.resumption import (
    Progress,
    check_config,
    check_spec,
    progress_of,
    restore_optimiser,
    saved_config,
)
from worldmodels.training.sight import Sighted, sighted
from worldmodels.training.specs import as_begun, spec_of


class RunFolderLike(Protocol):
    """What ``fit`` needs of a run: where its checkpoints go."""

    @property
    def checkpoints(self) -> Path: ...


class LoggerLike(Protocol):
    """What ``fit`` needs of a logger."""

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def rewind(self, step: int) -> None: ...


LONG_ENOUGH = 300
"""Gradients from which on machine code is compiled for a model of states."""


def seeded_model(
    config: TrainConfig,
    dataset: Any,
    made: Sighted | None = None,
    checkpoints: Path | None = None,
) -> WorldModel:
    """Model of ``config`` with weights drawn from its seed, normalised to ``dataset``'s train split.

    ``made``: what one of keypoints has seen of the pictures; its scales are those of its readings.
    ``checkpoints``: of the run that it is for, where that may have begun with an earlier version.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        spec = spec_of(dataset, isinstance(config.model, PixelConfig), config.env.coordinates)
        if checkpoints is not None:
            spec = as_begun(spec, checkpoints)
        model = build(spec, config.model_name, config.model if made is None else made.config)
    if made is not None:
        model.sight.load_state_dict(made.sight.state_dict())
    source = dataset if made is None else made.readings
    model.fit_normaliser(source.subset("train"))
    return model


def seen_first(
    config: TrainConfig, dataset: Any, on_step: Callable[[float, str], None] | None
) -> Sighted | None:
    """What a model of keypoints reads before it is trained; None for every other model."""
    if not isinstance(config.model, KeypointConfig):
        return None
    done: dict[str, float] = {}

    def advance(share: float, stage: str) -> None:
        done[stage] = min(done.get(stage, 0.0) + share, 1.0)
        if on_step is not None:
            on_step(0.0, f"{stage} {100 * done[stage]:.0f} %")

    return sighted(config.model, config.seed, dataset, advance)


def accelerate(model: Any, config: TrainConfig, device: str, steps: int) -> None:
    """Make a model quick on ``device``: memory layout, mixed precision, compilation.

    ``steps`` gradients will be taken: where those are few, compiling would take longer than it saves.
    """
    if isinstance(config.model, VisualConfig):
        model.freeze()
        cuda = device.startswith("cuda")
        compiled = config.compile == "on" or (config.compile == "auto" and cuda)
        model.accelerate(mixed_dtype(config.precision, device), compiled)
    elif config.compile == "on" or (config.compile == "auto" and steps >= LONG_ENOUGH):
        if config.compile == "on" and not available():
            warnings.warn(
                "compile='on' finds no llvmlite, and trains by torch: pip install 'physgym[native]'",
                UserWarning,
                stacklevel=2,
            )
        getattr(model, "motion", model).accelerate()


class Trainer:
    """One run in progress; ``fit`` is its only user."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Any,
        run: RunFolderLike,
        logger: LoggerLike,
        on_step: Callable[[float, str], None] | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self.logger = logger
        self.device = resolve_device(config.device)
        self.seen = seen_first(config, dataset, on_step)
        self.model = seeded_model(config, dataset, self.seen, run.checkpoints).to(self.device)
        self.loader = loader_of(config, dataset, self.device, self.model.spec, self.seen)
        self.copying = self.loader.validation.of_copying()
        self.validated: float | None = None
        self.optimiser = optimiser(config.optim, self.model)
        per_epoch = config.optim.steps_per_epoch or self.loader.windows.batches_per_pass
        self.steps_per_epoch = per_epoch
        self.total = per_epoch * config.epochs
        accelerate(self.model, config, self.device, self.total * config.optim.accumulate)
        self.progress = Progress()
        self.saved_at = time.monotonic()
        self.frames, self.began = 0, time.monotonic()

    def resume(self) -> None:
        """Continue from the last checkpoint, bit for bit.

        Raises CheckpointError where it is damaged, or of another configuration than this run's.
        """
        folder = self.run.checkpoints / "last"
        checkpoint = resume_checkpoint(folder)
        check_config({**checkpoint.meta, **checkpoint.config}, self.config, folder)
        check_spec(checkpoint.config, self.model.spec, folder)
        check_tensors(folder, self.model.state_dict(), checkpoint.tensors)
        check_finite(folder, checkpoint.tensors)
        progress = progress_of(checkpoint, self.config, folder)
        restore_optimiser(
            self.optimiser, checkpoint.train_state["optimiser"], progress.step, folder
        )
        self.model.load_state_dict(checkpoint.tensors)
        self.progress = progress
        self.logger.rewind(progress.step // self.steps_per_epoch)

    def descend(self) -> None:
        """One step of the optimiser; a loss or gradient that is not finite changes nothing."""
        progress, optim = self.progress, self.config.optim
        for group in self.optimiser.param_groups:
            group["lr"] = group.get("scale", 1.0) * learning_rate(optim, progress.step, self.total)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            logs, finite = self._gradients(progress.step)
        except DivergenceError:
            finite = False
        if finite:
            finite = self._clip(optim.grad_clip or math.inf)
        progress.step += 1
        if not finite:
            self._skip()
            return
        self.optimiser.step()
        progress.bad_in_a_row = 0
        progress.loss_count += 1
        for name, value in logs.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value

    def _gradients(self, step: int) -> tuple[dict[str, float], bool]:
        """Gradients of one step, a share from each of its batches; logs, and whether all is finite."""
        parts = self.config.optim.accumulate
        sums: dict[str, float] = {}
        for part in range(parts):
            number = step * parts + part
            batch = self.loader.batch(number, step, self.total)
            with noise(self.config.seed, number, self.device):
                loss, logs = self.model.loss(batch)
            if not bool(torch.isfinite(loss)):
                return sums, False
            (loss / parts).backward()
            self.frames += batch.mask.numel()
            for name, value in logs.items():
                sums[name] = sums.get(name, 0.0) + float(value) / parts
        return sums, True

    def _clip(self, most: float) -> bool:
        """Limit the norm of the gradients of each optimiser's parameters; False: not finite."""
        finite = True
        separate = self.optimiser.parts.values() if isinstance(self.optimiser, Optimisers) else ()
        for part in separate or (self.optimiser,):
            parameters = [p for group in part.param_groups for p in group["params"]]
            finite &= bool(torch.isfinite(nn.utils.clip_grad_norm_(parameters, most)))
        return finite

    def pace(self) -> str:
        """Frames (or steps of states) a second, since the first step."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        unit = "frames" if isinstance(self.config.model, PixelConfig) else "samples"
        return f"{self.frames / seconds:,.0f} {unit}/s"

    def note(self) -> str:
        """The mean loss of this epoch so far, the last validation error, and the pace."""
        progress, words = self.progress, []
        if progress.loss_count and "loss" in progress.sums:
            words.append(f"loss {progress.sums['loss'] / progress.loss_count:.2g}")
        if self.validated is not None:
            known = f"copying {self.copying:.2g}, {scores_one(self.config)} 1"
            words.append(f"validation error {self.validated:.2g} ({known})")
        return ", ".join([*words, self.pace()])

    def _skip(self) -> None:
        progress = self.progress
        progress.skipped += 1
        progress.bad_in_a_row += 1
        if progress.bad_in_a_row >= self.config.optim.max_bad_steps:
            raise TrainingError(
                f"{progress.bad_in_a_row} losses in a row were not finite (at step {progress.step}): "
                f"lower --optim.lr (now {self.config.optim.lr:g}), clip gradients, or check the data; "
                "the last good checkpoints are kept"
            )

    def end_epoch(self) -> dict[str, float]:
        """Validate, log, and publish the best so far."""
        progress = self.progress
        epoch = progress.step // self.steps_per_epoch
        scores = self.loader.validation.score(self.model)
        self.validated = scores["nmse"]
        count = progress.loss_count
        values = {f"train/{name}": total / count for name, total in progress.sums.items()}
        values = {"train/loss": math.nan, **values, "train/skipped": progress.skipped}
        values["train/lr"] = learning_rate(self.config.optim, progress.step - 1, self.total)
        values.update({f"eval/{name}": value for name, value in scores.items()})
        self.logger.log(values, epoch)
        progress.sums, progress.loss_count = {}, 0
        if math.isfinite(scores["nmse"]) and scores["nmse"] < progress.best:
            progress.best, progress.best_epoch = scores["nmse"], epoch
            self.save("best", scores)
        return values

    def save(self, name: str, scores: Mapping[str, float] | None = None) -> None:
        """Publish a checkpoint: ``best`` for use, ``last`` to go on from.

        Raises ``TrainingError`` where a tensor is not finite: no step could mend it any more.
        """
        model = self.model
        if spoilt := not_finite(model.state_dict()):
            raise TrainingError(
                f"{spoilt} holds NaN or infinite values at step {self.progress.step}: lower "
                f"--optim.lr (now {self.config.optim.lr:g}), or clip gradients; the last good "
                "checkpoints are kept"
            )
        config = {
            "spec": model.spec.to_dict(),
            "model_name": self.config.model_name,
            "model": to_dict(self.config.model if self.seen is None else self.seen.config),
        }
        state = None
        if name == "last":
            state = {
                "optimiser": self.optimiser.state_dict(),
                "progress": dict(vars(self.progress)),
                "sampler": {"seed": self.config.seed, "step": self.progress.step},
            }
            self.saved_at = time.monotonic()
        meta: dict[str, Any] = {
            "step": self.progress.step,
            "epoch": self.progress.step // self.steps_per_epoch,
            "metrics": dict(scores or {}),
            "training": saved_config(self.config),
        }
        save_checkpoint(self.run.checkpoints / name, config, model.state_dict(), state, meta)
