"""What a training does to a model: descend, validate, save, and go on where it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldmodels.configs.training import PixelConfig, TrainConfig, VisualConfig, scores_one, to_dict
from worldmodels.data.batches import TrainingError
from worldmodels.interface import Batch, DivergenceError
from worldmodels.storage.checkpoint import (
    check_finite,
    check_tensors,
    not_finite,
    resume_checkpoint,
    save_checkpoint,
)
from worldmodels.training.beginning import accelerate, seeded_model, seen_first
from worldmodels.training.loaders import loader_of, noise, take_share
from worldmodels.training.optimisers import Optimisers, learning_rate, optimiser
from worldmodels.training.ranks import Ranks
from worldmodels.training.resumption import (
    Progress,
    check_config,
    check_spec,
    progress_of,
    restore_optimiser,
    saved_config,
)


class RunFolderLike(Protocol):
    """What ``fit`` needs of a run: where its checkpoints go."""

    @property
    def checkpoints(self) -> Path: ...


class LoggerLike(Protocol):
    """What ``fit`` needs of a logger."""

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def rewind(self, step: int) -> None: ...


class Trainer:
    """One run in progress; ``fit`` is its only user."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Any,
        run: RunFolderLike,
        logger: LoggerLike,
        on_step: Callable[[float, str], None] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self.logger = logger
        self.ranks = ranks or Ranks()
        self.device = self.ranks.device(config.device)
        self.seen = self.ranks.in_turn(lambda: seen_first(config, dataset, on_step))
        self.model = seeded_model(config, dataset, self.seen, run.checkpoints)
        self.model.to(self.device)
        self.loader = loader_of(config, dataset, self.device, self.model.spec, self.seen)
        take_share(self.loader, self.ranks)
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
        self.prepare()
        logs, finite = self._gradients(self.progress.step)
        if self.settle(logs, finite):
            self.optimiser.step()

    def prepare(self) -> None:
        """Set the learning rate of the step to come, and forget the gradients of the last."""
        rate = learning_rate(self.config.optim, self.progress.step, self.total)
        for group in self.optimiser.param_groups:
            group["lr"] = group.get("scale", 1.0) * rate
        self.optimiser.zero_grad(set_to_none=True)

    def settle(self, logs: Mapping[str, float], finite: bool) -> bool:
        """Count a step whose gradients are there, clipped; whether the optimiser is to make it.

        Raises ``TrainingError`` where too many in a row were not finite.
        """
        progress = self.progress
        if finite:
            finite = self._clip(self.config.optim.grad_clip or math.inf)
        progress.step += 1
        if not finite:
            self._skip()
            return False
        progress.bad_in_a_row = 0
        progress.loss_count += 1
        for name, value in logs.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        return True

    def _gradients(self, step: int) -> tuple[dict[str, float], bool]:
        """Gradients of one step, a share from each of its batches; logs, and whether all is finite."""
        parts = self.config.optim.accumulate
        sums: dict[str, float] = {}
        for part in range(parts):
            number = step * parts + part
            batch = self.loader.batch(number, step, self.total)
            loss, logs = self._loss(batch, number)
            weight = float(batch.mask.sum()) if self.ranks.count > 1 else 1.0
            share = self.ranks.portion(math.nan if loss is None else weight)
            if loss is None or share is None:
                return sums, False
            (loss / parts * share).backward()
            self.frames += batch.mask.numel() * self.ranks.count
            for name, value in logs.items():
                sums[name] = sums.get(name, 0.0) + float(value) / parts * share
        self.ranks.add_gradients(
            p for group in self.optimiser.param_groups for p in group["params"]
        )
        return self.ranks.total(sums), True

    def _loss(self, batch: Batch, number: int) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Loss of a batch and what is logged of it; None where it is not finite."""
        try:
            with noise(self.config.seed, self.ranks.stream(number), self.device):
                loss, logs = self.model.loss(batch)
        except DivergenceError:
            return None, {}
        return (loss, logs) if bool(torch.isfinite(loss)) else (None, {})

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
        self._meet()
        if not self.ranks.first:
            progress.sums, progress.loss_count = {}, 0
            return {}
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

    def _meet(self) -> None:
        """Have all processes know what each has seen of how large latents are."""
        if isinstance(self.config.model, VisualConfig):
            self.ranks.widest(self.model.reach)

    def save(self, name: str, scores: Mapping[str, float] | None = None) -> None:
        """Publish a checkpoint: ``best`` for use, ``last`` to go on from.

        Raises ``TrainingError`` where a tensor is not finite: no step could mend it any more.
        """
        if not self.ranks.first:
            return
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
