"""One rollout: its tensors, and the calls of machine code that go over them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.native.layout import ROWS, Layout
from worldmodels.native.matrices import PADDING, TILE, padded
from worldmodels.native.programs import Slot
from worldmodels.native.recording import NotRecordable, Ref

Table = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Where slots lie, and bytes from step to step and from row to row."""


class Run:
    """One rollout: the tensors of all steps and rows, and where each slot of a block of rows lies in them."""

    def __init__(
        self,
        code: Layout,
        numbers: Tensor,
        room: Callable[[int], Tensor],
        order: Sequence[int],
        actions: Tensor,
        condition: Tensor | None,
        start: Sequence[Tensor],
        leaves: Sequence[Tensor],
        kept: bool,
    ) -> None:
        self.code, self.numbers = code, numbers
        self.order, self.leaves, self.keeps = order, leaves, kept
        self.count, self.steps = actions.shape[:2]
        self.padded = -(-self.count // TILE) * TILE
        real = self.code.real
        self.moving = [self._moving(x, real) for x in start]
        flat = actions.transpose(0, 1).reshape(self.steps, self.count, -1)
        if actions.dtype is torch.int64:
            self.actions = self._rows(flat, flat.shape[2], actions.dtype)
        else:
            self.actions = self._rows(flat, padded(flat.shape[2]), real)
        self.condition = None
        if condition is not None:
            self.condition = self._rows(
                condition.detach().unsqueeze(0), padded(condition.shape[1]), real
            )
        self.matrices = self._matrices()
        blocks = -(-self.padded // ROWS)
        size = blocks * (self.steps if kept else 1) * self.code.kept_size
        self.tape = room(max(1, size))
        self.upon: list[Tensor] = []
        self._standing: list[tuple[Tensor, Table]] = []

    def _moving(self, first: Tensor, real: torch.dtype) -> Tensor:
        """(T+1, B', pitch): what goes from step to step, the start in its place."""
        whole = torch.empty((self.steps + 1, self.padded, padded(first.shape[1])), dtype=real)
        whole[0] = self._rows(first.detach().unsqueeze(0), whole.shape[2], real)[0]
        return whole

    def _rows(self, values: Tensor, wide: int, dtype: torch.dtype) -> Tensor:
        """(T, B, N) as (T, B', wide): the last row again where there are too few."""
        room = torch.zeros((len(values), self.padded, wide), dtype=dtype)
        room[:, : self.count, : values.shape[2]] = values
        if self.padded > self.count:
            room[:, self.count :] = room[:, self.count - 1 : self.count]
        return room

    def _matrices(self) -> dict[Slot, Tensor]:
        leaves = dict(zip(self.order, self.leaves, strict=True))
        made: dict[Slot, Tensor] = {}
        for ref in self.code.matrices:
            own = view(leaves[ref.storage].detach(), ref)
            made[Slot("matrix", ref)] = wide(own)
            if self.keeps:
                made[Slot("turned", ref)] = wide(own.T)
        for ref in self.code.rows:
            own = view(leaves[ref.storage].detach(), ref).reshape(1, -1)
            made[Slot("row", ref)] = wide(own)
        made[Slot("zeros", None)] = torch.zeros(self.code.widest, dtype=self.code.real)
        return made

    def advance(self) -> None:
        """All steps of all rows."""
        self._each(partial(self._through, self.code.forward), [None] * len(self._pieces()))

    def again(self) -> None:
        """`advance` from what now lies in the rooms of this run, whose places are looked up once."""
        for _ in self._pieces()[len(self._standing) :]:
            scratch = self._scratch()
            self._standing.append((scratch, self._table(scratch, None)))
        self._each(self._again, self._standing)

    def _again(self, blocks: Sequence[int], standing: tuple[Tensor, Table]) -> None:
        self._over(self.code.forward, blocks, standing[1])

    def go_back(self, upon: Sequence[Tensor]) -> Tensor:
        """Gradients of what is the same for all rows, laid out as ``Layout.learned`` says."""
        self.upon = list(upon)
        pieces = self._pieces()
        rooms = [torch.zeros(self.code.learned_size, dtype=self.code.real) for _ in pieces]
        self._each(partial(self._through, self.code.backward), rooms)
        return rooms[0] if len(rooms) == 1 else torch.stack(rooms).sum(0)

    def _pieces(self) -> list[list[int]]:
        """The blocks of each thread."""
        blocks = list(range(0, self.padded, ROWS))
        count = max(1, min(torch.get_num_threads(), len(blocks)))
        return [blocks[k::count] for k in range(count)]

    def _each(self, work: Callable[[Sequence[int], Any], None], given: Sequence[Any]) -> None:
        """``work`` of the blocks of each thread, with what is ``given`` to it."""
        pieces = self._pieces()
        if len(pieces) == 1:
            work(pieces[0], given[0])
            return
        workers = pool(os.getpid(), len(pieces))
        pairs = zip(pieces, given, strict=False)  # tables may stand for more threads
        jobs = [workers.submit(work, piece, own) for piece, own in pairs]
        for job in jobs:
            job.result()

    def _through(
        self, function: Callable[..., None], blocks: Sequence[int], room: Tensor | None
    ) -> None:
        """``function`` of some blocks, one after another."""
        scratch = self._scratch()
        self._over(function, blocks, self._table(scratch, room))

    def _scratch(self) -> Tensor:
        return torch.zeros(max(1, self.code.scratch_size), dtype=self.code.real)

    def _over(self, function: Callable[..., None], blocks: Sequence[int], table: Table) -> None:
        shared, strides, pace = table
        bases = shared.copy()
        steps = ctypes.c_int64(self.steps)
        places = [ctypes.c_void_p(table.ctypes.data) for table in (bases, strides)]
        for first in blocks:
            np.add(shared, first * pace, out=bases)
            function(ctypes.c_int64(min(ROWS, self.padded - first)), steps, *places)

    def _table(self, scratch: Tensor, room: Tensor | None) -> Table:
        """Where each slot of the first row lies, and bytes from step to step and from row to row."""
        code, size = self.code, self.code.size
        kept = code.kept_size * size
        moving = [(x, x.stride(0) * size, x.stride(1) * size) for x in self.moving]
        upon = [(x, x.stride(0) * size, x.stride(1) * size) for x in self.upon]
        own: dict[Any, tuple[Tensor | None, int, int]] = {
            "numbers": (self.numbers, 0, 0),
            "scratch": (scratch, 0, 0),
            "learned": (room, 0, 0),
            "tape": (
                self.tape,
                kept if self.keeps else 0,
                (self.steps if self.keeps else 1) * kept // ROWS,
            ),
            "actions": (
                self.actions,
                self.actions.stride(0) * self.actions.element_size(),
                self.actions.stride(1) * self.actions.element_size(),
            ),
            "condition": (self.condition, 0, 0),
        }
        if self.condition is not None:
            own["condition"] = self.condition, 0, self.condition.stride(1) * size
        own |= {("value", k): known for k, known in enumerate(moving)}
        own |= {("gradient", k): known for k, known in enumerate(upon)}
        own |= {slot: (tensor, 0, 0) for slot, tensor in self.matrices.items()}
        leaves = dict(zip(self.order, self.leaves, strict=True))
        bases = np.zeros(len(code.roots), np.int64)
        steps, rows = np.zeros_like(bases), np.zeros_like(bases)
        for place, root in enumerate(code.roots):
            if isinstance(root, int):
                bases[place] = leaves[root].untyped_storage().data_ptr()
                continue
            tensor, step, row = own.get(root, (None, 0, 0))
            bases[place] = 0 if tensor is None else tensor.data_ptr()
            steps[place], rows[place] = step, row
        at = code.root
        return bases[at] + code.offset + code.ahead * steps[at], steps[at], rows[at]

    def gradients(self, learned: Tensor) -> list[Tensor | None]:
        """Gradient of each leaf."""
        code, made = self.code, []
        for index, leaf in zip(self.order, self.leaves, strict=True):
            size = code.graph.storages[index].size
            total = torch.zeros(size, dtype=code.real)
            found = False
            for slot, at in code.learned.items():
                if slot.kind == "gradient" and slot.key == index:
                    total += learned[at : at + size]
                    found = True
                elif slot.kind == "matrix gradient" and slot.key.storage == index:
                    rows, columns = slot.key.shape
                    wide = padded(columns)
                    part = learned[at : at + rows * wide].view(rows, wide)[:, :columns]
                    place_in(total, slot.key).add_(part)
                    found = True
            made.append(
                total.as_strided(leaf.shape, leaf.stride(), leaf.storage_offset())
                if found
                else None
            )
        return made


def view(base: Tensor, ref: Ref) -> Tensor:
    """What ``ref`` says of the storage of ``base``."""
    return base.as_strided(ref.shape, ref.stride, ref.offset)


def place_in(flat: Tensor, ref: Ref) -> Tensor:
    """Where ``ref`` lies in ``flat``, to be added to. Raises ``NotRecordable`` where its rows are one."""
    if any(step == 0 and size > 1 for size, step in zip(ref.shape, ref.stride, strict=True)):
        raise NotRecordable("a matrix whose rows are one row")
    return flat.as_strided(ref.shape, ref.stride, ref.offset)


def wide(matrix: Tensor) -> Tensor:
    """``matrix`` with rows as ``Matrices`` wants them; itself where it has them."""
    if matrix.shape[1] % PADDING == 0 and matrix.is_contiguous():
        return matrix
    room = matrix.new_zeros((matrix.shape[0], padded(matrix.shape[1])))
    room[:, : matrix.shape[1]] = matrix
    return room


@lru_cache(maxsize=1)
def pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process (none of a parent's live on in a fork)."""
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="worldmodels")
