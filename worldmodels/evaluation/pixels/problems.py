"""Open-loop problems in pixels: frames seen, actions, and the frames they lead to.

Legend: B problems, L frames seen, T frames to predict, S x S pixels, A action.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.rendering import render_batch
from worldmodels.evaluation import problems
from worldmodels.evaluation.problems import Problems

FRAMES_AT_ONCE = 1024
"""Frames of 64 x 64 pixels in one batch of an evaluation: 50 MB a copy of them in floats."""


class PixelProblems(NamedTuple):
    """A batch of B problems."""

    context: Tensor
    """(B, L, S, S, 3) uint8 frames seen, at the buffer's step length."""
    past_actions: np.ndarray
    """(B, L-1[, A]) actions between them."""
    truth: Tensor
    """(B, T, S, S, 3) uint8 frames asked for; of another step length the last alone, T = 1."""
    tasks: Problems
    """States (B, T+1, D) from the last frame seen on, actions and what is valid."""
    backward: bool = False
    """Whether time runs backward: from the end of the window, against the actions that were held."""
    rewards: np.ndarray | None = None
    """(B, T) float64 rewards of the true env, at the buffer's step length and in its order of time."""

    @property
    def dt(self) -> float:
        """Seconds a step, negative where time runs backward."""
        return -self.tasks.dt if self.backward else self.tasks.dt

    @property
    def frames(self) -> Tensor:
        """(B, L+T, S, S, 3): all of them, in the order in which time is asked for."""
        return torch.cat((self.context, self.truth), 1)


class PixelWindows(NamedTuple):
    """Windows of the episodes of a dataset."""

    dataset: Any
    tasks: Problems
    """Of L-1+T steps, the context's included."""
    rows: np.ndarray
    """(B,) episode of each window."""
    starts: np.ndarray
    """(B,) its first step."""
    context: int
    """L."""

    @property
    def asked(self) -> Problems:
        """The problems from the last frame seen on, of T steps."""
        return problems.part(self.tasks, first=self.context - 1)


def cut(dataset: Any, context: int, steps: int, count: int = 256) -> PixelWindows:
    """At most ``count`` windows of ``context`` frames and ``steps`` more from the episodes of ``dataset``.

    Raises ``ValueError`` where the dataset has no pictures, or no episode is as long.
    """
    check_pictures(dataset)
    length = context - 1 + steps
    longest = int(dataset.lengths.max())
    if not 1 <= steps <= longest - context + 1:
        raise ValueError(
            f"horizon {steps} after {context} frames seen is beyond the episodes, which have at most "
            f"{longest} steps: expected 1 to {longest - context + 1}"
        )
    rows, starts = problems.places(dataset, length, count)
    return PixelWindows(
        dataset, problems.from_dataset(dataset, length, count), rows, starts, context
    )


def check_pictures(dataset: Any) -> None:
    """Raise ``ValueError`` where ``dataset`` has no pictures."""
    if dataset.pixels is None:
        raise ValueError(
            f"{dataset.path} has no pictures: name a buffer collected with --pixels to evaluate runs "
            "of the visual model"
        )


def batches(windows: PixelWindows) -> Iterator[tuple[slice, PixelProblems]]:
    """The windows in batches that fit into memory, with their rows."""
    size = _batch_size(windows)
    for first in range(0, len(windows.rows), size):
        rows = slice(first, first + size)
        frames = torch.from_numpy(_frames(windows, rows))
        seen = windows.context
        past = windows.tasks.actions[rows, : seen - 1]
        tasks = problems.part(windows.tasks, rows, seen - 1)
        steps = windows.starts[rows, None] + seen - 1 + np.arange(tasks.steps)
        rewards = windows.dataset.rewards[windows.rows[rows, None], steps]
        truth = frames[:, seen:]
        yield rows, PixelProblems(frames[:, :seen], past, truth, tasks, rewards=rewards)


