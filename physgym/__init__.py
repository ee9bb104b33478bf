"""PhysGym: controlled physical systems as Gymnasium environments, seen as state or as pixels.

Importing this package registers `PhysGym/Oscillator-v0`, `PhysGym/Pendulum-v0`, `PhysGym/Spaceship-v0` and
`PhysGym/ThreeBody-v0` with Gymnasium. It needs NumPy and Gymnasium only: torch and OpenCV are imported when asked for.
"""

from __future__ import annotations

from physgym import systems
from physgym.system import INTEGRATORS, REWARDS, SYSTEMS, System, get_system

__all__ = ["INTEGRATORS", "REWARDS", "SYSTEMS", "System", "get_system", "systems"]
__version__ = "0.1.0"
