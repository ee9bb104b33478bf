"""Windows: every one, once, and none across the end of an episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels.data import (
    Dataset,
    DatasetError,
    window_index,
    windows,
)


def tiny(lengths: list[int], steps: int = 12) -> Dataset:
    """A dataset whose values say where they come from."""
    count = len(lengths)
    clock = np.arange(count)[:, None] * 1000 + np.arange(steps + 1.0)
    zeros = np.zeros((count, steps))
    return Dataset(
        states=np.stack([clock, -clock], axis=2),
        actions=clock[:, :-1].astype(np.int64),
        rewards=clock[:, 1:],
        terminated=zeros.astype(bool),
        truncated=zeros.astype(bool),
        energy=clock,
        lengths=np.array(lengths),
        params={"mass": np.arange(count) + 0.5},
        seeds=np.arange(count),
        episodes=np.arange(count),
        behaviours=np.zeros(count, dtype=np.int8),
        dt=0.1,
        env_name="oscillator",
        env_kwargs={},
        splits={},
        metadata={},
        path=Path("tiny"),
        hash="",
    )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    length=st.integers(1, 12),
    batch_size=st.integers(1, 40),
)
def test_windows_are_all_there_once_and_cross_no_end(
    lengths: list[int], length: int, batch_size: int
) -> None:
    data = tiny(lengths)
    wanted = {(row, s) for row, n in enumerate(lengths) for s in range(n - length + 1)}
    if not wanted:
        with pytest.raises(DatasetError, match=f"longest of {len(lengths)} has {max(lengths)}"):
            window_index(data, length)
        return
    found = []
    for batch in windows(data, length, np.random.default_rng(0), batch_size):
        assert len(batch.states) <= batch_size
        assert batch.states.dtype == batch.params.dtype == np.float32
        rows, starts = np.divmod(batch.states[:, 0, 0].astype(int), 1000)
        found += list(zip(rows.tolist(), starts.tolist(), strict=True))
        ramp = batch.states[:, :1, 0] + np.arange(length + 1)
        assert np.array_equal(batch.states[..., 0], ramp)
        assert np.array_equal(batch.actions, ramp[:, :-1])
        assert np.array_equal(batch.rewards, ramp[:, 1:])
        assert np.array_equal(batch.params[:, 0], rows + 0.5)
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_windows_are_shuffled_by_their_generator_alone() -> None:
    data = tiny([12] * 5)

    def order(seed: int) -> list[float]:
        batches = windows(data, 3, np.random.default_rng(seed), 7)
        return np.concatenate([batch.states[:, 0, 0] for batch in batches]).tolist()

    assert order(0) == order(0) != order(1)
    for bad in ({"length": 0, "batch_size": 1}, {"length": 1, "batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            next(windows(data, rng=np.random.default_rng(0), **bad))
