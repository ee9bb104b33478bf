"""What training descends on in pictures: shuffled windows of frames, from memory or from disk."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.data.batches import OutcomeWindows, TrainingError
from worldmodels.interface import Batch
from worldmodels.storage.room import free_memory

HOST_SHARE, DEVICE_SHARE = 0.5, 0.4
"""Shares of the free memory of the host and of a GPU that cached frames may take."""


def check_pictures(dataset: Any, image_size: int | None = None) -> int:
    """Height of the square pictures of ``dataset``. Raises ``TrainingError`` for one without."""
    if dataset.pixels is None:
        raise TrainingError(
            f"{dataset.path} was collected without pixels: collect with --pixels, or leave out "
            "--dataset and the frames are collected"
        )
    height, width, channels = dataset.metadata["schema"]["pixels"]["shape"][-3:]
    if height != width or channels != 3 or image_size not in (None, height):
        wanted = "square RGB ones" if image_size is None else f"({image_size}, {image_size}, 3)"
        raise TrainingError(
            f"{dataset.path} has pictures of shape {(height, width, channels)}: expected {wanted}"
        )
    return int(height)


class Frames:
    """The pictures of a dataset: on the device or in memory as uint8 where they fit, or on disk."""

    def __init__(self, dataset: Any, device: str) -> None:
        self.pixels = dataset.pixels
        self.device = torch.device(device)
        size = check_pictures(dataset)
        needed = len(dataset) * dataset.states.shape[1] * size * size * 3
        self.cached: Tensor | None = None
        self.place = "disk"
        if needed <= HOST_SHARE * free_memory():
            self.cached = torch.empty(
                (len(dataset), dataset.states.shape[1], size, size, 3), dtype=torch.uint8
            )
            for row in range(len(dataset)):
                self.cached[row] = torch.from_numpy(self.pixels[row])
            self.place = "memory"
            if self.device.type == "cuda":
                free = torch.cuda.mem_get_info(self.device)[0]
                if needed <= DEVICE_SHARE * free:
                    self.cached = self.cached.to(self.device)
                    self.place = "device"
        else:
            warnings.warn(
                f"the frames ({needed / 2**30:.1f} GiB) do not fit into memory: they are read from "
                "disk batch by batch, which is slow; fewer --data.episodes fit",
                RuntimeWarning,
                stacklevel=2,
            )

    def take(self, episode: Tensor, times: Tensor) -> Tensor:
        """Frames (B, T, S, S, 3) uint8, on the device, at ``times`` (B, T) of ``episode`` (B,)."""
        if self.cached is not None:
            where = self.cached.device
            found = self.cached[episode.to(where)[:, None], times.to(where)]
            return found.to(self.device, non_blocking=True)
        rows, at = episode.cpu().numpy(), times.cpu().numpy()
        read = np.stack([self.pixels[int(row)][index] for row, index in zip(rows, at, strict=True)])
        return torch.from_numpy(read).to(self.device)


class FrameWindows(OutcomeWindows):
    """Shuffled windows with frames, rewards and ends; batch ``step`` is a function of seed and step."""

    def __init__(self, dataset: Any, length: int, batch_size: int, seed: int, device: str) -> None:
        longest = int(np.asarray(dataset.lengths).max())
        if longest < length:
            raise TrainingError(
                f"windows of {length} steps are longer than the longest episode, {longest}: lower "
                f"model.rollout_steps (or context_frames, pushforward_steps) by {length - longest} or "
                "more, or collect longer episodes"
            )
        super().__init__(dataset, length, batch_size, seed, device)
        self.frames = Frames(dataset, device)

    def at(self, episode: Tensor, start: Tensor) -> Batch:
        """The windows of episodes (B,) from the steps ``start`` (B,) on."""
        times = start[:, None] + torch.arange(self.length + 1, device=start.device)
        times = times.clamp(max=self.actions.shape[1])
        return super().at(episode, start)._replace(frames=self.frames.take(episode, times))
