"""From a spec and a config to a world model: the one place where a config becomes a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldmodels.configs.training import KeypointConfig, VisualConfig, model_from_dict
from worldmodels.interface import Spec
from worldmodels.models.ensemble import EnsembleWorldModel
from worldmodels.models.keypoints import KeypointWorldModel
from worldmodels.models.pixels import VisualWorldModel
from worldmodels.models.states import StateWorldModel


def build(spec: Spec | Mapping[str, Any], name: str, config: Any) -> Any:
    """World model of a spec, the name of a model and its config, as objects or as saved.

    Weights are float32, whatever torch's default is, and drawn from its global generator. Raises
    ``ValueError`` for values that do not fit.
    """
    spec = spec if isinstance(spec, Spec) else Spec.from_dict(dict(spec))
    config = model_from_dict(name, dict(config)) if isinstance(config, Mapping) else config
    if config.name != name:
        raise ValueError(f"a config of {config.name!r} does not build the model {name!r}")
    return _kind(config)(spec, config).float()


def _kind(config: Any) -> Any:
    if isinstance(config, VisualConfig):
        return VisualWorldModel
    if isinstance(config, KeypointConfig):
        return KeypointWorldModel
    return EnsembleWorldModel if config.ensemble > 1 else StateWorldModel
