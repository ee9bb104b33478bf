"""Machine code of a rollout, and where each tensor that it touches lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from physgym.compile.cache import once
from physgym.compile.native import engine_of, function_of
from worldmodels.native.graph import Graph, Product, graph_of, read_by
from worldmodels.native.libm import add_symbols
from worldmodels.native.matrices import PADDING, padded
from worldmodels.native.programs import Program, Slot, pitch, program_of
from worldmodels.native.recording import Recording

ROWS = 64
"""Rows of a block: what a step makes of them fits the second cache."""


class Layout:
    """Machine code of a graph, and where its tensors lie."""

    def __init__(self, graph: Graph, real: torch.dtype) -> None:
        self.graph, self.real = graph, real
        self.program: Program = program_of(graph, real)
        add_symbols()
        engine = engine_of(self.program.assembly)
        self.forward = function_of(engine, "forward")
        self.backward = function_of(engine, "backward")
        used = {ref.storage for node in graph.nodes for ref in read_by(node)}
        self.leaves = sorted(index for index in used if graph.storages[index].fixed)
        self.size = torch.empty((), dtype=real).element_size()
        self.kept, at = dict[int, int](), 0
        for index in sorted(self.program.kept):
            self.kept[index] = at
            at += ROWS * pitch(graph, index)
        self.kept_size = at
        self.scratch, self.scratch_size = self._scratch()
        self.learned, self.learned_size = self._learned()
        self.roots: list[Any] = []
        places = [self._root(slot) for slot in self.program.slots]
        for root, _, _ in places:
            if root not in self.roots:
                self.roots.append(root)
        self.root = np.array([self.roots.index(root) for root, _, _ in places], np.int64)
        self.offset = np.array([offset for _, offset, _ in places], np.int64) * self.size
        self.ahead = np.array([ahead for _, _, ahead in places], np.int64)
        products = [node for node in graph.nodes if isinstance(node, Product)]
        self.matrices = {node.right for node in products}
        self.rows = {node.start for node in products if node.start is not None}
        sides = [side for node in products for side in (node.result.shape[1], node.left.shape[1])]
        self.widest = max([PADDING, *map(padded, sides)])

    def _root(self, slot: Slot) -> tuple[Any, int, int]:
        """The tensor of a run that a slot lies in, its offset there, and whether it is a step ahead."""
        if slot.kind == "number":
            return "numbers", slot.key, 0
        if slot in self.scratch:
            return "scratch", self.scratch[slot], 0
        if slot in self.learned:
            return "learned", self.learned[slot], 0
        if slot.kind not in ("value", "gradient"):
            return slot, 0, 0
        if slot.kind == "value" and slot.key in self.kept:
            return "tape", self.kept[slot.key], 0
        storage, outputs = self.graph.storages[slot.key], self.graph.outputs
        if storage.fixed:
            return slot.key, 0, 0
        if slot.key in outputs:
            return (slot.kind, outputs.index(slot.key)), 0, 1
        if storage.place == 1:
            return "actions", 0, 0
        if storage.place > len(outputs):
            return "condition", 0, 0
        return (slot.kind, max(0, storage.place - 1)), 0, 0

    def _scratch(self) -> tuple[dict[Slot, int], int]:
        """Places of what lives within a step: those of others that are not needed at the same time."""
        places: dict[Slot, int] = {}
        free: dict[int, list[tuple[int, int]]] = {}
        top = 0
        spans = sorted(self.program.spans.items(), key=lambda item: item[1])
        for slot, (first, last) in spans:
            if not self._within_a_step(slot):
                continue
            size = ROWS * pitch(self.graph, slot.key)
            ended = [k for k, (_, until) in enumerate(free.get(size, ())) if until < first]
            if ended:
                place, _ = free[size].pop(ended[0])
            else:
                place, top = top, top + size
            places[slot] = place
            free.setdefault(size, []).append((place, last))
        return places, top

    def _within_a_step(self, slot: Slot) -> bool:
        if slot.kind not in ("value", "gradient"):
            return False
        own = self.graph.storages[slot.key]
        if own.kind != "own" or own.fixed or slot.key in self.graph.outputs:
            return False
        return slot.kind == "gradient" or slot.key not in self.program.kept

    def _learned(self) -> tuple[dict[Slot, int], int]:
        """Places of the gradients of what is the same for all rows."""
        places, at = {}, 0
        for slot in self.program.slots:
            if slot.kind == "matrix gradient":
                size = slot.key.shape[0] * padded(slot.key.shape[1])
            elif slot.kind == "gradient" and self.graph.storages[slot.key].fixed:
                size = padded(self.graph.storages[slot.key].size)
            else:
                continue
            places[slot] = at
            at += size
        return places, at


@once
def layout_of(
    recording: Recording, learned: frozenset[int], followed: frozenset[int], real: torch.dtype
) -> Layout:
    """The machine code of ``recording``."""
    return Layout(graph_of(recording, learned, followed), real)
