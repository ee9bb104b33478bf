"""Pictures of foreign envs: what they render as they are stepped, and portraits of observations.

A portrait is what the env itself draws, where it can be put into an observation, else bars.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from physgym.rendering import SCREEN, opencv, write_text

if TYPE_CHECKING:
    from physgym.foreign.system import ForeignSystem


def picture(env: gymnasium.Env[Any, Any], size: int) -> np.ndarray:
    """What an env renders, as (size, size, 3) uint8. Raises ValueError where that is no picture."""
    drawn: Any = env.render()
    array = np.asarray(drawn)
    if array.ndim != 3 or array.shape[2] < 3:
        raise ValueError(f"{env.spec and env.spec.id} renders {type(drawn).__name__}, no picture")
    flat = np.ascontiguousarray(array[..., :3].astype(np.uint8))
    cv2 = opencv()
    return cv2.resize(flat, (size, size), interpolation=cv2.INTER_AREA)


class Pictured(gymnasium.Wrapper[np.ndarray, Any, Any, Any]):
    """An env whose observations are the pictures (size, size, 3) uint8 that it renders.

    Args:
        env: made with render_mode="rgb_array".
        size: height and width of a picture [px].

    Raises:
        ValueError: at `reset` and `step`, what it renders is no picture.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], size: int) -> None:
        super().__init__(env)
        self.size = size
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        _, info = self.env.reset(seed=seed, options=options)
        return picture(self.env, self.size), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Act."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return picture(self.env, self.size), reward, terminated, truncated, info


def replayed(
    env: gymnasium.Env[Any, Any],
    system: ForeignSystem,
    seed: int,
    actions: Iterable[Any],
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (T+1, size, size, 3) uint8 of an episode whose actions are repeated, and the last observation.

    Args:
        env: of `system`, made with render_mode="rgb_array".
        system: takes actions (T of them, as a buffer holds them) to those of the env.
        seed: of the episode.
        actions: see `system`.
        size: height and width of a picture [px].

    Raises:
        ValueError: what it renders is no picture.
    """
    observation, _ = env.reset(seed=seed)
    frames = [picture(env, size)]
    for action in actions:
        observation = env.step(system.to_env(action))[0]
        frames.append(picture(env, size))
    return np.stack(frames), np.asarray(observation)


class Painter:
    """Draws observations of one env, in an env of its own."""

    def __init__(self, system: ForeignSystem) -> None:
        self._system = system
        self._env: gymnasium.Env[Any, Any] | None = None
        facts = system.facts
        self._state = None if facts is None else facts.state

    def portrait(self, observation: np.ndarray, size: int, caption: str | None) -> np.ndarray:
        """A picture (size, size, 3) uint8 of `observation` (D,); without one that is not finite."""
        row = np.asarray(observation, np.float64)
        if not np.isfinite(row).all():
            picture = np.full((size, size, 3), SCREEN, np.uint8)
        elif (drawn := self._drawn(row)) is not None:
            picture = _squared(drawn, size)
        else:
            picture = _bars(row, self._system.observation_space, size)
        if caption:
            write_text(picture, caption)
        return picture

    def _drawn(self, observation: np.ndarray) -> np.ndarray | None:
        """What the true env draws at `observation`; None where nobody knows how to put it there."""
        if self._state is None:
            return None
        if self._env is None:
            try:
                self._env = self._system.make(render_mode="rgb_array")
                self._env.reset(seed=0)
                self._env.render()
            except (ValueError, gymnasium.error.Error) as error:
                warnings.warn(
                    f"{self._system.env_id} is shown as bars, since it cannot be drawn: {error}",
                    stacklevel=3,
                )
                self._state = None
                return None
        plain: Any = self._env.unwrapped
        plain.state = self._state(observation)
        return np.asarray(self._env.render())


def _squared(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture of any shape in the middle of a square one (size, size, 3)."""
    cv2 = opencv()
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(np.ascontiguousarray(picture[..., :3]), shape, interpolation=cv2.INTER_AREA)
    square = np.full((size, size, 3), SCREEN, np.uint8)
    top, left = (size - shape[1]) // 2, (size - shape[0]) // 2
    square[top : top + shape[1], left : left + shape[0]] = small
    return square


def _bars(row: np.ndarray, space: spaces.Box, size: int) -> np.ndarray:
    """A bar for each component of an observation, from the middle to the ends of the space (or +-10)."""
    cv2 = opencv()
    picture = np.full((size, size, 3), SCREEN, np.uint8)
    most = np.maximum(np.abs(space.low), np.abs(space.high)).astype(float)
    most = np.where(np.isfinite(most) & (most < 1e6) & (most > 0), most, 10.0)
    shares = np.clip(np.nan_to_num(row / most, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
    pitch, middle = 0.8 * size / len(row), size // 2
    cv2.line(picture, (middle, 0), (middle, size), (90, 96, 110), 1)
    for index, share in enumerate(shares.tolist()):
        top = round(0.12 * size + index * pitch)
        bottom = max(top + 1, round(top + 0.7 * pitch))
        ends = sorted((middle, round(middle + 0.45 * size * share)))
        cv2.rectangle(picture, (ends[0], top), (ends[1], bottom), (110, 190, 250), -1)
    return picture
