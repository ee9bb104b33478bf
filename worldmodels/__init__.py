"""World models of physical systems: learn them, measure them, act inside them.

The names below load their module on first use, so that `import worldmodels` (and with it the
command line's help) imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from physgym import plugins as _plugins
from physgym import threads as _threads  # noqa: F401  # from now on it knows of forks
from worldmodels.registration import register as _register

_HOME = {
    "CollectConfig": "worldmodels.data.config",
    "Coordinates": "worldmodels.configs.coordinates",
    "Dataset": "worldmodels.data.dataset",
    "Dynamics": "worldmodels.interface",
    "Planner": "worldmodels.agents.planning",
    "Simulator": "worldmodels.agents.simulators",
    "TrainConfig": "worldmodels.configs.training",
    "WorldModel": "worldmodels.interface",
    "WorldModelEnv": "worldmodels.envs.single",
    "WorldModelVectorEnv": "worldmodels.envs.vector",
    "calibrate_uncertainty": "worldmodels.envs.predictor",
    "check_world_model": "worldmodels.checking.world_model",
    "collect": "worldmodels.data.collecting",
    "dataset_for": "worldmodels.data.cache",
    "default_config": "worldmodels.configs.training",
    "evaluate": "worldmodels.evaluation.comparison",
    "experiment": "worldmodels.training",
    "imagine": "worldmodels.imagination",
    "load": "worldmodels.storage.checkpoint",
    "load_dataset": "worldmodels.data.dataset",
    "load_plugin": "worldmodels.plugins",
    "load_policy": "worldmodels.agents.saved",
    "make_env": "worldmodels.envs.single",
    "planning_gap": "worldmodels.agents.gap",
    "register_structure": "worldmodels.registration",
    "runs": "worldmodels.storage",
    "to_sb3_vecenv": "worldmodels.agents.stable_baselines",
    "train": "worldmodels.training.experiment",
    "write_report": "worldmodels.evaluation.comparison",
}
"""Public names and where they live; `experiment` and `runs` are modules: a training from its config to its
folder, and the folders."""

__all__ = sorted(_HOME)

_register()


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`; AttributeError where no module does."""
    if name not in _HOME:
        raise AttributeError(f"module 'worldmodels' has no attribute {name!r}; it has {__all__}")
    home = importlib.import_module(_HOME[name])
    value = getattr(home, name, None) or importlib.import_module(f"{_HOME[name]}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return __all__


_plugins.load_entry_points("physgym.structures")  # torch comes with them, and only with them
if _plugins.in_worker():
    _plugins.load_inherited()
