"""Buffers of true episodes: collect, store, load, and cut into windows. NumPy and h5py, no torch.

The names below load their module on first use: a command line needs the config alone.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "CollectConfig": "config",
    "Dataset": "dataset",
    "DatasetError": "store",
    "Window": "sampling",
    "collect": "collecting",
    "dataset_for": "cache",
    "find_dataset": "finding",
    "resolve_dataset": "cache",
    "settled": "cache",
    "load_dataset": "dataset",
    "repair": "store",
    "window_index": "sampling",
    "windows": "sampling",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`; AttributeError where no module does."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return __all__
