"""Where tensors lie: asked by machine code through torch's C interface, or by Python where that is not to be had.

A parameter keeps its identity where its numbers go elsewhere (``model.double()``, ``weight.data = ...``), so that
machine code, which knows addresses alone, has to ask again before each step. By Python each takes a quarter of a
microsecond.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


@cache
def data_pointer() -> int | None:
    """The address of ``aoti_torch_get_data_ptr(Tensor*, void**)``; None where it does not do what it says."""
    try:
        function = ctypes.CDLL(torch._C.__file__).aoti_torch_get_data_ptr
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    tried, found = torch.empty(3), ctypes.c_void_p()
    tensors = handles([tried])
    if function(ctypes.addressof(tensors), ctypes.addressof(found)) != 0:
        return None
    return ctypes.cast(function, ctypes.c_void_p).value if found.value == tried.data_ptr() else None


def handles(tensors: Sequence[Tensor]) -> Any:
    """The ``tensors`` as C knows them, an array of pointers; good for as long as they live."""
    return (ctypes.c_void_p * len(tensors))(*(tensor._cdata for tensor in tensors))


def addresses(tensors: Sequence[Tensor]) -> list[int]:
    """Where ``tensors`` lie."""
    return list(map(Tensor.data_ptr, tensors))


def table_of(tensors: Sequence[Tensor]) -> Any:
    """Where ``tensors`` lie, as machine code reads it: an array of addresses."""
    return (ctypes.c_void_p * len(tensors))(*addresses(tensors))


class Inventory:
    """What a module is made of, written down, to see later whether it still is."""

    def __init__(self, module: nn.Module) -> None:
        places: list[tuple[Any, str, Any]] = []
        for part in module.modules():
            for kept in (part._parameters, part._buffers, part._modules):
                places += [(kept, name, own) for name, own in kept.items()]
        self._dicts, self._names, self._own = zip(*places, strict=True)

    def holds(self) -> bool:
        """Whether the module has the very same parameters, buffers and parts, whatever their numbers are now."""
        return all(map(operator.is_, map(dict.get, self._dicts, self._names), self._own))
