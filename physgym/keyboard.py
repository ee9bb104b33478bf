"""Keys for `gymnasium.utils.play.play`, and what its default stands for where actions are numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from physgym.task import Task


def keys_to_action(task: Task) -> dict[tuple[str, ...], Any]:
    """Keys and the actions they stand for: integers, or (A,) float32 where actions are continuous."""
    levels = task.system.discrete_actions.astype(np.float32)
    return {
        tuple(keys): action if task.discrete else levels[action].copy()
        for keys, action in task.system.keys.items()
    }


def played(task: Task, action: Any) -> Any:
    """`action` as `play` means it: while no key is pressed it sends a bare 0, whatever the env takes."""
    if not task.discrete and type(action) is int and action == 0:
        return np.zeros(task.system.action_size, np.float32)
    return action
