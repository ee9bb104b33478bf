"""`PhysicsVectorEnv`: equal to `SyncVectorEnv` over single envs to the bit, on NumPy; to 1e-12 on torch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from system_cases import NAMES

from physgym import SYSTEMS
from physgym.vector import PhysicsVectorEnv

IDS = {name: SYSTEMS[name].env_id for name in NAMES}
MODES = ("NextStep", "SameStep", "Disabled")
KWARGS: dict[str, dict[str, Any]] = {
    "default": {},
    "randomized": {"randomize": True, "observe_params": True},
    "continuous": {"action_mode": "continuous", "obs_mode": "embedded"},
    "sparse": {"reward": "sparse", "dt": 0.13, "integrator": "leapfrog"},
    "quadratic": {"reward": "quadratic", "integrator": "rk4", "substeps": 3},
    "none": {"reward": "none", "integrator": "yoshida4"},
}
SLOW_KWARGS: dict[str, dict[str, Any]] = {
    "pixels": {"obs_mode": "state_pixels", "image_size": 24},
    "accurate": {"integrator": "dop853"},
}
LIMIT = 17


def native(name: str, num_envs: int = 5, **kwargs: Any) -> Any:
    """The native batch, by `make_vec`."""
    kwargs.setdefault("max_episode_steps", LIMIT)
    return gym.make_vec(
        IDS[name], num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
    )


def synchronous(
    name: str, num_envs: int = 5, autoreset_mode: str = "NextStep", **kwargs: Any
) -> Any:
    """SyncVectorEnv over single envs."""
    kwargs.setdefault("max_episode_steps", LIMIT)
    return gym.make_vec(
        IDS[name],
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode(autoreset_mode)},
        **kwargs,
    )


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal to the bit, types and masks included."""
    for a, b in zip(ours, theirs, strict=True):
        assert data_equivalence(a, b, exact=True), (a, b)


def run_beside(ours: Any, theirs: Any, steps: int, **reset: Any) -> dict[str, int]:
    """Step both with the same actions, comparing everything; counts the ends seen."""
    ours.action_space.seed(1)
    assert_same(ours.reset(**reset), theirs.reset(**reset))
    seen = {"terminated": 0, "truncated": 0}
    for _ in range(steps):
        actions = ours.action_space.sample()
        x, y = ours.step(actions), theirs.step(actions)
        assert_same(x, y)
        seen["terminated"] += int(x[2].sum())
        seen["truncated"] += int(x[3].sum())
        over = x[2] | x[3]
        if ours.autoreset_mode is AutoresetMode.DISABLED and over.any():
            mask = {"reset_mask": over}
            assert_same(
                ours.reset(options={k: v.copy() for k, v in mask.items()}),
                theirs.reset(options={k: v.copy() for k, v in mask.items()}),
            )
    return seen


