"""A rollout of a recorded step over a block of rows as LLVM assembly, and its gradient.

Two functions, ``forward(rows, steps, bases, strides)`` and ``backward`` of the same arguments. What they touch are
`Slot`s: slot k of step t lies at bases[k] + t strides[k] (bytes). Rows must be a multiple of ``matrices.TILE``
for speed only. Rows of a tensor lie `pitch` elements apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from worldmodels.native.blocks import RowKernel
from worldmodels.native.functions import Functions
from worldmodels.native.graph import Fused, Graph, Node, Plain, Product, read_by
from worldmodels.native.kernels import loop
from worldmodels.native.matrices import Matrices, padded
from worldmodels.native.recording import NotRecordable, Number, Ref


class Slot(NamedTuple):
    """One tensor of the functions.

    ``kind`` is "value" or "gradient" (``key``: a storage), "matrix", "turned" or "row" (``key``: the `Ref` of a matrix
    with padded rows, of its transpose, of a vector), "matrix gradient", "number" (its place) or "zeros".
    """

    kind: str
    key: Any


class Program(NamedTuple):
    """What `program_of` gives."""

    assembly: str
    slots: tuple[Slot, ...]
    kept: frozenset[int]
    """Storages of each step that the gradient reads."""
    spans: dict[Slot, tuple[int, int]]
    """First and last use of what lives within a step, in the order of the nodes, of each function."""


def pitch(graph: Graph, storage: int) -> int:
    """Elements from row to row; 0 for what is the same for all rows."""
    own = graph.storages[storage]
    if own.fixed or own.dtype is torch.int64:
        return 0 if own.fixed else own.size
    return padded(own.size)


def program_of(graph: Graph, real: torch.dtype) -> Program:
    """Both functions of ``graph``. Raises ``NotRecordable`` for an operation that has no rule."""
    return _Programs(graph, real).program()


class _Programs:
    def __init__(self, graph: Graph, real: torch.dtype) -> None:
        from llvmlite import ir

        if real not in (torch.float32, torch.float64):
            raise NotRecordable(f"numbers of {real}")
        self.ir, self.graph = ir, graph
        self.kinds = {
            real: ir.DoubleType() if real is torch.float64 else ir.FloatType(),
            torch.int64: ir.IntType(64),
        }
        for storage in graph.storages:
            if storage.dtype not in self.kinds:
                raise NotRecordable(f"a tensor of {storage.dtype}")
        self.real, self.int = self.kinds[real], ir.IntType(64)
        self.module = ir.Module(name="rollout")
        self.functions = Functions(self.module, self.real)
        self.matrices = Matrices(self.module, self.functions)
        self.kernels: dict[Any, RowKernel] = {}
        self.slots: dict[Slot, int] = {}
        self.kept: set[int] = set()
        self.spans: dict[Slot, tuple[int, int]] = {}
        self.written: set[int] = set()

    def program(self) -> Program:
        """Both functions."""
        self._function("forward", self._forward)
        self._function("backward", self._backward)
        moving = {index for index in self.kept if not self.graph.storages[index].fixed}
        own = {index for index in moving if self.graph.storages[index].kind == "own"}
        return Program(str(self.module), tuple(self.slots), frozenset(own), self.spans)

    def _function(self, name: str, body: Any) -> None:
        ir = self.ir
        table, steps_kind = ir.IntType(8).as_pointer().as_pointer(), self.int.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [self.int, self.int, table, steps_kind])
        function = ir.Function(self.module, kind, name=name)
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.rows, steps, self.bases, self.strides = function.args
        last = self.b.sub(steps, self.int(1))

        def turn(index: Any) -> None:
            self.step = index if name == "forward" else self.b.sub(last, index)
            self.pointers: dict[Slot, Any] = {}
            body()

        loop(self.b, steps, turn)
        self.b.ret_void()

    def _pointer(self, kind: str, key: Any, integer: bool = False) -> Any:
        slot = Slot(kind, key)
        place = self.slots.setdefault(slot, len(self.slots))
        first, _ = self.spans.get(slot, (self.now, self.now))
        self.spans[slot] = first, self.now
        if slot not in self.pointers:
            b = self.b
            base = b.load(b.gep(self.bases, [self.int(place)]))
            stride = b.load(b.gep(self.strides, [self.int(place)]))
            moved = b.gep(base, [b.mul(stride, self.step)])
            target = self.int if integer else self.real
            self.pointers[slot] = b.bitcast(moved, target.as_pointer())
        return self.pointers[slot]

    def _value(self, storage: int) -> Any:
        whole = self.graph.storages[storage].dtype is torch.int64
        return self._pointer("value", storage, whole)

    def _forward(self) -> None:
        for now, node in enumerate(self.graph.nodes):
            self.now = now
            if isinstance(node, Product):
                self._multiply(node)
            else:
                self._call(node, None, frozenset())

    def _multiply(self, node: Product) -> None:
        count, terms = self.int(padded(node.result.shape[1])), self.int(node.left.shape[1])
        start = ("zeros", None) if node.start is None else ("row", node.start)
        self._product(
            (self.rows, count, terms),
            (self._value(node.left.storage), self._pitch(node.left), self.int(1)),
            (self._pointer("matrix", node.right), count),
            (self._value(node.result.storage), self._pitch(node.result)),
            (self._pointer(*start), self.int(0)),
        )

    def _product(self, sizes: Any, left: Any, right: Any, result: Any, start: Any) -> None:
        self.b.call(self.matrices.product, [*sizes, *left, *right, *result, *start])

    def _pitch(self, ref: Ref) -> Any:
        return self.int(pitch(self.graph, ref.storage))

    def _backward(self) -> None:
        graph = self.graph
        self.written = {
            index
            for index, storage in enumerate(graph.storages)
            if storage.kind == "input" or storage.fixed or index in graph.outputs
        }
        for now, node in enumerate(reversed(graph.nodes), start=len(graph.nodes)):
            self.now = now
            if not {node.result.storage} <= graph.active & self.written:
                continue  # nothing that is asked for depends on it
            if isinstance(node, Product):
                self._multiply_adjoint(node)
            else:
                self._adjoint(node)

    def _adjoint(self, node: Fused | Plain) -> None:
        active = {ref.storage for ref in read_by(node)} & self.graph.active
        fresh = {index for index in active - self.written if self._covered(node, index)}
        for index in active - self.written - fresh:
            self._clear(index)
        self.written |= active
        if active:
            self._call(node, frozenset(active | {node.result.storage}), frozenset(fresh))

    def _covered(self, node: Node, storage: int) -> bool:
        """Whether the node reads every element of a storage exactly once."""
        if not isinstance(node, Fused):
            return False
        refs = [ref for ref in read_by(node) if ref.storage == storage]
        size = self.graph.storages[storage].size
        count = node.result.shape[-1]
        return len(refs) == 1 and refs[0].shape[-1:] == (size,) and size == count and (
            refs[0].stride[-1] == 1 and refs[0].offset == 0 and len(refs[0].shape) <= 2
        )  # fmt: skip

    def _clear(self, storage: int) -> None:
        """Zeros for a gradient that is added to."""
        key = "clear"
        if key not in self.kernels:
            ir = self.ir
            kind = ir.FunctionType(ir.VoidType(), [self.int, self.real.as_pointer()])
            function = ir.Function(self.module, kind, name=key)
            function.linkage = "internal"
            b = ir.IRBuilder(function.append_basic_block("entry"))
            zero = ir.Constant(self.real, 0.0)
            loop(b, function.args[0], lambda i: b.store(zero, b.gep(function.args[1], [i])))
            b.ret_void()
            self.kernels[key] = function
        count = self.b.mul(self.rows, self.int(pitch(self.graph, storage)))
        self.b.call(self.kernels[key], [count, self._pointer("gradient", storage)])

    def _multiply_adjoint(self, node: Product) -> None:
        columns, terms = node.result.shape[1], node.left.shape[1]
        wide, across = self.int(padded(columns)), self.int(padded(terms))
        upon = self._pointer("gradient", node.result.storage), self._pitch(node.result)
        if node.left.storage in self.graph.active:
            own = self._pointer("gradient", node.left.storage), self._pitch(node.left)
            added = node.left.storage in self.written
            self.written.add(node.left.storage)
            self._product(
                (self.rows, across, self.int(columns)),
                (*upon, self.int(1)),
                (self._pointer("turned", node.right), across),
                own,
                own if added else (self._pointer("zeros", None), self.int(0)),
            )
        if node.right.storage in self.graph.active:
            self.kept.add(node.left.storage)
            own = self._pointer("matrix gradient", node.right), wide
            self._product(
                (self.int(terms), wide, self.rows),
                (self._value(node.left.storage), self.int(1), self._pitch(node.left)),
                upon,
                own,
                own,
            )
        if node.start is not None and node.start.storage in self.graph.active:
            shape = node.result.shape
            start = Ref(node.start.storage, node.start.offset, (shape[1],), node.start.stride[-1:])
            bias = Fused(node.result, (("load", start),))
            self._call(bias, frozenset({start.storage, node.result.storage}), frozenset())

    def _call(
        self, node: Fused | Plain, active: frozenset[int] | None, fresh: frozenset[int]
    ) -> None:
        """Call the kernel of a node, or of its gradient, made at its first use."""
        index: dict[Any, int] = {}

        def local(value: Any) -> Any:
            if isinstance(value, Ref):
                return value._replace(storage=index.setdefault(value.storage, len(index)))
            if isinstance(value, Number):
                return Number(index.setdefault(value, len(index)))
            return tuple(map(local, value)) if isinstance(value, (list, tuple)) else value

        own = _localised(node, local)
        pitches = [0 if isinstance(k, Number) else pitch(self.graph, k) for k in index]
        pointers = [
            self._pointer("number", k.place) if isinstance(k, Number) else None for k in index
        ]
        kinds = [(self.int if self._whole(k) else self.real).as_pointer() for k in index]
        places = None if active is None else frozenset(index[k] for k in active if k in index)
        first = frozenset(index[k] for k in fresh)
        key = own, tuple(pitches), tuple(map(str, kinds)), places, first
        if key not in self.kernels:
            name = f"kernel_{len(self.kernels)}"
            self.kernels[key] = RowKernel(
                self.module, self.functions, own, kinds, pitches, name, places, first
            )
        kernel = self.kernels[key]
        for storage, place in index.items():
            if pointers[place] is None:
                if active is not None and place not in kernel.read and self._int_free(storage):
                    pointers[place] = self.ir.Constant(
                        kinds[place], None
                    )  # only its gradient is used
                    continue
                if active is not None:
                    self.kept.add(storage)
                pointers[place] = self._value(storage)
        names = list(index)
        upon = [self._pointer("gradient", names[k]) for k in kernel.active]
        self.b.call(kernel.function, [self.rows, *pointers, *upon])

    def _int_free(self, storage: int) -> bool:
        return self.graph.storages[storage].dtype is not torch.int64

    def _whole(self, key: Any) -> bool:
        return not isinstance(key, Number) and not self._int_free(key)


def _localised(node: Fused | Plain, local: Any) -> Fused | Plain:
    """``node`` with its storages and numbers counted among themselves."""
    if isinstance(node, Fused):
        code = tuple(
            (told[0], local(told[1])) if told[0] in ("load", "number") else told
            for told in node.code
        )
        return Fused(local(node.result), code)
    operation = node.operation
    named = tuple((name, local(value)) for name, value in operation.named)
    own = operation._replace(
        arguments=local(operation.arguments), named=named, result=local(operation.result)
    )
    return Plain(own.result, own)
