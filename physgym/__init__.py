"""PhysGym: controlled physical systems as Gymnasium environments, seen as state or as pixels.

Importing this package registers `PhysGym/Oscillator-v0`, `PhysGym/Pendulum-v0`,
`PhysGym/Spaceship-v0` and `PhysGym/ThreeBody-v0` with Gymnasium. It needs NumPy and Gymnasium only:
torch and OpenCV are imported when asked for.
"""

from __future__ import annotations

import importlib as _importlib
from typing import Any as _Any

import gymnasium as _gymnasium

from physgym import systems
from physgym.system import INTEGRATORS, REWARDS, SYSTEMS, System, get_system

__all__ = [
    "INTEGRATORS",
    "REWARDS",
    "SYSTEMS",
    "PhysicsEnv",
    "PhysicsVectorEnv",
    "System",
    "get_system",
    "systems",
]
__version__ = "0.1.0"
_LAZY = {"PhysicsEnv": "physgym.env", "PhysicsVectorEnv": "physgym.vector"}


def __getattr__(name: str) -> _Any:
    """Load the environment classes, and the modules they stand in, on first use."""
    if name in _LAZY:
        return getattr(_importlib.import_module(_LAZY[name]), name)
    if f"physgym.{name}" in _LAZY.values():
        return _importlib.import_module(f"physgym.{name}")
    raise AttributeError(f"module 'physgym' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return [*__all__, "__version__"]


def _register_envs() -> None:
    """Register every system with Gymnasium, once, by string entry points."""
    for system in SYSTEMS.values():
        if system.env_id not in _gymnasium.registry:
            _gymnasium.register(
                id=system.env_id,
                entry_point="physgym.env:PhysicsEnv",
                vector_entry_point="physgym.vector:registered",
                max_episode_steps=system.max_episode_steps,
                reward_threshold=system.reward_threshold,
                kwargs={"system": system.name},
            )


_register_envs()
