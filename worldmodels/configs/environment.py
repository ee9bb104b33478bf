"""What a system takes as arguments of its env, asked before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from worldmodels.configs.schema import (
    LARGEST_NUMBER,
    ConfigError,
    require,
    require_name,
    shown,
    suggestion,
)

LONGEST_STEP = 10.0
"""Seconds: the longest step that an env takes."""


def require_step_length(name: str, dt: float | None) -> None:
    """Raise ``ConfigError`` unless ``dt`` is None or seconds that an env can step."""
    valid = dt is None or 0.0 < dt <= LONGEST_STEP
    require(name, dt, valid, f"seconds above 0, at most {LONGEST_STEP:g}")


def require_make_kwargs(name: str, kwargs: Mapping[str, Any] | None) -> None:
    """Raise ``ConfigError`` unless every number of ``kwargs`` can be written down."""
    for key, value in (kwargs or {}).items():
        if isinstance(value, (int, float)):
            sound = math.isfinite(value) and abs(value) <= LARGEST_NUMBER
            require(
                f"{name}.{key}",
                value,
                sound,
                f"a finite number, at most {LARGEST_NUMBER:g} in size",
            )


def find_system(name: str, where: str = "env_name", kwargs: Mapping[str, Any] | None = None) -> Any:
    """What is known of the env of a name or id; an env that is not of PhysGym is made with ``kwargs``.

    Raises ``ConfigError`` with the closest match for a name that nobody has, or where it cannot be made.
    """
    from physgym import SYSTEMS, get_system

    try:
        return get_system(name, kwargs)
    except (KeyError, TypeError):
        from physgym.foreign.system import close_ids

        ids = suggestion(name, close_ids(str(name)))
        closest = (
            ids if "-v" in str(name) and ids else suggestion(str(name).lower(), SYSTEMS) or ids
        )
        raise ConfigError(
            f"{where}={shown(name)} is an unknown system: expected one of {', '.join(SYSTEMS)} "
            f"(or the id of any env that Gymnasium knows, module:Id-v0 where a module registers it){closest}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{where}={shown(name)} cannot be learned: {error}") from None


def check_env(
    name: str,
    arguments: Mapping[str, Any],
    where: str,
    prefix: str,
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """What is known of an env that takes ``arguments`` ("integrator", "params", "start").

    ``where`` names the name in messages, ``prefix`` stands before an argument's; ``kwargs`` are those of
    ``gymnasium.make`` for an env that is not of PhysGym. Raises ``ConfigError`` for an unknown system, or for
    a value that this one does not have.
    """
    system = find_system(name, where, kwargs)
    if "parameters" not in system.knows:
        return _check_foreign(system, arguments, prefix)
    if kwargs:
        raise ConfigError(
            f"{prefix}make_kwargs={shown(dict(kwargs))} is of envs that are not of PhysGym: expected None, "
            f"since the {system.name} takes options of its own (params, dt, action_mode, ...)"
        )
    if arguments.get("integrator") is not None:
        require_name(f"{prefix}integrator", arguments["integrator"], system.integrators)
    start, energy = arguments.get("start"), arguments.get("energy")
    if start == "energy" and energy is None and _has_energies(system):
        raise ConfigError(
            f"{prefix}start='energy' is not valid without {prefix}energy: expected the lowest and the highest "
            f"as parts of the reference of the {system.name}, such as 0.1 0.6"
        )
    if start is not None:
        kinds = system.starts if energy is None else ("energy",)
        require_name(f"{prefix}start", start, kinds)
    if energy is not None:
        _check_energy(system, energy, prefix)
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
    return system


def _has_energies(system: Any) -> bool:
    return system.energy_unit(system.Params()) is not None


def _check_energy(system: Any, energy: Any, prefix: str) -> None:
    from physgym.energies import check_band

    try:
        check_band(system, energy)
    except ValueError as error:
        raise ConfigError(f"{prefix}energy={shown(energy)} is not valid: {error}") from None


OF_OUR_OWN: dict[str, Any] = {
    "integrator": None,
    "params": None,
    "randomize": False,
    "start": None,
    "energy": None,
    "reward": "dense",
}
"""Arguments that only systems of PhysGym have, with the value that asks for nothing."""


def _check_foreign(system: Any, arguments: Mapping[str, Any], prefix: str) -> Any:
    for name, nothing in OF_OUR_OWN.items():
        value = arguments.get(name, nothing)
        if value != nothing:
            raise ConfigError(
                f"{prefix}{name}={shown(value)} is not valid: {system.env_id} is no system of PhysGym; what "
                f"it is made with goes into {prefix}make_kwargs"
            )
    if arguments.get("action_mode") == "continuous" and system.discrete:
        raise ConfigError(
            f"{prefix}action_mode='continuous' is not valid: the actions of {system.env_id} are "
            f"{system.action_space}"
        )
    return system
