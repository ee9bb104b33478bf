"""Cases for laws over the true systems: starts, controls, references apart from `physgym`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.truth import reference_step, scaled_error
from physgym import SYSTEMS, System

NAMES = tuple(SYSTEMS)
STARTS = [(name, start) for name, system in SYSTEMS.items() for start in system.starts]
"""Every system with every kind of start."""
IDS = {name: SYSTEMS[name].env_id for name in NAMES}
SEPARABLE = tuple(name for name in NAMES if SYSTEMS[name].separable)
"""Systems that the splitting integrators serve."""
METHODS = [(name, i) for name in NAMES for i in SYSTEMS[name].integrators if i != "dop853"]
"""Every system with every integrator of its own."""
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "continuous": {"action_mode": "continuous", "obs_mode": "embedded"},
    "randomized": {"randomize": True, "observe_params": True},
    "accurate": {"integrator": "dop853"},
}
"""Arguments of environments that take different roads through the code."""
SMOOTH = {
    "oscillator": (0.7, -1.1),
    "pendulum": (1.1, -0.8),
    "spaceship": (2.4, 0.9, -0.6, 1.7),
    "cart_pole": (0.4, 1.1, -0.6, 0.8),
    "acrobot": (0.9, -0.7, 0.5, -0.4),
    "mass_spring": (0.7, -1.1),
    "n_body": (0.9, 0.1, -0.95, -0.05, -0.1, 0.5, 0.12, -0.48),
    "three_body": (0.95, -0.26, -0.99, 0.25, 0.03, 0.02, 0.48, 0.41, 0.45, 0.45, -0.9, -0.88),
}
"""A state of each system far from collisions, for orders, symmetries and gradients."""


def controls_for(system: System, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Physical controls (*shape, U) of uniformly random continuous actions, default parameters."""
    actions = rng.uniform(-1.0, 1.0, (*shape, system.action_size))
    return np.asarray(system.control(actions, system.Params()))


def starts_for(system: System, rng: np.random.Generator, count: int, start: str) -> np.ndarray:
    """Start states (count, D) drawn as an episode would, default parameters."""
    return np.array([system.sample_state(rng, system.Params(), start) for _ in range(count)])


def undamped(system: System) -> Any:
    """Default parameters without damping."""
    params = system.Params()
    return params._replace(damping=0.0) if "damping" in params._fields else params


def rows_of(name: str, start: str, count: int = 12) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    """A system, states (count, D), controls (count, U) and parameters (rows) from their ranges."""
    system, rng = SYSTEMS[name], np.random.default_rng(11)
    drawn = [system.sample_params(rng, True) for _ in range(count)]
    states = np.array([system.sample_state(rng, p, start) for p in drawn])
    return system, states, controls_for(system, rng, (count,)), system.Params(*np.array(drawn).T)


def row_of(params: Any, i: int) -> Any:
    """Parameters of row `i`, as floats."""
    return params._make(float(x[i]) for x in params)


def rollout_errors(
    name: str, start: str, count: int, steps: int, seed: int, tolerance: float = 1e-12, **step: Any
) -> float:
    """Worst scaled error over every step of `count` random rollouts, each until it ends."""
    system = SYSTEMS[name]
    rng = np.random.default_rng(seed)
    states = starts_for(system, rng, count, start)
    controls = controls_for(system, rng, (steps, count))
    params, truth, running = system.Params(), states.copy(), np.ones(count, dtype=bool)
    worst = 0.0
    for control in controls:
        states = system.step(states, control, params, **step)
        running &= ~np.broadcast_to(system.terminated(states, params), (count,))
        for i in np.flatnonzero(running):
            truth[i] = reference_step(name, truth[i], control[i], params, system.dt, tolerance)
        if running.any():
            worst = max(worst, scaled_error(states[running], truth[running]))
    return worst


def digest(env: Any, steps: int, seed: int) -> str:
    """SHA-256 of all that an env says in `steps` of random actions from `reset(seed=seed)`."""
    actions = np.random.default_rng(seed)
    heard = hashlib.sha256()

    def hear(*said: Any) -> None:
        for thing in said:
            if isinstance(thing, dict):
                hear(*(x for key in sorted(thing) for x in (key, thing[key])))
            elif isinstance(thing, np.ndarray):
                heard.update(str((thing.dtype, thing.shape)).encode() + thing.tobytes())
            else:
                heard.update(repr(thing).encode())

    hear(*env.reset(seed=seed))
    for _ in range(steps):
        if hasattr(env.action_space, "n"):
            action = int(actions.integers(env.action_space.n))
        else:
            action = actions.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        result = env.step(action)
        hear(*result)
        if result[2] or result[3]:
            hear(*env.reset())
    return heard.hexdigest()


def run_python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter on `code`."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
