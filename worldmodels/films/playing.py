"""People steer: the same keys move all envs that are shown side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from physgym.keyboard import Keyboard
from physgym.steering import Keys
from worldmodels.films.pairs import Side, panels

AGAIN, ANOTHER, LEAVE = ("r", "return"), ("n", "tab"), ("escape", "q")
"""Keys that do not steer; the first of each, where it is free, stands below the pictures."""


class Screen(Protocol):
    """Where it is shown, and whose keys are read: a `SteeringWindow`, or what a test puts in its place."""

    def show(self, frame: np.ndarray, fps: float) -> Keys | None:
        """Show a picture (H, W, 3), wait, and say what the keys are; None: it was closed."""


class Played(NamedTuple):
    """One episode, as far as it was played."""

    seed: int
    """Of its start."""
    steps: tuple[int, ...]
    """Of each side."""
    returns: tuple[float, ...]
    endings: tuple[str, ...]
    """How each side ended; empty where it was left."""


def play(sides: Sequence[Side], screen: Screen, seed: int = 0, fps: float = 20.0) -> list[Played]:
    """Let somebody steer until they leave, and return what was played.

    All sides begin at the start of ``seed`` and get the action of the same keys; one that has ended keeps its last
    picture, and where all have, nothing moves. R or Enter goes back to the same start, N or Tab to that of the next
    seed; Esc, Q or closing the window leaves. Keys that steer (the env's own) mean nothing else.

    Raises:
        ValueError: envs without keys.
    """
    keyboard = Keyboard(sides[0].env)
    for side in sides[1:]:
        Keyboard(side.env)  # from now on it takes what no key means
    again, another, leave = (
        tuple(key for key in keys if key not in keyboard.keys) for keys in (AGAIN, ANOTHER, LEAVE)
    )
    footer = legend(keyboard.keys, again, another, leave)
    played: list[Played] = []
    _restart(sides, seed)
    while True:
        keys = screen.show(panels(sides, footer), fps)
        gone = keys is None or not keys.pressed.isdisjoint(leave)
        back = keys is not None and not keys.pressed.isdisjoint(again + another)
        if (gone or back) and any(side.steps for side in sides):
            played.append(_ended(sides, seed))
        if keys is None or gone:
            return played
        if back:
            seed += not keys.pressed.isdisjoint(another)
            _restart(sides, seed)
            continue
        action = keyboard.action(keys.held)
        for side in sides:
            side.step(action)


def legend(steering: Sequence[str], *others: Sequence[str]) -> str:
    """What the keys are for, in one line: those that steer, and of the others the first."""
    shown = {"escape": "Esc", "return": "Enter", "tab": "Tab"}
    words = zip(others, ("again", "new start", "leave"), strict=True)
    what = [f"{shown.get(keys[0], keys[0].upper())} {word}" for keys, word in words if keys]
    return "   ".join([f"{' '.join(steering)} steer", *what])


def _restart(sides: Sequence[Side], seed: int) -> None:
    for side in sides:
        side.restart(seed)


def _ended(sides: Sequence[Side], seed: int) -> Played:
    return Played(
        seed,
        tuple(side.steps for side in sides),
        tuple(side.total for side in sides),
        tuple(side.ending for side in sides),
    )
