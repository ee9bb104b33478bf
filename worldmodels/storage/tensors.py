"""Tensors and train states as bytes and back, running no code on the way.

Weights are safetensors; a train state is `torch.save`, read with `weights_only=True` and nothing
else. torch is imported when a function needs it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worldmodels.storage.files import StorageError

if TYPE_CHECKING:
    from torch import Tensor


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A state dict as a safetensors file. Raises ValueError for what it cannot hold."""
    from safetensors.torch import save

    try:
        return save({name: _apart(tensor) for name, tensor in tensors.items()})
    except Exception as error:
        raise ValueError(f"the weights cannot be written as safetensors: {error}") from error


def _apart(tensor: Tensor) -> Tensor:
    """A copy that shares no storage, which safetensors refuses (tied weights, views)."""
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def tensors_from_bytes(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of the safetensors file `name`, on the CPU. Raises StorageError."""
    from safetensors.torch import load

    try:
        return load(content)
    except Exception as error:
        raise StorageError(f"{name} is not a safetensors file: {error}") from error


def state_to_bytes(state: Mapping[str, Any]) -> bytes:
    """A train state by `torch.save`, proved to load again with `weights_only=True`.

    Raises ValueError where it holds more than numbers, strings, tensors and containers of them.
    """
    import torch

    buffer = io.BytesIO()
    try:
        torch.save(dict(state), buffer)
        torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            "a train state holds numbers, strings, tensors and containers of them only, so that "
            f"it loads without running code: {_first_line(error)}"
        ) from error
    return buffer.getvalue()


def state_from_bytes(content: bytes, name: str) -> dict[str, Any]:
    """The train state in the file `name`, on the CPU. Raises StorageError."""
    import torch

    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise StorageError(f"{name} is not a train state: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise StorageError(f"{name} holds a {type(state).__name__}, not a dict")
    return state


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
