"""States as components: what an array or tensor is taken apart into, and packed like again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from physgym.system import System


def components(x: Any) -> tuple[Any, ...]:
    """A tuple as it is; an array or tensor as the tuple of its components on the last axis.

    Integers become float64: a step, or a product of small integers, has no place in their type.
    ValueError for what holds no integers or real numbers, or has no last axis.
    """
    if isinstance(x, tuple):
        return x
    if isinstance(x, list):
        return tuple(x)
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "iuf" or not x.ndim:
            raise _unreal(x, f"an array of {x.dtype}, shape {x.shape}")
        x = x if x.dtype.kind == "f" else x.astype(np.float64)
        return tuple(x.tolist()) if x.ndim == 1 else tuple(np.moveaxis(x, -1, 0))
    if not hasattr(x, "is_floating_point"):
        raise _unreal(x, type(x).__name__)
    if x.is_complex() or str(x.dtype) == "torch.bool" or not x.ndim:
        raise _unreal(x, f"a tensor of {x.dtype}, shape {tuple(x.shape)}")
    x = x if x.is_floating_point() else x.double()
    return tuple(x.unbind(-1))


def sized(system: System, name: str, x: Any, size: int) -> tuple[Any, ...]:
    """`components(x)`; ValueError unless they are `size` numbers, rows of numbers or tensors."""
    found = components(x)
    if len(found) != size:
        raise ValueError(f"{name} has {len(found)} components, but {system.name} has {size}")
    for part in found:
        if part is None or isinstance(part, (str, bytes, list, tuple, dict, complex)):
            raise _unreal(x, f"a {type(x).__name__} that holds a {type(part).__name__}")
    return found


def alike(*groups: tuple[Any, ...]) -> None:
    """ValueError where NumPy arrays and tensors come together; floats go with either."""
    parts = [part for group in groups for part in group]
    if any(hasattr(x, "detach") for x in parts) and any(isinstance(x, np.ndarray) for x in parts):
        raise ValueError(
            "state, control and params mix NumPy arrays with tensors: give arrays alone or tensors "
            "alone (floats go with either)"
        )


def _unreal(x: Any, kind: str) -> ValueError:
    return ValueError(
        f"{kind} is no state, control or action: give numbers as a tuple of components, or as an array "
        f"or tensor with the components on its last axis, not {str(x)[:60]!r}"
    )


def like(x: Any, values: tuple[Any, ...]) -> Any:
    """`values` (components) packed the way `x` was."""
    if isinstance(x, (tuple, list)):
        return tuple(values)
    if isinstance(x, np.ndarray):
        return np.stack(np.broadcast_arrays(*values), axis=-1)
    import torch

    dtype = x.dtype if x.is_floating_point() else torch.float64
    tensors = [torch.as_tensor(v, dtype=dtype, device=x.device) for v in values]
    return torch.stack(torch.broadcast_tensors(*tensors), dim=-1)
