"""Makes learned envs known to Gymnasium; imports no torch."""

from __future__ import annotations

import copy

import gymnasium
from gymnasium.envs.registration import EnvSpec

ENV_ID = "WorldModels/Learned-v0"


def register() -> None:
    """Register `WorldModels/Learned-v0`, once: `gymnasium.make(ENV_ID, checkpoint="runs/x")`.

    The time limit, the spaces and the dt come from the checkpoint, so none is registered here;
    the envs add what they know of it to their own `spec`.
    """
    if ENV_ID in gymnasium.registry:
        return
    gymnasium.register(
        id=ENV_ID,
        entry_point="worldmodels.envs.single:made_by_gymnasium",
        vector_entry_point="worldmodels.envs.single:WorldModelVectorEnv",
    )


def completed(spec: EnvSpec | None, limit: int | None, threshold: float | None) -> EnvSpec | None:
    """A copy of `spec` with time limit and reward threshold where it says neither."""
    if spec is None:
        return None
    spec = copy.copy(spec)
    if spec.max_episode_steps is None:
        spec.max_episode_steps = limit
    if spec.reward_threshold is None:
        spec.reward_threshold = threshold
    return spec
