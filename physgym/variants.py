"""Systems of several shapes: as many bodies as are asked for, torques at one joint or at both.

A variant is a system of its own, with a name ("n_body_5") and an id ("PhysGym/NBody5-v0"), so that data,
models and runs of it need nothing else; `gymnasium.make("PhysGym/NBody-v0", bodies=5)` is the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from physgym.compile.cache import once

if TYPE_CHECKING:
    from physgym.system import System

ARGUMENTS = ("bodies", "torques")
"""Arguments of an env that choose a variant."""


class Registry(dict[str, Any]):
    """Systems by name. It counts and lists each once; the variants it has are found by name, too."""

    def __missing__(self, name: Any) -> Any:
        found = named(self, name)
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: Any, default: Any = None) -> Any:
        """The system or variant of that name."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: Any) -> bool:
        return super().__contains__(name) or named(self, name) is not None


def named(systems: Mapping[str, Any], name: Any) -> Any:
    """The variant of one of `systems` with that name or env id; None where there is none."""
    if not isinstance(name, str):
        return None
    for system in systems.values():
        for value in values_of(system):
            if name in names_of(system, value):
                return variant(system, value)
    return None


def values_of(system: System) -> tuple[Any, ...]:
    """What its argument may be, the default first; empty for a system of one shape."""
    return next(iter(system.variants.values()), ())


def names_of(system: System, value: Any) -> tuple[str, str]:
    """Name and env id of the variant of `system` for a `value` of its argument."""
    head, mark, version = system.env_id.rpartition("-v")
    return f"{system.name}_{value}", f"{head}{str(value).capitalize()}{mark}{version}"


def chosen(system: System, given: Mapping[str, Any]) -> System:
    """`system`, or the variant of it that the arguments `given` ask for (None asks for nothing).

    Raises ValueError for an argument that the system has not, or a value that it does not take.
    """
    for argument, value in given.items():
        if value is None:
            continue
        values = system.variants.get(argument)
        if values is None:
            having = [n for n, s in _registered().items() if argument in s.variants]
            raise ValueError(
                f"{argument}={value!r} is not taken by {system.name}, which has one shape; of "
                f"{', '.join(having) or 'no system here'} it can be said: leave it out"
            )
        number = value.item() if hasattr(value, "item") and not hasattr(value, "detach") else value
        if isinstance(number, bool) or not isinstance(number, (int, str)) or number not in values:
            raise ValueError(
                f"{argument}={value!r} is unknown to {system.name}; choose one of "
                f"{', '.join(map(str, sorted(values)))}"
            )
        return variant(system, number)
    return system


def _registered() -> Mapping[str, Any]:
    from physgym.system import SYSTEMS

    return SYSTEMS


@once
def variant(system: System, value: Any) -> System:
    """The variant of `system` for a `value` of its argument; for the first one, `system` itself."""
    if value == values_of(system)[0]:
        return system
    base = type(system)
    name, env_id = names_of(system, value)
    attributes = {
        "name": name,
        "env_id": env_id,
        "variants": {},
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        "__reduce__": lambda self: (_found, (name,)),
        **base.shape(value),
    }
    return type(f"{base.__name__}{str(value).capitalize()}", (base,), attributes)()


def _found(name: str) -> Any:
    """A variant in another process, by its name."""
    from physgym.system import get_system

    return get_system(name)
