"""A learned row that goes astray ends alone, flagged and with its last good observation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from model_doubles import Perfect, Still, build_model, make_spec, small_model

import physgym
from worldmodels.configs.training import MODELS
from worldmodels.envs.single import WorldModelEnv, WorldModelVectorEnv
from worldmodels.interface import DivergenceError

torch.set_num_threads(1)
STARTS = np.array([[0.5, 0.1], [1.5, 0.1], [-0.5, 0.2]])
BAD = np.array([False, True, False])
ACTIONS = np.zeros(3, dtype=np.int64)


def astray(how: Callable[[torch.Tensor], torch.Tensor]) -> Still:
    """Drifts by 0.01 a step; a row beyond x = 1 goes `how` in its third step."""

    def change(z: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        bad = (count == 3) & (z[:, 0] > 1.0)
        z = z + 0.01
        return torch.where(bad[:, None], how(z), z) if bool(bad.any()) else z

    return Still(make_spec("oscillator"), change)


def fail(error: type[Exception]) -> Callable[[torch.Tensor], torch.Tensor]:
    def raising(z: torch.Tensor) -> torch.Tensor:
        raise error("underflow in dt 0.0")

    return raising


WAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nan": lambda z: z * float("nan"),
    "one nan": lambda z: torch.stack([z[:, 0], z[:, 1] * float("nan")], 1),
    "inf": lambda z: z * float("inf"),
    "huge": lambda z: z * 1e30,
    "beyond ten ranges": lambda z: z * 1e3,
    "solver": fail(AssertionError),
    "divergence": fail(DivergenceError),
    "exception": fail(RuntimeError),
    "overflow": fail(OverflowError),
}


@pytest.mark.filterwarnings("ignore:The model raised:RuntimeWarning")
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("way", WAYS)
def test_only_the_row_that_diverges_ends(way: str, mode: AutoresetMode) -> None:
    env = WorldModelVectorEnv(astray(WAYS[way]), 3, autoreset_mode=mode)
    twin = WorldModelVectorEnv(astray(WAYS[way]), 3)
    healthy = np.where(BAD[:, None], 0.4, STARTS)
    env.reset(seed=0, options={"state": STARTS})
    twin.reset(seed=0, options={"state": healthy})
    for _ in range(2):
        last, _, _, truncated, info = env.step(ACTIONS)
        twin.step(ACTIONS)
        assert not truncated.any()
        assert not info["diverged"].any()
    observations, rewards, terminated, truncated, info = env.step(ACTIONS)
    others, other_rewards, *_ = twin.step(ACTIONS)
    np.testing.assert_array_equal(truncated, BAD)
    assert not terminated.any()
    assert np.isfinite(rewards).all()
    final = info["final_info"] if mode is AutoresetMode.SAME_STEP else info
    kept = info["final_obs"][1] if mode is AutoresetMode.SAME_STEP else observations[1]
    np.testing.assert_array_equal(final["diverged"], BAD)
    np.testing.assert_array_equal(kept, last[1])
    np.testing.assert_array_equal(observations[~BAD], others[~BAD])
    np.testing.assert_array_equal(rewards[~BAD], other_rewards[~BAD])
    assert env.observation_space.contains(observations)
    if mode is AutoresetMode.DISABLED:
        env.reset(options={"reset_mask": truncated})
    for _ in range(2):
        observations, _, _, truncated, info = env.step(ACTIONS)
        assert not truncated.any()
        assert np.isfinite(info["state"]).all()
        np.testing.assert_array_equal(observations[~BAD], twin.step(ACTIONS)[0][~BAD])


def test_a_single_env_ends_the_same_way() -> None:
    env = WorldModelEnv(astray(WAYS["nan"]))
    env.reset(options={"state": STARTS[1]})
    for _ in range(2):
        last, *_ = env.step(0)
    observation, reward, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, info["diverged"]) == (False, True, True)
    np.testing.assert_array_equal(observation, last)
    assert np.isfinite(reward)
    assert env.observation_space.contains(observation)


def test_a_raising_model_says_so_once() -> None:
    env = WorldModelVectorEnv(astray(WAYS["solver"]), 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            env.reset(seed=0, options={"state": STARTS})
            for _ in range(3):
                env.step(ACTIONS)
    assert [str(w.message) for w in caught if "underflow" in str(w.message)] != []
    assert len(caught) == 1


def test_growth_ends_at_ten_times_the_training_range() -> None:
    model = Still(make_spec("oscillator"), lambda z, count: z * 2)
    model.reach = torch.tensor([1.0, 1.0])
    env = WorldModelEnv(model, params={"force_limit": 50.0})  # wide bounds: the range decides
    env.reset(options={"state": [0.1, 0.0]})
    steps = next(n for n in range(1, 100) if env.step(1)[3])
    assert 0.1 * 2 ** (steps - 1) <= 10.0 < 0.1 * 2**steps


def test_a_solver_without_a_way_out_diverges_instead_of_hanging() -> None:
    model = build_model(make_spec("pendulum"), MODELS["first_order"](hidden=4, integrator="dopri5"))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    env = WorldModelVectorEnv(model, 2)
    env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observations, _, _, truncated, info = env.step(np.array([0, 1]))
    assert truncated.all()
    assert info["diverged"].all()
    assert np.isfinite(observations).all()


MISFITS: dict[str, Any] = {
    "state_size": {"state_size": 4},
    "action_size": {"action_size": 9},
    "action_kind": {"action_kind": "continuous", "action_size": 1, "idle": 0},
    "angles": {"angles": ()},
    "unknown": {"env_name": "pendulam"},
    "thrust": {"param_names": ("mass", "thrust")},
    "dt": {"dt": 0.2},
}


@pytest.mark.parametrize("word", MISFITS)
def test_a_model_of_another_env_is_refused(word: str) -> None:
    model = Perfect(make_spec("pendulum"))
    model.spec = replace(model.spec, **MISFITS[word])
    with pytest.raises(ValueError, match=word):
        WorldModelEnv(model)


def test_arguments_that_contradict_the_model_are_refused() -> None:
    spec = make_spec("pendulum")
    one_dt = Perfect(spec)
    one_dt.any_dt = False
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (one_dt, {"dt": 0.1}, "dt"),
        (one_dt, {"action_mode": "continuous"}, "action_mode"),
        (one_dt, {"obs_mode": "smell"}, "obs_mode"),
        (one_dt, {"divergence_factor": 0.0}, "divergence_factor"),
        (one_dt, {"render_mode": "ascii"}, "render_mode"),
        (None, {}, "run folder"),
        (one_dt, {"checkpoint": "runs/x"}, "give one of them"),
        (3, {}, "WorldModel"),
    ]
    for model, arguments, word in cases:
        with pytest.raises(ValueError, match=word):
            WorldModelEnv(model, **arguments)

    class Wide(Perfect):
        def decode(self, latent: Any) -> torch.Tensor:
            return torch.cat([latent.z, latent.z], 1)

    with pytest.raises(ValueError, match="decodes"):
        WorldModelEnv(Wide(spec))


def test_another_dt_is_predicted_where_the_model_can() -> None:
    env = WorldModelEnv(Perfect(make_spec("pendulum")), dt=0.1)
    truth = physgym.get_system("pendulum")
    _, info = env.reset(seed=0)
    expected = truth.step(info["state"], (0.0,), truth.Params(), 0.1)
    np.testing.assert_allclose(env.step(1)[4]["state"], expected, rtol=1e-12)
    assert env.metadata["render_fps"] == 10


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_of_the_row_and_of_the_episode(name: str) -> None:
    env = WorldModelVectorEnv(
        small_model(name, make_spec("pendulum")), 3, autoreset_mode="Disabled"
    )
    starts = np.array([[0.1, 0.2], [0.3, -0.1], [-0.4, 0.3]])
    env.reset(options={"state": starts})
    untouched = WorldModelVectorEnv(env.model, 3, autoreset_mode="Disabled")
    untouched.reset(options={"state": starts})
    for _ in range(4):
        env.step(np.array([0, 2, 1]))
        untouched.step(np.array([0, 2, 1]))
    mask = np.array([False, True, False])
    env.reset(options={"reset_mask": mask, "state": starts})
    fresh = WorldModelVectorEnv(env.model, 3, autoreset_mode="Disabled")
    fresh.reset(options={"state": starts})
    actions = np.array([2, 2, 0])
    after, new, old = (e.step(actions)[4]["state"] for e in (env, fresh, untouched))
    np.testing.assert_allclose(after[mask], new[mask], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[~mask], old[~mask], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    model = small_model(name, make_spec("spaceship"), condition="params")
    together = WorldModelVectorEnv(model, 16, randomize=True)
    _, info = together.reset(seed=0)
    alone = [WorldModelEnv(model, randomize=True) for _ in range(16)]
    for seed, env in enumerate(alone):
        np.testing.assert_array_equal(env.reset(seed=seed)[1]["state"], info["state"][seed])
    running = np.ones(16, dtype=np.bool_)
    for k in range(5):
        _, _, terminated, truncated, info = together.step(np.full(16, k))
        for row in np.flatnonzero(running):
            own = alone[row].step(k)[4]["state"]
            np.testing.assert_allclose(own, info["state"][row], rtol=1e-4, atol=1e-5)
        running &= ~(terminated | truncated)


def test_steps_are_taken_in_inference_and_eval_mode() -> None:
    model = small_model("jump", make_spec("pendulum"))
    seen: list[tuple[bool, bool]] = []
    original = model.step

    def watched(*arguments: Any) -> Any:
        seen.append((torch.is_inference_mode_enabled(), model.training))
        return original(*arguments)

    model.step = watched
    model.train()
    env = WorldModelEnv(model)
    env.reset(seed=0)
    model.train()
    env.step(0)
    assert seen
    assert set(seen) == {(True, False)}


def test_a_device_that_is_not_there_means_the_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.warns(RuntimeWarning, match="cuda"):
        env = WorldModelEnv(small_model("jump", make_spec("pendulum")), device="cuda")
    env.reset(seed=0)
