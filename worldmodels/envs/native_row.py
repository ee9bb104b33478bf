"""`NativeRow`: the machine code of a single env's model, from rooms that are made once an episode.

A step of one row is some microseconds of arithmetic: tensors and tables of addresses made for each step cost several
times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldmodels.envs.native_steps import NativeStep
from worldmodels.interface import Latent


class NativeRow:
    """What ``native`` does of one row, without a call of torch.

    Args:
        native: the model's step; its weights are read where they lay when this was made, see ``fits``.
        latent: of one row, the first that is stepped; its memory and condition tell the sizes.
        discrete: whether actions are integers, else ``size`` numbers.
        size: of a continuous action.

    The latents that it gives are two in turns: one holds good until the next but one step.
    """

    def __init__(self, native: NativeStep, latent: Latent, discrete: bool, size: int) -> None:
        self._native = native
        self._addresses = native.addresses()
        with torch.inference_mode(False), torch.no_grad():
            first = _copied(latent)
            second = _copied(latent)._replace(condition=first.condition)
            kind = torch.int64 if discrete else native.dtype
            action = torch.zeros((1,) if discrete else (1, size), dtype=kind)
            shown = torch.empty((1, *native.shapes[1]), dtype=native.dtype)
        self._action, self._shown = action.numpy(), shown.numpy()
        self._turns = first, second
        self._calls = [
            native.bound(before, action, (after.z, shown, *after.memory))
            for before, after in ((first, second), (second, first))
        ]

    def fits(self) -> bool:
        """Whether the model's weights are still where they were."""
        return self._native.addresses() == self._addresses

    def __call__(self, latent: Latent, action: Any) -> tuple[Latent, list[float]]:
        """The latent after ``action`` (an integer, or numbers (A,)), and the state (D,) that it decodes to."""
        first, second = self._turns
        turn = latent is second
        if not turn and latent is not first:
            _put(first, latent)
        self._action[0] = action
        self._calls[turn]()
        return (first if turn else second), self._shown[0].tolist()


def _copied(latent: Latent) -> Latent:
    told = None if latent.condition is None else latent.condition.clone()
    return Latent(latent.z.clone(), tuple(x.clone() for x in latent.memory), told)


def _put(room: Latent, latent: Latent) -> None:
    with torch.inference_mode():
        for own, given in zip(_tensors(room), _tensors(latent), strict=True):
            own.copy_(given)


def _tensors(latent: Latent) -> Sequence[Tensor]:
    return [latent.z, *latent.memory, *([] if latent.condition is None else [latent.condition])]
