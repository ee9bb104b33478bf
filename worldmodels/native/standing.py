"""One step of many rows by machine code, called again and again: its tensors are made once.

What a rollout of training lays out for every call (padded weights, rooms, addresses) stands here, and a call
only brings the numbers in. Weights are read where the structure keeps them, so training in place is seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.interface import Dynamics, Latent
from worldmodels.native.layout import layout_of
from worldmodels.native.programs import Slot
from worldmodels.native.rollouts import fixed_of, recorded_step
from worldmodels.native.runs import Run, view


class StandingStep:
    """``dynamics.step`` by ``dt`` (units of the latent's own time) of N rows, in blocks that stay in the cache.

    Made for latents and actions of as many rows as those given. Without gradients; numbers agree with torch's
    to rounding.

    Raises:
        NotRecordable: the structure does what cannot be written down.
    """

    def __init__(self, dynamics: Dynamics, latent: Latent, action: Tensor, dt: float) -> None:
        self._recorded = recorded_step(dynamics, latent, action, dt)
        self.count, self.dtype = len(latent.z), latent.z.dtype
        self._code = layout_of(self._recorded.recording, frozenset(), frozenset(), self.dtype)
        self._numbers = torch.tensor(self._recorded.numbers or [0.0], dtype=self.dtype)
        self._computed = any(
            self._recorded.recording.storages[operation.result.storage].fixed
            for operation in self._recorded.recording.operations
        )
        self._bind(latent, action)

    def fits(self, latent: Latent) -> bool:
        """Whether the structure is still what was compiled: in the same floating type, on the CPU."""
        first = self._recorded.weights[0]
        same = first.dtype is self.dtype is latent.z.dtype and first.device.type == "cpu"
        return same and len(latent.z) == self.count

    def __call__(self, latent: Latent, action: Tensor) -> Latent:
        """The latent after ``action`` (N,) or (N, A)."""
        if self._addresses != [tensor.data_ptr() for tensor in self._recorded.weights]:
            self._bind(latent, action)
        else:
            given = [latent.z, *latent.memory, action]
            given += [] if latent.condition is None else [latent.condition]
            for room, values in zip(self._rooms, given, strict=True):
                room.copy_(values)
            if self._computed:
                leaves = fixed_of(self._recorded)
                for index, kept in self._leaves.items():
                    kept.copy_(leaves[index])
            for room, own in self._copies:
                room.copy_(own)
        self._run.again()
        z, *memory = (room.clone() for room in self._results)
        return latent._replace(z=z, memory=tuple(memory))

    def _bind(self, latent: Latent, action: Tensor) -> None:
        """Rooms for everything, and where in them each number goes."""
        with torch.inference_mode(False), torch.no_grad():
            self._addresses = [tensor.data_ptr() for tensor in self._recorded.weights]
            leaves = fixed_of(self._recorded)
            weights = {id(tensor) for tensor in self._recorded.weights}
            order = [index for index in self._code.leaves if index in leaves]
            self._leaves = {k: leaves[k].clone() for k in order if id(leaves[k]) not in weights}
            given = [self._leaves.get(index, leaves[index]).detach() for index in order]
            start = [x.detach().clone() for x in (latent.z, *latent.memory)]
            told = None if latent.condition is None else latent.condition.clone()
            actions = action.clone().unsqueeze(1)
            self._run = Run(
                self._code, self._numbers, self._room, order, actions, told, start, given, False
            )
            self._copies = list(self._padded(dict(zip(order, given, strict=True))))
        self._rooms, self._results = self._places(start, actions, told)

    def _room(self, size: int) -> Tensor:
        return torch.empty(size, dtype=self.dtype)

    def _places(
        self, start: Sequence[Tensor], actions: Tensor, told: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Where z, memory, action and condition go, and where z and memory after the step lie."""
        run, count = self._run, self.count
        sizes = [x.shape[1] for x in start]
        pairs = list(zip(run.moving, sizes, strict=True))
        rooms = [room[0, :count, :size] for room, size in pairs]
        wide = run.actions[0, :count]
        rooms.append(wide[:, 0] if actions.ndim == 2 else wide[:, : actions.shape[2]])
        if run.condition is not None and told is not None:
            rooms.append(run.condition[0, :count, : told.shape[1]])
        return rooms, [room[1, :count, :size] for room, size in pairs]

    def _padded(self, leaves: dict[int, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Rooms of weights that were laid out anew, with the weights that they are copies of."""
        found = []
        for slot, room in self._run.matrices.items():
            if slot.kind == "zeros":
                continue
            own = _laid(leaves, slot)
            if room.data_ptr() != own.data_ptr():
                found.append((room[:, : own.shape[1]], own))
        return found


def _laid(leaves: dict[int, Tensor], slot: Slot) -> Tensor:
    own = view(leaves[slot.key.storage], slot.key)
    return own.reshape(1, -1) if slot.kind == "row" else own
