"""PhysGym: controlled physical systems as Gymnasium environments, seen as state or as pixels.

Importing this package registers `PhysGym/Oscillator-v0`, `PhysGym/Pendulum-v0`,
`PhysGym/Spaceship-v0` and `PhysGym/ThreeBody-v0` with Gymnasium. It needs NumPy and Gymnasium only:
torch and OpenCV are imported when asked for.
"""

from __future__ import annotations

import importlib as _importlib
import sys as _sys
from typing import Any as _Any

from physgym import plugins as _plugins
from physgym import systems
from physgym.registration import register
from physgym.system import INTEGRATORS, REWARDS, SYSTEMS, System, get_system, system_of

__all__ = [
    "INTEGRATORS",
    "REWARDS",
    "SYSTEMS",
    "PhysicsEnv",
    "PhysicsVectorEnv",
    "System",
    "get_system",
    "register",
    "system_of",
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


def _load_plugins() -> None:
    """Systems of installed packages; in a worker, also what its parent had loaded."""
    for system in _plugins.load_entry_points("physgym.systems"):
        if isinstance(system, type) and issubclass(system, System):
            register(system)
    # A plugin may import worldmodels, which is half imported where it is what imports this package: it then does
    # the same at its own end.
    if _plugins.in_worker() and "worldmodels" not in _sys.modules:
        _plugins.load_inherited()


_load_plugins()
