"""A learned env answers for the physical parameters that its model learned from, and says so of others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from model_doubles import make_pixel_spec, make_spec, small_model, visual_model

from worldmodels.configs.training import MODELS
from worldmodels.envs.single import make_env

ASKED = [
    {"params": {"mass": 5.0}},
    {"randomize": {"mass": (0.5, 2.0)}},
    {"randomize": True},
]


def made(name: str, **env_kwargs: Any) -> Any:
    return small_model(name, make_spec("pendulum", **env_kwargs))


@pytest.mark.parametrize("count", [None, 3])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", [*MODELS, "visual"])
def test_parameters_that_a_model_is_not_told_are_refused(
    name: str, asked: dict[str, Any], count: int | None
) -> None:
    model = (
        visual_model("pendulum", spec=make_pixel_spec("pendulum", 32))
        if name == "visual"
        else made(name)
    )
    with pytest.raises(ValueError, match=r"mass=.*learned from 1 alone.*Leave mass out"):
        make_env(model, num_envs=count, **asked)
    env, twin = make_env(model, num_envs=count), make_env(model, num_envs=count)
    for one in (env, twin):
        one.reset(seed=3)
    with pytest.raises(ValueError, match="not told parameters"):
        env.reset(options=asked)
    assert np.array_equal(env.reset()[0], twin.reset()[0]), "a refused reset draws nothing"


def test_parameters_of_training_are_served_without_a_word() -> None:
    told = {"randomize": {"mass": (0.5, 2.0)}, "params": {"length": 2.0}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({}, {"condition": "params"}):
            env = make_env(small_model("newtonian", make_spec("pendulum", **told), **options))
            env.reset(seed=0)
            info = env.reset(options={"params": {"mass": 1.9}})[1]
            assert (info["params"]["mass"], info["params"]["length"]) == (1.9, 2.0)
        make_env(made("newtonian"), params={"mass": 1.0}).reset(seed=0)


def test_parameters_beyond_training_are_a_guess_for_a_model_that_is_told() -> None:
    spec = make_spec("pendulum", randomize={"mass": (0.5, 2.0)})
    told = small_model("newtonian", spec, condition="params")
    with pytest.warns(UserWarning, match=r"mass=3, .* values from 0.5 to 2: its motion"):
        make_env(told, params={"mass": 3.0}, randomize=False)
    with pytest.warns(UserWarning, match=r"length=2, .* learned from 1 alone"):
        make_env(told, params={"length": 2.0})
    env = make_env(told, num_envs=2)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="mass=3"):
        env.reset(options={"params": {"mass": 3.0}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once is enough
        env.reset(options={"params": {"mass": 3.0}})


def test_an_ensemble_is_told_what_its_members_are() -> None:
    spec = make_spec("pendulum", randomize=True)
    assert small_model("jump", spec, ensemble=2).told_params == ()
    assert small_model("jump", spec, ensemble=2, condition="params").told_params == spec.param_names
