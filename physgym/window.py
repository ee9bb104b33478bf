"""Windows on the screen, by OpenCV: each its own, and never one that would end the process.

OpenCV's window libraries (Qt, GTK) abort the process where they find no display, so one is asked for
first: by the environment's variables, and then by a child that opens a window and may die of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
import warnings
from math import ceil
from types import ModuleType

import numpy as np
from gymnasium import error

from physgym.rendering import opencv

__all__ = ["Window"]

PROBE_SECONDS = 20.0
"""A display that does not answer in this time counts as none."""
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
_SURROUNDINGS = (*_DISPLAYS, "XAUTHORITY", "XDG_RUNTIME_DIR", "QT_PLUGIN_PATH", "GDK_BACKEND")
_PROBE = """
import os, sys
sys.path = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # dying here is an answer, not a crash to study
except (ImportError, OSError, ValueError):
    pass
import cv2
try:
    cv2.namedWindow("PhysGym")
except cv2.error:
    pass  # built without windows: said by who opens one
os._exit(0)
"""
_HEADLESS_HELP = (
    "this OpenCV was built without windows (opencv-python-headless). Use render_mode='rgb_array', or: "
    "pip uninstall -y opencv-python-headless && pip install opencv-python."
)

_titles: set[str] = set()
_warned = False


class Window:
    """A window on the screen, opened by the first ``show``; nothing else calls ``imshow``.

    Args:
        title: what stands above it; a second window of that title gets a number.
        optional: where there is no display, warn once (a process) and draw nothing, instead of raising.
    """

    def __init__(self, title: str, optional: bool = False) -> None:
        self.title, self.optional = title, optional
        self._name = ""
        self._over = False
        self._last = 0.0  # when a frame was last shown; 0: never

    def opened(self) -> bool:
        """Open the window where it is not; False where there is none to draw in, now and later.

        Raises:
            gymnasium.error.DependencyNotInstalled: OpenCV is missing, or built without windows.
            gymnasium.error.Error: there is no display, and the window is not optional.
        """
        if not self._name and not self._over:
            missing = missing_display()
            if missing and not self.optional:
                raise error.Error(missing)
            if missing:
                self._over = True
                _warn(missing)
            else:
                self._create(opencv())
        return not self._over

    def show(self, frame: np.ndarray, fps: float | None = None) -> bool:
        """Show ``frame`` (H, W, 3, RGB), not sooner than 1/fps seconds after the last one.

        Returns False once the user has closed the window, and then draws no more. Raises as ``opened``.
        """
        if not self.opened():
            return False
        cv2 = opencv()
        if self._last and not self._visible(cv2):
            self._over = True
            return False
        cv2.imshow(self._name, np.ascontiguousarray(frame[..., ::-1]))
        rest = 0.0 if fps is None else 1 / fps - (time.perf_counter() - self._last)
        cv2.waitKey(max(1, ceil(1000 * rest)))
        self._last = time.perf_counter()
        return True

    def _create(self, cv2: ModuleType) -> None:
        number, name = 1, self.title
        while name in _titles:  # OpenCV knows windows by their titles alone
            number += 1
            name = f"{self.title} ({number})"
        try:
            cv2.namedWindow(name, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as reason:
            raise error.DependencyNotInstalled(_HEADLESS_HELP) from reason
        _titles.add(name)
        self._name = name

    def _visible(self, cv2: ModuleType) -> bool:
        try:
            return cv2.getWindowProperty(self._name, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # GTK's answer where somebody destroyed it
            return False

    def close(self) -> None:
        """Close the window; a second call does nothing."""
        if self._name:
            cv2 = opencv()
            if not self._over:
                with contextlib.suppress(cv2.error):  # somebody else destroyed it
                    cv2.destroyWindow(self._name)
                cv2.waitKey(1)
            _titles.discard(self._name)
        self._name, self._over, self._last = "", False, 0.0


def missing_display() -> str:
    """Why no window can be opened here, and what to do; empty where one can."""
    return _missing_display(tuple(os.environ.get(name, "") for name in _SURROUNDINGS))


@functools.cache
def _missing_display(surroundings: tuple[str, ...]) -> str:
    if not sys.platform.startswith("linux"):
        return ""
    given = dict(zip(_SURROUNDINGS, surroundings, strict=True))
    told = ", ".join(
        f"{name}={given[name]!r}" for name in _DISPLAYS if given[name] or name == "DISPLAY"
    )
    if any(given[name] for name in _DISPLAYS) and _probe():
        return ""
    return (
        f"a window needs a display, and {told} is none that OpenCV can use. Use "
        "render_mode='rgb_array', write a film (physgym visualize --out x.mp4), or xvfb-run."
    )


def _probe() -> bool:
    """Whether a child of this process can open a window and live."""
    if not sys.executable:  # Python inside another program: no child to ask
        return True
    command = [sys.executable, "-c", _PROBE, *sys.path]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _warn(missing: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"nothing is drawn: {missing}", UserWarning, stacklevel=5)
