"""PhysGym: controlled physical systems as Gymnasium environments, seen as state or as pixels.

Importing this package registers `PhysGym/Oscillator-v0`, `PhysGym/Pendulum-v0`,
`PhysGym/Spaceship-v0` and `PhysGym/ThreeBody-v0` with Gymnasium. It needs NumPy and Gymnasium only:
torch and OpenCV are imported when asked for.
"""

from __future__ import annotations

import gymnasium as _gymnasium

from physgym import systems
from physgym.system import INTEGRATORS, REWARDS, SYSTEMS, System, get_system

__all__ = ["INTEGRATORS", "REWARDS", "SYSTEMS", "System", "get_system", "systems"]
__version__ = "0.1.0"


def _register_envs() -> None:
    """Register every system with Gymnasium, once, by string entry points."""
    for system in SYSTEMS.values():
        if system.env_id not in _gymnasium.registry:
            _gymnasium.register(
                id=system.env_id,
                entry_point="physgym.env:PhysicsEnv",
                vector_entry_point="physgym.vector:PhysicsVectorEnv",
                max_episode_steps=system.max_episode_steps,
                reward_threshold=system.reward_threshold,
                kwargs={"system": system.name},
            )


_register_envs()
