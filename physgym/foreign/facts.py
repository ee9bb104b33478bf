"""What the documentation of some envs says and their spaces do not: names, coordinates, the length of a step.

Source: the class docstrings of `gymnasium.envs.classic_control` (Gymnasium 1.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Facts(NamedTuple):
    """What is known of one env beside its spaces."""

    names: tuple[str, ...]
    """Of the components of an observation."""
    coordinates: str
    """Positions and velocities among them, in the form of `worldmodels.Coordinates`."""
    dt: float | None = None
    """Seconds a step, where the env does not say; 1 where its velocities are changes a step."""
    state: Callable[[np.ndarray], Any] | None = None
    """An observation (D,) to the `state` attribute that makes the env draw it."""


def _angle_and_rate(observation: np.ndarray) -> np.ndarray:
    return np.array([np.arctan2(observation[1], observation[0]), observation[2]])


def _two_angles(observation: np.ndarray) -> np.ndarray:
    first = np.arctan2(observation[1], observation[0])
    second = np.arctan2(observation[3], observation[2])
    return np.array([first, second, observation[4], observation[5]])


_CART_POLE = Facts(("x", "x_dot", "theta", "theta_dot"), "0 2 | 1 3", None, np.array)
_MOUNTAIN_CAR = Facts(("x", "x_dot"), "0 | 1", 1.0, np.array)
FACTS: dict[str, Facts] = {
    "Acrobot-v1": Facts(
        ("cos theta_1", "sin theta_1", "cos theta_2", "sin theta_2", "theta_1_dot", "theta_2_dot"),
        "0+1 2+3 | 4 5",
        None,
        _two_angles,
    ),
    "CartPole-v0": _CART_POLE,
    "CartPole-v1": _CART_POLE,
    "MountainCar-v0": _MOUNTAIN_CAR,
    "MountainCarContinuous-v0": _MOUNTAIN_CAR,
    "Pendulum-v1": Facts(("cos theta", "sin theta", "theta_dot"), "0+1 | 2", None, _angle_and_rate),
}
"""By the id of the env."""
