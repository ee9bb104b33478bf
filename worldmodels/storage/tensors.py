"""Tensors and train states as bytes and back, running no code on the way.

Weights are safetensors; a train state is `torch.save`, read with `weights_only=True` and nothing
else, and only where nothing in it is compressed: what it unpacks to is what it is. torch is
imported when a function needs it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worldmodels.storage.reading import AccessError, StorageError

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
    except MemoryError as error:
        raise AccessError(f"{name} cannot be read: not enough memory") from error
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

    _check_archive(content, name)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise AccessError(f"{name} cannot be read: not enough memory") from error
    except Exception as error:
        raise StorageError(f"{name} is not a train state: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise StorageError(f"{name} holds a {type(state).__name__}, not a dict")
    _check_tensors(state, name)
    return state


def _check_archive(content: bytes, name: str) -> None:
    """Raise StorageError unless `content` is a zip file that holds no more than its own bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile names several for an archive that is none
        raise StorageError(f"{name} is not a train state: {_first_line(error)}") from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise StorageError(
                f"{name} is not a train state of ours: {member.filename} is compressed or encrypted"
            )
    claimed = sum(max(member.file_size, member.compress_size) for member in members)
    if claimed > len(content) or len({member.filename for member in members}) < len(members):
        raise StorageError(f"{name} is not a train state: it claims more than its own bytes")


def _check_tensors(state: Mapping[str, Any], name: str) -> None:
    """Raise StorageError for a tensor that is more than the bytes behind it: a view that repeats
    them, one without any, or a sparse one, each of which can claim any size."""
    import torch

    seen: set[int] = set()
    level: list[Any] = [state]
    while level:
        item = level.pop()
        if isinstance(item, torch.Tensor):
            plain = item.layout == torch.strided and item.device.type == "cpu"
            if not plain or item.numel() * item.itemsize > item.untyped_storage().nbytes():
                raise StorageError(f"{name} holds a tensor that is more than the bytes behind it")
        elif isinstance(item, (dict, list, tuple, set, frozenset)) and id(item) not in seen:
            seen.add(id(item))
            level += item.values() if isinstance(item, dict) else item


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
