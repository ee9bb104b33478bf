"""Keys and the actions they stand for; what `gymnasium.utils.play` sends where no key is pressed."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import gymnasium
import numpy as np

from physgym.task import Task

CHOICES = "asdfghjkl"
"""Keys of the choices of an env that names none, in their order; of two choices, A and D."""
AXES = (("a", "d"), ("s", "w"), ("j", "l"))
"""Keys of the low and the high end of the first numbers of a continuous action."""


def keys_of(space: gymnasium.Space) -> dict[tuple[str, ...], Any]:
    """Keys for an env that names none: a letter a choice, or two for each of the first three numbers."""
    if isinstance(space, gymnasium.spaces.Discrete):
        letters = "ad" if space.n == 2 else CHOICES[: int(space.n)]
        return {(letter,): int(space.start) + at for at, letter in enumerate(letters)}
    box: Any = space
    table: dict[tuple[str, ...], Any] = {}
    for held in itertools.product(*((None, *pair) for pair in AXES[: box.shape[0]])):
        action = resting(space)
        for at, key in enumerate(held):
            if key is not None:
                action[at] = (box.low, box.high)[AXES[at].index(key)][at]
        if keys := tuple(key for key in held if key is not None):
            table[keys] = action
    return table


def resting(space: gymnasium.Space) -> Any:
    """The action of no key where nobody says which one does nothing: the middle one, of two the first."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.start) + (int(space.n) // 2 if space.n % 2 else 0)
    box: Any = space
    return ((box.low + box.high) / 2).astype(box.dtype)


def keys_to_action(task: Task) -> dict[tuple[str, ...], Any]:
    """Keys and the actions they stand for: integers, or (A,) float32 where actions are continuous."""
    if "equations" not in task.system.knows:
        return keys_of(task.action_space)
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
        env: a single env, true or learned, wrapped or not. One that is not of PhysGym is steered by the keys of
            ``keys_of``.

    Raises:
        ValueError: its system names no keys.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        own: Any = env.unwrapped
        system: Any = getattr(own, "system", None)
        known = "equations" in getattr(system, "knows", ())
        table = own.get_keys_to_action() if known else keys_of(env.action_space)
        self._actions = {frozenset(keys): action for keys, action in table.items()}
        if not self._actions:
            raise ValueError(
                f"{system.env_id} cannot be steered: its system names no keys; give the class keys, such as "
                'keys = {"a": 0, "d": 2}'
            )
        self.keys = tuple(sorted(frozenset().union(*self._actions)))
        """Single keys that mean something."""
        if not known:
            self._nothing: Any = resting(env.action_space)
            return
        self._nothing = np.zeros(system.action_size, np.float32)
        if isinstance(env.action_space, gymnasium.spaces.Discrete):
            self._nothing = int(np.abs(system.discrete_actions).sum(axis=1).argmin())

    def action(self, held: Collection[str]) -> Any:
        """The action of the keys that are `held` together; that of none where they stand for nothing."""
        return self._actions.get(frozenset(held) & frozenset(self.keys), self._nothing)
