"""A recording as nodes that are worth a loop each: elementwise operations run into one another, products stand alone.

Legend: a node computes one tensor of a row from others. Axis 0 of every tensor that moves with the rows has size 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from worldmodels.native.functions import ELEMENTWISE
from worldmodels.native.kernels import check_elementwise, contiguous, count_of
from worldmodels.native.recording import NotRecordable, Number, Operation, Recording, Ref, Storage

CHEAP = ("add", "sub", "rsub", "mul", "neg", "pow", "clamp", "clamp_min", "abs")
"""What is rather computed again than kept."""
LONGEST = 12
"""Instructions of an expression that is still computed again by everyone who needs it."""

Instruction = tuple[Any, ...]
"""("load", Ref), ("number", value or Number), or the name of an operation and the places of its arguments."""


class Fused(NamedTuple):
    """Elementwise: each element of ``result`` is what the instructions say; the last one is its value."""

    result: Ref
    code: tuple[Instruction, ...]


class Product(NamedTuple):
    """result (1, N) = start (N,) + left (1, K) right (K, N); ``right`` and ``start`` are the same for all rows."""

    result: Ref
    left: Ref
    right: Ref
    start: Ref | None


class Plain(NamedTuple):
    """Any other operation, as it was recorded."""

    result: Ref
    operation: Operation


Node = Fused | Product | Plain


class Graph(NamedTuple):
    """A step as nodes in their order."""

    storages: tuple[Storage, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    """Storages that hold what the step gives."""
    active: frozenset[int]
    """Storages that gradients flow through."""


def graph_of(recording: Recording, learned: frozenset[int], followed: frozenset[int]) -> Graph:
    """``recording`` as a graph; gradients are wanted of ``learned`` (storages that are the same for all rows) and
    of the inputs ``followed`` (places among them).

    Raises ``NotRecordable`` for an operation that cannot be differentiated here.
    """
    return _Builder(recording, learned, followed).graph()


class _Builder:
    def __init__(
        self, recording: Recording, learned: frozenset[int], followed: frozenset[int]
    ) -> None:
        self.storages = list(recording.storages)
        self.operations = [
            operation
            for operation in recording.operations
            if not self.storages[operation.result.storage].fixed
        ]
        self.outputs = []
        for ref in recording.outputs:
            self.outputs.append(len(self.storages))
            self.operations.append(Operation("clone", (ref,), (), self._own(ref)))
        self.active = {
            index
            for index, storage in enumerate(self.storages)
            if index in learned or (storage.kind == "input" and storage.place in followed)
        }
        self.nodes: list[Node] = []
        self.codes: dict[int, tuple[Ref, tuple[Instruction, ...]]] = {}

    def _own(self, like: Ref) -> Ref:
        """A new tensor of the shape of ``like``."""
        dtype = self.storages[like.storage].dtype
        self.storages.append(Storage("own", -1, count_of(like.shape), dtype, False))
        return Ref(len(self.storages) - 1, 0, like.shape, contiguous(like.shape))

    def graph(self) -> Graph:
        """Nodes for all operations."""
        wanted = set(self.outputs)
        for operation in self.operations:
            if not self._flat(operation):
                wanted.update(ref.storage for ref in refs_of(operation.arguments))
        for operation in self.operations:
            self._take(operation, wanted)
        return Graph(
            tuple(self.storages), tuple(self.nodes), tuple(self.outputs), frozenset(self.active)
        )

    def _take(self, operation: Operation, wanted: set[int]) -> None:
        if operation.name == "detach":
            self.nodes.append(Plain(operation.result, operation._replace(name="clone")))
            return
        if any(ref.storage in self.active for ref in refs_of(operation.arguments)):
            self.active.add(operation.result.storage)
        if operation.name in ELEMENTWISE:
            self._elementwise(operation, wanted)
        elif operation.name in ("mm", "addmm"):
            self._product(operation)
        else:
            self.nodes.append(Plain(operation.result, operation))

    def _flat(self, operation: Operation) -> bool:
        """Whether an elementwise operation is one over a row, (1, N), whose arguments lie along it."""
        result = operation.result
        if operation.name not in ELEMENTWISE or len(result.shape) != 2 or result.shape[0] != 1:
            return False
        return all(count_of(ref.shape[:-1]) == 1 for ref in refs_of(operation.arguments))

    def _elementwise(self, operation: Operation, wanted: set[int]) -> None:
        check_elementwise(operation)
        flat, result = self._flat(operation), operation.result
        code: list[Instruction] = []
        places: list[int | None] = []
        for argument in operation.arguments:
            if argument is None:
                places.append(None)
            elif isinstance(argument, Ref):
                along = _along(argument, result.shape[-1]) if flat else argument
                places.append(self._value(code, along, flat))
            else:
                code.append(("number", argument))
                places.append(len(code) - 1)
        code.append((operation.name, *places))
        if flat and self._inlined(operation, code, wanted):
            self.codes[result.storage] = result, tuple(code)
        else:
            self.nodes.append(Fused(result, tuple(code)))

    def _inlined(self, operation: Operation, code: list[Instruction], wanted: set[int]) -> bool:
        """Whether everyone who reads the result computes it anew."""
        cheap = operation.name in CHEAP and len(code) <= LONGEST
        return cheap and operation.result.storage not in wanted

    def _value(self, code: list[Instruction], ref: Ref, flat: bool) -> int:
        """Place of the value of ``ref``, whose instructions are added to ``code`` where it is computed anew."""
        if not flat or ref.storage not in self.codes:
            if ("load", ref) not in code:
                code.append(("load", ref))
            return code.index(("load", ref))
        _, inner = self.codes[ref.storage]
        places: list[int] = []
        for name, *arguments in inner:
            if name == "load":
                (own,) = arguments
                offset, step = own.offset + ref.offset * own.stride[0], own.stride[0]
                moved = Ref(own.storage, offset, ref.shape, (step * ref.stride[0],))
                places.append(self._value(code, moved, True))
                continue
            told = (name, *arguments)
            if name != "number":
                told = (name, *(None if k is None else places[k] for k in arguments))
            if told not in code:
                code.append(told)
            places.append(code.index(told))
        return places[-1]

    def _product(self, operation: Operation) -> None:
        *start, left, right = operation.arguments
        begin = start[0] if start else None
        fixed = [right] if begin is None else [right, begin]
        if operation.named or not all(self.storages[ref.storage].fixed for ref in fixed):
            self.nodes.append(Plain(operation.result, operation))
            return
        if begin is not None and count_of(begin.shape[:-1]) != 1:
            raise NotRecordable(f"a product that is added to {begin.shape}")
        whole = left.offset == 0 and left.stride[-1] == 1 and left.shape[0] == 1
        if not whole or self.storages[left.storage].size != left.shape[1]:
            copy = self._own(left)
            if left.storage in self.active:
                self.active.add(copy.storage)
            self.nodes.append(Plain(copy, Operation("clone", (left,), (), copy)))
            left = copy
        self.nodes.append(Product(operation.result, left, right, begin))


def _along(ref: Ref, count: int) -> Ref:
    """``ref`` as (count,), its one element repeated where it has one."""
    size = ref.shape[-1] if ref.shape else 1
    return Ref(ref.storage, ref.offset, (count,), (ref.stride[-1] if size > 1 else 0,))


def refs_of(values: Any) -> Iterable[Ref]:
    """Every ``Ref`` in nested arguments."""
    if isinstance(values, Ref):
        yield values
    elif isinstance(values, (list, tuple)) and not isinstance(values, Number):
        for value in values:
            yield from refs_of(value)


def read_by(node: Node) -> Sequence[Ref]:
    """What a node reads."""
    if isinstance(node, Fused):
        return [told[1] for told in node.code if told[0] == "load"]
    if isinstance(node, Product):
        return [node.left, node.right, *([] if node.start is None else [node.start])]
    return list(refs_of((node.operation.arguments, [x for _, x in node.operation.named])))
