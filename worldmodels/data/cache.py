"""The dataset of a training run: the one it names, or one collected once for its config."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require, shown
from worldmodels.configs.training import TrainConfig
from worldmodels.data.collecting import collect
from worldmodels.data.config import CollectConfig
from worldmodels.data.dataset import Dataset, load_dataset
from worldmodels.data.finding import find_dataset
from worldmodels.data.progress import say
from worldmodels.data.store import DatasetError
from worldmodels.storage.files import LockedError
from worldmodels.storage.runs import RunFolder

LONGEST_WAIT = 3600.0
"""Seconds for which a run waits while another process collects the dataset both need."""


@known_keywords
def dataset_for(
    config: TrainConfig, root: str | Path = "datasets", workers: int = 1, progress: bool = True
) -> Dataset:
    """The dataset that `config` trains on.

    With `config.dataset`, that one, as `resolve_dataset` finds it. Without, it is collected as
    `config.env` and `config.data` say, once, into `<root>/<env>/auto-<hash of these>`.
    Raises DatasetError: unknown, damaged, or collected otherwise than the config asks for
    (see `settled`).
    """
    expected = "a TrainConfig; worldmodels.default_config makes one"
    require("config", config, isinstance(config, TrainConfig), expected)
    if config.dataset is not None:
        dataset = load_dataset(resolve_dataset(config.dataset, config.env_name, root), root)
        settled(config, dataset)
        return dataset
    wanted = collect_config(config)
    return load_dataset(_collect_once(wanted, root, workers, progress), root)


def dataset_of(run: RunFolder, root: str | Path = "datasets") -> Dataset:
    """The dataset that a run learned from, wherever it lies now.

    Raises DatasetError: the run does not say, or nothing with that hash is found.
    """
    recorded = run.record.get("dataset")
    if not recorded:
        raise DatasetError(f"{run.path} does not say what it learned from: name a --dataset")
    places = _places(recorded, run.path.absolute(), Path(root))
    return load_dataset(
        find_dataset(recorded["path"], root, sha256=recorded["sha256"], places=places)
    )


def find_recorded(
    recorded: Mapping[str, str], run: Path, root: str | Path = "datasets"
) -> Path | None:
    """Folder of the dataset that `run.json` of the run folder `run` records; None: it is nowhere."""
    places = _places(recorded, run.absolute(), Path(root))
    try:
        return find_dataset(recorded["path"], root, sha256=recorded["sha256"], places=places)
    except DatasetError:
        return None


def _places(recorded: Mapping[str, str], run: Path, root: Path) -> list[Path]:
    """Where a dataset may lie that was recorded by a path relative to somewhere: around its run."""
    hint, from_run = Path(recorded["path"]), recorded.get("from_run")
    around = (run, *run.parents)
    return [
        *([run / from_run] if from_run else []),
        *(folder / hint for folder in around),
        *(folder / root.name for folder in around),
    ]


def collect_config(config: TrainConfig) -> CollectConfig:
    """What a run collects where it names no dataset; the name is `auto-<hash>`."""
    pixels = config.model_name == "visual"
    values = {**asdict(config.env), **asdict(config.data)}
    del values["coordinates"]  # the buffer holds what was observed
    if not pixels:
        del values["image_size"]  # of no meaning without pictures
    made = CollectConfig(env=config.env_name, pixels=pixels, **values)
    return replace(made, name=f"auto-{made.content_hash()}")


def resolve_dataset(
    name: str | Path, env: str | None = None, root: str | Path = "datasets"
) -> Path:
    """The folder meant by a path, `<env>/<name>` or `<name>` (of `env` first), the same in every command.

    An env goes by its name or its id. Raises DatasetError, with close matches, where there is none.
    """
    import physgym

    text = str(name)
    for system in physgym.SYSTEMS.values():
        if text.startswith(f"{system.env_id}/"):
            text = f"{system.name}/{text.removeprefix(f'{system.env_id}/')}"
    return find_dataset(text, root, None if env is None else _folder(env))


def _folder(env: str) -> str:
    """The folder of an env's datasets under the root."""
    import physgym

    try:
        return physgym.get_system(env).folder
    except ValueError:  # it cannot be made here without its arguments: its buffers can be read
        from physgym.foreign.system import folder_of

        return folder_of(env)


