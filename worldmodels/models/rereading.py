"""Rollouts that read their own pictures again, so that a latent stays among those that the encoder makes.

Behind the memory of such a latent stand, one a row, the steps since its frames were read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodels.interface import Latent


def watched(model: Any, latent: Latent) -> Latent:
    """``latent`` with the steps since its frames were read behind its memory, where they are counted."""
    missing = len(latent.memory) == len(model.dynamics.initial_memory(latent.z))
    if not model.config.rereads or not missing:
        return latent
    return latent._replace(memory=(*latent.memory, latent.z.new_zeros(len(latent.z))))


def step(model: Any, latent: Latent, action: Tensor, ratio: Tensor | float) -> Latent:
    """``latent`` after ``action``, ``ratio`` steps of the buffer later; rows that are due are read anew from
    the last two pictures that they imagined. In training, and over other steps than the buffer's, none is.
    """
    latent = watched(model, latent)
    moved = model.dynamics.step(
        latent._replace(memory=latent.memory[:-1]), action, ratio * model.config.time_step
    )
    count = latent.memory[-1] + 1.0
    usual = not isinstance(ratio, Tensor) and abs(ratio - 1.0) < 1e-6
    due = (count >= model.config.rereads).nonzero().squeeze(1)
    if len(due) and usual and not model.training:
        again = _read_again(model, latent.z[due], moved.z[due], action[due])
        moved = moved._replace(z=moved.z.index_copy(0, due, again))
        count = count.index_fill(0, due, 0.0)
    return moved._replace(memory=(*moved.memory, count))


def _read_again(model: Any, before: Tensor, after: Tensor, action: Tensor) -> Tensor:
    """What the encoder makes of the pictures of two states with ``action`` between them."""
    drawn = [model.draw(z).clamp(0.0, 1.0).permute(0, 2, 3, 1) for z in (before, after)]
    return model.transform(model.posterior(torch.stack(drawn, 1), action.unsqueeze(1))[0])
