"""The words of `physgym train`: which options there are depends on the env and the model that are named."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import physgym
from worldmodels.commands import terminal as cli
from worldmodels.configs.environment import find_system
from worldmodels.configs.training import (
    KINDS,
    PREDICTORS,
    DataConfig,
    EnvConfig,
    KeypointConfig,
    PixelConfig,
    TrainConfig,
    VisualConfig,
    default_config,
    from_dict,
)
from worldmodels.storage.files import StorageError, read_json
from worldmodels.storage.runs import run_of

DESCRIPTION = """Train a world model of a physical system.

Options may stand in any order; --help shows those of the env and the model that are named."""
EXAMPLE = "physgym train --env pendulum --model port_hamiltonian --model.hidden 128"

ModelName: Any = tyro.extras.literal_type_from_choices(KINDS)
PredictorName: Any = tyro.extras.literal_type_from_choices(PREDICTORS)


@dataclass(frozen=True)
class VisualArguments(VisualConfig):
    """The options of a visual model, the most used without a prefix."""

    predictor: Annotated[PredictorName, tyro.conf.arg(name="predictor", prefix_name=False)] = (
        "spatial_jump"
    )
    """Medium of the latent and structure that steps it; both decide the defaults of the others."""
    size: Annotated[
        Literal["tiny", "small", "base"], tyro.conf.arg(name="size", prefix_name=False)
    ] = "small"
    """tiny for tests, small for 2 CPU cores, base for a GPU: decides the defaults of the others."""


@dataclass(frozen=True)
class KeypointArguments(KeypointConfig):
    """The options of a model of keypoints, the most used without a prefix."""

    predictor: Annotated[PredictorName, tyro.conf.arg(name="predictor", prefix_name=False)] = (
        "keypoint_hamiltonian"
    )
    """Medium of the latent and structure that steps it; both decide the defaults of the others."""
    size: Annotated[
        Literal["tiny", "small", "base"], tyro.conf.arg(name="size", prefix_name=False)
    ] = "small"
    """tiny for tests, small for most systems, base for wider networks: decides the defaults of the others."""


ARGUMENTS: dict[type, type] = {VisualConfig: VisualArguments, KeypointConfig: KeypointArguments}
"""The command line's form of each config of a model of pixels."""


@dataclass(frozen=True)
class Arguments(TrainConfig):
    """The command line: a training configuration and where it comes from."""

    env_name: Annotated[str, tyro.conf.arg(name="env")] = "oscillator"
    """System to learn: pendulum, three_body or another of `physgym list`, or the id of any Gymnasium env."""
    model_name: Annotated[ModelName, tyro.conf.arg(name="model")] = "jump"
    """Structure of the model."""
    config: Path | None = field(default=None, kw_only=True)
    """A run's config.json (or the run) to start from; other options override it."""
    resume: Path | None = field(default=None, kw_only=True)
    """A run to continue; only epochs, device, log and save_seconds may change, and where its dataset
    lies."""


def _check_source(named: argparse.Namespace) -> None:
    """Raises UsageError for a run to start from or to go on with that cannot be."""
    if named.config and named.resume:
        raise cli.UsageError(
            "--config starts a new run and --resume continues one: give one of them"
        )
    if named.resume and named.out:
        raise cli.UsageError(
            f"--out {named.out} names the folder of a new run, and --resume goes on in its own: "
            "leave it out"
        )
    if named.resume and not Path(named.resume).exists():
        raise cli.UsageError(f"no such run: {named.resume}; give the folder that training printed")


