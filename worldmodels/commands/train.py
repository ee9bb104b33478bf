"""Train a world model of a physical system."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.commands import terminal as cli
from worldmodels.commands.training_arguments import asked, parse, to_config
from worldmodels.configs.training import TrainConfig, scores_one
from worldmodels.storage.runs import RunFolder, check_free

if TYPE_CHECKING:
    from worldmodels.data import Dataset


def _nothing_to_do(run: RunFolder, epochs: int) -> str:
    """What to tell who resumes a run that has its `epochs` already; empty where it has not."""
    from worldmodels.training.resumption import newest_document

    done = newest_document(run.checkpoints).get("epoch")
    if not isinstance(done, int):
        return ""  # no checkpoint yet, or loading it says what is wrong with it
    if done < epochs:
        return ""
    of = f"{done} of {epochs} epochs" if done == epochs else f"{done} epochs, --epochs is {epochs}"
    return f"{run.path} already has {of}: nothing to do; give --epochs above {done}"


def _warn_of_empty_splits(dataset: Dataset) -> None:
    empty = [name for name in ("val", "test") if not len(dataset.splits.get(name, ()))]
    if empty:
        lost = {"val": "the best epoch is chosen on the training episodes"}
        lost["test"] = "physgym evaluate will need another --dataset"
        print(
            f"warning: {dataset.path} has no {' and no '.join(empty)} episodes, of {len(dataset)} "
            f"in all: {'; '.join(lost[name] for name in empty)}; --data.episodes 10 or more",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    """Train; of several processes that torchrun started, the first reads the command line and speaks."""
    from worldmodels.training.ranks import joined

    with joined() as ranks:
        if not ranks.first:
            from worldmodels.training.experiment import serve

            while serve(ranks) is not None:
                pass
            return
        try:
            _lead()
        except SystemExit as end:
            if not end.code:  # --help
                ranks.share()
            raise
        ranks.share()  # nothing more to do: the others end


def _lead() -> None:
    """Parse, train, and say where everything lies."""
    arguments = parse(sys.argv[1:])
    config = to_config(arguments)
    began = time.perf_counter()
    if arguments.resume is not None:
        resume(RunFolder.open(arguments.resume), config, began)
        return
    check(config)

    from worldmodels.data import dataset_for, settled
    from worldmodels.training import experiment

    dataset = dataset_for(config)
    config = settled(config, dataset, asked(sys.argv[1:]))
    _warn_of_empty_splits(dataset)
    run = experiment.start(config, sys.argv)
    _train(config, dataset, run, False, began)


def check(config: TrainConfig) -> None:
    """Say what cannot be before anything is collected."""
    from worldmodels.storage.checkpoint import CheckpointError
    from worldmodels.training import experiment
    from worldmodels.training.pretrained import check_source

    experiment.check_device(config.device)
    if config.out:
        check_free(config.out)
        cli.check_writable(Path(config.out), folder=True)
    if config.pretrained:
        try:
            check_source(config.pretrained, config)
        except CheckpointError as error:
            raise cli.UsageError(f"--pretrained {config.pretrained}: {error}") from error


def resume(run: RunFolder, config: TrainConfig, began: float) -> None:
    """Go on with a run; nobody else may be at it, which is asked before anything is read or written."""
    with run.lock():
        from worldmodels.training import experiment  # takes longer than to learn who else is at it

        config = experiment.reopen(run, config)
        if done := _nothing_to_do(run, config.epochs):
            print(done)
            return
        dataset = experiment.dataset_to_resume(run, config)
        _warn_of_empty_splits(dataset)
        run.update(resumed=[*run.record.get("resumed", []), sys.argv])
        _train(config, dataset, run, True, began)


def _train(
    config: TrainConfig, dataset: Dataset, run: RunFolder, again: bool, began: float
) -> None:
    from worldmodels.training import experiment

    print(f"dataset {dataset.path}\nrun     {run.path}", flush=True)
    try:
        result = experiment.train(config, dataset, run, resume=again, announce=announce)
    except (KeyboardInterrupt, SystemExit):
        line = f"saved; to go on: {cli.command('train')} --resume {run.path}"
        if run.record.get("status") == "done":
            line = f"the training is done; next: {cli.command('evaluate')} {run.path}"
        print(line, file=sys.stderr)
        raise
    _report(run.path, result, time.perf_counter() - began, scores_one(config))


def announce(lines: str) -> None:
    """Print at once, also into a pipe."""
    print(lines, flush=True)


def _report(path: Path, result: dict[str, Any], seconds: float, one: str = "the mean") -> None:
    """Say how good the model is on the validation split, and what to do with it; ``one``: what scores 1."""
    if result["best_epoch"] < 0:
        print(
            "warning: no epoch's validation rollouts stayed finite, so there is no best checkpoint: "
            "train longer, or lower --optim.lr",
            file=sys.stderr,
        )
    else:
        best, copying = result["best_nmse"], result["copy_nmse"]
        print(
            f"best validation error {best:.3g} in epoch {result['best_epoch']} "
            f"(copying {copying:.3g}, {one} 1)"
        )
        if best >= min(copying, 1.0):
            than = "copying what it saw last" if best >= copying else one
            print(
                f"warning: the model is no better than {than}: train longer, on more episodes, or with "
                "another structure",
                file=sys.stderr,
            )
    for name, value in result.items():
        if name.startswith("eval/nmse_"):
            steps = name.removeprefix("eval/nmse_")
            print(f"  normalised MSE after {steps} steps, last epoch: {value:.3g}")
    if any(path.glob("wandb/offline-run-*")):
        print(f"to look at it in the terminal: wandb leet {path / 'wandb'}")
    print(f"trained in {seconds:.0f} s; next: {cli.command('evaluate')} {path}")