@pytest.mark.parametrize("variant", KWARGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_e25_equals_sync_vector_env(name: str, mode: str, variant: str) -> None:
    kwargs = KWARGS[variant]
    ours = native(name, autoreset_mode=mode, **kwargs)
    theirs = synchronous(name, autoreset_mode=mode, **kwargs)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    seen = run_beside(ours, theirs, 40, seed=3)
    assert seen["truncated"] > 0


@pytest.mark.parametrize("variant", SLOW_KWARGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_e25_equals_sync_vector_env_in_slow_modes(name: str, mode: str, variant: str) -> None:
    kwargs = {**SLOW_KWARGS[variant], "max_episode_steps": 4}
    ours = native(name, 2, autoreset_mode=mode, **kwargs)
    run_beside(ours, synchronous(name, 2, autoreset_mode=mode, **kwargs), 10, seed=3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["spaceship", "three_body"])
def test_e25_equal_through_collisions_and_escapes(name: str, mode: str) -> None:
    """Ends by the motion itself, at different times in different rows."""
    kwargs: dict[str, Any] = {"max_episode_steps": 200, "dt": 0.25}
    if name == "three_body":
        kwargs["start"] = "random"
    else:
        kwargs["params"] = {"escape_radius": 4.5, "crash_radius": 1.4, "thrust": 2.0}
    ours = native(name, 6, autoreset_mode=mode, **kwargs)
    seen = run_beside(ours, synchronous(name, 6, autoreset_mode=mode, **kwargs), 60, seed=1)
    assert seen["terminated"] > 5


@pytest.mark.parametrize("mode", MODES)
def test_e25_equal_when_out_of_bounds(mode: str) -> None:
    """Truncation from inside the env, with its flag, and clipped observations."""
    kwargs = {"params": {"force_limit": 300.0}, "max_episode_steps": 200}
    ours = native("oscillator", 4, autoreset_mode=mode, **kwargs)
    seen = run_beside(ours, synchronous("oscillator", 4, autoreset_mode=mode, **kwargs), 80, seed=1)
    assert seen["truncated"] > 3


def test_e25_equal_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHYSGYM_NATIVE", "0")
    for name in NAMES:
        ours, theirs = native(name, 3, randomize=True), synchronous(name, 3, randomize=True)
        run_beside(ours, theirs, 25, seed=3)


@pytest.mark.parametrize("name", NAMES)
def test_e25_row_is_single_env_with_its_own_seed(name: str) -> None:
    batch = native(name, 4, max_episode_steps=500)
    obs, info = batch.reset(seed=100)
    for i in range(4):
        single = gym.make(IDS[name])
        alone, its_info = single.reset(seed=100 + i)
        assert np.array_equal(alone, obs[i])
        assert np.array_equal(its_info["state"], info["state"][i])
    actions = np.array([1, 2, 0, 1])
    obs, rewards, *_ = batch.step(actions)
    last = single.step(int(actions[3]))
    assert np.array_equal(last[0], obs[3])
    assert last[1] == rewards[3]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_e25_equals_async_vector_env(mode: str) -> None:
    theirs = gym.vector.AsyncVectorEnv(
        [lambda: gym.make("physgym:PhysGym/Pendulum-v0", max_episode_steps=7)] * 2,
        autoreset_mode=AutoresetMode(mode),
    )
    try:
        run_beside(
            native("pendulum", 2, autoreset_mode=mode, max_episode_steps=7), theirs, 20, seed=5
        )
    finally:
        theirs.close()


# -- resets ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_e26_seeds(name: str) -> None:
    ours, theirs = native(name, 3), synchronous(name, 3)
    for seed in (0, [5, 5, 9], [2**40, None, 3], None):
        if seed is not None:
            ours.reset(seed=0)
            theirs.reset(seed=0)
        assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
    obs, _ = ours.reset(seed=[5, 5, 9])
    assert np.array_equal(obs[0], obs[1])
    assert not np.array_equal(obs[0], obs[2])
    a, _ = native(name, 3).reset()
    b, _ = native(name, 3).reset()
    assert not np.array_equal(a, b), "no seed draws from the operating system"


@pytest.mark.parametrize("name", NAMES)
def test_e26_reset_mask_leaves_other_rows_alone(name: str) -> None:
    ours, theirs = native(name, 4), synchronous(name, 4)
    run_beside(ours, theirs, 5, seed=2)
    before, _ = ours.step(np.ones(4, dtype=np.int64))[0], theirs.step(np.ones(4, dtype=np.int64))
    mask = np.array([False, True, False, True])
    x = ours.reset(options={"reset_mask": mask.copy()}, seed=[1, 2, 3, 4])
    y = theirs.reset(options={"reset_mask": mask.copy()}, seed=[1, 2, 3, 4])
    assert_same(x, y)
    assert np.array_equal(x[0][~mask], before[~mask])
    assert not np.array_equal(x[0][mask], before[mask])
    actions = np.zeros(4, dtype=np.int64)
    for _ in range(15):
        assert_same(ours.step(actions), theirs.step(actions))


@pytest.mark.parametrize("name", NAMES)
def test_options_for_all_rows_and_for_each(name: str) -> None:
    ours, theirs = native(name, 3), synchronous(name, 3)
    state = theirs.reset(seed=8)[1]["state"][0]
    ours.reset(seed=8)
    field = next(iter(SYSTEMS[name].ranges))
    options = {"state": state, "params": {field: SYSTEMS[name].ranges[field][0]}}
    assert_same(ours.reset(options=dict(options)), theirs.reset(options=dict(options)))
    assert_same(ours.reset(options={"randomize": True}), theirs.reset(options={"randomize": True}))
    actions = np.array([0, 1, 2])
    for _ in range(LIMIT + 2):  # past an autoreset, which knows no options
        assert_same(ours.step(actions), theirs.step(actions))
    states = np.array([gym.make(IDS[name]).reset(seed=s)[1]["state"] for s in range(3)])
    _, info = ours.reset(options={"state": states})
    assert np.array_equal(info["state"], states)


def test_bad_options_change_nothing() -> None:
    ours, twin = native("pendulum", 3), native("pendulum", 3)
    ours.reset(seed=1)
    twin.reset(seed=1)
    for bad in (
        {"state": np.zeros((2, 2))},
        {"state": [0.0, np.nan]},
        {"params": {"mass": -1.0}},
        {"sate": [0.0, 0.0]},
        {"state": np.array([[0.0, 0.0], [0.0, 0.0], [0.0, np.inf]])},
    ):
        with pytest.raises(ValueError):
            ours.reset(options=bad, seed=9)
    for _ in range(LIMIT + 2):
        assert_same(ours.step([0, 1, 2]), twin.step([0, 1, 2]))


# -- ends --------------------------------------------------------------------------------


def test_same_step_hands_over_the_end() -> None:
    """What TorchRL's wrapper and off-policy learners read: `final_obs` and `final_info` of ended rows."""
    env = native("pendulum", 3, autoreset_mode="SameStep", max_episode_steps=5)
    single = gym.make(IDS["pendulum"], max_episode_steps=5)
    env.reset(seed=4)
    single.reset(seed=5)
    for _ in range(5):
        obs, _, _, truncated, info = env.step([1, 1, 1])
        last = single.step(1)
    assert truncated.all()
    assert info["final_obs"].dtype == object
    assert info["_final_obs"].all()
    assert np.array_equal(info["final_obs"][1], last[0])
    assert not np.array_equal(obs[1], last[0])
    assert np.array_equal(info["final_info"]["state"][1], last[4]["state"])
    assert info["final_info"]["params"]["mass"].tolist() == [1.0] * 3
    assert np.array_equal(obs[1], single.reset()[0])


def test_disabled_mode_refuses_to_step_an_ended_row() -> None:
    env = native("pendulum", 2, autoreset_mode="Disabled", max_episode_steps=2)
    env.reset(seed=0)
    env.step([0, 0])
    env.step([0, 0])
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.step([0, 0])
    env.reset(options={"reset_mask": np.array([True, True])})
    env.step([0, 0])


def test_metadata_belongs_to_the_instance() -> None:
    envs = {mode: native("pendulum", 1, autoreset_mode=mode) for mode in MODES}
    for mode, env in envs.items():
        assert env.metadata["autoreset_mode"] is AutoresetMode(mode)
    assert PhysicsVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("name", NAMES)
def test_e21_returned_arrays_are_fresh(name: str) -> None:
    env, twin = native(name, 3), native(name, 3)
    said = [env.reset(seed=0), twin.reset(seed=0)]
    for action in (1, 0, 2):
        said = [env.step(np.full(3, action)), twin.step(np.full(3, action))]
        assert_same(*said)
        for thing in (*said[0], *said[0][4].values(), *said[0][4]["params"].values()):
            if isinstance(thing, np.ndarray):
                thing[...] = 1
    assert_same(env.step([0, 0, 0]), twin.step([0, 0, 0]))


# -- errors ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [0, -1, 2.5, "3"])
def test_e28_bad_number_of_envs(num_envs: Any) -> None:
    with pytest.raises(ValueError, match=r"num_envs=.* must be an integer >= 1"):
        PhysicsVectorEnv("pendulum", num_envs)


@pytest.mark.parametrize(
    "actions",
    [
        [0, 1],
        [0, 1, 2, 0],
        [[0, 1, 2]],
        [0.0, 1.0, 2.0],
        [0, 1, 3],
        [0, -1, 2],
        ["0", "1", "2"],
        None,
        1,
    ],
    ids=str,
)
def test_e28_bad_actions_change_nothing(actions: Any) -> None:
    env, twin = native("pendulum", 3), native("pendulum", 3)
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(actions)
    assert_same(env.step([0, 1, 2]), twin.step([0, 1, 2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_e05_bad_continuous_actions_change_nothing(bad: float) -> None:
    env, twin = (native("pendulum", 2, action_mode="continuous") for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    for actions in ([[0.1], [bad]], [[0.1]], [0.1, 0.2], [[0.1, 0.1]] * 2):
        with pytest.raises(InvalidAction):
            env.step(np.array(actions, dtype=np.float32))
    assert_same(env.step(np.array([[9.0], [0.5]])), twin.step(np.array([[1.0], [0.5]])))


def test_resting_rows_need_no_valid_action() -> None:
    """In NEXT_STEP mode the action of a row about to be reset is ignored, whatever it is."""
    env = native("pendulum", 2, max_episode_steps=2)
    env.reset(seed=0)
    env.step([0, 0])
    env.step([0, 0])
    obs, rewards, _, truncated, _ = env.step([77, -5])
    assert rewards.tolist() == [0.0, 0.0]
    assert not truncated.any()
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"backend": "jax"}, "numpy, torch"),
        ({"device": "cpu"}, 'backend="torch"'),
        ({"render_mode": "human"}, "rgb_array"),
        ({"autoreset_mode": "never"}, "'NextStep'"),
        ({"max_episode_steps": 0}, "must be >= 1"),
        ({"backend": "torch", "integrator": "dop853"}, "numpy"),
    ],
    ids=str,
)
def test_bad_arguments_say_what_is_allowed(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PhysicsVectorEnv("pendulum", 2, **kwargs)


def test_e01_step_before_reset() -> None:
    with pytest.raises(ResetNeeded):
        PhysicsVectorEnv("pendulum", 2).step([0, 0])


# -- company -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("name", NAMES)
def test_stock_vector_wrappers(name: str, mode: str) -> None:
    from gymnasium.wrappers import vector as wrappers

    def wrapped(env: Any) -> Any:
        return wrappers.RecordEpisodeStatistics(env)

    ours = wrapped(native(name, 3, autoreset_mode=mode))
    theirs = wrapped(synchronous(name, 3, autoreset_mode=mode))
    ours.reset(seed=0)
    theirs.reset(seed=0)
    ended = 0
    for _ in range(40):
        a, b = ours.step(np.array([0, 1, 2]))[4], theirs.step(np.array([0, 1, 2]))[4]
        assert ("episode" in a) == ("episode" in b)
        if "episode" in a:
            ended += int(a["_episode"].sum())
            assert np.array_equal(a["episode"]["r"], b["episode"]["r"])
            assert np.array_equal(a["episode"]["l"], b["episode"]["l"])
    assert ended
    normal = wrappers.NormalizeReward(wrappers.NormalizeObservation(native(name, 3)))
    normal.reset(seed=0)
    assert normal.step(np.array([0, 1, 2]))[0].shape == (3, SYSTEMS[name].state_size)
    listed = wrappers.DictInfoToList(native(name, 3))
    _, infos = listed.reset(seed=0)
    assert infos[2]["params"].keys() == set(SYSTEMS[name].Params._fields)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", NAMES)
def test_e22_copies_live_the_same_life(name: str, how: str, backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    env = native(name, 3, randomize=True, backend=backend)
    env.reset(seed=1)
    actions = np.array([0, 1, 2])
    for _ in range(3):
        env.step(actions)
    twin = pickle.loads(pickle.dumps(env)) if how == "pickle" else copy.deepcopy(env)
    for _ in range(LIMIT + 3):
        for a, b in zip(env.step(actions)[:4], twin.step(actions)[:4], strict=True):
            assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", NAMES)
def test_render_gives_one_picture_a_row(name: str) -> None:
    env = native(name, 2, render_mode="rgb_array")
    single = gym.make(IDS[name], render_mode="rgb_array")
    env.reset(seed=0)
    single.reset(seed=0)
    for _ in range(2):
        pictures = env.render()
        assert isinstance(pictures, tuple)
        assert len(pictures) == 2
        assert np.array_equal(pictures[0], single.render())
        env.step([1, 2])
        single.step(1)


# -- torch -------------------------------------------------------------------------------


def nested(values: Any, others: Any, path: str = "") -> Any:
    """Pairs of leaves of two infos alike."""
    assert values.keys() == others.keys(), path
    for key, value in values.items():
        if isinstance(value, dict):
            yield from nested(value, others[key], f"{path}/{key}")
        else:
            yield f"{path}/{key}", value, others[key]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("variant", ["default", "randomized", "continuous", "sparse"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_torch_backend_follows_numpy(name: str, mode: str, variant: str, device: str) -> None:
    """Same starts from the same generators; motion to 1e-12 of its scale, flags and masks exactly."""
    torch = pytest.importorskip("torch")
    kwargs = {**KWARGS[variant], "autoreset_mode": mode, "max_episode_steps": 9}
    ours, theirs = (
        native(name, 4, backend="torch", device=device, **kwargs),
        native(name, 4, **kwargs),
    )
    theirs.action_space.seed(0)
    (obs, info), (obs2, info2) = ours.reset(seed=6), theirs.reset(seed=6)
    for step in range(24):
        assert obs.dtype == torch.float32
        assert obs.device.type == device
        assert info["state"].dtype == torch.float64
        assert np.abs(obs.cpu().numpy() - obs2).max() <= 1e-5
        for path, a, b in nested(info, info2):
            if path == "/final_obs":
                rows = np.flatnonzero(info2["_final_obs"])
                a, b = (
                    np.stack([np.asarray(x[i].cpu() if x is a else x[i]) for i in rows])
                    for x in (a, b)
                )
                assert np.abs(a - b).max() <= 1e-5
                continue
            a = np.asarray(a.cpu() if isinstance(a, torch.Tensor) else a)
            bar = 1e-12 * max(1.0, float(np.abs(b * 1.0).max()))
            assert np.abs(a * 1.0 - b * 1.0).max() <= bar, (path, step)
        actions = theirs.action_space.sample()
        obs, rewards, terminated, truncated, info = ours.step(
            torch.as_tensor(actions, device=device)
        )
        obs2, rewards2, terminated2, truncated2, info2 = theirs.step(actions)
        assert rewards.dtype == torch.float64
        assert np.abs(rewards.cpu().numpy() - rewards2).max() <= 1e-11
        assert np.array_equal(terminated.cpu().numpy(), terminated2)
        assert np.array_equal(truncated.cpu().numpy(), truncated2)
        over = terminated2 | truncated2
        if mode == "Disabled" and over.any():
            obs, info = ours.reset(options={"reset_mask": terminated | truncated})
            obs2, info2 = theirs.reset(options={"reset_mask": over})


def test_torch_backend_pixels_and_actions() -> None:
    torch = pytest.importorskip("torch")
    env = native("spaceship", 2, backend="torch", obs_mode="pixels")
    twin = native("spaceship", 2, obs_mode="pixels")
    assert np.array_equal(np.asarray(env.reset(seed=0)[0]), twin.reset(seed=0)[0])
    for good in (
        torch.tensor([1, 2]),
        np.array([1, 2]),
        [1, 2],
        torch.tensor([1, 2], dtype=torch.int32),
    ):
        env.step(good)
    for bad in (torch.tensor([1.0, 2.0]), torch.tensor([1, 9]), torch.tensor([1]), [[1, 2]]):
        with pytest.raises(InvalidAction):
            env.step(bad)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_many_rows_on_a_gpu(name: str) -> None:
    torch = pytest.importorskip("torch")
    env = native(name, 4096, backend="torch", device="cuda", max_episode_steps=100)
    obs, _ = env.reset(seed=0)
    count = len(SYSTEMS[name].discrete_actions)
    for _ in range(20):
        obs, rewards, *_ = env.step(torch.randint(count, (4096,), device="cuda"))
    assert obs.is_cuda
    assert bool(torch.isfinite(obs).all())
    assert bool(((rewards >= 0.0) & (rewards <= 1.0)).all())
