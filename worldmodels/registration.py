"""Makes learned envs known to Gymnasium; imports no torch."""

from __future__ import annotations

import gymnasium

ENV_ID = "WorldModels/Learned-v0"


def register() -> None:
    """Register `WorldModels/Learned-v0`, once: `gymnasium.make(ENV_ID, checkpoint="runs/x")`.

    The time limit, the spaces and the dt come from the checkpoint, so none is registered here.
    """
    if ENV_ID in gymnasium.registry:
        return
    gymnasium.register(
        id=ENV_ID,
        entry_point="worldmodels.env:WorldModelEnv",
        vector_entry_point="worldmodels.env:WorldModelVectorEnv",
    )
