"""One true episode under a baseline policy, and what a world model makes of its actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

import physgym

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
    seed: int = 0
    """Of the true env."""


def baseline(system: Any, policy: str, seed: int) -> Policy:
    """Policy by name. Raises ``ValueError`` for one that is not in ``POLICIES``, or that the env cannot have."""
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
    system = physgym.get_system(env_name, env_kwargs)
    if "equations" not in system.knows:
        return _record_foreign(system, policy, steps, seed)
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
        seed,
    )


def _record_foreign(system: Any, policy: str | Policy, steps: int | None, seed: int) -> Recording:
    """An episode of an env that is not of PhysGym: by chance, or by a policy that gives actions as a buffer
    holds them.
    """
    if isinstance(policy, str) and policy != "random":
        raise ValueError(
            f"policy={policy!r} is not known for {system.env_id}, which has no hand-written controller and no "
            "action that is known to do nothing: expected random"
        )
    limit: dict[str, Any] = {} if steps is None else {"max_episode_steps": steps}
    env = system.make(**limit)
    rng = np.random.default_rng(seed)
    try:
        states, rewards, done = [env.reset(seed=seed)[0]], [], False
        actions: list[Any] = []
        while not done:
            if not isinstance(policy, str):
                chosen = policy(np.asarray(states[-1])[None], system.Params(), len(actions))[0]
            elif system.discrete:
                chosen = rng.integers(system.action_count)
            else:
                chosen = rng.uniform(-1.0, 1.0, system.action_size).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(system.to_env(chosen))
            states.append(observation)
            actions.append(chosen)
            rewards.append(float(reward))
            done = terminated or truncated
    finally:
        env.close()
    kept = np.asarray(actions, np.int64 if system.discrete else np.float32)
    controls = kept.reshape(len(kept), -1).astype(np.float64)
    seen, earned = np.asarray(states, np.float64), np.asarray(rewards)
    return Recording(system, system.Params(), system.dt, seen, kept, controls, earned, seed)


def captions(recording: Recording, states: np.ndarray) -> list[str]:
    """Time, and the true energy where it is known, of each of ``states`` (T+1, D)."""
    if "energy" not in recording.system.knows:
        return [f"t {index * recording.dt:5.2f} s" for index in range(len(states))]
    energies = np.asarray(recording.system.energy(states, recording.params))
    return [
        f"t {index * recording.dt:5.2f} s   energy {energy:.2f} J"
        for index, energy in enumerate(energies)
    ]