def parse(argv: list[str]) -> Arguments:
    """The command line's arguments. Ends the process with status 2 for what tyro rejects.

    A first pass reads the names alone, because they decide which options there are.
    Raises UsageError, or ValueError for an unknown env or model, with a suggestion.
    """
    cli.check_once(argv)
    peek = argparse.ArgumentParser("physgym train", add_help=False, allow_abbrev=False)
    for name in ("env", "model", "predictor", "size", "config", "resume", "dataset", "out"):
        peek.add_argument(f"--{name}")
    named, _ = peek.parse_known_args(argv)
    _check_source(named)
    env_name = find_system(named.env, "--env").name if named.env else None
    source = named.resume or named.config
    if source is None:  # epochs, too, differ by structure
        base = _default(env_name or "oscillator", named.model or "jump", named)
    else:
        base = _base(source)
    if named.config and named.dataset not in (
        None,
        "None",
    ):  # which says itself how it was collected
        env = EnvConfig(action_mode=base.env.action_mode)
        base = replace(base, dataset=named.dataset, env=env, data=DataConfig())
    if env_name:
        argv = ["--env", env_name, *_without(argv, "--env")]
        if env_name != base.env_name:
            model = base.model
            if not isinstance(model, PixelConfig):
                model = default_config(env_name, base.model_name).model
            if base.dataset is not None and named.dataset is None:  # it is of the other env
                base = replace(base, dataset=None, data=DataConfig())
            base = replace(base, env_name=env_name, env=EnvConfig(), model=model)
    if named.model and named.model != base.model_name:
        base = _with_model(base, _default(base.env_name, named.model, named))
    elif isinstance(base.model, PixelConfig) and _other_visual(base.model, named):
        predictor, size = named.predictor or base.model.predictor, named.size or base.model.size
        base = _with_model(base, default_config(base.env_name, "visual", predictor, size))
    if isinstance(base.model, PixelConfig):
        options = {f.name: getattr(base.model, f.name) for f in fields(base.model)}
        base = replace(base, model=ARGUMENTS[type(base.model)](**options))
    elif named.predictor or named.size:
        given = f"--predictor {named.predictor}" if named.predictor else f"--size {named.size}"
        raise cli.UsageError(
            f"{given} is an option of --model visual, but the model is {base.model_name}"
        )
    values = {f.name: getattr(base, f.name) for f in fields(TrainConfig)}
    return cli.parse(
        Arguments,
        args=argv,
        default=Arguments(**values),
        description=f"{DESCRIPTION}\n{_describe(base.env_name)}\n\n    {EXAMPLE}",
        config=(tyro.conf.AvoidSubcommands,),
    )


def asked(argv: list[str]) -> set[str]:
    """The options of env and data in `argv`, as fields: "data.image_size", "env.randomize"."""
    words = (word.partition("=")[0].replace("_", "-") for word in argv)
    names = (word.removeprefix("--").replace(".no-", ".") for word in words)
    return {name.replace("-", "_") for name in names if name.startswith(("env.", "data."))}


def _default(env_name: str, model_name: str, named: argparse.Namespace) -> TrainConfig:
    """The defaults of a model, and of the predictor and size that are named for a visual one."""
    given = {k: v for k in ("predictor", "size") if (v := getattr(named, k)) is not None}
    if model_name != "visual":
        return default_config(env_name, model_name)
    return default_config(env_name, model_name, **given)


def _with_model(base: TrainConfig, other: TrainConfig) -> TrainConfig:
    """`base` with the model of `other`; a visual model brings its optimiser and length along."""
    data = base.data
    if other.model_name != "visual":
        data = replace(data, image_size=DataConfig.image_size)
    named = replace(base, model_name=other.model_name, model=other.model, data=data)
    if "visual" not in (base.model_name, other.model_name):
        return named
    return replace(
        named,
        optim=other.optim,
        epochs=other.epochs,
        validation_steps=other.validation_steps,
        device=other.device,
    )


def _other_visual(model: PixelConfig, named: argparse.Namespace) -> bool:
    """Whether another predictor or size is named than that of ``model``."""
    return named.predictor not in (None, model.predictor) or named.size not in (None, model.size)


def _base(source: str) -> TrainConfig:
    """The saved configuration at `source`: a run, or a part of one, or any file of one."""
    path = Path(source)
    path = run_of(path) / "config.json" if path.is_dir() else path
    try:
        values = read_json(path)
    except StorageError as error:
        raise cli.UsageError(f"cannot read the config {str(path)!r}: {error}") from error
    return replace(from_dict(values), out=None)


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
    if "parameters" not in system.knows:
        told = (
            system.coordinates
            or "unknown (structures without positions alone: jump, lstm, first_order)"
        )
        return f"Coordinates of {system.env_id} (--env.coordinates): {told}"
    values = " ".join(f"{k} {v:g}" for k, v in system.Params()._asdict().items())
    return f"Physical parameters of the {system.name} (--env.params): {values}"


def to_config(arguments: Arguments) -> TrainConfig:
    """The training configuration in the arguments."""
    values = {f.name: getattr(arguments, f.name) for f in fields(TrainConfig)}
    for kind, form in ARGUMENTS.items():
        if isinstance(arguments.model, form):
            model = {f.name: getattr(arguments.model, f.name) for f in fields(kind)}
            values["model"] = kind(**model)
    return TrainConfig(**values)
