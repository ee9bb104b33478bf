"""What torch computes in a function of tensors, written down operation by operation.

A recording is made by running the function once on one row. Tensors are told apart by their storage, so that views
need no rules of their own: each is an offset and strides into what it looks at. What is written down holds for every
run with tensors of the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from worldmodels.interface import Latent

COUNTED_AS_IS = (0.0, 1.0, 2.0, 0.5, -1.0)
"""Numbers that are written into the code; others are handed to it, so that models can share the code."""


class NotRecordable(Exception):
    """The function does what cannot be written down this way."""


class Ref(NamedTuple):
    """A strided view of a storage, sizes and strides in elements."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Number(NamedTuple):
    """A number that is handed to the code: its place among them."""

    place: int


class Operation(NamedTuple):
    """One operation: its name, arguments (`Ref`, `Number`, plain numbers, or tuples of them) and result."""

    name: str
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]
    result: Ref


class Storage(NamedTuple):
    """What a `Ref` looks into: kind "weight" or "input" (`place` among them), or "own" (made by an operation)."""

    kind: str
    place: int
    size: int
    dtype: torch.dtype
    fixed: bool
    """Whether it depends on weights alone, and not on the inputs."""


class Recording(NamedTuple):
    """A function of tensors, written down."""

    storages: tuple[Storage, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Ref, ...]


class Recorded(NamedTuple):
    """A recording, and what belongs to this one run: tensors that it reads as weights, and its numbers."""

    recording: Recording
    weights: tuple[Tensor, ...]
    numbers: tuple[float, ...]
    functions: tuple[Any, ...]
    """The functions of torch, one an operation."""


def record(
    function: Callable[..., Sequence[Tensor]],
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor],
    gradients: bool = False,
) -> Recorded:
    """Run ``function(*inputs)``, which reads ``weights``, and write down what it does.

    With ``gradients``, ``detach`` is an operation and no view: what it gives is not followed back.

    Raises:
        NotRecordable: it writes into a tensor, or reads numbers out of one.
    """
    mode = _Recorder(weights, inputs, gradients)
    with torch.no_grad(), mode:
        outputs = function(*inputs)
    refs = tuple(mode.ref(x) for x in outputs)
    recording = Recording(tuple(mode.storages), tuple(mode.operations), refs)
    return Recorded(recording, tuple(mode.weights), tuple(mode.numbers), tuple(mode.functions))


def record_step(
    advance: Callable[[Latent, Tensor], Sequence[Tensor]],
    weights: Sequence[Tensor],
    latent: Latent,
    action: Tensor,
    gradients: bool = False,
) -> Recorded:
    """``record`` of ``advance`` from the first row of ``latent`` on.

    Its inputs are z, the action, the memory and, where there is one, the condition.
    """
    depth, told = len(latent.memory), latent.condition is not None

    def step(z: Tensor, action: Tensor, *rest: Tensor) -> Sequence[Tensor]:
        return advance(Latent(z, rest[:depth], rest[-1] if told else None), action)

    given = [
        latent.z,
        action,
        *latent.memory,
        *([] if latent.condition is None else [latent.condition]),
    ]
    with torch.inference_mode(False):
        inputs = [first_row(x) for x in given]
        return record(step, weights, inputs, gradients)


def first_row(tensor: Tensor) -> Tensor:
    """A copy of the first row, without gaps whatever the tensor has (an expanded one's clone need not be so)."""
    return tensor[:1].detach().clone(memory_format=torch.contiguous_format)


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise torch imports its compiler, which takes seconds, to keep it away from here."""
        return False

    def __init__(
        self, weights: Sequence[Tensor], inputs: Sequence[Tensor], gradients: bool
    ) -> None:
        super().__init__()
        self.gradients = gradients
        self.functions: list[Any] = []
        self.storages: list[Storage] = []
        self.operations: list[Operation] = []
        self.weights: list[Tensor] = []
        self.numbers: list[float] = []
        self._index: dict[int, int] = {}
        self._kept: list[Tensor] = []  # alive, so that no address is used twice
        for tensor in weights:
            self._weight(tensor)
        for place, tensor in enumerate(inputs):
            self._add(tensor, "input", place, fixed=False)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._overloadpacket.__name__
        if name == "detach" and self.gradients:
            out = out.clone()
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecordable(f"{name} draws at random")
        if func._schema.is_mutable:
            raise NotRecordable(f"{name} writes into a tensor")
        results = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, Tensor)]
        if not results:
            raise NotRecordable(f"{name} reads numbers out of a tensor")
        given = torch.utils._pytree.tree_leaves((args, dict(kwargs)))
        read = [x for x in given if isinstance(x, Tensor)]
        for tensor in read:
            self._weight(tensor)  # where it was never seen
        if all(self._known(x) for x in results):
            return out
        if len(results) > 1:
            raise NotRecordable(f"{name} has several results")
        if not read:  # made of nothing: a constant
            self._weight(results[0])
            return out
        fixed = all(self.storages[self.ref(x).storage].fixed for x in read)
        self._operation(name, args, kwargs, results[0], fixed)
        self.functions.append(func)
        return out

    def _operation(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Tensor,
        fixed: bool,
    ) -> None:
        arguments = tuple(self._argument(x) for x in args)
        named = tuple((key, self._argument(value)) for key, value in kwargs.items())
        self._add(result, "own", -1, fixed)
        self.operations.append(Operation(name, arguments, named, self.ref(result)))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.ref(value)
        if isinstance(value, (list, tuple)):
            return tuple(self._argument(x) for x in value)
        if isinstance(value, float) and value not in COUNTED_AS_IS:
            self.numbers.append(value)
            return Number(len(self.numbers) - 1)
        return value

    def _known(self, tensor: Tensor) -> bool:
        return _address(tensor) in self._index

    def ref(self, tensor: Tensor) -> Ref:
        """Where ``tensor`` lies; one that was never seen is read as a weight."""
        self._weight(tensor)
        storage = self._index[_address(tensor)]
        return Ref(
            storage,
            int(tensor.storage_offset()),
            tuple(tensor.shape),
            tuple(map(int, tensor.stride())),
        )

    def _weight(self, tensor: Tensor) -> None:
        if not self._known(tensor):
            self._add(tensor, "weight", len(self.weights), fixed=True)
            self.weights.append(tensor)

    def _add(self, tensor: Tensor, kind: str, place: int, fixed: bool) -> None:
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise NotRecordable(f"a tensor is {tensor.layout} on {tensor.device}")
        self._index[_address(tensor)] = len(self.storages)
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        self.storages.append(Storage(kind, place, size, tensor.dtype, fixed))
        self._kept.append(tensor)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
