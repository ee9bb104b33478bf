"""A recording as LLVM assembly: one function that goes over rows, its tensors in fixed places.

What depends on weights alone is computed once a call, before the first row. Sums may be taken in another order than
torch's: results agree to rounding, not to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from worldmodels.native.functions import Functions
from worldmodels.native.kernels import Kernel, contiguous, count_of, loop
from worldmodels.native.recording import NotRecordable, Number, Operation, Recording, Ref


def assembly(recording: Recording, real: torch.dtype) -> str:
    """LLVM assembly of ``void step(rows, weights, inputs, numbers, outputs)``, all but rows arrays of pointers.

    Raises ``NotRecordable`` for an operation that has no rule here.
    """
    return str(_Lowering(recording, real).module)


class _Lowering:
    """The function itself: places for all tensors, and calls of kernels, one for each kind of operation."""

    def __init__(self, recording: Recording, real: torch.dtype) -> None:
        from llvmlite import ir

        if real not in (torch.float32, torch.float64):
            raise NotRecordable(f"numbers of {real}")
        self.ir, self.recording = ir, recording
        self.kinds = {
            real: ir.DoubleType() if real is torch.float64 else ir.FloatType(),
            torch.int64: ir.IntType(64),
        }
        self.real, self.int = self.kinds[real], ir.IntType(64)
        self.module = ir.Module(name="worldmodels")
        self.functions = Functions(self.module, self.real, ("contract",))
        self.kernels: dict[Any, Any] = {}
        self.places: dict[int, Any] = {}
        table = ir.IntType(8).as_pointer().as_pointer()
        arguments = [self.int, table, table, self.real.as_pointer(), table]
        kind = ir.FunctionType(ir.VoidType(), arguments)
        self.function = ir.Function(self.module, kind, name="step")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self._write()

    def _write(self) -> None:
        b = self.b
        rows, weights, inputs, self.numbers, outputs = self.function.args
        for index, storage in enumerate(self.recording.storages):
            if storage.dtype not in self.kinds:
                raise NotRecordable(f"a tensor of {storage.dtype}")
            kind = self.kinds[storage.dtype]
            if storage.kind == "own":
                room = self.ir.ArrayType(kind, max(1, storage.size))
                self.places[index] = b.gep(b.alloca(room), [self.int(0), self.int(0)])
            elif storage.kind == "weight":
                self.places[index] = self._pointer(weights, storage.place, kind)
        moving = []
        for operation in self.recording.operations:
            if self.recording.storages[operation.result.storage].fixed:
                self._call(operation)
            else:
                moving.append(operation)
        loop(b, rows, lambda row: self._row(row, inputs, outputs, moving))
        b.ret_void()

    def _row(self, row: Any, inputs: Any, outputs: Any, moving: Sequence[Operation]) -> None:
        b = self.b
        for index, storage in enumerate(self.recording.storages):
            if storage.kind == "input":
                base = self._pointer(inputs, storage.place, self.kinds[storage.dtype])
                self.places[index] = b.gep(base, [b.mul(row, self.int(storage.size))])
        for operation in moving:
            self._call(operation)
        for place, ref in enumerate(self.recording.outputs):
            size = count_of(ref.shape)
            base = b.gep(self._pointer(outputs, place, self.real), [b.mul(row, self.int(size))])
            self.places[-1] = base
            self._call(Operation("clone", (ref,), (), Ref(-1, 0, ref.shape, contiguous(ref.shape))))

    def _pointer(self, table: Any, place: int, kind: Any) -> Any:
        b = self.b
        return b.bitcast(b.load(b.gep(table, [self.int(place)])), kind.as_pointer())

    def _call(self, operation: Operation) -> None:
        """Call the kernel of an operation, made at its first use."""
        pointers: list[Any] = []

        def local(value: Any) -> Any:
            if isinstance(value, Ref):
                place = self.b.gep(self.places[value.storage], [self.int(value.offset)])
                pointers.append(place)
                return value._replace(storage=len(pointers) - 1, offset=0)
            if isinstance(value, Number):
                pointers.append(self.b.gep(self.numbers, [self.int(value.place)]))
                return Number(len(pointers) - 1)
            return tuple(map(local, value)) if isinstance(value, (list, tuple)) else value

        own = Operation(
            operation.name,
            tuple(map(local, operation.arguments)),
            tuple((name, local(value)) for name, value in operation.named),
            local(operation.result),
        )
        key = own, tuple(str(pointer.type) for pointer in pointers)
        if key not in self.kernels:
            kinds = [pointer.type for pointer in pointers]
            name = f"{own.name}_{len(self.kernels)}"
            self.kernels[key] = Kernel(self.module, self.functions, own, kinds, name).function
        self.b.call(self.kernels[key], pointers)
