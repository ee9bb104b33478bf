"""Windows of episodes: pieces of `length` steps, none of which crosses an episode's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from worldmodels.data.dataset import Dataset
from worldmodels.data.store import DatasetError


class Window(NamedTuple):
    """A batch of B windows of L steps."""

    states: np.ndarray
    """(B, L+1, D) float32."""
    actions: np.ndarray
    """(B, L) int64, or (B, L, A) float32."""
    params: np.ndarray
    """(B, P) float32."""
    rewards: np.ndarray
    """(B, L) float32."""
    terminated: np.ndarray
    """(B, L) bool."""


def window_index(dataset: Dataset, length: int) -> np.ndarray:
    """(M, 2) int64: row and first step of every window of `length` valid steps.

    Raises ValueError for a length below 1, DatasetError where no episode is long enough.
    """
    if length < 1:
        raise ValueError(f"length={length} is not valid: expected at least 1 step")
    counts = np.maximum(dataset.lengths - length + 1, 0)
    if not counts.sum():
        longest = int(dataset.lengths.max(initial=0))
        raise DatasetError(
            f"no episode of {dataset.path} has {length} steps: the longest of {len(dataset)} has "
            f"{longest}; take shorter windows or collect longer episodes"
        )
    rows = np.repeat(np.arange(len(dataset)), counts)
    starts = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([rows, starts], axis=1)


def take_windows(dataset: Dataset, index: np.ndarray, length: int) -> Window:
    """The windows at `index` (B, 2) as `window_index` lists them."""
    rows, starts = index[:, :1], index[:, 1:]
    steps = starts + np.arange(length)
    return Window(
        states=dataset.states[rows, starts + np.arange(length + 1)].astype(np.float32),
        actions=dataset.actions[rows, steps],
        params=dataset.param_array[rows[:, 0]].astype(np.float32),
        rewards=dataset.rewards[rows, steps].astype(np.float32),
        terminated=dataset.terminated[rows, steps],
    )


def windows(
    dataset: Dataset, length: int, rng: np.random.Generator, batch_size: int
) -> Iterator[Window]:
    """One pass over every window of `length` steps, shuffled; the last batch may be smaller.

    The order depends on `rng` alone, which is drawn from once. Raises as `window_index` does.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is not valid: expected at least 1")
    index = rng.permutation(window_index(dataset, length))
    for first in range(0, len(index), batch_size):
        yield take_windows(dataset, index[first : first + batch_size], length)
