"""One true episode under a baseline policy, and what a world model makes of its actions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

import physgym
from worldmodels.films.video import film, side_by_side

POLICIES = ("controller", "random", "zero")
FAINT = 80
"""Change of brightness (of 255) that an edge moved by a quarter of a pixel stays below."""
Policy = Callable[[np.ndarray, Any, int], np.ndarray]
"""States (B, D), parameters and the number of the step to discrete actions (B,)."""


class Recording(NamedTuple):
    """A true episode of T steps."""

    system: Any
    params: Any
    """Physical parameters, the system's NamedTuple of floats."""
    dt: float
    """Seconds a step."""
    states: np.ndarray
    """(T+1, D) float64, angles unwrapped."""
    actions: np.ndarray
    """(T,) int64, or (T, A) float32."""
    controls: np.ndarray
    """(T, U) physical controls."""
    rewards: np.ndarray
    """(T,)."""


def baseline(system: Any, policy: str, seed: int) -> Policy:
    """Policy by name. Raises ``ValueError`` for one that is not in ``POLICIES``."""
    rows = system.discrete_actions
    rng = np.random.default_rng(seed)
    nothing = int(np.abs(rows).sum(axis=1).argmin())
    if policy == "controller":
        return system.controller
    if policy == "random":
        return lambda states, params, step: rng.integers(len(rows), size=len(states))
    if policy == "zero":
        return lambda states, params, step: np.full(len(states), nothing)
    raise ValueError(f"policy={policy!r} is not known: expected one of {', '.join(POLICIES)}")


def record(
    env_name: str,
    env_kwargs: Mapping[str, Any],
    policy: str | Policy = "controller",
    steps: int | None = None,
    seed: int = 0,
) -> Recording:
    """Run the true env until its episode ends, or for ``steps`` steps beyond its time limit.

    ``policy``: a name of ``POLICIES``, or a policy of one row.
    Raises what ``gymnasium.make`` and ``baseline`` raise.
    """
    system = physgym.get_system(env_name)
    act = baseline(system, policy, seed) if isinstance(policy, str) else policy
    limit: dict[str, Any] = {} if steps is None else {"max_episode_steps": steps}
    env = gymnasium.make(system.env_id, **limit, **env_kwargs)
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    try:
        _, info = env.reset(seed=seed)
        params = system.Params(**{**system.Params()._asdict(), **info["params"]})
        states: list[Any] = [info["state"]]
        actions: list[Any] = []
        controls: list[Any] = []
        rewards: list[float] = []
        done = False
        while not done:
            chosen = int(act(states[-1][None], params, len(actions))[0])
            row = system.discrete_actions[chosen].astype(np.float32)
            action = chosen if discrete else row
            _, reward, terminated, truncated, info = env.step(action)
            states.append(info["state"])
            actions.append(action)
            controls.append(system.control(tuple(row.tolist()), params))
            rewards.append(float(reward))
            done = terminated or truncated
        dt = float(getattr(env.unwrapped, "dt", system.dt))
    finally:
        env.close()
    return Recording(
        system,
        params,
        dt,
        np.asarray(states, np.float64),
        np.asarray(actions, np.int64 if discrete else np.float32),
        np.asarray(controls, np.float64),
        np.asarray(rewards, np.float64),
    )


def film_beside(
    recording: Recording,
    learned: np.ndarray,
    size: int = 360,
    advance: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Film (T+1, H, W, 3) of the truth, of ``learned`` states (T+1, D), and of their difference.

    ``advance`` is called for each of its 2 (T + 1) pictures.
    """
    from worldmodels.evaluation.states.metrics import state_error

    system, half = recording.system, recording.system.state_size // 2
    truth, guess = (
        film(system, states, recording.controls, recording.params, size, advance=advance)
        for states in (recording.states, learned)
    )
    error = state_error(recording.states[None], learned[None], system.angles)[0, :, :half]
    ink = [np.abs(a.astype(np.int16) - b).max() for a, b in zip(truth, guess, strict=True)]
    lines = [
        f"off by {np.abs(row).max():.1e} {system.state_units[0]}"
        + (", less than a pixel" if most < FAINT and np.abs(row).max() < system.view / 20 else "")
        for row, most in zip(error, ink, strict=True)
    ]
    both = [captions(recording, states) for states in (recording.states, learned)]
    return side_by_side(truth, guess, captions=(*both, lines))


def captions(recording: Recording, states: np.ndarray) -> list[str]:
    """Time and true energy of each of ``states`` (T+1, D)."""
    energies = np.asarray(recording.system.energy(states, recording.params))
    return [
        f"t {index * recording.dt:5.2f} s   energy {energy:.2f} J"
        for index, energy in enumerate(energies)
    ]


def predict(model: Any, recording: Recording) -> np.ndarray:
    """States (T+1, D) that ``model`` imagines from the recording's first state and its actions."""
    told = [[float(getattr(recording.params, name)) for name in model.spec.param_names]]
    start, actions = recording.states[None, :1], recording.actions[None]
    return np.concatenate([start[0], forecast(model, start, actions, told, recording.dt)[0]])


def forecast(model: Any, context: Any, actions: Any, params: Any, dt: float) -> np.ndarray:
    """States (B, T, D) float64 that ``model`` imagines after ``context`` (B, K, D).

    ``actions`` (B, T) or (B, T, A), ``params`` (B, P) in the order of the model's spec. Runs where
    the model is, in its own precision, without gradients.
    """
    import torch

    from worldmodels.imagination import imagine

    tensors = itertools.chain(model.parameters(), model.buffers(), [torch.zeros(1)])
    own = next(tensor for tensor in tensors if tensor.is_floating_point())
    with torch.no_grad():
        latent = model.encode(
            torch.as_tensor(context, dtype=own.dtype, device=own.device),
            torch.as_tensor(params, dtype=own.dtype, device=own.device),
        )
        states = imagine(model, latent, torch.as_tensor(actions, device=own.device), dt)
    return states.double().cpu().numpy()
