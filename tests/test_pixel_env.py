"""Learned envs in pixels: a perfect model is the true env, and everything a user touches works."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from model_doubles import Glow, PerfectPixels, assert_same, make_pixel_spec, visual_model

import physgym
from worldmodels.configs.training import to_dict
from worldmodels.envs.single import WorldModelEnv, WorldModelVectorEnv, make_env, make_truth
from worldmodels.storage.checkpoint import save_checkpoint

SYSTEMS = list(physgym.SYSTEMS)
torch.set_num_threads(1)


def save(folder: Path, model: Any) -> Path:
    """A checkpoint of a visual model."""
    described = {
        "spec": model.spec.to_dict(),
        "model_name": "visual",
        "model": to_dict(model.config),
    }
    save_checkpoint(folder, described, model.state_dict())
    return folder


@pytest.fixture(params=["spatial_hamiltonian", "flat_lstm"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The checkpoint folder of an untrained visual model."""
    return save(tmp_path / "best", visual_model("pendulum", request.param))


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_perfect_model_is_the_true_env(name: str, mode: AutoresetMode) -> None:
    kwargs: dict[str, Any] = {"randomize": {"gm": (9.0, 11.0)} if name == "spaceship" else True}
    kwargs["params"] = {
        "cart_pole": {"track": 1.3},
        "spaceship": {"escape_radius": 4.5},
        "three_body": {"g": 0.02},
    }.get(name)
    if mode is AutoresetMode.SAME_STEP:
        kwargs |= {"action_mode": "continuous", "reward": "quadratic"}
    model = PerfectPixels(make_pixel_spec(name, 48, **kwargs))
    arguments: dict[str, Any] = {"num_envs": 3, "max_episode_steps": 35, "autoreset_mode": mode}
    truth, learned = make_truth(model, **arguments), make_env(model, **arguments)
    assert learned.metadata["autoreset_mode"] is mode
    assert learned.observation_space == truth.observation_space
    assert learned.single_observation_space == gym.spaces.Box(0, 255, (48, 48, 3), np.uint8)
    assert learned.action_space == truth.action_space
    truth.action_space.seed(0)

    def same(true: Any, predicted: Any) -> None:
        assert_same(_told(true[-1]), _told(predicted[-1]))
        for a, b in zip(true[:-1], predicted[:-1], strict=True):
            assert_same(a, b)

    def learn(observations: np.ndarray, info: dict[str, Any]) -> None:
        model.known |= {f.tobytes(): s for f, s in zip(observations, info["state"], strict=True)}

    begun, ends = truth.reset(seed=5), 0
    learn(*begun)
    same(begun, learned.reset(seed=5))
    for _ in range(70):
        actions = truth.action_space.sample()
        true = truth.step(actions)
        learn(true[0], true[-1])
        same(true, learned.step(actions))
        done, ends = true[2] | true[3], ends + int(true[2].sum())
        if mode is AutoresetMode.DISABLED and done.any():
            masks = [{"reset_mask": done.copy()} for _ in range(2)]
            begun = truth.reset(options=masks[0])
            learn(*begun)
            same(begun, learned.reset(options=masks[1]))
    often = name in ("cart_pole", "spaceship", "three_body")
    assert (ends > 0) == often, "ends are compared too"


def _told(info: dict[str, Any]) -> dict[str, Any]:
    """What both envs know of a step, final infos included."""
    kept = {k: v for k, v in info.items() if k in ("params", "final_obs", "_final_obs", "_params")}
    return kept | ({"final": _told(info["final_info"])} if "final_info" in info else {})


@pytest.mark.filterwarnings("error")
def test_the_checkers_pass_without_a_warning(folder: Path, monkeypatch: Any) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("physgym.window.Window.opened", lambda window: True)  # as on a display
    monkeypatch.setattr("physgym.window.Window.show", lambda *given, fps: shown.append(given))
    made = gym.make("WorldModels/Learned-v0", checkpoint=str(folder))
    check_env(made.unwrapped)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(made.unwrapped)
    assert shown
    made.close()


