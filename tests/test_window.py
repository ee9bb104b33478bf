"""Windows: each its own, and an env that nobody can watch steps all the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import error
from gymnasium.utils.env_checker import check_env
from model_doubles import make_spec, small_model

from physgym import SYSTEMS, window
from physgym.window import Window
from worldmodels.envs.single import make_env

pytest.importorskip("cv2")
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="displays are asked for on Linux"
)
VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
UNUSABLE = [
    {},
    {"DISPLAY": ":987"},
    {"DISPLAY": "127.0.0.1:987"},
    {"WAYLAND_DISPLAY": "wayland-987"},
    {"QT_QPA_PLATFORM": "nonsense"},
    {"QT_QPA_PLATFORM": "nonsense", "DISPLAY": ":987"},
]


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(window, "_warned", False)


@linux
@pytest.mark.parametrize("surroundings", UNUSABLE)
def test_an_unusable_display_is_an_error_not_a_crash(
    surroundings: dict[str, str], no_display: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    shown = Window("PhysGym")
    with pytest.raises(error.Error, match="rgb_array") as told:
        shown.show(np.zeros((8, 8, 3), np.uint8))
    assert all(f"{name}={value!r}" in str(told.value) for name, value in surroundings.items())
    shown.close()


@linux
def test_a_display_that_does_not_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(window, "_PROBE", "import time; time.sleep(30)")
    monkeypatch.setenv("DISPLAY", ":986")
    assert "DISPLAY=':986'" in window.missing_display()


@linux
@pytest.mark.parametrize("learned", [False, True])
def test_envs_warn_once_and_draw_nothing(learned: bool, no_display: None) -> None:
    def made() -> Any:
        if learned:
            return make_env(small_model("jump", make_spec("pendulum")), render_mode="human")
        return gym.make("PhysGym/Pendulum-v0", render_mode="human")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for env in (made(), made()):
            for seed in (0, 1):
                env.reset(seed=seed)
                assert env.step(1)[0].shape == (2,)
                assert env.render() is None
            env.close()
            env.close()
    assert [w.category for w in told] == [UserWarning]
    assert "nothing is drawn" in str(told[0].message)


@linux
@pytest.mark.parametrize("name", sorted(SYSTEMS))
@pytest.mark.filterwarnings("ignore:nothing is drawn")
def test_the_checker_passes_without_a_display(name: str, no_display: None) -> None:
    check_env(gym.make(SYSTEMS[name].env_id).unwrapped)


class Screen:
    """What `Window` uses of OpenCV."""

    class error(Exception):
        pass

    WINDOW_AUTOSIZE = WINDOW_GUI_NORMAL = WND_PROP_VISIBLE = 0

    def __init__(self) -> None:
        self.open: dict[str, int] = {}

    def namedWindow(self, name: str, flags: int) -> None:
        self.open.setdefault(name, 0)

    def imshow(self, name: str, frame: np.ndarray) -> None:
        self.open[name] += 1

    def waitKey(self, wait: int) -> None:
        pass

    def getWindowProperty(self, name: str, which: int) -> float:
        if name not in self.open:
            raise self.error("null window")
        return 1.0

    def destroyWindow(self, name: str) -> None:
        if name not in self.open:
            raise self.error("null window")
        del self.open[name]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen()
    monkeypatch.setattr(window, "opencv", lambda: made)
    monkeypatch.setattr(window, "missing_display", lambda: "")
    monkeypatch.setattr(window, "_titles", set())
    return made


def test_windows_of_one_title_are_windows_of_their_own(screen: Screen) -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    first, second = Window("pendulum"), Window("pendulum")
    assert first.show(frame) and second.show(frame)
    assert screen.open == {"pendulum": 1, "pendulum (2)": 1}
    first.close()
    assert second.show(frame)
    assert screen.open == {"pendulum (2)": 2}
    third = Window("pendulum")
    assert third.show(frame)
    assert set(screen.open) == {"pendulum", "pendulum (2)"}
    for one in (first, second, third):
        one.close()
    assert not screen.open


def test_a_window_that_somebody_closed_stays_closed(screen: Screen) -> None:
    frame, shown = np.zeros((8, 8, 3), np.uint8), Window("pendulum")
    assert shown.show(frame)
    screen.open.clear()
    assert not shown.show(frame)
    assert not shown.opened()
    shown.close()
    assert shown.show(frame), "closed by its owner, it may be opened anew"
    screen.open.clear()
    shown.close()


def test_an_opencv_without_windows_says_what_to_install(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, flags: int) -> None:
        raise Screen.error("The function is not implemented")

    monkeypatch.setattr(screen, "namedWindow", refuse)
    with pytest.raises(error.DependencyNotInstalled, match="pip install opencv-python"):
        Window("pendulum", optional=True).opened()


TWO_WINDOWS = """
import gymnasium, physgym
train, test = (gymnasium.make("PhysGym/Pendulum-v0", render_mode="human") for _ in range(2))
train.reset(seed=0)
test.reset(seed=1)
for _ in range(3):
    train.step(2)
    test.step(0)
assert train.unwrapped._window.opened() and test.unwrapped._window.opened()
test.close()
test.close()
train.step(1)
assert train.unwrapped._window.opened()
train.close()
print("shown")
"""


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="needs xvfb-run (apt install xvfb)")
def test_two_windows_open_and_close() -> None:
    import cv2

    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows")
    surroundings = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    command = ["xvfb-run", "-a", sys.executable, "-W", "error", "-c", TWO_WINDOWS]
    result = subprocess.run(
        command, env=surroundings, capture_output=True, text=True, timeout=120, check=False
    )
    assert "shown" in result.stdout, result.stderr
