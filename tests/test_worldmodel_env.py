"""Learned envs: a perfect model is the true env bit for bit, and the checkers pass."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import Error, InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from model_doubles import Perfect, assert_same, build_model, make_spec

import physgym
import worldmodels  # noqa: F401  (registers the learned env)
from worldmodels.configs.training import MODELS, to_dict
from worldmodels.envs.single import WorldModelEnv, WorldModelVectorEnv, make_env, make_truth
from worldmodels.storage.checkpoint import save_checkpoint

SYSTEMS = list(physgym.SYSTEMS)
torch.set_num_threads(1)


class Window:
    """A window that nobody sees."""

    def __init__(self, title: str, optional: bool) -> None:
        self.shown = 0

    def opened(self) -> bool:
        return True

    def show(self, frame: np.ndarray, fps: float | None = None) -> bool:
        self.shown += frame.shape == (480, 480, 3)
        return True

    def close(self) -> None:
        assert self.shown


@pytest.fixture(params=["pendulum", "spaceship"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The checkpoint folder of an untrained model."""
    torch.manual_seed(0)
    spec, config = make_spec(request.param), MODELS["newtonian"](hidden=8)
    model = build_model(spec, config)
    described = {"spec": spec.to_dict(), "model_name": "newtonian", "model": to_dict(config)}
    save_checkpoint(tmp_path / "best", described, model.state_dict())
    return tmp_path / "best"


VARIANTS: list[dict[str, Any]] = [
    {},
    {"randomize": True, "action_mode": "continuous", "obs_mode": "embedded"},
    {"obs_mode": "state_pixels", "reward": "sparse", "observe_params": True},
]


