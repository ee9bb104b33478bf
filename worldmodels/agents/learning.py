"""How an agent learns: the mean return of the episodes that end while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ROWS = 100
"""Rows at most that a training leaves."""


class LearningCurve:
    """Rows of mean returns over env steps: one for each hundredth of a training in which an episode ended.

    Args:
        steps: env steps of the training.
        log: told each row and its step, as `Logger.log` is.
    """

    def __init__(
        self, steps: int, log: Callable[[Mapping[str, Any], int], object] = lambda row, step: None
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        """`env_steps`, and `agent/return`, `agent/return_std`, `agent/length` (means) and `agent/episodes`."""
        self._log, self._width = log, max(1, steps // ROWS)
        self._bin, self._last = 0, 0
        self._returns: list[float] = []
        self._lengths: list[int] = []

    def add(self, step: int, value: float, length: int) -> None:
        """Count an episode of ``length`` steps and return ``value`` that ended at env step ``step``."""
        if step // self._width != self._bin:
            self.close()
            self._bin = step // self._width
        self._last = step
        self._returns.append(value)
        self._lengths.append(length)

    def close(self) -> None:
        """Write the row of the episodes since the last one, where there are any."""
        if not self._returns:
            return
        values = {
            "agent/return": float(np.mean(self._returns)),
            "agent/return_std": float(np.std(self._returns)),
            "agent/length": float(np.mean(self._lengths)),
            "agent/episodes": len(self._returns),
        }
        self.rows.append({"env_steps": self._last, **values})
        self._log(values, self._last)
        self._returns, self._lengths = [], []
