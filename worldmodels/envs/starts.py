"""Where episodes of a learned env start: as in the truth, in a buffer, or where the caller says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from physgym.streams import Streams
from physgym.task import Task


class Start(NamedTuple):
    """The beginning of one episode."""

    context: np.ndarray
    """(L, D) float64 states or (L, S, S, 3) uint8 frames; the episode starts at the last."""
    actions: np.ndarray
    """(L-1,) int64 or (L-1, A) float64: what acted between them."""
    params: Any
    """`Params` of the episode, or their numbers (P,)."""


class Starts(Protocol):
    """Draws beginnings from a generator that the caller owns."""

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Start:
        """The start of one episode; the options of `reset` come first."""


class TrueStarts:
    """The true env's own start distribution, draw for draw."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Start:
        """As the true env would start from `rng`. Raises ValueError for a bad option."""
        state, params = self._task.sample(rng, options)
        return Start(np.array([state]), no_actions(self._task), params)

    def draw_rows(self, streams: Streams, rows: np.ndarray) -> list[Start]:
        """`draw` without options of the generator of each of `rows`, all at once."""
        states, params = self._task.starts_of({}).draw_rows(streams, rows)
        none = no_actions(self._task)
        pairs = zip(states.T[:, None], params.T, strict=True)
        return [Start(context, none, told) for context, told in pairs]


class BufferStarts:
    """States that a collected buffer went through, with the parameters of their episode.

    Args:
        dataset: a `worldmodels.data.Dataset` or its path; its train split is used.
        task: of the env the model learned.
        given: serves resets with options.
        length: L, the states that a start is made of; all of one episode.

    Raises:
        ValueError: no buffer, one without L states in a row, or one of another system.
    """

    def __init__(self, dataset: Any, task: Task, given: Starts, length: int = 1) -> None:
        if dataset is None:
            raise ValueError(
                'starts="buffer" needs the buffer: pass dataset= (a path or a Dataset)'
            )
        if isinstance(dataset, (str, Path)):
            from worldmodels.data import load_dataset

            dataset = load_dataset(dataset)
        name = task.system.name
        if dataset.env_name not in (name, task.system.env_id):
            raise ValueError(f"the buffer is of {dataset.env_name!r}, the model of {name!r}")
        train = (dataset.splits or {}).get("train")
        self._episodes = np.arange(len(dataset.lengths)) if train is None else np.asarray(train)
        starts = np.maximum(np.asarray(dataset.lengths)[self._episodes] - (length - 1), 0)
        self._ends = np.cumsum(starts)
        if not len(self._ends) or self._ends[-1] == 0:
            raise ValueError(
                f"the buffer has no episode of {length} steps to start from in its train split: "
                "collect longer episodes first"
            )
        self._dataset, self._task, self._given, self._length = dataset, task, given, length

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Start:
        """Any state from which an action was taken (with L - 1 before it), all equally likely."""
        if options:
            return self._given.draw(rng, options)
        step = int(rng.integers(self._ends[-1]))
        at = int(np.searchsorted(self._ends, step, side="right"))
        first = step - (int(self._ends[at - 1]) if at else 0)
        episode = int(self._episodes[at])
        params = {name: float(values[episode]) for name, values in self._dataset.params.items()}
        return self._read(episode, first, self._task.base._replace(**params))

    def _read(self, episode: int, first: int, params: Any) -> Start:
        """The start whose first state is number `first` of `episode`."""
        return Start(
            self._dataset.states[episode, first : first + 1], no_actions(self._task), params
        )


def no_actions(task: Task) -> np.ndarray:
    """The actions of a start of a single state: (0,) int64 or (0, A) float64."""
    if task.discrete:
        return np.zeros(0, dtype=np.int64)
    return np.zeros((0, task.system.action_size))
