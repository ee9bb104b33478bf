"""Arguments of learned envs and of `imagine`: refused with one clear error before anything is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import make_spec, small_model

from worldmodels.envs.single import WorldModelEnv, make_env
from worldmodels.imagination import imagine, small_batch


def model_of(**env_kwargs: Any) -> Any:
    return small_model("newtonian", make_spec("pendulum", **env_kwargs))


@pytest.mark.parametrize("count", [True, 1.0, 0, "2", 2.5])
def test_the_number_of_rows_is_an_integer(count: Any) -> None:
    with pytest.raises(ValueError, match="num_envs=.*integer >= 1"):
        make_env(model_of(), count)


@pytest.mark.parametrize("steps", [1.5, True, "5", 0, -2, 5.0])
def test_a_time_limit_is_a_whole_number(steps: Any) -> None:
    for count in (None, 2):
        with pytest.raises(ValueError, match="max_episode_steps=.*whole number >= 1"):
            make_env(model_of(), count, max_episode_steps=steps)


@pytest.mark.parametrize("value", ["x", None, True, [3.0], 0, -1.0, float("nan")])
def test_a_divergence_factor_is_a_number_above_0(value: Any) -> None:
    for count in (None, 2):
        with pytest.raises(ValueError, match="divergence_factor=.*must be"):
            make_env(model_of(), count, divergence_factor=value)


@pytest.mark.parametrize("value", [float("inf"), np.float32(3.0), 2])
def test_a_divergence_factor_may_be_any_number_above_0(value: Any) -> None:
    assert make_env(model_of(), 2, divergence_factor=value).reset(seed=0)[0].shape == (2, 2)


@pytest.mark.parametrize("name", ["uncertainty_penalty", "uncertainty_limit"])
@pytest.mark.parametrize("value", ["x", float("nan"), True, [1.0]])
def test_what_uncertainty_costs_is_a_number(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*number"):
        make_env(model_of(), 2, **{name: value})


@pytest.mark.parametrize("device", ["meta", "no such", 1.5])
def test_a_device_that_keeps_no_numbers_leaves_the_model_where_it_is(device: Any) -> None:
    model = model_of()
    with pytest.raises(ValueError, match="device="):
        make_env(model, 2, device=device)
    assert {weights.device.type for weights in model.parameters()} == {"cpu"}


def test_a_model_and_a_checkpoint_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="checkpoint='run' beside a model.*not both"):
        WorldModelEnv(model_of(), checkpoint="run")


@pytest.mark.parametrize("count", [None, 2])
def test_ranges_at_reset_are_judged_whatever_would_be_drawn(count: int | None) -> None:
    model = model_of(randomize={"mass": (0.8, 1.2)})
    env = make_env(model, count)
    for seed in range(8):  # most draws of this range would lie in that of training
        with pytest.raises(ValueError, match=r"mass=1.3.*not told parameters"):
            env.reset(seed=seed, options={"randomize": {"mass": (0.8, 1.3)}})
    assert env.reset(seed=0, options={"randomize": {"mass": (0.9, 1.1)}})[1]["diverged"] is not None
    with pytest.raises(ValueError, match="not told parameters"):
        env.reset(options={"params": {"mass": 5.0}})
    if count:
        with pytest.raises(ValueError, match="not told parameters"):
            env.reset(options={"params": {"mass": np.array([1.0, 5.0])}})


def latent_of(model: Any, rows: int = 2) -> Any:
    return model.encode(torch.rand(rows, 1, 2), torch.ones(rows, len(model.spec.param_names)))


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (torch.zeros(2, dtype=torch.int64), r"shape \(2,\).*\(B, T\)"),
        (torch.zeros(2, 0, dtype=torch.int64), "hold no step"),
        (torch.zeros(2, 3, 1, dtype=torch.int64), r"\(B, T\)"),
        (torch.full((2, 3), 99), "from 99 to 99.*0 to 2"),
        (torch.full((2, 3), -1), "from -1 to -1.*0 to 2"),
        ([[0, 1], [1, 0]], "list, not a torch.Tensor"),
        (np.zeros((2, 3), int), "ndarray, not a torch.Tensor"),
        (None, "NoneType, not a torch.Tensor"),
        (torch.zeros(2, 3), "float32"),
        (torch.zeros(2, 3, dtype=torch.bool), "bool"),
    ],
)
def test_imagine_names_actions_that_are_no_plan(actions: Any, said: str) -> None:
    model = model_of()
    with pytest.raises(ValueError, match=said):
        imagine(model, latent_of(model), actions)


def test_imagine_takes_choices_of_any_integer_type() -> None:
    model, plan = model_of(), torch.tensor([[0, 1, 2], [2, 2, 0]])
    latent = latent_of(model)
    expected = imagine(model, latent, plan)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(imagine(model, latent, plan.to(dtype)), expected)


@pytest.mark.parametrize("dt", ["x", float("nan"), True, np.array([0.05, 0.05]), torch.ones(3)])
def test_imagine_names_a_dt_that_is_no_time(dt: Any) -> None:
    model = model_of()
    with pytest.raises(ValueError, match="dt=.*expected seconds"):
        imagine(model, latent_of(model), torch.zeros(2, 3, dtype=torch.int64), dt)


def test_weights_are_counted_once_for_many_steps() -> None:
    model = model_of()
    walks = []
    own = model.parameters
    object.__setattr__(model, "parameters", lambda *a, **k: walks.append(1) or own(*a, **k))
    for _ in range(5):
        with small_batch(model, 1):
            pass
    assert len(walks) == 1