def test_a_folder_alone_is_enough(folder: Path) -> None:
    single, rows = make_env(folder), make_env(str(folder), num_envs=64)
    made = gym.make("WorldModels/Learned-v0", checkpoint=str(folder), obs_mode="pixels")
    vector = gym.make_vec("WorldModels/Learned-v0", num_envs=64, checkpoint=str(folder))
    truth, true_rows = make_truth(folder), make_truth(folder, num_envs=64)
    assert truth.observation_space == single.observation_space
    assert truth.unwrapped.metadata["render_fps"] == single.metadata["render_fps"]
    assert single.dt == truth.unwrapped.dt
    assert made.spec.max_episode_steps == truth.spec.max_episode_steps
    begun, first = single.reset(seed=3), truth.reset(seed=3)
    np.testing.assert_array_equal(begun[0], first[0])
    assert begun[1] == {"params": first[1]["params"], "diverged": False}
    assert_same(begun, made.reset(seed=3))
    assert_same(single.step(0), made.step(0))
    begun = rows.reset(seed=3)
    np.testing.assert_array_equal(begun[0], true_rows.reset(seed=3)[0])
    assert_same(begun, vector.reset(seed=3))
    assert_same(rows.step(np.zeros(64, int)), vector.step(np.zeros(64, int)))


