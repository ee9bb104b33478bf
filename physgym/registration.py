"""`register`: makes a system known, to `SYSTEMS` and to Gymnasium, from inside this package or outside it."""

from __future__ import annotations

import inspect
import re
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import parse_env_id

from physgym import plugins, variants
from physgym.compile.tracing import MOVING, Graph, needed
from physgym.equations import Equations
from physgym.system import SYSTEMS, System

Registered = TypeVar("Registered", bound=type[System])
_ENTRY_POINT = "physgym.env:PhysicsEnv"


def register(system: Registered) -> Registered:
    """Class decorator (or call): make a `System` known under its `name` and its `env_id`.

    Registered, it is in `gymnasium.make`, `get_system`, every command and every learned env. The id may have any
    namespace ("Lab/Cart-v0"). Registering the same class again does nothing; a class that is defined anew (a
    notebook's cell that runs twice) takes the place of the one before.

    Raises:
        TypeError: not a `System` subclass, or one that lacks a method or an attribute.
        ValueError: a name or id that is malformed or another's, or attributes that do not fit together.
    """
    made = _checked(system)
    before = SYSTEMS.get(made.name)
    if before is not None and type(before) is system:
        return system
    _check_free(made, before)
    kept = {i: gymnasium.registry.pop(i) for i in _ids(before) if i in gymnasium.registry}
    SYSTEMS[made.name] = made
    for each in (made, *(variants.variant(made, value) for value in variants.values_of(made)[1:])):
        gymnasium.register(
            id=each.env_id,
            entry_point=_ENTRY_POINT,
            vector_entry_point="physgym.vector:registered",
            max_episode_steps=each.max_episode_steps,
            reward_threshold=each.reward_threshold,
            kwargs={"system": each.name},
        )

    def undo() -> None:
        SYSTEMS.pop(made.name, None)
        for env_id in _ids(made):
            gymnasium.registry.pop(env_id, None)
        if before is not None:
            SYSTEMS[made.name] = before
        gymnasium.registry.update(kept)

    if not system.__module__.startswith("physgym.systems."):
        plugins.JOURNAL.append(plugins.Entry("system", made.name, system.__module__, undo))
    return system


def _ids(system: System | None) -> list[str]:
    """The env ids of a system and of its variants."""
    if system is None:
        return []
    values = variants.values_of(system)[1:]
    return [system.env_id, *(variants.names_of(system, value)[1] for value in values)]


def _checked(system: Any) -> System:
    """An instance of `system`. Raises TypeError or ValueError for what is missing or does not fit."""
    if not (inspect.isclass(system) and issubclass(system, System)):
        raise TypeError(f"register() takes a subclass of physgym.System, not {system!r}")
    where = f"system {system.__qualname__}"
    needed = [name for name in Equations.__annotations__ if not hasattr(system, name)]
    needed += sorted(system.__abstractmethods__)
    if needed:
        raise TypeError(f"{where} lacks {', '.join(needed)}: see physgym/equations.py for each")
    made = system()
    if not isinstance(made.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", made.name):
        raise ValueError(f"{where}: name={made.name!r} must be lower-case letters, digits and _")
    try:
        parse_env_id(made.env_id)
    except (TypeError, gymnasium.error.Error):
        raise ValueError(f"{where}: env_id={made.env_id!r} must read like 'Lab/Cart-v0'") from None
    _check_sizes(made, where)
    _check_acceleration(made, where)
    return made


def _check_sizes(system: System, where: str) -> None:
    """ValueError for attributes whose sizes contradict one another."""
    size, names = system.state_size, system.Params._fields
    levels: tuple[int, ...] = getattr(system.discrete_actions, "shape", ())
    count = levels[0] if len(levels) == 2 else 0
    facts = (
        (
            size and size % 2 == 0,
            f"state_names={system.state_names!r}: positions, then as many velocities",
        ),
        (
            len(system.state_units) == size,
            f"state_units={system.state_units!r}: one of each component",
        ),
        (
            all(0 <= i < size for i in system.angles),
            f"angles={system.angles!r}: indices below {size}",
        ),
        (count, "discrete_actions: an array (n, A)"),
        (
            len(system.action_names) == count,
            f"action_names={system.action_names!r}: one of each of {count}",
        ),
        (set(system.param_units) == set(names), f"param_units: one of each of {', '.join(names)}"),
        (set(system.ranges) <= set(names), f"ranges: of parameters among {', '.join(names)}"),
    )
    for holds, told in facts:
        if not holds:
            raise ValueError(f"{where} must have {told}")


def _check_acceleration(system: System, where: str) -> None:
    """TypeError for an `acceleration` of other arguments, ValueError for one that sees velocities in a
    system that says it is separable.
    """
    count = len(inspect.signature(system.acceleration).parameters)
    if count != 4:
        raise TypeError(
            f"{where}: acceleration takes {count} arguments beside self: write acceleration(self, q, v, u, p), "
            "positions, velocities, control, parameters"
        )
    if not system.separable:
        return
    graph, half = Graph(), system.state_size // 2
    q, v, u, p = (
        tuple(graph.symbol(f"{kind}{i}", MOVING) for i in range(size))
        for kind, size in (
            ("q", half),
            ("v", half),
            ("u", system.control_size),
            ("p", len(system.Params._fields)),
        )
    )
    seen = needed(system.acceleration(q, v, u, system.Params(*p)))
    if any(x in v for x in seen):
        raise ValueError(
            f"{where}: its acceleration depends on velocities, so that it is not separable: leave out separable, "
            "or put linear damping into damping_rate"
        )


def _check_free(system: System, before: System | None) -> None:
    """ValueError where another class has the name or the id."""
    kind = type(system)
    known = list(SYSTEMS.values())
    known += [before] if before is not None and before not in known else []  # a variant of another
    for other in known:
        taken = [n for n in ("name", "env_id") if getattr(other, n) == getattr(system, n)]
        if taken and not _same_definition(type(other), kind):
            raise ValueError(
                f"{taken[0]}={getattr(system, taken[0])!r} of {kind.__module__}.{kind.__qualname__} is taken by "
                f"{type(other).__module__}.{type(other).__qualname__}: choose another {taken[0]}"
            )
    if system.env_id in gymnasium.registry and (before is None or before.env_id != system.env_id):
        owner = gymnasium.registry[system.env_id].entry_point
        raise ValueError(f"env_id={system.env_id!r} is taken by {owner}: choose another env_id")


def _same_definition(one: type, other: type) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
