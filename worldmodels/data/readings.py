"""A buffer of pictures as a buffer of few numbers: coordinates that were read, and their smoothed velocities.

Episodes are cut where a reading cannot be trusted (a body hides, leaves, or is mistaken for another), so that
whatever learns from states can learn from these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.signal import savgol_filter

ORDER = 4
"""Degree of the polynomial that a velocity is smoothed by."""
LEAST_STEPS = 12
"""Frames of the shortest piece that is kept."""
LEAP = 6.0
"""A reading that moves this many times the usual step has lost its body (with some room for slow ones)."""


@dataclass(frozen=True)
class Readings:
    """Pieces of episodes in coordinates; the names are those of ``Dataset``. N pieces, T steps at most."""

    states: np.ndarray
    """(N, T+1, 2n) float64: coordinates, angles unwrapped, and their rates a second."""
    radii: np.ndarray
    """(N, K) float64: of the circles, measured over each piece."""
    actions: np.ndarray
    """(N, T) int64, or (N, T, A) float32."""
    rewards: np.ndarray
    """(N, T) float64."""
    terminated: np.ndarray
    """(N, T) bool."""
    lengths: np.ndarray
    """(N,) int64: valid steps."""
    params: dict[str, np.ndarray]
    """Physical parameters by name, each (N,)."""
    path: Any = None
    """Of the dataset."""
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    """Rows of each split of the dataset."""

    def __len__(self) -> int:
        return len(self.lengths)

    def subset(self, split: str) -> Readings:
        """The pieces of a split's episodes."""
        rows = self.splits[split]
        names = ("states", "radii", "actions", "rewards", "terminated", "lengths")
        arrays = {name: getattr(self, name)[rows] for name in names}
        params = {name: values[rows] for name, values in self.params.items()}
        return replace(self, **arrays, params=params, splits={})


def trusted_steps(points: np.ndarray, seen: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(N, T+1) bool: readings in which every body is ``seen`` (N, T+1, K) and none has leapt there."""
    inside = np.arange(points.shape[1]) <= lengths[:, None]
    good = seen.all(2) & inside
    moved = np.abs(np.diff(points, axis=1)).max((2, 3))
    both = good[:, 1:] & good[:, :-1]
    usual = float(np.median(moved[both])) if both.any() else 0.0
    good[:, 1:] &= moved <= LEAP * usual + 0.05
    return good


def read_states(
    dataset: Any,
    coordinates: np.ndarray,
    radii: np.ndarray,
    good: np.ndarray,
    angles: tuple[int, ...],
    window: int,
) -> Readings:
    """Episodes of ``dataset`` in ``coordinates`` (N, T+1, n), cut where they are not ``good`` (N, T+1).

    Velocities are the slope of a polynomial over ``window`` frames (A. Savitzky and M. Golay 1964,
    doi:10.1021/ac60214a047). ``radii`` (N, T+1, K).
    """
    pieces = list(_pieces(good, max(window, LEAST_STEPS)))
    longest = max((stop - start for _, start, stop in pieces), default=1)
    many, size = len(pieces), coordinates.shape[2]
    states = np.zeros((many, longest, 2 * size))
    measured = np.zeros((many, radii.shape[2]))
    outcomes = {
        name: np.zeros((many, longest - 1, *value.shape[2:]), value.dtype)
        for name in ("actions", "rewards", "terminated")
        for value in (getattr(dataset, name),)
    }
    for row, (episode, start, stop) in enumerate(pieces):
        places = coordinates[episode, start:stop].astype(np.float64)
        for index in angles:
            places[:, index] = np.unwrap(places[:, index])
        rates = savgol_filter(places, window, ORDER, deriv=1, delta=dataset.dt, axis=0)
        steps = stop - start - 1
        states[row, : steps + 1] = np.concatenate((places, rates), 1)
        states[row, steps + 1 :] = states[row, steps]
        measured[row] = radii[episode, start:stop].mean(0)
        for name, value in outcomes.items():
            value[row, :steps] = getattr(dataset, name)[episode, start : stop - 1]
    owners = np.array([episode for episode, _, _ in pieces], np.int64)
    lengths = np.array([stop - start - 1 for _, start, stop in pieces], np.int64)
    params = {name: np.asarray(values)[owners] for name, values in dataset.params.items()}
    splits = {name: np.flatnonzero(np.isin(owners, rows)) for name, rows in dataset.splits.items()}
    return Readings(
        states,
        measured,
        **outcomes,
        lengths=lengths,
        params=params,
        path=dataset.path,
        splits=splits,
    )


def _pieces(good: np.ndarray, least: int) -> Iterator[tuple[int, int, int]]:
    """Episode, first frame and the one behind the last, of runs of at least ``least`` good readings."""
    for episode, row in enumerate(good):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2):
            if stop - start >= least:
                yield episode, int(start), int(stop)