@pytest.mark.parametrize("predictor", ["spatial_hamiltonian", "flat_lstm"])
def test_rows_are_single_envs_and_seeds_reproduce(predictor: str) -> None:
    model = visual_model("pendulum", predictor)
    together, again = (WorldModelVectorEnv(model, 4) for _ in range(2))
    alone = [WorldModelEnv(model) for _ in range(4)]
    observations, _ = together.reset(seed=9)
    np.testing.assert_array_equal(observations, again.reset(seed=9)[0])
    assert len(np.unique(observations.reshape(4, -1), axis=0)) == 4, "streams are apart"
    for seed, env in enumerate(alone):
        np.testing.assert_array_equal(env.reset(seed=9 + seed)[0], observations[seed])
    again.reset()  # draws on, from its own streams alone
    again.reset(seed=9)
    for k in (0, 2, 1, 2):
        observations, rewards, terminated, *_ = result = together.step(np.full(4, k))
        assert_same(result, again.step(np.full(4, k)))
        for row, env in enumerate(alone):
            own, reward, ended, *_ = env.step(k)
            assert np.abs(own.astype(int) - observations[row]).max() <= 1
            assert reward == pytest.approx(rewards[row], abs=1e-4)
            assert ended == terminated[row]
    unseeded = [WorldModelVectorEnv(model, 1).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_as_the_original(clone: Callable[[Any], Any]) -> None:
    model = visual_model("pendulum", "spatial_lstm")
    for env in (WorldModelEnv(model), WorldModelVectorEnv(model, 2)):
        env.reset(seed=0)
        env.action_space.seed(0)
        actions = [env.action_space.sample() for _ in range(8)]
        for action in actions[:3]:
            env.step(action)
        twin = clone(env)
        for action in actions[3:]:
            assert_same(env.step(action), twin.step(action))
        assert_same(env.reset(), twin.reset())


def test_one_decode_a_step_in_inference_and_eval_mode() -> None:
    model = visual_model("pendulum")
    seen: list[tuple[str, int, bool, bool]] = []

    def watch(verb: str) -> None:
        original = getattr(model, verb)

        def watched(latent: Any, *rest: Any) -> Any:
            rows = len(latent.z)
            seen.append((verb, rows, torch.is_inference_mode_enabled(), model.training))
            return original(latent, *rest)

        setattr(model, verb, watched)

    for verb in ("step", "decode", "judge"):
        watch(verb)
    env = WorldModelVectorEnv(model, 5)
    env.reset(seed=0)
    model.train()
    seen.clear()
    env.step(np.zeros(5, int))
    assert seen == [(verb, 5, True, False) for verb in ("step", "decode", "judge")]


def test_the_picture_for_people_is_the_prediction_enlarged() -> None:
    env = make_env(Glow(make_pixel_spec("spaceship")), num_envs=2, render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    first, _ = env.reset(seed=0)
    for picture, frame in zip(env.render(), first, strict=True):
        assert (picture.shape, picture.dtype) == ((480, 480, 3), np.uint8)
        np.testing.assert_array_equal(
            picture[63::60, 3::60], frame[8::8, ::8][: len(picture) // 60]
        )
    before = env.render()[0]
    observations, *_ = env.step(np.array([3, 0]))
    after = env.render()[0]
    assert (after[60:] == observations[0, 0, 0]).all(), "below the caption"
    assert (before[:40, 160:] == after[:40, 160:]).mean() < 1, "the action is told"
    continuous = WorldModelEnv(
        Glow(make_pixel_spec("spaceship", action_mode="continuous")), render_mode="rgb_array"
    )
    continuous.reset(seed=0)
    continuous.step(np.array([0.5, -1.0]))
    assert continuous.render().shape == (480, 480, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("pendulum", {"obs_mode": "state"}, "obs_mode='state'.*obs_mode='pixels'"),
        ("pendulum", {"obs_mode": "embedded"}, "pictures alone"),
        ("pendulum", {"obs_mode": "state_pixels"}, "pictures alone"),
        ("pendulum", {"image_size": 32}, "image_size=64"),
        ("pendulum", {"observe_params": True}, "observe_params"),
        ("pendulum", {"reward": "sparse"}, "reward='dense'"),
        ("three_body", {"start": "random"}, "reward='alive'.*start='random'"),
        ("pendulum", {"dt": 0.1}, "dt=0.05"),
        ("pendulum", {"action_mode": "continuous"}, "action_mode"),
        ("pendulum", {"starts": "nowhere"}, "starts"),
        ("pendulum", {"starts": "buffer"}, "dataset="),
        ("pendulum", {"uncertainty_limit": 1.0}, "ensemble"),
    ],
)
def test_arguments_that_a_picture_cannot_serve_are_refused(
    name: str, arguments: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        WorldModelEnv(visual_model(name), **arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_of_another_env_or_size_is_refused() -> None:
    for change, word in (
        ({"env_name": "spaceship", "dt": 0.1}, "action_size"),
        ({"dt": 0.1}, "dt"),
        ({"image_size": 32}, "spec"),
    ):
        model = visual_model("pendulum")
        model.spec = replace(model.spec, **change)
        with pytest.raises(ValueError, match=word):
            WorldModelEnv(model)


def test_bad_actions_and_options_change_nothing() -> None:
    model = visual_model("pendulum")
    env, twin = WorldModelEnv(model), WorldModelEnv(model)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0), twin.reset(seed=0)
    for bad in (-1, 3, 1.0, None, "1", [1]):
        with pytest.raises(InvalidAction, match="0 to 2"):
            env.step(bad)
    for options in ({"state": [np.nan, 0.0]}, {"state": [0.0]}, {"params": {"x": 1}}, {"go": 1}):
        with pytest.raises(ValueError):
            env.reset(options=options)
    assert_same(env.step(np.int64(2)), twin.step(2))
    rows = WorldModelVectorEnv(model, 2)
    rows.reset(seed=0)
    for bad_rows in (np.zeros(3, int), np.array([0, 3]), np.zeros(2)):
        with pytest.raises(InvalidAction):
            rows.step(bad_rows)


def test_another_dt_is_predicted_where_the_structure_can() -> None:
    env = WorldModelEnv(visual_model("pendulum", "spatial_newtonian"), dt=0.1)
    assert (env.dt, env.metadata["render_fps"]) == (0.1, 10)
    first, _ = env.reset(seed=1)
    np.testing.assert_array_equal(first, make_truth(env.model, dt=0.1).reset(seed=1)[0])
    assert env.observation_space.contains(env.step(0)[0])
