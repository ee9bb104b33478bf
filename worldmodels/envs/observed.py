"""Observations of envs read back: what rows show, out of what an agent is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from physgym.task import Task


def read_states(task: Task, observations: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """States (N, D) float64, and parameters (N, P) where they are observed, else None.

    Args:
        task: of the env; with `observe_params` the last P columns are the parameters.
        observations: (N, D) states, whichever the env's `obs_mode` is, such as `info["state"]` holds them;
            (N, F) with angles as (cos, sin), which come back within [-pi, pi]; or a dict with those at "state".

    Raises:
        ValueError: another shape (pictures show no state), or numbers that are not finite.
    """
    system = task.system
    size, embedded = system.state_size, system.state_size + len(system.angles)
    given = observations["state"] if isinstance(observations, Mapping) else observations
    values = np.asarray(given, dtype=np.float64)
    told = len(system.Params._fields) if task.observe_params else 0
    widths = {size: 0, embedded: 0, size + told: told, embedded + told: told}
    if values.ndim != 2 or values.shape[1] not in widths:
        raise ValueError(
            f"observations of shape {values.shape} are not valid: expected (N, {size}), states of "
            f"{system.name} as info['state'] holds them"
            + (f", or (N, {embedded}), with angles as cos, sin" if system.angles else "")
        )
    if not np.isfinite(values).all():
        raise ValueError("observations are not all finite: expected states that an env has shown")
    extra = widths[values.shape[1]]
    params = values[:, -extra:] if extra else None
    values = values[:, : values.shape[1] - extra]
    return (values if values.shape[1] == size else _unembedded(system.angles, size, values)), params


def _unembedded(angles: tuple[int, ...], size: int, values: np.ndarray) -> np.ndarray:
    columns, at = [], 0
    for i in range(size):
        if i in angles:
            columns.append(np.arctan2(values[:, at + 1], values[:, at]))
            at += 2
        else:
            columns.append(values[:, at])
            at += 1
    return np.stack(columns, axis=1)


def read_pictures(shape: tuple[int, ...], observations: Any) -> np.ndarray:
    """Pictures (N, S, S, 3) uint8, alone or in a dict at "pixels". Raises ValueError for other arrays."""
    given = observations["pixels"] if isinstance(observations, Mapping) else observations
    values = np.asarray(given)
    if values.shape[1:] != shape or values.dtype != np.uint8:
        raise ValueError(
            f"observations of shape {values.shape} and type {values.dtype} are not valid: expected "
            f"(N, {', '.join(map(str, shape))}) of uint8, the pictures that this model sees"
        )
    return values
