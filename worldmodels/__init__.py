"""World models of physical systems: learn them, measure them, act inside them.

The names below load their module on first use, so that `import worldmodels` (and with it the
command line's help) imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from worldmodels.registration import register as _register

_HOME = {
    "Dataset": "worldmodels.data",
    "TrainConfig": "worldmodels.config",
    "WorldModel": "worldmodels.interface",
    "WorldModelEnv": "worldmodels.env",
    "WorldModelVectorEnv": "worldmodels.env",
    "collect": "worldmodels.data",
    "dataset_for": "worldmodels.data",
    "default_config": "worldmodels.config",
    "imagine": "worldmodels.rollout",
    "load": "worldmodels.checkpoint",
    "load_dataset": "worldmodels.data",
    "make_env": "worldmodels.env",
    "train": "worldmodels.experiment",
}

__all__ = sorted(_HOME)

_register()


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`; AttributeError where no module does."""
    if name not in _HOME:
        raise AttributeError(f"module 'worldmodels' has no attribute {name!r}; it has {__all__}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return __all__
