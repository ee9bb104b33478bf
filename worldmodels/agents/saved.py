"""Agents that were saved: read again, whichever algorithm they are, and as what acts while a buffer is collected."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import physgym
from worldmodels.agents.stable_baselines import library

_MARKS = {
    "dqn": "exploration_fraction",
    "sac": "target_entropy",
    "td3": "policy_delay",
    "ppo": "clip_range",
    "a2c": "use_rms_prop",
}
"""What only the saved data of an algorithm holds; the first that is there tells which it is."""


def load_agent(path: str | Path) -> Any:
    """The saved agent of a file, whichever algorithm of Stable-Baselines3 it is; `.predict` acts.

    Raises:
        ValueError: no such file, or none that Stable-Baselines3 wrote.
        gymnasium.error.DependencyNotInstalled: Stable-Baselines3 is not installed.
    """
    sb3 = library()
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is no agent of Stable-Baselines3: {error}") from error
    kind = next((name for name, mark in _MARKS.items() if mark in data), None)
    if kind is None:
        raise ValueError(
            f"{str(path)!r} is of an algorithm that is not known here: expected one of {', '.join(_MARKS)}"
        )
    return getattr(sb3, kind.upper()).load(path, device="cpu")


class AgentPolicy:
    """A saved agent as what acts while a buffer is collected: observations (N, F) to its actions.

    `obs_mode`: what it wants to see of a system of PhysGym, "state" or "embedded".
    """

    def __init__(self, agent: Any, obs_mode: str = "state") -> None:
        self.agent, self.obs_mode = agent, obs_mode

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return np.asarray(self.agent.predict(observations, deterministic=False)[0])


def load_policy(
    path: str | Path, env: str, make_kwargs: Mapping[str, Any] | None = None
) -> AgentPolicy:
    """The policy of a saved agent for an env. Raises ValueError where it sees or does other things."""
    system, agent = physgym.get_system(env, make_kwargs), load_agent(path)
    seen, size = agent.observation_space.shape, system.state_size
    modes = {(size,): "state"}
    if "equations" in system.knows:
        modes[(size + len(system.angles),)] = "embedded"
    discrete = isinstance(agent.action_space, gymnasium.spaces.Discrete)
    if seen not in modes:
        raise ValueError(
            f"{str(path)!r} sees observations of shape {seen}, and {system.env_id} shows {' or '.join(map(str, modes))}"
        )
    count = system.action_count if discrete else system.action_size
    own = int(agent.action_space.n) if discrete else int(np.prod(agent.action_space.shape))
    if own != count:
        raise ValueError(
            f"{str(path)!r} has the actions {agent.action_space}, which {system.env_id} does not take"
        )
    return AgentPolicy(agent, modes[seen])
