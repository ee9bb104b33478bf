"""Structures from outside: what makes configs and the command line know one. No torch."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import asdict, is_dataclass
from typing import Any

from worldmodels.configs.pixels import MEDIA, PREDICTORS, predictor_name
from worldmodels.configs.structures import MODELS, FlowConfig, ModelConfig
from worldmodels.configs.training import KINDS


def check_structure(name: str, config: Any, registered: Any, kind: Any) -> Any:
    """The config that ``name`` has by now, or None.

    Args:
        registered: the structure of that name, if there is one.
        kind: the one that is to have it.

    Raises:
        TypeError: ``config`` is no frozen dataclass below ``ModelConfig``.
        ValueError: a name or config that is malformed, or another structure's.
    """
    _check_config(name, config)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"structure {name!r}: a name has lower-case letters, digits and _ only")
    if name in KINDS and not (registered is not None and _same(registered, kind)):
        raise ValueError(
            f"structure {name!r} of {kind.__module__}.{kind.__qualname__} is taken"
            + (f" by {registered.__module__}.{registered.__qualname__}" if registered else "")
            + ": choose another name"
        )
    for medium in MEDIA:
        other = PREDICTORS.get(predictor_name(medium, name), (medium, name))[1]
        if other != name:
            raise ValueError(
                f"structure {name!r}: the predictor {predictor_name(medium, name)} is {other}'s: choose "
                "another name"
            )
    owner = next((n for n, c in MODELS.items() if c is config and n != name), None)
    if owner is not None or config in (ModelConfig, FlowConfig):
        raise ValueError(
            f"structure {name!r}: {config.__name__} is {owner or 'every structure'}'s, and a structure is found by "
            "its config: subclass it"
        )
    return MODELS.get(name)


def enter(name: str, config: Any) -> None:
    """Put a structure into every registry of configs."""
    MODELS[name] = KINDS[name] = config
    for medium in MEDIA:
        PREDICTORS[predictor_name(medium, name)] = (medium, name)


def leave(name: str) -> None:
    """Take a structure out of them again."""
    MODELS.pop(name, None)
    KINDS.pop(name, None)
    for medium in MEDIA:
        PREDICTORS.pop(predictor_name(medium, name), None)


def _check_config(name: str, config: Any) -> None:
    valid = inspect.isclass(config) and issubclass(config, ModelConfig)
    own = valid and "__dataclass_params__" in vars(config) and is_dataclass(config)
    if not own or not config.__dataclass_params__.frozen:
        raise TypeError(
            f"structure {name!r}: config={config!r} must be a class below worldmodels' ModelConfig or FlowConfig, "
            "decorated with @dataclass(frozen=True)"
        )
    try:
        json.dumps(asdict(config()), allow_nan=False)
    except Exception as error:
        raise ValueError(
            f"structure {name!r}: {config.__name__}() must give defaults in JSON types: "
            f"{type(error).__name__}: {error}"
        ) from error


def _same(one: type, other: type) -> bool:
    """Whether two classes are one definition, run twice."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
