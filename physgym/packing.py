"""States as components: what an array or tensor is taken apart into, and packed like again."""

from __future__ import annotations

from typing import Any

import numpy as np


def components(x: Any) -> tuple[Any, ...]:
    """A tuple as it is; an array or tensor as the tuple of its components on the last axis.

    Integers become float64: a step, or a product of small integers, has no place in their type.
    """
    if isinstance(x, tuple):
        return x
    if isinstance(x, list):
        return tuple(x)
    if isinstance(x, np.ndarray):
        x = x if x.dtype.kind == "f" else x.astype(np.float64)
        return tuple(x.tolist()) if x.ndim == 1 else tuple(np.moveaxis(x, -1, 0))
    x = x if x.is_floating_point() else x.double()
    return tuple(x.unbind(-1))


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
