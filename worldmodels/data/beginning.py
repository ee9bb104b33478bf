"""What `dataset.json` says before the first shard: the env, its spaces, the layout of the arrays, the splits."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from worldmodels.data import foreign, store
from worldmodels.data.config import CollectConfig
from worldmodels.data.header import schema_of
from worldmodels.data.policies import BEHAVIOURS
from worldmodels.data.rollouts import make_vector_env, steps_of

_PACKAGES = ("physgym", "numpy", "gymnasium", "h5py")


def new_header(config: CollectConfig, system: Any) -> dict[str, Any]:
    """What `dataset.json` says before the first shard. Raises ValueError for bad env arguments."""
    observation, action = _spaces(config, system)
    return {
        "format_version": store.FORMAT_VERSION,
        "env_id": system.env_id,
        "env_name": system.name,
        "env_kwargs": config.env_kwargs,
        "dt": float(config.dt or system.dt),
        "steps": steps_of(config, system),
        "state_names": list(system.state_names),
        "param_names": list(system.Params._fields),
        "behaviours": list(BEHAVIOURS),
        "spaces": {"observation": _describe(observation), "action": _describe(action)},
        "config": config.to_dict(),
        "schema": schema_of(
            config,
            steps_of(config, system),
            system.state_size,
            None if config.action_mode == "discrete" else (system.action_size,),
            system.Params._fields,
            "energy" in system.knows,
        ),
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in _PACKAGES},
        "splits": split_episodes(config),
        "shards": [],
    }


def _spaces(config: CollectConfig, system: Any) -> tuple[Space[Any], Space[Any]]:
    """The spaces of what is stored: observations, and actions as a buffer holds them."""
    if "equations" not in system.knows:
        foreign.check(config, system)
        if system.discrete:
            return system.observation_space, spaces.Discrete(system.action_count)
        return system.observation_space, spaces.Box(-1.0, 1.0, (system.action_size,))
    env = make_vector_env(config, system, 1)
    try:
        return env.single_observation_space, env.single_action_space
    finally:
        env.close()


def split_episodes(config: CollectConfig) -> dict[str, list[int]]:
    """Episodes of each split, disjoint and sorted; a function of the config alone.

    From 3 episodes on, no split whose fraction is above 0 is empty.
    """
    count = config.episodes
    order = np.random.default_rng(np.random.SeedSequence([config.seed, 1])).permutation(count)
    sizes = [_share(config.val_fraction, count), _share(config.test_fraction, count)]
    bounds = np.cumsum(sizes)
    parts = {"train": order[bounds[1] :], "val": order[: bounds[0]]}
    parts["test"] = order[bounds[0] : bounds[1]]
    return {name: sorted(part.tolist()) for name, part in parts.items()}


def _share(fraction: float, count: int) -> int:
    return max(1, round(fraction * count)) if fraction > 0 and count >= 3 else 0


def _describe(space: Space[Any]) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n)}
    if not isinstance(space, spaces.Box):
        return {"kind": type(space).__name__}
    low, high = (_ends(bound) for bound in (space.low, space.high))
    shape = list(space.shape)
    return {"kind": "Box", "shape": shape, "dtype": str(space.dtype), "low": low, "high": high}


def _ends(bound: np.ndarray) -> list[float | None]:
    """The ends of a space (nested as it is) in JSON types: None where it has none."""
    if bound.ndim > 1:
        return [_ends(part) for part in bound]  # type: ignore[misc]
    return [float(end) if np.isfinite(end) else None for end in bound]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
