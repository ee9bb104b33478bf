"""Fit a world model to a buffer: one loop, as a function.

Everything random is a function of the config's seed and the number of the step, and everything else
that a step depends on is saved: a run that was killed and resumed ends bit-equal to one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldmodels import metrics
from worldmodels.batches import TrainingError, Validation, Windows
from worldmodels.checkpoint import load_checkpoint, resume_checkpoint, save_checkpoint
from worldmodels.config import OptimConfig, TrainConfig, to_dict
from worldmodels.interface import Batch, DivergenceError, Spec, WorldModel
from worldmodels.interruption import Interruption
from worldmodels.soap import SOAP
from worldmodels.state import build


class RunFolderLike(Protocol):
    """What ``fit`` needs of a run: where its checkpoints go."""

    @property
    def checkpoints(self) -> Path: ...


class LoggerLike(Protocol):
    """What ``fit`` needs of a logger."""

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def rewind(self, step: int) -> None: ...


def spec_of(dataset: Any) -> Spec:
    """What a model must know of the env that ``dataset`` came from."""
    import physgym

    system = physgym.get_system(dataset.env_name)
    discrete = dataset.actions.ndim == 2
    return Spec(
        env_name=system.name,
        env_kwargs=dict(dataset.env_kwargs),
        dt=float(dataset.dt),
        state_size=system.state_size,
        angles=tuple(system.angles),
        action_kind="discrete" if discrete else "continuous",
        action_size=len(system.discrete_actions) if discrete else system.action_size,
        param_names=tuple(dataset.params),
        max_episode_steps=int(system.max_episode_steps),
    )


def seeded_model(config: TrainConfig, dataset: Any) -> WorldModel:
    """Model of ``config`` with weights drawn from its seed, normalised to ``dataset``'s train split."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build(spec_of(dataset), config.model_name, config.model)
    model.fit_normaliser(dataset.subset("train"))
    return model


def optimiser(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that ``config`` names, over all parameters of ``model``."""
    parameters = list(model.parameters())
    if config.name == "adam":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return SOAP(parameters, lr=config.lr, weight_decay=config.weight_decay)


def learning_rate(config: OptimConfig, step: int, total: int) -> float:
    """Learning rate of ``step`` (from 0) of ``total``: a pure function, so nothing of it is saved."""
    if config.schedule == "constant":
        return config.lr
    warmup = 0.05 * total if config.schedule == "onecycle" else 0.0
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1.0)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


@dataclass
class Progress:
    """Where a run is: everything a step depends on beside weights and optimiser."""

    step: int = 0
    best: float = math.inf
    best_epoch: int = -1
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0


class Trainer:
    """One run in progress; ``fit`` is its only user."""

    def __init__(
        self, config: TrainConfig, dataset: Any, run: RunFolderLike, logger: LoggerLike
    ) -> None:
        self.config = config
        self.run = run
        self.logger = logger
        self.model = seeded_model(config, dataset).to(config.device)
        self.optimiser = optimiser(config.optim, self.model)
        model = config.model
        windowed = model.objective == "shooting" or config.model_name == "lstm"
        train = dataset.subset("train")
        self.windows = Windows(
            train,
            model.rollout_steps if windowed else 1,
            config.optim.batch_size,
            config.seed,
            config.device,
        )
        scale = metrics.state_scale(train, self.model.spec.angles)
        split = "val" if len(dataset.splits.get("val", ())) else "train"
        self.validation = Validation(
            dataset.subset(split), self.model.spec, scale, config.validation_steps, config.device
        )
        per_epoch = config.optim.steps_per_epoch or self.windows.batches_per_pass
        self.steps_per_epoch = per_epoch
        self.total = per_epoch * config.epochs
        self.progress = Progress()
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Continue from the last checkpoint."""
        checkpoint = resume_checkpoint(self.run.checkpoints / "last")
        self.model.load_state_dict(checkpoint.tensors)
        self.optimiser.load_state_dict(checkpoint.train_state["optimiser"])
        self.progress = Progress(**checkpoint.train_state["progress"])
        self.logger.rewind(self.progress.step // self.steps_per_epoch)

    def descend(self) -> None:
        """One step of the optimiser; a loss or gradient that is not finite changes nothing."""
        progress, optim = self.progress, self.config.optim
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(optim, progress.step, self.total)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss, logs = self.model.loss(self._window(progress.step))
            finite = bool(torch.isfinite(loss))
        except DivergenceError:
            finite = False
        if finite:
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), optim.grad_clip or math.inf)
            finite = bool(torch.isfinite(norm))
        progress.step += 1
        if not finite:
            self._skip()
            return
        self.optimiser.step()
        progress.bad_in_a_row = 0
        progress.loss_sum += float(logs["loss"])
        progress.loss_count += 1

    def _window(self, step: int) -> Batch:
        batch = self.windows.batch(step)
        if not self.config.model.rollout_growth or self.config.model.objective != "shooting":
            return batch
        grown = math.ceil(self.windows.length * min(1.0, 2.0 * (step + 1) / self.total))
        steps = max(1, grown)
        return Batch(
            batch.states[:, : steps + 1],
            batch.actions[:, :steps],
            batch.params,
            batch.mask[:, :steps],
        )

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
        scores = self.validation.score(self.model)
        loss = progress.loss_sum / progress.loss_count if progress.loss_count else math.nan
        values = {"train/loss": loss, "train/skipped": progress.skipped}
        values["train/lr"] = learning_rate(self.config.optim, progress.step - 1, self.total)
        values.update({f"eval/{name}": value for name, value in scores.items()})
        self.logger.log(values, epoch)
        progress.loss_sum, progress.loss_count = 0.0, 0
        if math.isfinite(scores["nmse"]) and scores["nmse"] < progress.best:
            progress.best, progress.best_epoch = scores["nmse"], epoch
            self.save("best", scores)
        return values

    def save(self, name: str, scores: Mapping[str, float] | None = None) -> None:
        """Publish a checkpoint: ``best`` for use, ``last`` to go on from."""
        model = self.model
        config = {
            "spec": model.spec.to_dict(),
            "model_name": self.config.model_name,
            "model": to_dict(self.config.model),
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
        }
        save_checkpoint(self.run.checkpoints / name, config, model.state_dict(), state, meta)


