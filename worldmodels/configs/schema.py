"""Values into frozen dataclasses: every key known, every value of its field's type.

One rule for what Python makes and for what is read from JSON: `conform` in a config's `__post_init__`.
A value that means the same in the field's type is converted (a NumPy number, a Path, a list), and any
other is refused, so that whatever can be made can be saved, hashed and read again.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
import numbers
import operator
import os
import types
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

LONGEST_TEXT = 4096
LARGEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e30
"""Beyond it, single precision soon overflows."""


class ConfigError(ValueError):
    """A value that a config does not take; the message names it, what is allowed and the closest match."""


def require(name: str, value: Any, valid: bool, expected: str) -> None:
    """Raise ``ConfigError`` unless ``valid``, saying what was given and what is expected."""
    if not valid:
        raise ConfigError(f"{name}={shown(value)} is not valid: expected {expected}")


def require_count(name: str, value: int, low: int, high: int) -> None:
    """Raise ``ConfigError`` unless ``value`` lies in [low, high]."""
    require(name, value, low <= value <= high, f"an integer from {low} to {high}")


def require_number(name: str, value: float, low: float, high: float) -> None:
    """Raise ``ConfigError`` unless ``value`` lies in [low, high]."""
    require(name, value, low <= value <= high, f"a finite number from {low:g} to {high:g}")


def require_name(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of ``allowed``, with the closest of them."""
    names = list(allowed)
    require(name, value, value in names, f"one of {', '.join(names)}" + suggestion(value, names))