@pytest.mark.parametrize("kwargs", VARIANTS, ids=["default", "continuous", "pixels"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_perfect_model_is_the_true_env(name: str, kwargs: dict[str, Any]) -> None:
    truth = gym.make(physgym.get_system(name).env_id, **kwargs)
    learned = WorldModelEnv(Perfect(make_spec(name, **kwargs)))
    assert learned.observation_space == truth.observation_space
    assert learned.action_space == truth.action_space
    truth.action_space.seed(1)
    steps = 60 if "obs_mode" in kwargs else truth.spec.max_episode_steps + 5
    assert_same(truth.reset(seed=4), learned.reset(seed=4))
    for _ in range(steps):
        action = truth.action_space.sample()
        true, predicted = truth.step(action), learned.step(action)
        assert_same(true, predicted)
        if true[2] or true[3]:
            assert_same(truth.reset(), learned.reset())


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", SYSTEMS)
def test_perfect_rows_are_sync_vector_env(name: str, mode: AutoresetMode) -> None:
    kwargs: dict[str, Any] = {"randomize": True}
    system = physgym.get_system(name)
    limit = 40
    truth = SyncVectorEnv(
        [lambda: gym.make(system.env_id, max_episode_steps=limit, **kwargs)] * 4,
        autoreset_mode=mode,
    )
    learned = WorldModelVectorEnv(
        Perfect(make_spec(name, **kwargs)), 4, max_episode_steps=limit, autoreset_mode=mode
    )
    assert learned.metadata["autoreset_mode"] is mode
    assert learned.observation_space == truth.observation_space
    assert_same(truth.reset(seed=[3, 1, 4, 9]), learned.reset(seed=[3, 1, 4, 9]))
    rng = np.random.default_rng(2)
    for step in range(100):
        actions = rng.integers(0, len(system.discrete_actions), 4)
        true, predicted = truth.step(actions), learned.step(actions)
        assert_same(true, predicted)
        done = true[2] | true[3]
        if mode is AutoresetMode.DISABLED and done.any():
            masks = [{"reset_mask": done.copy()} for _ in range(2)]
            assert_same(truth.reset(options=masks[0]), learned.reset(options=masks[1]))
        if step == 50:
            truth.reset(), learned.reset()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("obs_mode", ["state", "embedded", "pixels", "state_pixels"])
def test_the_checkers_pass_without_a_warning(
    folder: Path, obs_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("physgym.window.Window", Window)  # there may be no display
    made = gym.make("WorldModels/Learned-v0", checkpoint=str(folder), obs_mode=obs_mode)
    check_env(made.unwrapped)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(made.unwrapped)
    made.close()


def test_a_folder_alone_is_enough(folder: Path) -> None:
    single, rows = make_env(folder), make_env(str(folder), num_envs=3)
    made = gym.make("WorldModels/Learned-v0", checkpoint=str(folder))
    vector = gym.make_vec("WorldModels/Learned-v0", num_envs=3, checkpoint=str(folder))
    assert isinstance(vector, WorldModelVectorEnv)
    assert isinstance(made.unwrapped, WorldModelEnv)
    assert_same(single.reset(seed=3), made.reset(seed=3))
    assert_same(rows.reset(seed=3), vector.reset(seed=3))
    assert_same(single.step(0), made.step(0))
    truth = make_truth(folder)
    assert truth.observation_space == made.observation_space
    assert made.unwrapped.metadata["render_fps"] == truth.unwrapped.metadata["render_fps"]
    assert make_truth(folder, num_envs=2).num_envs == 2


def test_it_is_made_by_its_prefixed_name_in_a_fresh_process(folder: Path) -> None:
    name = "worldmodels:WorldModels/Learned-v0"
    code = (
        f"import gymnasium as g; e = g.make({name!r}, checkpoint={str(folder)!r}); e.reset(seed=0)"
    )
    code += "; e.step(1); print(e.spec.to_json() != '')"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("name", SYSTEMS)
def test_seeds_reproduce_and_streams_are_apart(name: str) -> None:
    spec = make_spec(name, randomize=True)
    one, other = (WorldModelVectorEnv(Perfect(spec), 3) for _ in range(2))
    assert_same(one.reset(seed=7), other.reset(seed=7))
    actions = np.ones(3, dtype=np.int64)
    one.reset()  # draws further, from its own streams only
    other.step(actions)
    again = WorldModelVectorEnv(Perfect(spec), 3)
    again.reset(seed=7)
    assert_same(other.step(actions), [again.step(actions), again.step(actions)][1])
    unseeded = [WorldModelVectorEnv(Perfect(spec), 1).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)
    state = WorldModelVectorEnv(Perfect(spec), 3).reset(seed=7)[1]["state"]
    assert len(np.unique(state, axis=0)) == 3


def test_starts_are_drawn_given_or_taken_from_a_buffer() -> None:
    class Buffer:
        env_name = "pendulum"
        lengths = np.array([2, 0, 3, 1])
        states = np.arange(4 * 4 * 2, dtype=np.float64).reshape(4, 4, 2) / 10
        splits = {"train": np.array([0, 1, 2])}
        params = {"mass": np.array([0.8, 0.9, 1.0, 1.1])}

    model = Perfect(make_spec("pendulum"))
    env = WorldModelVectorEnv(model, 400, starts="buffer", dataset=Buffer())
    _, info = env.reset(seed=0)
    expected = {
        (tuple(Buffer.states[e, t]), m) for e, m, n in ((0, 0.8, 2), (2, 1.0, 3)) for t in range(n)
    }
    seen = {(tuple(s), m) for s, m in zip(info["state"], info["params"]["mass"], strict=True)}
    assert seen == expected
    given = np.arange(800.0).reshape(400, 2) / 100
    np.testing.assert_array_equal(env.reset(options={"state": given})[1]["state"], given)
    _, info = env.reset(options={"state": [0.5, 0.1], "params": {"length": 1.1}})
    assert (info["state"] == [0.5, 0.1]).all()
    assert (info["params"]["length"] == 1.1).all()
    for options in (
        {"state": given[:3]},
        {"state": [np.nan, 0.0]},
        {"start": 1},
        {"params": {"x": 1}},
    ):
        with pytest.raises(ValueError):
            env.reset(options=options)
    for arguments in ({"starts": "buffer"}, {"starts": "nowhere"}):
        with pytest.raises(ValueError, match="starts"):
            WorldModelVectorEnv(model, 1, **arguments)
    Buffer.env_name = "spaceship"
    with pytest.raises(ValueError, match="spaceship"):
        WorldModelVectorEnv(model, 1, starts="buffer", dataset=Buffer())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_as_the_original(clone: Any) -> None:
    torch.manual_seed(0)
    model = build_model(make_spec("pendulum", randomize=True), MODELS["lstm"](hidden=8))
    at_rest = np.zeros(2)
    for env in (WorldModelEnv(model), WorldModelVectorEnv(model, 3)):
        env.reset(seed=0)
        env.action_space.seed(0)
        actions = [env.action_space.sample() for _ in range(20)]
        env.reset(options={"state": at_rest})
        for action in actions[:3]:
            env.step(action)
        twin = clone(env)
        for action in actions[3:]:
            assert_same(env.step(action), twin.step(action))


def test_the_spec_knows_the_limit_and_the_threshold(folder: Path) -> None:
    env = gym.make("WorldModels/Learned-v0", checkpoint=str(folder))
    truth = make_truth(str(folder))
    for learned in (env, env.unwrapped, gym.make(env.spec), pickle.loads(pickle.dumps(env))):
        assert learned.spec.max_episode_steps == truth.spec.max_episode_steps
        assert learned.spec.reward_threshold == truth.spec.reward_threshold
    short = gym.make("WorldModels/Learned-v0", checkpoint=str(folder), max_episode_steps=5)
    assert short.spec.max_episode_steps == 5
    assert gym.spec("WorldModels/Learned-v0").max_episode_steps is None, "that is the checkpoint's"


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_bad_actions_are_named_as_by_the_truth(mode: str) -> None:
    truth = gym.make("PhysGym/Spaceship-v0", action_mode=mode).unwrapped
    learned = WorldModelEnv(Perfect(make_spec("spaceship", action_mode=mode)))
    truth.reset(seed=0), learned.reset(seed=0)
    for bad in (7_000, -1, 10**30, None, "a", 1.5, [1], np.zeros((1, 1)), np.bool_(True), {}):
        messages = []
        for env in (truth, learned):
            with pytest.raises(InvalidAction) as caught:
                env.step(bad)
            messages.append(str(caught.value))
        assert messages[0] == messages[1] and repr(bad) in messages[0]


def test_bad_actions_change_nothing() -> None:
    discrete, twin = (WorldModelEnv(Perfect(make_spec("oscillator"))) for _ in range(2))
    with pytest.raises(ResetNeeded):
        discrete.step(0)
    discrete.reset(seed=0), twin.reset(seed=0)
    for bad in (-1, 3, 10**30, 1.0, np.float32(1), float("nan"), "1", None, np.array([1]), [1]):
        with pytest.raises(InvalidAction):
            discrete.step(bad)
    for good in (1, np.int64(1), np.uint8(1), np.array(1)):
        assert_same(discrete.step(good), twin.step(1))
    spec = make_spec("oscillator", action_mode="continuous")
    continuous, twin = (WorldModelEnv(Perfect(spec)) for _ in range(2))
    continuous.reset(seed=0), twin.reset(seed=0)
    for bad in (np.array([np.nan]), np.array([np.inf]), np.zeros(2), np.zeros((1, 1)), 0.5, "x"):
        with pytest.raises(InvalidAction):
            continuous.step(bad)
    assert_same(continuous.step(np.array([10.0])), twin.step(np.array([1.0], dtype=np.float32)))
    rows = WorldModelVectorEnv(Perfect(make_spec("oscillator")), 2)
    rows.reset(seed=0)
    for bad in (np.zeros(3, dtype=int), np.zeros((2, 1), dtype=int), np.array([0, 3]), np.zeros(2)):
        with pytest.raises(InvalidAction):
            rows.step(bad)
    for seed in (-1, 1.5, "a"):
        with pytest.raises(Error):
            discrete.reset(seed=seed)


def test_the_end_is_the_end() -> None:
    env = WorldModelEnv(Perfect(make_spec("oscillator")), max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(0)[3] is False
    assert env.step(0)[3] is True
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.close(), env.close()


def test_pictures_show_the_predicted_state() -> None:
    model = Perfect(make_spec("spaceship"))
    learned, truth = (
        WorldModelEnv(model, render_mode="rgb_array"),
        make_truth(model, render_mode="rgb_array"),
    )
    for env in (learned, truth):
        env.reset(seed=0)
    np.testing.assert_array_equal(learned.render(), truth.render())
    learned.step(3), truth.step(3)
    np.testing.assert_array_equal(learned.render(), truth.render())
    rows = make_env(model, num_envs=2, render_mode="rgb_array")
    rows.reset(seed=0)
    rows.step(np.array([3, 0]))
    np.testing.assert_array_equal(rows.render()[0], truth.render())


def test_what_info_gave_goes_back_by_row_as_in_the_true_env() -> None:
    learned = WorldModelVectorEnv(Perfect(make_spec("pendulum")), 3, randomize=True)
    info = learned.reset(seed=0)[1]
    again = learned.reset(options={"state": info["state"], "params": info["params"]})[1]
    for field in ("mass", "length", "damping"):
        assert np.array_equal(again["params"][field], info["params"][field])
    assert np.array_equal(again["energy"], info["energy"])
    twin = WorldModelVectorEnv(Perfect(make_spec("pendulum")), 3, randomize=True)
    twin.reset(seed=0)
    twin.reset(options={"state": info["state"], "params": info["params"]})
    with pytest.raises(ValueError, match="sub-steps"):
        learned.reset(options={"params": {"length": [1.0, 1.0, 0.01]}})
    assert_same(learned.reset(), twin.reset())


@pytest.mark.parametrize(
    "actions", [[True, False], np.array([1j, 0j]), ["1", "1"], [1.0, 0.0], [1, 9]]
)
def test_learned_envs_refuse_what_true_ones_refuse(actions: Any) -> None:
    learned = WorldModelVectorEnv(Perfect(make_spec("pendulum")), 2)
    single = WorldModelEnv(Perfect(make_spec("pendulum")))
    learned.reset(seed=0)
    single.reset(seed=0)
    with pytest.raises(InvalidAction):
        learned.step(actions)
    with pytest.raises(InvalidAction):
        single.step(np.asarray(actions)[1])
