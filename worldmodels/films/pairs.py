"""Envs side by side while somebody acts in them: what each shows, what it has earned, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import physgym
from physgym.foreign.task import true_seed
from physgym.rendering import SCREEN, render, write_text
from worldmodels.films.mosaics import enlarged
from worldmodels.films.video import DIVIDER, side_by_side

GAP = 2
"""Pixels between panels."""


class Side:
    """A single Gymnasium env, true or learned, that is watched: it acts until its episode ends, and then stays.

    Args:
        env: a `PhysicsEnv` or `WorldModelEnv`, wrapped or not, or a Gymnasium env that is not of PhysGym.
        name: what stands above its pictures.
        size: width and height [px] of a picture; observations that are pictures themselves are shown, enlarged by
            the whole number that comes closest.
    """

    def __init__(self, env: Any, name: str, size: int = 360) -> None:
        self.env, self.name, self.size = env, name, size
        plain = env.unwrapped
        self._foreign = not hasattr(plain, "system")
        self.system = (
            physgym.get_system(env.spec.id, env.spec.kwargs) if self._foreign else plain.system
        )
        self.dt = float(self.system.dt if self._foreign else plain.dt)
        self.observation: Any = None
        self.info: dict[str, Any] = {}
        self.total, self.steps, self.ending = 0.0, 0, ""
        self._action: Any = None

    @property
    def over(self) -> bool:
        """Whether the episode has ended; ``ending`` says how."""
        return bool(self.ending)

    @property
    def limit(self) -> int:
        """Steps that an episode lasts at most."""
        spec = self.env.spec
        return int(getattr(spec, "max_episode_steps", None) or self.system.max_episode_steps)

    def restart(self, seed: int) -> None:
        """Begin an episode; envs of one system begin alike for the same seed."""
        if self._foreign:  # as a learned one, which draws the true seed from its own
            seed = true_seed(np.random.default_rng(seed))
        self.observation, self.info = self.env.reset(seed=seed)
        self.total, self.steps, self.ending, self._action = 0.0, 0, "", None

    def step(self, action: Any) -> None:
        """Act, unless the episode is over."""
        if self.over:
            return
        self.observation, reward, terminated, truncated, self.info = self.env.step(action)
        self.total, self.steps, self._action = self.total + float(reward), self.steps + 1, action
        if terminated or truncated:
            self.ending = ending(self.info, terminated)

    def caption(self) -> str:
        """Time, steps and return so far."""
        return f"t {self.steps * self.dt:5.2f} s   step {self.steps}   return {self.total:.1f}"

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8: the observation where it is a picture, else the state, with the action that led there."""
        seen = self.observation
        if not isinstance(seen, dict) and np.ndim(seen) == 3:
            return enlarged(np.asarray(seen), max(1, round(self.size / len(seen))))
        if "pictures" not in self.system.knows:
            return self.system.portrait(self.info.get("state", seen), self.size)
        params = self.system.Params(**{**self.system.Params()._asdict(), **self.info["params"]})
        control = None
        if self._action is not None:
            level = self._action
            if np.ndim(level) == 0:
                level = self.system.discrete_actions[int(level)]
            control = self.system.control_of(tuple(map(float, level)), params)
        state = tuple(map(float, self.info["state"]))
        scene = self.system.scene(state, control, params, True)
        return render(scene, self.system.view, self.size, SCREEN)


def ending(info: dict[str, Any], terminated: bool) -> str:
    """How an episode ended, in words, by its last `info`."""
    if info.get("diverged"):
        return "diverged"
    if terminated:
        ignored = ("out_of_bounds", "diverged")
        events = [k for k, v in info.items() if isinstance(v, (bool, np.bool_)) and v]
        return ", ".join(e.replace("_", " ") for e in events if e not in ignored) or "ended"
    return "out of bounds" if info.get("out_of_bounds") else "time limit"


def panels(sides: Sequence[Side], footer: str = "") -> np.ndarray:
    """One picture uint8 of all sides: names above, a caption and the ending in each panel, ``footer`` below.

    Its size is the same at every moment: (bar + H [+ bar], N W + (N-1) GAP, 3).
    """
    pictures = [captioned(side) for side in sides]
    height, width, _ = pictures[0].shape
    bar = max(24, height // 12)
    canvas = np.empty(
        (height + bar * (2 if footer else 1), len(sides) * (width + GAP) - GAP, 3), np.uint8
    )
    canvas[:] = SCREEN
    canvas[bar : bar + height] = DIVIDER
    for column, (side, picture) in enumerate(zip(sides, pictures, strict=True)):
        at = slice(column * (width + GAP), column * (width + GAP) + width)
        canvas[:bar, at] = line(side.name, bar, width, height)
        canvas[bar : bar + height, at] = picture
    if footer:
        canvas[-bar:] = line(footer, bar, canvas.shape[1], height)
    return canvas


def captioned(side: Side) -> np.ndarray:
    """The picture of a side, with its caption above and its ending below."""
    picture = side.picture().copy()
    write_text(picture, side.caption())
    if side.over:
        write_text(picture, side.ending, "bottom", scale=1.4)
    return picture


def line(text: str, height: int, width: int, panel: int) -> np.ndarray:
    """A bar (height, width, 3) with words in it, as large as a panel of that height asks for."""
    bar = np.full((height, width, 3), SCREEN, np.uint8)
    write_text(bar, text, "bottom", scale=1.0 + panel / 480)
    return bar


def filmed(
    sides: Sequence[Side],
    acts: Sequence[Callable[[Any], Any]],
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[np.ndarray]:
    """Pictures of one episode from one start, each side under its own policy, until all have ended.

    ``acts`` take the observation of their side to an action; ``advance`` is called once a step. Of two sides
    a third panel shows the difference. A side that has ended keeps its last picture.
    """
    for side in sides:
        side.restart(seed)
    while True:
        yield _compared(sides)
        if all(side.over for side in sides):
            return
        for side, act in zip(sides, acts, strict=True):
            if not side.over:
                side.step(act(side.observation))
        advance()


def _compared(sides: Sequence[Side]) -> np.ndarray:
    """``panels``, and beside two sides their difference."""
    if len(sides) != 2:
        return panels(sides)
    one, two = (side.picture() for side in sides)
    words = [[f"{side.caption()}   {side.ending}"] for side in sides]
    names = (sides[0].name, sides[1].name, "difference")
    return side_by_side(one[None], two[None], names, GAP, (*words, [""]))[0]
