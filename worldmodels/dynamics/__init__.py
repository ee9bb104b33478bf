"""Structures of learned dynamics, one file each, registered by name as they load."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from worldmodels.configs.training import ModelConfig
from worldmodels.interface import STRUCTURES, Dynamics, Medium


def build_dynamics(config: ModelConfig, medium: Medium) -> Dynamics:
    """The structure that ``config`` is of, on ``medium``. Raises ``ValueError`` if it has no file."""
    if config.name not in STRUCTURES:
        raise ValueError(
            f"structure {config.name!r} has no file in worldmodels/dynamics: "
            f"expected one of {', '.join(STRUCTURES)}"
        )
    structure: Any = STRUCTURES[config.name]
    return structure(config, medium)


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