def shown(value: Any, most: int = 200) -> str:
    """``repr`` that fits a line, whatever ``value`` is."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # integers of more than 4,300 digits have no text
        text = f"a {type(value).__name__} too large to print"
    return text if len(text) <= most else f"{text[:most]}..."


def config_hash(config: Any) -> str:
    """8 hex digits that depend on every value of a config (or of plain JSON data)."""
    plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def suggestion(name: Any, allowed: Iterable[str]) -> str:
    """A close match among ``allowed`` as the end of a message, or nothing."""
    close = difflib.get_close_matches(str(name)[:100], list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def conform(config: Any, where: str = "") -> None:
    """Convert every field of a frozen dataclass to its type; to be called in ``__post_init__``.

    ``where`` stands before a field's name in messages ("optim."). Raises ``ConfigError`` naming the
    field, its value and what is expected, with a close match where that is one of several names.
    """
    kind: Any = type(config)
    for name, hint in _hints(kind).items():
        value = getattr(config, name)
        made = converted(hint, value, f"{where}{name}")
        if made is not value:
            object.__setattr__(config, name, made)


def converted(hint: Any, value: Any, where: str) -> Any:
    """``value`` in the type ``hint``, where nothing is lost by it; ``ConfigError`` otherwise."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return converted(inner[0], value, where)
    if origin in (Union, types.UnionType):
        return _one_of(inner, value, where)
    if origin is Literal:
        text = _text(value)
        require_name(where, value if text is None else text, inner)
        return text
    if origin is dict:
        require(where, value, isinstance(value, Mapping), "a table of names and values")
        keys = {key: converted(inner[0], key, f"a name in {where}") for key in value}
        return {keys[k]: converted(inner[1], v, f"{where}.{keys[k]}") for k, v in value.items()}
    if origin in (tuple, list):
        require(where, value, isinstance(value, (list, tuple)), "a list")
        return origin(converted(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if is_dataclass(hint):
        return _one_of((hint,), value, where)
    if hint is Any:
        return value
    convert, expected = _PLAIN[hint]
    made = convert(value)
    require(where, value, made is not None, expected)
    return made


def merge(base: Any, values: Any, where: str) -> Any:
    """``base`` with ``values`` over it, nested configs included.

    Raises ``ConfigError`` naming an unknown key (with a close match) or a value of another type.
    """
    require(where, values, isinstance(values, dict), "a table of options")
    kind: Any = type(base)
    hints = _hints(kind)
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(
                f"{where}.{shown(key)[1:-1]} is not known: expected one of {', '.join(hints)}"
                + suggestion(key, hints)
            )
        old = getattr(base, key)
        if is_dataclass(old):
            changes[key] = merge(old, value, f"{where}.{key}")
        else:
            changes[key] = converted(hints[key], value, f"{where}.{key}")
    return replace(base, **changes)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """``value`` as one of several dataclasses, or as None or the one other type."""
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1 and not is_dataclass(others[0]):
        return converted(others[0], value, where)
    names = " or ".join(kind.__name__ for kind in others)
    require(where, value, isinstance(value, tuple(others)), f"a {names}")
    return value


def _truth(value: Any) -> bool | None:
    return bool(value) if isinstance(value, (bool, np.bool_)) else None


def _integer(value: Any) -> int | None:
    if _truth(value) is not None or not isinstance(value, numbers.Integral):
        return None
    number = operator.index(value)
    return number if abs(number) <= LARGEST_INTEGER else None


def _number(value: Any) -> float | None:
    if _truth(value) is not None or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    same = math.isfinite(number) and number == value
    return number if same and abs(number) <= LARGEST_NUMBER else None


def _text(value: Any) -> str | None:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or len(path) > LONGEST_TEXT or "\0" in path:
        return None
    try:
        path.encode()
    except UnicodeEncodeError:
        return None
    return str.__str__(path)  # of a subclass, too: NumPy's text, a member of an enumeration


def _path(value: Any) -> Path | None:
    text = _text(value)
    return None if text is None else Path(text)


_PLAIN: dict[Any, tuple[Any, str]] = {
    bool: (_truth, "True or False"),
    int: (_integer, "an integer"),
    float: (_number, f"a finite number, at most {LARGEST_NUMBER:g} in size"),
    str: (_text, f"text of at most {LONGEST_TEXT} characters"),
    Path: (_path, "a path"),
}


Record = TypeVar("Record")


def record(kind: type[Record], values: Any, where: str, others: bool = False) -> Record:
    """``values``, a JSON object out of a file, as the frozen dataclass ``kind``.

    Every field is there and of its type, in records inside records too (strictly: no text for a
    number, no truth value for an integer); ``__post_init__`` runs as it does on making one. Keys
    that ``kind`` does not know are refused, or left out where ``others``. Raises ``ValueError``
    that says ``where`` in the file something is wrong, what stands there and what is expected.
    """
    from pydantic import ValidationError

    if not isinstance(values, dict):
        raise ValueError(f"{where} is {shown(values)}, but a JSON object is expected")
    if not others:
        _refuse_others(kind, values, where)
    try:
        text = json.dumps(values, allow_nan=False)
        return _adapter(cast(Hashable, kind)).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (where, *first["loc"]))
        raise ValueError(f"{place}={shown(first['input'])} is not valid: {first['msg']}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON object: {error}") from None


@functools.cache
def _adapter(kind: Hashable) -> Any:
    """What checks values against ``kind``: it takes a tenth of a second to make."""
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


def _refuse_others(hint: Any, value: Any, where: str) -> None:
    """Raise ``ValueError`` for a key that no field of a record in ``value`` has."""
    if is_dataclass(hint) and isinstance(value, dict):
        hints = get_type_hints(hint)
        known = [f.name for f in fields(hint)]
        for name, item in value.items():
            if name not in known:
                raise ValueError(f"{where}: {shown(name)} is not known{suggestion(name, known)}")
            _refuse_others(hints[name], item, f"{where}.{name}")
    elif get_origin(hint) is list and isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_others(get_args(hint)[0], item, f"{where}.{index}")
    elif get_origin(hint) is dict and isinstance(value, dict):
        for name, item in value.items():
            _refuse_others(get_args(hint)[1], item, f"{where}.{name}")
