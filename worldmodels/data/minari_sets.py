"""Minari sets as buffers, and buffers as Minari sets (extra `data`).

Minari (https://minari.farama.org) is the home of offline sets for Gymnasium; nothing of it is imported before
the first call.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled

import physgym
from worldmodels.data.dataset import Dataset
from worldmodels.data.given import episodes_of, from_episodes
from worldmodels.data.store import DatasetError


def from_minari(
    set_id: str, *, name: str, env: str | None = None, download: bool = False, **arguments: Any
) -> Dataset:
    """The buffer of a Minari set.

    Args:
        set_id: such as "pendulum/random-v0"; ``download`` fetches it where it is not there.
        name: of the buffer.
        env: id of the env; None: what the set says.
        arguments: of `from_episodes`.

    Raises:
        DatasetError: no such set, or one that names no env; and as `from_episodes`.
        gymnasium.error.DependencyNotInstalled: Minari is not installed.
    """
    minari = _minari()
    try:
        found = minari.load_dataset(set_id, download=download)
    except (FileNotFoundError, ValueError, OSError) as error:
        raise DatasetError(
            f"no Minari set {set_id!r} ({' '.join(str(error).split())}): minari list local shows those that are "
            "there, --download fetches one"
        ) from error
    spec = found.env_spec
    if env is None and spec is None:
        raise DatasetError(f"the Minari set {set_id!r} does not say of which env it is: give --env")
    if env is None and arguments.get("make_kwargs") is None:
        arguments["make_kwargs"] = dict(spec.kwargs or {}) if _differs(spec) else None
    columns: dict[str, list[Any]] = {key: [] for key in ("seen", "acts", "rewards", "ended", "cut")}
    for episode in found.iterate_episodes():
        if not isinstance(episode.observations, np.ndarray):
            raise DatasetError(
                f"the Minari set {set_id!r} has observations of {type(episode.observations).__name__}: expected "
                "arrays (T+1, D)"
            )
        columns["seen"].append(episode.observations)
        columns["acts"].append(episode.actions)
        columns["rewards"].append(episode.rewards)
        columns["ended"].append(episode.terminations)
        columns["cut"].append(episode.truncations)
    return from_episodes(*columns.values(), env=env or spec.id, name=name, **arguments)


def _differs(spec: Any) -> bool:
    """Whether a set's env was made with other arguments than its id says."""
    registered = gymnasium.registry.get(spec.id)
    return registered is None or dict(spec.kwargs or {}) != dict(registered.kwargs or {})


def to_minari(dataset: Dataset, set_id: str) -> str:
    """Write a buffer as the Minari set ``set_id`` ("namespace/name-v0"), where Minari keeps its own.

    Returns its id. Raises DatasetError where Minari refuses, as for an id that is taken.
    """
    minari = _minari()
    from minari.data_collector import EpisodeBuffer

    system = physgym.system_of(dataset)
    env = gymnasium.make(system.env_id, **dataset.env_kwargs)
    buffers = [
        EpisodeBuffer(
            id=index,
            seed=int(dataset.seeds[index]),
            observations=list(episode.observations.astype(env.observation_space.dtype)),
            actions=list(episode.actions),
            rewards=episode.rewards.tolist(),
            terminations=episode.terminated.tolist(),
            truncations=_closed(episode),
        )
        for index, episode in enumerate(episodes_of(dataset))
    ]
    try:
        minari.create_dataset_from_buffers(
            dataset_id=set_id,
            buffer=buffers,
            env=env,
            algorithm_name=str(dataset.metadata["config"]["policy"]),
            description=f"Collected by PhysGym from {system.env_id}; content {dataset.hash[:16]}",
        )
    except (ValueError, OSError, AssertionError) as error:
        raise DatasetError(f"the Minari set {set_id!r} cannot be written: {error}") from error
    finally:
        env.close()
    return set_id


def _closed(episode: Any) -> list[bool]:
    """Truncations; an episode that neither ended nor was cut was cut by its collection."""
    flags = episode.truncated.copy()
    flags[-1] |= not episode.terminated[-1]
    return flags.tolist()


def _minari() -> ModuleType:
    try:
        import minari
    except ImportError as error:
        raise DependencyNotInstalled(
            "Minari is not installed: pip install 'physgym[data]'."
        ) from error
    return minari
