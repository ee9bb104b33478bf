"""A window in which people steer: pictures out, keys in. By pygame, which tells what is held down and what is not."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from gymnasium import error

from physgym.window import missing_display

__all__ = ["Keys", "SteeringWindow"]

WITHOUT_SCREEN = ("dummy", "offscreen")
"""Video drivers of SDL that need no display."""
ARROWS = {"left": "a", "right": "d", "up": "w", "down": "s"}
"""Arrows, and the letters that they stand for."""


class Keys(NamedTuple):
    """The keyboard at one moment; keys have pygame's names ("a", "escape"), arrows those of `ARROWS`."""

    held: frozenset[str] = frozenset()
    """What is down, or went down and up since the last moment."""
    pressed: frozenset[str] = frozenset()
    """What went down since the last moment."""


class SteeringWindow:
    """A window that shows pictures and reads keys; the first `show` opens it.

    Args:
        title: what stands above it.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._screen: Any = None
        self._clock: Any = None
        self._held: set[str] = set()

    def check(self) -> None:
        """Raise, as `show` would, where no window can be opened; opens none."""
        _pygame()
        if _needs_screen() and (missing := missing_display()):
            raise error.Error(missing)

    def show(self, frame: np.ndarray, fps: float) -> Keys | None:
        """Show `frame` (H, W, 3, RGB), not sooner than 1/fps seconds after the last one, and read the keys.

        Returns None once somebody has closed the window.

        Raises:
            gymnasium.error.DependencyNotInstalled: pygame is missing.
            gymnasium.error.Error: there is no display.
        """
        pygame = _pygame()
        if self._screen is None:
            self._open(pygame, (frame.shape[1], frame.shape[0]))
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        self._clock.tick(fps)
        pressed: set[str] = set()
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return None
            if event.type == pygame.KEYDOWN:
                pressed.add(_name(pygame, event.key))
                self._held.add(_name(pygame, event.key))
            elif event.type == pygame.KEYUP:
                self._held.discard(_name(pygame, event.key))
            elif event.type == pygame.WINDOWFOCUSLOST:
                self._held.clear()  # whoever takes the keys hears that they are let go
        return Keys(frozenset(self._held | pressed), frozenset(pressed))

    def _open(self, pygame: ModuleType, size: tuple[int, int]) -> None:
        self.check()
        try:
            pygame.display.init()
            self._screen = pygame.display.set_mode(size)
            driver = pygame.display.get_driver()
            if (
                _needs_screen() and driver in WITHOUT_SCREEN
            ):  # SDL's last resort, where nobody would see it
                raise pygame.error(f"SDL found only its driver {driver!r}")
        except pygame.error as reason:
            self.close()
            raise error.Error(
                f"pygame opens no window here ({reason}): it needs a display. Write a film "
                "(physgym visualize --out x.mp4), or use xvfb-run."
            ) from None
        pygame.display.set_caption(self.title)
        self._clock = pygame.time.Clock()

    def close(self) -> None:
        """Close the window; a second call does nothing."""
        if self._screen is not None:
            _pygame().display.quit()
        self._screen = None
        self._held.clear()


def _needs_screen() -> bool:
    return os.environ.get("SDL_VIDEODRIVER") not in WITHOUT_SCREEN


def _name(pygame: ModuleType, key: int) -> str:
    name = str(pygame.key.name(key))
    return ARROWS.get(name, name)


def _pygame() -> ModuleType:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as reason:
        raise error.DependencyNotInstalled(
            "pygame is not installed, which reads the keys: pip install 'physgym[play]'."
        ) from reason
    return pygame
