"""`info` of many rows, in the form that Gymnasium's vector envs give it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def vector_info(values: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
    """`values`, nested dicts of (N, ...) arrays, with a `_key` mask beside every key.

    That is the form that SyncVectorEnv gives.

    Args:
        values: fresh arrays, which are handed on (not copied) where `mask` is None.
        mask: (N,) bool, the rows that have this info; other rows read zero. None: every row has it.
    """
    info: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(value, np.ndarray) and isinstance(value, Mapping):
            info[key] = vector_info(value, mask)
        else:
            info[key] = value if mask is None else zero_outside(value, mask)
        info[f"_{key}"] = _full_mask(value) if mask is None else copy(mask)
    return info


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without nested dicts: {"params": {"mass": ...}} becomes {"params_mass": ...}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}_{name}": inner for name, inner in flattened(value).items()}
        else:
            flat[key] = value
    return flat


def _full_mask(value: Any) -> Any:
    while not isinstance(value, np.ndarray) and isinstance(value, Mapping):
        value = next(iter(value.values()))
    if not isinstance(value, np.ndarray):
        return value.new_ones(len(value)).bool()
    mask = np.empty(len(value), np.bool_)
    mask.fill(True)
    return mask


def copy(array: Any) -> Any:
    """A copy of an array or tensor, with its graph."""
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


def zero_outside(array: Any, mask: Any) -> Any:
    """A copy of `array` (N, ...) that reads 0 where `mask` (N,) does not hold."""
    kept = copy(array)
    kept[~mask] = 0
    return kept


def stacked(batches: Sequence[Any]) -> Any:
    """T arrays or tensors (N, ...) as one (T, N, ...); of dicts, each of their values."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {key: stacked([batch[key] for batch in batches]) for key in first}
    if isinstance(first, np.ndarray):
        return np.stack(batches)
    return sys.modules[type(first).__module__].stack(tuple(batches))


def row_of(batch: Any, index: int) -> Any:
    """A copy of row `index` of an array, or of each in a dict."""
    if isinstance(batch, Mapping):
        return {key: row_of(value, index) for key, value in batch.items()}
    return copy(batch[index])
