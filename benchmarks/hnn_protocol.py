"""The conservative systems of Hamiltonian Neural Networks (arXiv:1906.01563, github.com/greydanus/hamiltonian-nn).

A mass on a spring and a pendulum, few trajectories with noise on every phase point and true changes; two and three
bodies on nearly circular orbits, without noise. The score is the mean over test rollouts and their moments of
(H(x_t) - H(x_0))^2, H the true energy. Legend: N trajectories, T samples, D state size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiments import Predict
from hwm_protocol import stored

import physgym

VALIDATION = 0.1
"""Share of the training trajectories that chooses the checkpoint; the published training has none."""
TEST = 200
"""Test rollouts; 15 in the published notebooks."""
Starts = Callable[[np.random.Generator, int], np.ndarray]
"""So many start states (N, D), (q, v)."""


class Task(NamedTuple):
    """A system, how it is sampled and what was published of it."""

    system: str
    params: dict[str, float]
    starts: Starts
    dt: float
    samples: int
    """Moments of a trajectory that are seen."""
    trajectories: int
    noise: tuple[float, float]
    """Deviations on positions and velocities."""
    seconds: float
    """Length of a test rollout."""
    published: tuple[float | None, float | None]
    """Energy errors of the baseline and of the HNN."""


def _annulus(low: float, high: float) -> Starts:
    """Points (q, p) at a radius uniform in [low, high], v = 2 p: the kinetic energies are p^2 there."""

    def starts(rng: np.random.Generator, count: int) -> np.ndarray:
        z = rng.uniform(-1.0, 1.0, (count, 2))
        z *= rng.uniform(low, high, (count, 1)) / np.linalg.norm(z, axis=1, keepdims=True)
        return z * (1.0, 2.0)

    return starts


def _two_bodies(rng: np.random.Generator, count: int) -> np.ndarray:
    """Opposite one another, each coordinate of the first in [0.5, 1.5]; circular speed times 1 + 0.05 N(0, 1)."""
    q = rng.uniform(0.5, 1.5, (count, 2))
    r = np.linalg.norm(q, axis=1, keepdims=True)
    v = np.stack((-q[:, 1], q[:, 0]), 1) / (2.0 * r**1.5)
    v *= 1.0 + 0.05 * rng.standard_normal((count, 1))
    return np.concatenate((q, -q, v, -v), 1)


def _three_bodies(rng: np.random.Generator, count: int) -> np.ndarray:
    """A triangle of radius in [0.9, 1.2] that turns; each velocity times 1 + 0.2 U(-1, 1), by component."""
    turn = np.exp(2j * np.pi * (np.arange(3) / 3.0 + rng.uniform(size=(count, 1))))
    r = rng.uniform(0.9, 1.2, (count, 1))
    q, v = r * turn, 1j * turn / np.sqrt(np.sqrt(3.0) * r)
    place, speed = (np.stack((x.real, x.imag), 2).reshape(count, 6) for x in (q, v))
    return np.concatenate((place, speed * (1.0 + 0.2 * rng.uniform(-1.0, 1.0, (count, 6)))), 1)


_SPRING = ("mass_spring", {"mass": 0.5, "stiffness": 2.0}, _annulus(0.1, 1.0), 0.1, 30, 25)
_PENDULUM = (
    "pendulum", {"mass": 0.5, "length": 1.0, "gravity": 6.0, "damping": 0.0}, _annulus(1.3, 2.3), 1 / 15, 45, 25,
)  # fmt: skip
_NOISE, _EXACT, _NONE = (0.1, 0.2), (0.0, 0.0), (None, None)
TASKS: dict[str, Task] = {
    "spring": Task(*_SPRING, _NOISE, 20.0, (1.71e-1, 3.84e-4)),
    "spring_exact": Task(*_SPRING, _EXACT, 20.0, _NONE),
    "pendulum": Task(*_PENDULUM, _NOISE, 20.0, (4.15e-2, 2.49e-2)),
    "pendulum_exact": Task(*_PENDULUM, _EXACT, 20.0, _NONE),
    "two_bodies": Task(
        "n_body", {"softening": 0.0}, _two_bodies, 20 / 49, 50, 800, _EXACT, 20.0, (6.33e-2, 3.88e-5)
    ),
    "three_bodies": Task(
        "three_body", {}, _three_bodies, 5 / 19, 20, 4000, _EXACT, 5.0, (1.1e2, 4.19e-2)
    ),
}  # fmt: skip


def trajectories(name: str, rng: np.random.Generator, count: int, steps: int) -> np.ndarray:
    """(N, T+1, D): true and free, from the task's starts."""
    task = TASKS[name]
    system = physgym.get_system(task.system)
    params = system.check_params(task.params)
    states = [task.starts(rng, count)]
    still = np.zeros((count, system.control_size))
    for _ in range(steps):
        states.append(system.step(states[-1], still, params, task.dt))
    return np.stack(states, 1)


def buffer(name: str, seed: int, root: Path, count: int) -> Any:
    """The training trajectories as a buffer, written once.

    With noise every phase point is a start of its own, and what follows it is that point moved by the
    true change of a step: noise on the places, none on the rates, as published.
    """
    from worldmodels.data import CollectConfig

    task = TASKS[name]
    noisy = any(task.noise)
    steps = 1 if noisy else task.samples - 1
    config = CollectConfig(
        env=task.system, name=f"hnn-{name}-s{seed}-{count}", episodes=count * (task.samples if noisy else 1),
        steps=steps, policy="given", seed=seed, params=task.params, action_mode="continuous", dt=task.dt,
        reward="none", test_fraction=0.0, val_fraction=VALIDATION,
    )  # fmt: skip

    def make() -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, count])
        states = trajectories(name, rng, count, task.samples if noisy else steps)
        if noisy:
            noise = np.repeat(task.noise, states.shape[2] // 2)
            pairs = np.stack((states[:, :-1], states[:, 1:]), 2).reshape(-1, 2, states.shape[2])
            states = pairs + noise * rng.standard_normal((len(pairs), 1, states.shape[2]))
        size = physgym.get_system(task.system).action_size
        return states, np.zeros((len(states), steps, size), np.float32)

    return stored(config, root, make)


def energy_errors(
    name: str, predict: Predict, seed: int, count: int = TEST
) -> tuple[float | None, float | None, int]:
    """Mean over rollouts and moments of (H(x_t) - H(x_0))^2, the median over rollouts of their means, and how many
    are not finite; None for a mean or median that is not.
    """
    task = TASKS[name]
    system = physgym.get_system(task.system)
    params = system.check_params(task.params)
    start = task.starts(np.random.default_rng([seed, 7]), count)
    steps = round(task.seconds / task.dt)
    with np.errstate(all="ignore"):
        states = predict(start, np.zeros((count, steps, system.action_size), np.float32))
        off = system.energy(states, params) - system.energy(start[:, None], params)
        means = (off**2).mean(1)
    lost = ~np.isfinite(means)
    median = float(np.median(np.where(lost, np.inf, means)))
    mean = None if lost.any() else float(means.mean())
    return mean, median if np.isfinite(median) else None, int(lost.sum())
