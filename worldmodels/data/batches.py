"""What training descends on: shuffled windows of a buffer, batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.interface import Batch
from worldmodels.storage.room import converted


class TrainingError(RuntimeError):
    """Training cannot go on or start; the message says why and what to change."""


def param_table(dataset: Any, rows: np.ndarray | slice = slice(None)) -> Tensor:
    """(N, P) float32 parameters of some episodes."""
    columns = [np.asarray(values, np.float32)[rows] for values in dataset.params.values()]
    empty = np.zeros((len(np.asarray(dataset.lengths)[rows]), 0), np.float32)
    return torch.as_tensor(np.stack(columns, 1) if columns else empty)


class Windows:
    """Shuffled windows of a split on a device; batch ``step`` is a pure function of seed and step."""

    rows: slice = slice(None)
    """Which rows of each batch are drawn: a share of them, where several processes train one model."""

    def __init__(self, dataset: Any, length: int, batch_size: int, seed: int, device: str) -> None:
        lengths = torch.as_tensor(np.asarray(dataset.lengths))
        longest = int(lengths.max())
        self.length = min(length, longest)
        if self.length < 1:
            raise TrainingError("the train split has no transitions: collect longer episodes")
        # An episode shorter than a window gives one masked window.
        each = torch.where(lengths > 0, (lengths - self.length + 1).clamp(min=1), 0)
        self._ends = each.cumsum(0)
        self.count = int(self._ends[-1])
        self.batch_size = min(batch_size, self.count)
        self.seed = seed
        self.device = device
        self.lengths = lengths.to(device)
        states = converted(np.asarray(dataset.states), np.float32)
        self.states = torch.as_tensor(states, device=device)
        self.actions = torch.as_tensor(dataset.actions, device=device)
        self.params = param_table(dataset).to(device)
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def batches_per_pass(self) -> int:
        """Batches in one pass over all windows (the rest of a pass is left out)."""
        return self.count // self.batch_size

    def batch(self, step: int) -> Batch:
        """Batch number ``step`` of an endless stream of shuffled passes."""
        return self.of(self.numbers(step))

    def of(self, chosen: Tensor) -> Batch:
        """The windows of these numbers (B,)."""
        return self.at(*(numbers.to(self.device) for numbers in self.places(chosen)))

    def numbers(self, step: int) -> Tensor:
        """(B,) of the windows of batch ``step``."""
        number, index = divmod(step, self.batches_per_pass)
        if number != self._pass:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
            self._order = torch.randperm(self.count, generator=generator)
            self._pass = number
        return self._order[index * self.batch_size : (index + 1) * self.batch_size][self.rows]

    def places(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Episodes (B,) and first steps (B,) of windows by their numbers (B,), counted episode by episode."""
        episode = torch.searchsorted(self._ends, chosen, right=True)
        before = self._ends[episode - 1].where(episode > 0, 0)
        return episode, chosen - before

    def at(self, episode: Tensor, start: Tensor) -> Batch:
        """The windows of episodes (B,) from the steps ``start`` (B,) on."""
        times = start[:, None] + torch.arange(self.length + 1, device=self.device)
        row = episode[:, None]
        mask = times[:, :-1] < self.lengths[row]
        # Behind an episode's end the arrays repeat its last state: those steps carry no weight.
        times = times.clamp(max=self.actions.shape[1])
        actions = self.actions[row, times[:, :-1].clamp(max=self.actions.shape[1] - 1)]
        return Batch(self.states[row, times], actions, self.params[episode], mask)


class OutcomeWindows(Windows):
    """Windows with rewards and ends."""

    def __init__(self, dataset: Any, length: int, batch_size: int, seed: int, device: str) -> None:
        super().__init__(dataset, length, batch_size, seed, device)
        rewards = converted(np.asarray(dataset.rewards), np.float32)
        self.rewards = torch.as_tensor(rewards, device=device)
        self.terminated = torch.as_tensor(dataset.terminated, device=device)

    def at(self, episode: Tensor, start: Tensor) -> Batch:
        """The windows of episodes (B,) from the steps ``start`` (B,) on."""
        times = start[:, None] + torch.arange(self.length, device=start.device)
        times, row = times.clamp(max=self.actions.shape[1] - 1), episode[:, None]
        rewards, terminated = self.rewards[row, times], self.terminated[row, times]
        return super().at(episode, start)._replace(rewards=rewards, terminated=terminated)
