"""What a system takes as arguments of its env, asked before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldmodels.configs.schema import ConfigError, require, require_name, shown, suggestion

LONGEST_STEP = 10.0
"""Seconds: the longest step that an env takes."""


def require_step_length(name: str, dt: float | None) -> None:
    """Raise ``ConfigError`` unless ``dt`` is None or seconds that an env can step."""
    valid = dt is None or 0.0 < dt <= LONGEST_STEP
    require(name, dt, valid, f"seconds above 0, at most {LONGEST_STEP:g}")


def find_system(name: str, where: str = "env_name") -> Any:
    """The system of a name or env id. Raises ``ConfigError`` with the closest match."""
    from physgym import SYSTEMS, get_system

    try:
        return get_system(name)
    except (KeyError, TypeError):
        closest = suggestion(str(name).lower(), SYSTEMS)
        raise ConfigError(
            f"{where}={shown(name)} is an unknown system: expected one of {', '.join(SYSTEMS)} "
            f"(or an env id){closest}"
        ) from None


def check_env(name: str, arguments: Mapping[str, Any], where: str, prefix: str) -> str:
    """The short name of a system that takes ``arguments`` ("integrator", "params", "start").

    ``where`` names the name in messages, ``prefix`` stands before an argument's. Raises ``ConfigError``
    for an unknown system, or for a value that this one does not have.
    """
    system = find_system(name, where)
    for option, allowed in (("integrator", system.integrators), ("start", system.starts)):
        value = arguments.get(option)
        if value is not None:
            require_name(f"{prefix}{option}", value, allowed)
    params = arguments.get("params") or {}
    for parameter in params:
        known = system.Params._fields
        if parameter not in known:
            raise ConfigError(
                f"{prefix}params has an unknown parameter {shown(parameter)}: the {system.name} has "
                f"{', '.join(known)}" + suggestion(parameter, known)
            )
    drawn = system.ranges if arguments.get("randomize") else {}
    for parameter in params:
        if parameter in drawn:
            raise ConfigError(
                f"{prefix}params.{parameter}={shown(params[parameter])} is not valid beside "
                f"{prefix}randomize=True, which draws it anew in every episode: expected one of the two"
            )
    try:
        system.check_params(params)
    except ValueError as error:
        raise ConfigError(f"{prefix}params={shown(params)} is not valid: {error}") from None
    return system.name
