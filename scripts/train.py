"""Train a world model of a physical system.

Options may stand in any order; --help shows those of the env and the model that are named.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from cli import UsageError, main_guard

import physgym
from worldmodels.config import MODELS, EnvConfig, TrainConfig, default_config, from_dict
from worldmodels.storage import parse_json

EXAMPLE = "python scripts/train.py --env pendulum --model port_hamiltonian --model.hidden 128"

EnvName = tyro.extras.literal_type_from_choices(physgym.SYSTEMS)
ModelName = tyro.extras.literal_type_from_choices(MODELS)


@dataclass(frozen=True)
class Arguments(TrainConfig):
    """The command line: a training configuration and where it comes from."""

    env_name: Annotated[EnvName, tyro.conf.arg(name="env")] = "oscillator"
    """System to learn."""
    model_name: Annotated[ModelName, tyro.conf.arg(name="model")] = "jump"
    """Structure of the model."""
    config: Path | None = field(default=None, kw_only=True)
    """A run's config.json (or the run) to start from; other options override it."""
    resume: Path | None = field(default=None, kw_only=True)
    """A run to continue; only epochs, device, log and save_seconds may change."""


def parse(argv: list[str]) -> Arguments:
    """The command line's arguments. Ends the process with status 2 for what tyro rejects.

    A first pass reads the names alone, because they decide which options there are.
    Raises UsageError, or ValueError for an unknown env or model, with a suggestion.
    """
    peek = argparse.ArgumentParser("train.py", add_help=False, allow_abbrev=False)
    for name in ("--env", "--model", "--config", "--resume"):
        peek.add_argument(name)
    named, _ = peek.parse_known_args(argv)
    if named.config and named.resume:
        raise UsageError("--config starts a new run and --resume continues one: give one of them")
    base = _base(named.resume or named.config)
    if named.env:
        env_name = physgym.get_system(named.env).name
        argv = ["--env", env_name, *_without(argv, "--env")]
        if env_name != base.env_name:
            model = default_config(env_name, base.model_name).model
            base = replace(base, env_name=env_name, env=EnvConfig(), model=model)
    if named.model and named.model != base.model_name:
        model = default_config(base.env_name, named.model).model
        base = replace(base, model_name=named.model, model=model)
    values = {f.name: getattr(base, f.name) for f in fields(TrainConfig)}
    return tyro.cli(
        Arguments,
        args=argv,
        default=Arguments(**values),
        prog="train.py",
        description=f"{__doc__}\n{_describe(base.env_name)}\n\nExample: {EXAMPLE}",
        config=(tyro.conf.AvoidSubcommands,),
    )


def _base(source: str | None) -> TrainConfig:
    """The saved configuration at `source` (a run or its config.json), or the defaults."""
    if source is None:
        return default_config()
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the config {str(path)!r}: {error.strerror}") from error
    return replace(from_dict(parse_json(raw, str(path))), out=None)


def _without(argv: list[str], option: str) -> list[str]:
    """`argv` without `option VALUE` and `option=VALUE`."""
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _describe(env_name: str) -> str:
    """The physical parameters of a system, for the help of `--env.params`."""
    system = physgym.get_system(env_name)
    values = " ".join(f"{k} {v:g}" for k, v in system.Params()._asdict().items())
    return f"Physical parameters of the {system.name} (--env.params): {values}"


def to_config(arguments: Arguments) -> TrainConfig:
    """The training configuration in the arguments."""
    return TrainConfig(**{f.name: getattr(arguments, f.name) for f in fields(TrainConfig)})


def main() -> int | None:
    """Parse, train, and say where everything lies."""
    arguments = parse(sys.argv[1:])
    config = to_config(arguments)

    from worldmodels import experiment
    from worldmodels.data import dataset_for
    from worldmodels.runs import RunFolder

    began = time.perf_counter()
    resume = arguments.resume is not None
    if resume:
        run = RunFolder.open(arguments.resume)
        config = experiment.reopen(run, config)
        run.update(resumed=[*run.record.get("resumed", []), sys.argv])
    dataset = dataset_for(config)
    if not resume:
        run = experiment.start(config, sys.argv)
    print(f"dataset {dataset.path}\nrun     {run.path}", flush=True)
    try:
        result = experiment.train(config, dataset, run, resume=resume)
    except (KeyboardInterrupt, SystemExit):
        print(f"saved; to go on: python scripts/train.py --resume {run.path}", file=sys.stderr)
        raise
    _report(run.path, result, time.perf_counter() - began)


def _report(path: Path, result: dict[str, Any], seconds: float) -> None:
    """Say how good the model is on the validation split, and what to do with it."""
    print(f"best validation error {result['best_nmse']:.3g} in epoch {result['best_epoch']}")
    for name, value in result.items():
        if name.startswith("eval/nmse_"):
            steps = name.removeprefix("eval/nmse_")
            print(f"  normalised MSE after {steps} steps, last epoch: {value:.3g}")
    print(f"trained in {seconds:.0f} s; next: python scripts/evaluate.py {path}")


if __name__ == "__main__":
    main_guard(main)
