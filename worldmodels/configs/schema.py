"""Plain values into frozen dataclasses: every key known, every value of its field's type."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, get_type_hints


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