def sample(
    dataset: Any, context: int, count: int, episodes: int = 64, seed: int = 0
) -> PixelProblems:
    """``count`` contexts of frames at random times of at most ``episodes`` episodes, with nothing asked.

    ``tasks`` has the states (n, 1, D) of the last frames. Raises ``ValueError`` where no episode is as long.
    """
    check_pictures(dataset)
    long = np.flatnonzero(dataset.lengths >= context)
    if not len(long):
        raise ValueError(f"no episode of {dataset.path} has the {context} frames that are read")
    rng = np.random.default_rng(seed)
    chosen = long[np.linspace(0, len(long) - 1, min(episodes, len(long))).round().astype(int)]
    rows = np.sort(rng.choice(chosen, count))
    last = rng.integers(context - 1, dataset.lengths[rows] + 1)
    frames = np.empty((count, context, *dataset.pixels[0].shape[1:]), np.uint8)
    for row in np.unique(rows):
        at = np.flatnonzero(rows == row)
        steps = last[at, None] + np.arange(1 - context, 1)
        frames[at] = dataset.pixels[int(row)][steps]
    past = dataset.actions[rows[:, None], last[:, None] + np.arange(1 - context, 0)]
    tasks = problems.at_states(dataset, rows, last)
    return PixelProblems(torch.from_numpy(frames), past, torch.from_numpy(frames[:, :0]), tasks)


def rows_of(batch: PixelProblems, rows: slice) -> PixelProblems:
    """Some rows of a batch."""
    return batch._replace(
        context=batch.context[rows],
        past_actions=batch.past_actions[rows],
        truth=batch.truth[rows],
        tasks=problems.part(batch.tasks, rows),
        rewards=None if batch.rewards is None else batch.rewards[rows],
    )


def reverse(batch: PixelProblems) -> PixelProblems:
    """The same window from its end: the last L frames are seen, and T steps back are asked for.

    Step t back is under the action that was held over that interval, and counts where the whole window
    lies in the episode. The first L-1 frames asked for are frames seen.
    """
    seen, asked = batch.context.shape[1], batch.truth.shape[1]
    frames, tasks = batch.frames, batch.tasks
    actions = np.concatenate([batch.past_actions, tasks.actions], 1)
    whole = np.repeat(tasks.valid[:, -1:], asked, 1)
    backward = tasks._replace(
        states=tasks.states[:, ::-1],
        actions=tasks.actions[:, ::-1],
        controls=tasks.controls[:, ::-1],
        valid=whole,
    )
    past = actions[:, asked : asked + seen - 1]
    truth = frames[:, seen - 1 : seen - 1 + asked].flip(1)
    return PixelProblems(frames[:, asked:], past, truth, backward, True)


def at_step_length(batch: PixelProblems, dt: float, hold: float, seconds: float) -> PixelProblems:
    """The same frames seen, stepped by ``dt`` over ``seconds`` under actions held for ``hold``.

    The truth is the last frame alone, drawn from states that are computed anew.
    Raises what ``problems.at_step_length`` raises.
    """
    tasks = problems.at_step_length(batch.tasks, dt, hold, seconds)
    tasks = tasks._replace(valid=tasks.valid & batch.tasks.valid[:, :1])
    last = draw(tasks, batch.context.shape[-2], slice(-1, None))
    return batch._replace(truth=torch.from_numpy(last), tasks=tasks, rewards=None)


def draw(tasks: Problems, size: int, steps: slice = slice(None)) -> np.ndarray:
    """Pictures (B, n, S, S, 3) uint8 of the states at ``steps``, as the env's pixel mode draws them."""
    system, rows = tasks.system, zip(*(values.tolist() for values in tasks.params), strict=True)
    scenes = [
        system.scene(tuple(state), None, system.Params(*row), False)
        for row, states in zip(rows, tasks.states[:, steps].tolist(), strict=True)
        for state in states
    ]
    pictures = render_batch(scenes, system.view, size)
    return pictures.reshape(len(tasks.states), -1, size, size, 3)


def _frames(windows: PixelWindows, rows: slice) -> np.ndarray:
    length = windows.tasks.states.shape[1]
    pixels, chosen = windows.dataset.pixels, windows.rows[rows]
    frames = np.empty((len(chosen), length, *pixels[0].shape[1:]), np.uint8)
    for target, row, start in zip(frames, chosen, windows.starts[rows], strict=True):
        target[:] = pixels[int(row)][start : start + length]
    return frames


def _batch_size(windows: PixelWindows) -> int:
    side = windows.dataset.pixels[0].shape[1]
    steps = windows.tasks.states.shape[1]
    return max(1, FRAMES_AT_ONCE * 64**2 // (side**2 * steps))