def fit(
    config: TrainConfig,
    dataset: Any,
    run: RunFolderLike,
    logger: LoggerLike,
    resume: bool = False,
    on_step: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train as ``config`` says on ``dataset``; checkpoints go to ``run.checkpoints``.

    ``on_step`` is told after every step how many epochs are done, fractions included.
    Returns ``epochs``, ``steps``, ``best_nmse``, ``best_epoch``, ``skipped`` and the last epoch's values.
    On SIGINT or SIGTERM the step in hand is finished and the state saved; then KeyboardInterrupt or
    SystemExit(143) is raised. Raises ``TrainingError`` where losses stay not finite; the best and last
    checkpoints on disk are then the last good ones.
    """
    with _one_thread(config.device), Interruption().watched() as interruption:
        trainer = Trainer(config, dataset, run, logger)
        if resume:
            trainer.resume()
        else:
            trainer.save("last")
        values = _loop(trainer, interruption, on_step)
    progress = trainer.progress
    return {
        "epochs": progress.step // trainer.steps_per_epoch,
        "steps": progress.step,
        "best_nmse": progress.best,
        "best_epoch": progress.best_epoch,
        "skipped": progress.skipped,
        **values,
    }


def _loop(
    trainer: Trainer, interruption: Interruption, on_step: Callable[[float], None] | None
) -> dict[str, float]:
    values: dict[str, float] = {}
    progress = trainer.progress
    while progress.step < trainer.total:
        trainer.descend()
        if on_step is not None:
            on_step(progress.step / trainer.steps_per_epoch)
        if progress.step % trainer.steps_per_epoch == 0:
            values = trainer.end_epoch()
            late = time.monotonic() - trainer.saved_at >= trainer.config.save_seconds
            if late or progress.step >= trainer.total:
                trainer.save("last")
        if interruption.signal is not None:
            trainer.save("last")
            interruption.stop()
    return values


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Small networks are fastest on one thread, and results do not depend on the machine's cores."""
    before = torch.get_num_threads()
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_of(run: RunFolderLike) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """(config, tensors, meta) of a run's best checkpoint."""
    return load_checkpoint(run.checkpoints / "best")
