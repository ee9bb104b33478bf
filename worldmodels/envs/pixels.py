"""The modality of pictures: a learned env that shows what its model draws, and nothing besides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from physgym.env import RENDER_SIZE
from physgym.rendering import opencv, write_text
from physgym.task import Task
from worldmodels.envs import judging
from worldmodels.envs import task as truth
from worldmodels.envs.modality import Decoded, Modality
from worldmodels.envs.observed import read_pictures
from worldmodels.envs.pixel_starts import BufferFrames, frames_of
from worldmodels.envs.starts import Starts
from worldmodels.interface import Latent, WorldModel


class PixelModality(Modality):
    """A `VisualWorldModel`: pictures (S, S, 3) uint8 in and out, reward and end from its heads.

    A row has diverged where its picture or its latent is not finite, or the largest |z| lies beyond
    `factor` times that of training (`reach`; 0: nothing is recorded, and only the first counts). `info`
    holds no state, no energy and no events: the head tells that an episode ends, not why.
    """

    dtype, flags, reads_shown = np.uint8, (), False

    def __init__(self, model: WorldModel, task: Task, factor: float) -> None:
        super().__init__(model, task, factor)
        visual: Any = model
        self.visual, size = visual, model.spec.image_size
        self.shape, self.length = (size, size, 3), int(visual.context_frames)
        self._ends = model.spec.foreign or bool(judging.event_names(task))
        reach = float(visual.reach)
        self._limit = factor * reach if 0.0 < reach < np.inf else np.inf

    def true_starts(self) -> Starts:
        return frames_of(self.task, self.model.spec, self.length)

    def buffer_starts(self, dataset: Any) -> Starts:
        return BufferFrames(dataset, self.task, self.model.spec, self.length)

    def encode(self, context: np.ndarray, actions: np.ndarray, params: np.ndarray) -> Latent:
        frames = torch.as_tensor(context, device=self.device)
        return self.visual.encode(frames, self.tensor(params), self.actions(actions))

    def decode(self, latent: Latent) -> Decoded:
        pictures = self.model.decode(
            latent
        ).float()  # halves have no room for sums, or for 256 levels
        largest = self.visual.largest(latent)
        # One sum is finite where all its parts are, and takes a fraction of the time.
        sound = pictures.sum((1, 2, 3)).isfinite() & largest.isfinite() & (largest <= self._limit)
        levels = (255.0 * pictures).round_().clamp_(0.0, 255.0).to(torch.uint8)
        return Decoded(levels.contiguous().cpu().numpy(), sound.cpu().numpy())

    def sound(self, latent: Latent) -> np.ndarray:
        largest = self.visual.largest(latent)
        return (largest.isfinite() & (largest <= self._limit)).cpu().numpy()

    def judge(
        self,
        latent: Latent,
        before: np.ndarray,
        shown: np.ndarray,
        actions: np.ndarray,
        params: Any,
    ) -> judging.Outcome:
        """What the heads say, as far as the task can give it: rewards in its range, and an end (at a
        probability above 1/2) only where something can end an episode; of a foreign env, nobody knows.
        """
        with torch.inference_mode():
            reward, logit = self.visual.judge(latent, self.actions(actions))
        low, high = truth.REWARD_RANGES[self.task.reward]
        rewards = reward.double().cpu().numpy()
        rewards = np.where(np.isfinite(rewards), rewards, 0.0).clip(low, high)
        terminated = (torch.sigmoid(logit) > 0.5).cpu().numpy() & self._ends
        return judging.Outcome(rewards, terminated, np.zeros_like(terminated), {})

    def judge_tensors(
        self, latent: Latent, before: Any, after: Any, actions: Tensor, params: Any
    ) -> tuple[Tensor, Tensor]:
        """What the heads say; rewards are not held to their range, which would cut their gradients."""
        reward, logit = self.visual.judge(latent, actions)
        return reward, (logit > 0.0) if self._ends else torch.zeros_like(logit, dtype=torch.bool)

    def read(self, observations: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return read_pictures(self.shape, observations), None

    def observe(self, shown: np.ndarray, params: np.ndarray) -> Any:
        return shown.copy()

    def facts(self, shown: np.ndarray, params: Any) -> dict[str, Any]:
        return {}

    def portrait(
        self, shown: np.ndarray, action: np.ndarray | None, params: Any, caption: str
    ) -> np.ndarray:
        cv2 = opencv()
        size = (RENDER_SIZE, RENDER_SIZE)
        kind = cv2.INTER_NEAREST if shown.shape[0] <= RENDER_SIZE else cv2.INTER_AREA
        picture = cv2.resize(shown, size, interpolation=kind)
        write_text(picture, caption if action is None else f"{caption}   {self._told(action)}")
        return picture

    def _told(self, action: np.ndarray) -> str:
        """An action in words: its name, or its numbers."""
        if self.task.discrete:
            return self.task.system.action_names[int(action)]
        return "action " + ", ".join(f"{value:.2f}" for value in action.tolist())
