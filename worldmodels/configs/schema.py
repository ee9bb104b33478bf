"""Plain values into frozen dataclasses: every key known, every value of its field's type."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
from collections.abc import Hashable, Iterable
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints


def require(name: str, value: Any, valid: bool, expected: str) -> None:
    """Raise ``ValueError`` unless ``valid``, saying what was given and what is expected."""
    if not valid:
        raise ValueError(f"{name}={value!r} is not valid: expected {expected}")


def require_count(name: str, value: int, low: int, high: int) -> None:
    """Raise ``ValueError`` unless ``value`` lies in [low, high]."""
    require(name, value, low <= value <= high, f"an integer from {low} to {high}")


def require_number(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ``ValueError`` unless ``value`` is finite and lies in [low, high]."""
    valid = math.isfinite(value) and low <= value <= high
    bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    require(name, value, valid, f"a finite number {bounds}")


def config_hash(config: Any) -> str:
    """8 hex digits that depend on every value of a config (or of plain JSON data)."""
    plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """A close match among ``allowed`` as the end of a message, or nothing."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def merge(base: Any, values: Any, where: str) -> Any:
    """``base`` with ``values`` over it, nested configs included.

    Raises ``ValueError`` naming an unknown key (with a close match) or a value of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where}={values!r} is not valid: expected a table of options")
    names = [f.name for f in fields(base)]
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise ValueError(
                f"{where}.{key} is not known: expected one of {', '.join(names)}"
                + suggestion(key, names)
            )
        old = getattr(base, key)
        if is_dataclass(old):
            changes[key] = merge(old, value, f"{where}.{key}")
        else:
            changes[key] = _checked(type(base), key, value, f"{where}.{key}")
    return replace(base, **changes)


def _checked(owner: type, name: str, value: Any, where: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hint = get_type_hints(owner)[name]
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"{where}={value!r} is not valid: {reason}") from None


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


def shown(value: Any, longest: int = 60) -> str:
    """``value`` for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."
