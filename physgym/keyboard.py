"""Keys and the actions they stand for; what `gymnasium.utils.play` sends where no key is pressed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gymnasium
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


class Keyboard:
    """What the keys of an env stand for, and what no key does.

    Args:
        env: a single env of ours, true or learned, wrapped or not.

    Raises:
        ValueError: its system names no keys.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        own: Any = env.unwrapped
        table = own.get_keys_to_action()
        self._actions = {frozenset(keys): action for keys, action in table.items()}
        system = own.system
        if not self._actions:
            raise ValueError(
                f"{system.env_id} cannot be steered: its system names no keys; give the class keys, such as "
                'keys = {"a": 0, "d": 2}'
            )
        self.keys = tuple(sorted(frozenset().union(*self._actions)))
        """Single keys that mean something."""
        self._nothing: Any = np.zeros(system.action_size, np.float32)
        if isinstance(env.action_space, gymnasium.spaces.Discrete):
            self._nothing = int(np.abs(system.discrete_actions).sum(axis=1).argmin())

    def action(self, held: Collection[str]) -> Any:
        """The action of the keys that are `held` together; that of none where they stand for nothing."""
        return self._actions.get(frozenset(held) & frozenset(self.keys), self._nothing)
