"""The experiment of github.com/Shushant17711/hamiltonian-world-models (PREREGISTRATION.md), on our systems.

Four undamped systems, dt 0.05 s, starts by energy, Ornstein-Uhlenbeck actions of which a quarter of the
episodes has none; the error at a step, and how far the true energy of a passive rollout of 10,000 steps strays.
Legend: N episodes, T steps, D state size, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiments import Predict

import physgym
from physgym import energies

DT, STEPS = 0.05, 200
TRAIN, VALIDATION, TEST, PASSIVE = 1000, 100, 200, 50
"""Episodes of each split; of the test in either band."""
LONG = 10_000
CAP = 100.0
"""Most that the error of one trajectory counts."""
HORIZONS = (1, 10, 25, 50, 87, 100, 174, 200)
"""87 and 174 steps are one and two Lyapunov times of the acrobot, 4.36 s."""
LYAPUNOV = 1.0 / 0.2295
CENTRING = 3.0
"""N/m and N s/m: what is added to the force on the cart, which would leave the track (as published)."""
ROUNDS = 50
"""Rounds of drawing again."""
SUBSTEPS = 20
"""RK4 steps in a step of the truth: its energy strays by less than 1e-8 in an episode."""


class Problem(NamedTuple):
    """A system, its bands of energies and what was published of it."""

    system: str
    params: dict[str, float]
    band: tuple[float, float]
    unseen: tuple[float, float]
    reference: float
    drift_mark: float | None
    error_mark: float
    published_drift: str
    published_error: str


_ORBIT = {"gm": 1.0, "thrust": 0.05, "crash_radius": 0.05, "escape_radius": 20.0}
_STILL = {"damping": 0.0}
PROBLEMS: dict[str, Problem] = {
    "pendulum": Problem(
        "pendulum", {**_STILL, "torque_limit": 2.0}, (0.1, 0.6), (0.7, 0.95), 19.62, 1.6e-3, 0.13,
        "6.0e-3, 57.5, 1.6e-3", "0.13 (best seed), 0.52 (best mean)",
    ),
    "cart_pole": Problem(
        "cart_pole", _STILL, (0.1, 0.6), (0.7, 0.95), 0.981, 4.4e-2, 0.74,
        "4.7e-2, 4.4e-2, 2.4e3", "0.74 (best mean)",
    ),
    "acrobot": Problem(
        "acrobot", _STILL, (0.05, 0.4), (0.5, 0.8), 58.86, None, 2.4,
        "-", "2.42 (best mean)",
    ),
    "orbit": Problem(  # energies are those of ellipses of semi-major axis 3 / energy
        "spaceship", _ORBIT, (2.5, 3.75), (3.0 / 1.8, 3.0 / 1.4), 0.5, 0.20, 0.03,
        "1.4e4, 185, 37; latent ODE 0.20-0.37", "0.03 (best mean)",
    ),
}  # fmt: skip


class Episodes(NamedTuple):
    """True episodes: states (N, T+1, D), actions (N, T, A) in [-1, 1]."""

    states: np.ndarray
    actions: np.ndarray


def ornstein_uhlenbeck(rng: np.random.Generator, count: int, steps: int, size: int) -> np.ndarray:
    """(N, T, A): x <- x - 0.15 x + 0.3 N(0, 1) from its stationary law, clipped to [-1, 1]."""
    actions = np.empty((count, steps, size))
    x = 0.3 / np.sqrt(1.0 - 0.85**2) * rng.standard_normal((count, size))
    for t in range(steps):
        actions[:, t] = x
        x = 0.85 * x + 0.3 * rng.standard_normal((count, size))
    return actions.clip(-1.0, 1.0)


def episodes(name: str, unseen: bool, count: int, seed: int, passive: float = 0.25) -> Episodes:
    """``count`` episodes of a band, the first ``passive`` share of them without a control.

    Those of the cart-pole that leave |x| <= 3 are drawn again. Raises RuntimeError after ``ROUNDS``.
    """
    problem = PROBLEMS[name]
    system = physgym.get_system(problem.system)
    params = system.check_params(problem.params)
    band = energies.check_band(system, problem.unseen if unseen else problem.band)
    rng = np.random.default_rng([seed, unseen, count])
    idle = round(passive * count)
    kept: list[Episodes] = []
    for still, wanted in ((True, idle), (False, count - idle)):
        missing = wanted
        for _ in range(ROUNDS):
            part = _drawn(system, params, band, rng, missing, still)
            rows = np.ones(missing, bool)
            if name == "cart_pole":
                rows = np.abs(part.states[:, :, 0]).max(1) <= 3.0
            kept.append(Episodes(part.states[rows], part.actions[rows]))
            missing -= int(rows.sum())
            if not missing:
                break
        else:
            raise RuntimeError(
                f"{name}: {missing} of {wanted} episodes leave the track in {ROUNDS} rounds"
            )
    return Episodes(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))


def _drawn(
    system: Any, params: Any, band: Any, rng: np.random.Generator, count: int, still: bool
) -> Episodes:
    state = np.array([energies.draw(system, rng, params, band) for _ in range(count)])
    noise = ornstein_uhlenbeck(rng, count, STEPS, system.control_size)
    states, actions = [state], []
    for t in range(STEPS):
        action = np.zeros_like(noise[:, t]) if still else noise[:, t]
        if system.name == "cart_pole" and not still:
            pull = CENTRING * (states[-1][:, :1] + states[-1][:, 2:3]) / params.force_limit
            action = np.clip(action - pull, -1.0, 1.0)
        actions.append(action.astype(np.float32))
        control = system.control(actions[-1].astype(np.float64), params)
        states.append(system.step(states[-1], control, params, DT, "rk4", SUBSTEPS))
    return Episodes(np.stack(states, 1), np.stack(actions, 1))


def buffer(name: str, seed: int, root: Path, count: int, validation: int) -> Any:
    """The training and validation episodes as a buffer, written once."""
    from worldmodels.data import CollectConfig

    problem = PROBLEMS[name]
    config = CollectConfig(
        env=problem.system, name=f"hwm-{name}-s{seed}-{count}", episodes=count + validation, steps=STEPS,
        policy="given", seed=seed, params=problem.params, action_mode="continuous", dt=DT,
        energy=problem.band, reward="none", test_fraction=0.0,
        val_fraction=validation / (count + validation),
    )  # fmt: skip
    return stored(config, root, lambda: episodes(name, False, count + validation, seed))


def stored(config: Any, root: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Any:
    """The buffer of ``config``, written of the states (N, T+1, D) and actions (N, T, A) of ``make`` where it is not
    there.
    """
    from worldmodels.data import given, load_dataset, store

    system = physgym.get_system(config.env)
    folder = root / system.folder / config.name
    if (folder / store.HEADER).exists():
        return load_dataset(folder)
    none = np.zeros(config.steps)
    rows = [
        given.checked(i, (states, actions, none, none > 0, none > 0), system)
        for i, (states, actions) in enumerate(zip(*make(), strict=True))
    ]
    return given.write(config, system, rows, root)


def features(name: str, states: np.ndarray) -> np.ndarray:
    """(..., F): angles as their cosine and sine."""
    angles = physgym.get_system(PROBLEMS[name].system).angles
    straight = [i for i in range(states.shape[-1]) if i not in angles]
    turned = states[..., list(angles)]
    return np.concatenate((states[..., straight], np.cos(turned), np.sin(turned)), -1)


def errors(name: str, predict: Predict, test: Episodes, variance: np.ndarray) -> dict[str, float]:
    """nMSE at each horizon: over the variance of the training split, a trajectory at most ``CAP``."""
    found = features(name, predict(test.states[:, 0], test.actions))
    truth = features(name, test.states[:, 1:])
    with np.errstate(all="ignore"):
        off = ((found - truth) ** 2 / variance).mean(-1)
    off = np.where(np.isfinite(off), np.minimum(off, CAP), CAP)
    return {str(h): float(off[:, h - 1].mean()) for h in HORIZONS}


def drift(name: str, predict: Predict, seed: int, steps: int = LONG) -> tuple[float | None, int]:
    """Median over passive starts of max_t |H(x_t) - H(x_0)| / E_ref, and how many rollouts are not finite:
    those count as infinite, which None says of a median.
    """
    problem = PROBLEMS[name]
    system = physgym.get_system(problem.system)
    params = system.check_params(problem.params)
    rng = np.random.default_rng([seed, 7])
    start = np.array([energies.draw(system, rng, params, problem.band) for _ in range(PASSIVE)])
    idle = np.zeros((PASSIVE, steps, system.control_size), np.float32)
    with np.errstate(all="ignore"):
        states = predict(start, idle)
        off = np.abs(system.energy(states, params) - system.energy(start[:, None], params))
        worst = (off / problem.reference).max(1)
    value = float(np.median(np.where(np.isfinite(worst), worst, np.inf)))
    return value if np.isfinite(value) else None, int((~np.isfinite(worst)).sum())