def _collect_once(config: CollectConfig, root: str | Path, workers: int, progress: bool) -> Path:
    """Collect, or wait until the process that already does is done."""
    end = time.monotonic() + LONGEST_WAIT
    told = False
    while True:
        try:
            return collect(config, root, workers, progress)
        except LockedError as error:
            if time.monotonic() > end:
                raise
            if not told:
                say(f"waiting: {error}")
                told = True
            time.sleep(0.2)


def settled(config: TrainConfig, dataset: Dataset, asked: Collection[str] = ()) -> TrainConfig:
    """`config` as it is true of `dataset`: what it leaves at a default of `env` and `data` filled in.

    `asked`: names ("data.episodes") that were asked for although they are the defaults. Raises
    DatasetError where the dataset was collected otherwise than asked, with both values.
    """
    collected = dataset.metadata["config"]
    contradictions = list(_contradictions(config, dataset, collected, asked))
    if contradictions:
        name, found, wanted = contradictions[0]
        raise DatasetError(
            f"{dataset.path} has {name}={shown(found)}, but the run asks for {shown(wanted)}: leave "
            f"{name} to the dataset, name another one, or name none (--dataset None) to collect it"
        )
    parts: dict[str, Any] = {}
    for part in ("env", "data"):
        own = getattr(config, part)
        kept = {f.name for f in fields(own) if getattr(own, f.name) != f.default} - {"params"}
        if config.model_name != "visual":
            kept.add("image_size")  # of no meaning to it
        names = {f.name for f in fields(own)} & set(collected)
        truth = {name: collected[name] for name in names - kept}
        parts[part] = replace(own, **truth)
    made = replace(config, **parts)
    if made.dataset is None and _unnamed(collect_config(made).to_dict()) != _unnamed(collected):
        return replace(made, dataset=str(dataset.path))  # it is not the one it would collect
    return made


def _contradictions(
    config: TrainConfig, dataset: Dataset, collected: dict[str, Any], asked: Collection[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Name, the dataset's value and the value asked for, of everything that differs."""
    import physgym

    system, env = physgym.system_of(dataset), config.env
    yield from _unequal("env", dataset.env_name, config.env_name)
    if env.dt is not None:
        yield from _unequal("env.dt", dataset.dt, env.dt)
    if env.make_kwargs is not None:
        yield from _unequal("env.make_kwargs", collected["make_kwargs"], env.make_kwargs)
    yield from _of_data(config, collected, asked)
    if "parameters" not in system.knows:
        return  # its actions are those of its own arguments
    yield from _unequal("env.action_mode", collected["action_mode"], env.action_mode)
    if env.integrator is not None:
        found = system.check_integrator(collected["integrator"])
        yield from _unequal("env.integrator", found, env.integrator)
    band = collected.get("energy")
    if env.start is not None:
        found = "energy" if band else collected["start"] or system.starts[0]
        yield from _unequal("env.start", found, env.start)
    if env.energy is not None:
        yield from _unequal("env.energy", band and tuple(band), env.energy)
    if env.randomize or "env.randomize" in asked:
        yield from _unequal("env.randomize", collected["randomize"], env.randomize)
    params = system.check_params(collected["params"])._asdict()
    drawn = system.ranges if collected["randomize"] else {}
    for name, value in (env.params or {}).items():
        found = f"drawn from {drawn[name]}" if name in drawn else params[name]
        yield from _unequal(f"env.params.{name}", found, value)


def _of_data(
    config: TrainConfig, collected: dict[str, Any], asked: Collection[str]
) -> Iterator[tuple[str, Any, Any]]:
    for field in fields(config.data):
        value = getattr(config.data, field.name)
        if value != field.default or f"data.{field.name}" in asked:
            pictured = field.name != "image_size" or config.model_name == "visual"
            if pictured:
                yield from _unequal(f"data.{field.name}", collected[field.name], value)


def _unequal(name: str, found: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    if found != wanted:
        yield name, found, wanted


def _unnamed(collected: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in collected.items() if key != "name"}
