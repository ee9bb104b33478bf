"""Where episodes of a learned env start: as in the truth, in a buffer, or where the caller says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from physgym.task import Task


class Starts(Protocol):
    """Draws beginnings from a generator that the caller owns."""

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """State (D floats) and `Params` of one episode; the options of `reset` come first."""


class TrueStarts:
    """The true env's own start distribution, draw for draw."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """As the true env would start from `rng`. Raises ValueError for a bad option."""
        return self._task.sample(rng, options)


class BufferStarts:
    """States that a collected buffer went through, with the parameters of their episode.

    Args:
        dataset: a `worldmodels.data.Dataset` or its path; its train split is used.
        task: serves resets with options.

    Raises:
        ValueError: no buffer, one without steps, or one of another system.
    """

    def __init__(self, dataset: Any, task: Task) -> None:
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
        self._ends = np.cumsum(np.asarray(dataset.lengths)[self._episodes])
        if not len(self._ends) or self._ends[-1] == 0:
            raise ValueError("the buffer has no steps to start from: collect episodes first")
        self._dataset, self._task = dataset, task

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """Any state from which an action was taken, all equally likely."""
        if options:
            return self._task.sample(rng, options)
        step = int(rng.integers(self._ends[-1]))
        at = int(np.searchsorted(self._ends, step, side="right"))
        time = step - (int(self._ends[at - 1]) if at else 0)
        episode = self._episodes[at]
        params = {name: float(values[episode]) for name, values in self._dataset.params.items()}
        state = self._dataset.states[episode, time]
        return tuple(state.tolist()), self._task.base._replace(**params)
