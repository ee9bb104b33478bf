"""The controlled systems of Symplectic ODE-Net (arXiv:1909.12077, github.com/d-biswa/Symplectic-ODENet).

A pendulum seen as (q, p) and as (cos q, sin q, q'), a cart-pole and an acrobot, all undamped, under a control that is
the same throughout a trajectory. The sizes, starts and scores are those of the scripts and notebooks there. Legend:
N trajectories, T steps, D state size, A action, F features.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiments import Predict
from hwm_protocol import stored

import physgym

CONTROLS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""What acts throughout a trajectory: torques [N m], on the cart forces [N]."""
TRAIN = TEST = 64
"""Starts of each; every control acts on all of them."""
SAMPLES, LONG = 20, 40
"""Moments of a trajectory, the first included: those of the data and of the test, and of the long prediction."""
VALIDATION = 0.1
"""Share of the training trajectories that chooses the checkpoint; the published training has none."""


class Task(NamedTuple):
    """A system, how it starts and is seen, and what was published of it."""

    system: str
    params: dict[str, float]
    dt: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Starts are uniform in this box, as (q, q')."""
    embedded: bool
    """Scored in cosine and sine of the angles and in velocities; otherwise in the angle and its momentum."""
    far: int
    """Training starts of the long prediction."""
    naive: tuple[float, float]
    """Test and prediction error of the network without structure, and ..."""
    published: tuple[float, float]
    """... of SymODEN."""


_PENDULUM = {
    "mass": 1.0 / 3.0, "length": 1.0, "gravity": 15.0, "damping": 0.0, "torque_limit": 2.0,
}  # fmt: skip
_CART_POLE = {  # of a uniform pole: 0.5 kg, 1 m, on a cart of 0.5 kg; the same equations
    "mass_cart": 0.625, "mass_pole": 0.375, "length": 2.0 / 3.0, "gravity": 9.8, "damping": 0.0,
    "force_limit": 2.0,
}  # fmt: skip
_ACROBOT = {  # the inertia of their two rods, but 1.5 times the pull on the shoulder: point masses cannot have both
    "mass_1": 2.05, "mass_2": 0.2, "length_1": 1.0, "length_2": 2.5, "gravity": 9.8, "damping": 0.0,
    "torque_limit": 2.0,
}  # fmt: skip
_PI = math.pi
TASKS: dict[str, Task] = {
    "pendulum": Task(
        "pendulum", _PENDULUM, 0.05, (-_PI, -3.0 * _PI), (2.0 * _PI, 6.0 * _PI), False, 64,
        (8.84e-1, 1.99e1), (7.25e-2, 4.31),
    ),
    "pendulum_embedded": Task(
        "pendulum", _PENDULUM, 0.05, (-_PI, -1.0), (_PI, 1.0), True, 64,
        (5.86, 2.21e2), (2.42e-2, 9.48e-2),
    ),
    "cart_pole": Task(
        "cart_pole", _CART_POLE, 0.02, (-0.05, -_PI, -0.05, -3.0), (0.05, _PI, 0.05, 3.0), True, 32,
        (2.84e-1, 3.73e1), (1.91e-1, 4.16),
    ),
    "acrobot": Task(
        "acrobot", _ACROBOT, 0.05, (-3.14,) * 4, (3.14,) * 4, True, 64,
        (2.04e-1, 3.90e1), (4.83e-2, 8.09e-1),
    ),
}  # fmt: skip


class Trajectories(NamedTuple):
    """True ones: states (N, T+1, D), angles unwrapped, and actions (N, T, A) in [-1, 1]."""

    states: np.ndarray
    actions: np.ndarray


def starts(name: str, seed: int) -> np.ndarray:
    """(N, D): those of the training, then those of the test."""
    task = TASKS[name]
    return np.random.default_rng([seed, 11]).uniform(
        task.low, task.high, (TRAIN + TEST, len(task.low))
    )


def trajectories(
    name: str, begin: np.ndarray, controls: tuple[float, ...], samples: int
) -> Trajectories:
    """From every start under every control, control by control."""
    task = TASKS[name]
    system = physgym.get_system(task.system)
    params = system.check_params(task.params)
    limit = params.force_limit if task.system == "cart_pole" else params.torque_limit
    control = np.repeat(controls, len(begin))[:, None]
    states = [np.tile(begin, (len(controls), 1))]
    for _ in range(samples - 1):
        states.append(system.step(states[-1], control, params, task.dt))
    actions = np.repeat((control / limit)[:, None], samples - 1, axis=1)
    return Trajectories(np.stack(states, 1), actions.astype(np.float32))


def buffer(name: str, seed: int, root: Path) -> Any:
    """The training trajectories as a buffer, written once."""
    from worldmodels.data import CollectConfig

    task = TASKS[name]
    config = CollectConfig(
        env=task.system, name=f"symoden-{name}-s{seed}", episodes=TRAIN * len(CONTROLS),
        steps=SAMPLES - 1, policy="given", seed=seed, params=task.params,
        action_mode="continuous", dt=task.dt, reward="none", test_fraction=0.0,
        val_fraction=VALIDATION,
    )  # fmt: skip
    begin = starts(name, seed)[:TRAIN]
    return stored(config, root, lambda: trajectories(name, begin, CONTROLS, SAMPLES))


def features(name: str, states: np.ndarray) -> np.ndarray:
    """(..., F): what the published errors are sums over."""
    task = TASKS[name]
    if not task.embedded:
        return states * (1.0, task.params["mass"] * task.params["length"] ** 2)
    angles = list(physgym.get_system(task.system).angles)
    straight = np.delete(states, angles, -1)
    return np.concatenate((np.cos(states[..., angles]), np.sin(states[..., angles]), straight), -1)


def error(name: str, predict: Predict, true: Trajectories) -> tuple[float | None, float | None]:
    """Mean and median over trajectories of the squared errors, summed over moments and features; None where they are
    not finite.
    """
    angles = list(physgym.get_system(TASKS[name].system).angles)
    begin = true.states[:, :1]
    with np.errstate(all="ignore"):
        found = np.concatenate((begin, predict(begin[:, 0], true.actions)), 1)
        found[..., angles] = np.unwrap(found[..., angles], axis=1)
        off = (features(name, found) - features(name, true.states)) ** 2
        sums = off.sum((1, 2))
    sums = np.where(np.isfinite(sums), sums, np.inf)
    return _finite(sums.mean()), _finite(np.median(sums))


def scores(name: str, predict: Predict, seed: int) -> dict[str, float | None]:
    """Errors of trajectories from starts never seen, under every control, and of long ones from starts of the data,
    without a control.
    """
    begin = starts(name, seed)
    test = error(name, predict, trajectories(name, begin[TRAIN:], CONTROLS, SAMPLES))
    far = error(name, predict, trajectories(name, begin[: TASKS[name].far], (0.0,), LONG))
    return {
        "test_error": test[0],
        "test_median": test[1],
        "prediction_error": far[0],
        "prediction_median": far[1],
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
