"""Sweep files: a list of configs that no grid of models, seeds and settings makes.

A file in JSON holds a list of tables, each as the `config.json` of a run: what is left out has its default, and
a `name` may stand there too. A file in Python has such a list as `configs`, or one of `TrainConfig`.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldmodels.configs.schema import ConfigError
from worldmodels.configs.training import PixelConfig, TrainConfig, from_dict, to_dict
from worldmodels.storage.reading import read_file
from worldmodels.training.sweeps import option_names, short

LIST = "configs"
UNNAMED = ("seed", "out")
"""Options that a name leaves out; those of logging, too."""


class SweepFileError(ValueError):
    """A sweep file that cannot be read, or does not say what to train; the message says where."""


def read_sweep(path: Path) -> list[tuple[str, TrainConfig]]:
    """Configs of a sweep file, each with the name of its row in a report: configs of one name differ in their
    seeds alone.

    A name is the given one, or that of the model; where configs of a name differ, so does the name, by the
    values of these options ("jump-lr0.001").

    Raises:
        SweepFileError: no such file, no list, a config that cannot be, or one that stands there twice.
    """
    entries = _list_in(path)
    found = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(_entry(entry))
        except (ConfigError, ValueError, KeyError) as error:
            text = error.args[0] if error.args else error
            raise SweepFileError(f"{path}, config {number}: {text}") from error
    return _named(found, path)


def _list_in(path: Path) -> Sequence[Any]:
    if path.suffix not in (".json", ".py"):
        raise SweepFileError(f"{path} is no sweep file: its name ends in neither .json nor .py")
    if not path.is_file():
        raise SweepFileError(f"{path}: there is no such sweep file")
    found = _of_python(path) if path.suffix == ".py" else _of_json(path)
    if not isinstance(found, (list, tuple)) or not found:
        raise SweepFileError(
            f"{path} holds no list of configs: expected [{{...}}, {{...}}] in JSON, or "
            f"{LIST} = [...] in Python"
        )
    return found


def _of_json(path: Path) -> Any:
    try:
        return json.loads(read_file(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SweepFileError(f"{path} is no JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{', '.join(doubled)} stands there twice in one table")
    return found


def _of_python(path: Path) -> Any:
    try:
        return runpy.run_path(str(path)).get(LIST)
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())
        raise SweepFileError(f"{path} does not run: {type(error).__name__}: {told}") from error


def _entry(entry: Any) -> tuple[str, TrainConfig]:
    """The name that an entry has or would have alone, and its config."""
    if isinstance(entry, TrainConfig):
        return _kind(entry), entry
    if not isinstance(entry, Mapping):
        raise SweepFileError(f"{entry!r} is no config: expected a table or a TrainConfig")
    values = dict(entry)
    name = values.pop("name", None)
    config = from_dict(values)
    if name is None:
        return _kind(config), config
    if not isinstance(name, str) or not name or short(name) != name:
        raise SweepFileError(
            f"name={name!r} is not valid: expected letters, digits, and . _ + - only"
        )
    return name, config


def _kind(config: TrainConfig) -> str:
    if isinstance(config.model, PixelConfig):
        return config.model.predictor
    return config.model_name


def _named(found: Sequence[tuple[str, TrainConfig]], path: Path) -> list[tuple[str, TrainConfig]]:
    """Names completed by the options in which configs of one name differ."""
    together: dict[str, list[dict[str, Any]]] = {}
    flat = [_options(config) for _, config in found]
    for (name, _), options in zip(found, flat, strict=True):
        together.setdefault(name, []).append(options)
    named = []
    seen: dict[tuple[str, int], int] = {}
    for number, ((name, config), options) in enumerate(zip(found, flat, strict=True), start=1):
        own = "-".join([name, *_difference(options, together[name])])
        first = seen.setdefault((own, config.seed), number)
        if first != number:
            raise SweepFileError(
                f"{path}: configs {first} and {number} are the same ({own}, seed {config.seed})"
            )
        named.append((own, replace(config, out=None)))
    return named


def _options(config: TrainConfig) -> dict[str, Any]:
    """Every option that decides the numbers, by dotted name."""
    values = to_dict(config)
    names = [n for n in option_names(config) if n not in UNNAMED and not n.startswith("log.")]
    found = {}
    for name in names:
        value: Any = values
        for part in name.split("."):
            value = value[part]
        found[name] = value
    return found


def _difference(options: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Words for the options that configs of one name do not share, such as "lr0.001"."""
    names = [name for name in options if any(other.get(name) != options[name] for other in others)]
    return [f"{name.rpartition('.')[2]}{_last_part(options[name])}" for name in names]


def _last_part(value: Any) -> str:
    return short(str(value).rstrip("/").rpartition("/")[2])
