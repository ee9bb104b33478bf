"""A misspelt keyword argument of a public function is told with what is meant."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import worldmodels
from worldmodels.configs.training import MODELS, DataConfig, EnvConfig, OptimConfig, VisualConfig
from worldmodels.envs.task import OWN
from worldmodels.envs.vector import WorldModelVectorEnv
from worldmodels.interface import Spec

CALLS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "load": (worldmodels.load, "wich", "which"),
    "load_dataset": (worldmodels.load_dataset, "partail", "partial"),
    "dataset_for": (worldmodels.dataset_for, "worker", "workers"),
    "collect": (worldmodels.collect, "repiar", "repair"),
    "train": (worldmodels.train, "resum", "resume"),
    "default_config": (worldmodels.default_config, "modelname", "model_name"),
    "calibrate_uncertainty": (worldmodels.calibrate_uncertainty, "quantil", "quantile"),
    "CollectConfig": (worldmodels.CollectConfig, "episode", "episodes"),
    "TrainConfig": (worldmodels.TrainConfig, "epoch", "epochs"),
    "EnvConfig": (EnvConfig, "parms", "params"),
    "OptimConfig": (OptimConfig, "learning_rate", ""),
    "DataConfig": (DataConfig, "episode", "episodes"),
    "VisualConfig": (VisualConfig, "predicter", "predictor"),
    **{name: (kind, "hiden", "hidden") for name, kind in MODELS.items()},
}


@pytest.mark.parametrize("name", CALLS)
def test_the_closest_keyword_is_suggested(name: str) -> None:
    call, given, meant = CALLS[name]
    with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{given}'") as caught:
        call(**{given: 1})
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text
    if meant:
        assert text.endswith(f"did you mean {meant!r}?")


def test_a_learned_env_suggests_its_own_and_the_true_envs_arguments() -> None:
    model = MODELS["jump"](hidden=4).build(Spec("pendulum", dt=0.05, angles=(0,)))
    for name, meant in (("num_env", "num_envs"), ("obsmode", "obs_mode"), ("devise", "device")):
        for count in (None, 2):
            with pytest.raises(ValueError, match=f"{name}=1 .*did you mean '{meant}'") as caught:
                worldmodels.make_env(model, count, **{name: 1})
            assert "\n" not in str(caught.value)
    assert set(OWN) == set(inspect.signature(WorldModelVectorEnv).parameters) - {
        "model",
        "arguments",
    }


def test_the_functions_are_what_they_were() -> None:
    for name in ("load", "collect", "train", "TrainConfig"):
        kind = getattr(worldmodels, name)
        assert pickle.loads(pickle.dumps(kind)) is kind
        assert kind.__doc__
    assert "which" in inspect.signature(worldmodels.load).parameters
