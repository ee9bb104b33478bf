"""A misspelt keyword argument of a public function is told with what is meant."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model_doubles import build_model

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
    "Planner": (worldmodels.Planner, "elite", "elites"),
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
    model = build_model(Spec("pendulum", dt=0.05, angles=(0,)), MODELS["jump"](hidden=4))
    for name, meant in (("num_env", "num_envs"), ("obsmode", "obs_mode"), ("devise", "device")):
        for count in (None, 2):
            with pytest.raises(
                TypeError, match=f"argument '{name}'; did you mean '{meant}'"
            ) as caught:
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


TINY = MODELS["jump"](hidden=4)
SPEC = Spec("pendulum", dt=0.05, angles=(0,))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: worldmodels.load(5), "run=5 .*path of a run"),
        (lambda: worldmodels.load(""), "run='' .*path of a run"),
        (lambda: worldmodels.load("run", "bst"), "which='bst'.*did you mean 'best'"),
        (lambda: worldmodels.load_dataset(None), "dataset=None .*<env>/<name>"),
        (lambda: worldmodels.dataset_for("b"), "config='b' .*default_config makes one"),
        (lambda: worldmodels.collect({"env": "pendulum"}), "config=.*CollectConfig"),
        (lambda: worldmodels.collect(worldmodels.CollectConfig(), workers=1.5), "workers=1.5"),
        (lambda: worldmodels.train({"env_name": "pendulum"}), "config=.*default_config"),
        (lambda: worldmodels.train(worldmodels.TrainConfig(), "b"), "dataset='b'.*load_dataset"),
        (lambda: worldmodels.make_env(build_model(SPEC, TINY), device="gpu"), "device='gpu'.*cuda"),
        (lambda: worldmodels.make_env(build_model(SPEC, TINY), dataset="b"), 'starts="buffer"'),
        (
            lambda: worldmodels.make_env(build_model(SPEC, TINY), autoreset_mode="x"),
            "give num_envs=",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_planner_names_what_it_cannot_do() -> None:
    model = build_model(SPEC, TINY)
    wrong: list[dict[str, Any]] = [{"horizon": 0}, {"hold": 1.5}, {"rounds": 0}, {"seed": -1}]
    for options in [*wrong, {"samples": 4, "elites": 5}, {"samples": True}]:
        with pytest.raises(ValueError, match=next(reversed(options))):
            worldmodels.Planner(model, **options)
    with pytest.raises(ValueError, match="env_or_model='run'"):
        worldmodels.Planner("run")
    planner = worldmodels.Planner(model, horizon=10, samples=4, elites=2, rounds=1)
    planner(np.zeros((2, 2)))
    for observations in (np.zeros(2), np.zeros((2, 4)), np.zeros((3, 2)), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="observations"):
            planner(observations)
