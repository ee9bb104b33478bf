"""AutoresetVectorEnv equals SyncVectorEnv over single envs, in every mode, infos included."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

from physgym.autoreset import AutoresetVectorEnv, parse_autoreset_mode, parse_seeds

LIMIT = 6
SPACE = gym.spaces.Box(-1e6, 1e6, (2,), np.float32)
ACTIONS = gym.spaces.Discrete(3)


class Walk(gym.Env):
    """A counter with a random start: ends above 20, TimeLimit outside."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space, action_space = SPACE, ACTIONS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x = float(self.np_random.integers(0, 18))
        return self._observe(), self._info()

    def step(self, action: Any) -> Any:
        self.x += float(action)
        return self._observe(), self.x, self.x > 20, False, self._info()

    def _observe(self) -> np.ndarray:
        return np.array([self.x, -self.x], dtype=np.float32)

    def _info(self) -> dict[str, Any]:
        return {"state": np.array([self.x]), "energy": self.x, "params": {"a": self.x / 2}}


class WalkVector(AutoresetVectorEnv):
    """The same over rows."""

    def __init__(self, num_envs: int, autoreset_mode: str | AutoresetMode) -> None:
        super().__init__(num_envs, LIMIT, autoreset_mode, Walk.metadata)
        self.single_observation_space, self.single_action_space = SPACE, ACTIONS
        self.observation_space = batch_space(SPACE, num_envs)
        self.action_space = batch_space(ACTIONS, num_envs)
        self.x = np.zeros(num_envs)

    def start(self, rows: np.ndarray, options: Any) -> None:
        if "bad" in options:
            raise ValueError("bad")
        for row in rows:
            self.x[row] = self.generator(row).integers(0, 18)

    def advance(self, actions: Any, resting: Any) -> tuple[Any, Any, Any]:
        self.x = self.x + actions
        return self.x.copy(), self.x > 20, np.zeros(self.num_envs, dtype=np.bool_)

    def observe(self, rows: np.ndarray | None = None) -> np.ndarray:
        x = self.x if rows is None else self.x[rows]
        return np.stack([x, -x], axis=-1).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        return {
            "state": self.x[:, None].copy(),
            "energy": self.x.copy(),
            "params": {"a": self.x / 2},
        }


def pair(mode: AutoresetMode, num_envs: int = 5) -> tuple[SyncVectorEnv, WalkVector]:
    makers = [lambda: gym.wrappers.TimeLimit(Walk(), LIMIT)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=mode), WalkVector(num_envs, mode)


def assert_same(a: Any, b: Any) -> None:
    """Equal values, dtypes and shapes, through dicts, tuples and object arrays."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("mode", AutoresetMode)
def test_equals_sync_vector_env(mode: AutoresetMode) -> None:
    sync, ours = pair(mode)
    assert_same(sync.reset(seed=3), ours.reset(seed=3))
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.integers(0, 3, sync.num_envs)
        theirs, mine = sync.step(actions), ours.step(actions)
        assert_same(theirs, mine)
        done = mine[2] | mine[3]
        if mode is AutoresetMode.DISABLED and done.any():
            assert_same(
                sync.reset(options={"reset_mask": done.copy()}),
                ours.reset(options={"reset_mask": done.copy()}),
            )
    assert_same(sync.reset(), ours.reset())
    seeds = [4, None, 6, 7, 8]
    assert_same(sync.reset(seed=seeds), ours.reset(seed=seeds))
    assert ours.np_random_seed == sync.np_random_seed


def test_a_partial_reset_in_the_midst_keeps_the_other_rows() -> None:
    for mode in AutoresetMode:
        sync, ours = pair(mode)
        sync.reset(seed=0), ours.reset(seed=0)
        mask = np.array([True, False, False, True, False])
        for _ in range(3):
            sync.step(np.ones(5, dtype=int)), ours.step(np.ones(5, dtype=int))
            options = {"reset_mask": mask.copy()}
            theirs = sync.reset(seed=9, options=options.copy())
            assert_same(theirs, ours.reset(seed=9, options=options))
            assert_same(sync.step(np.zeros(5, dtype=int)), ours.step(np.zeros(5, dtype=int)))
            assert "reset_mask" in options, "the caller's options are left alone"


def test_errors_say_what_is_allowed() -> None:
    ours = WalkVector(2, "Disabled")
    with pytest.raises(ResetNeeded):
        ours.step(np.zeros(2))
    with pytest.raises(ResetNeeded, match="every env"):
        ours.reset(options={"reset_mask": np.array([True, False])})
    ours.reset(seed=0)
    before = ours.np_random_seed, ours.generator(0).bit_generator.state
    with pytest.raises(ValueError, match="bad"):
        ours.reset(seed=5, options={"bad": 1})
    assert before == (ours.np_random_seed, ours.generator(0).bit_generator.state)
    for mask in (np.zeros(2, dtype=bool), np.ones(3, dtype=bool)):
        with pytest.raises(ValueError, match="reset_mask"):
            ours.reset(options={"reset_mask": mask})
    with pytest.raises(TypeError, match="reset_mask"):
        ours.reset(options={"reset_mask": [True, False]})
    for _ in range(LIMIT):
        ours.step(np.zeros(2))
    with pytest.raises(ResetNeeded, match=r"\[0, 1\]"):
        ours.step(np.zeros(2))
    with pytest.raises(ValueError, match="num_envs"):
        WalkVector(0, "Disabled")
    with pytest.raises(ValueError, match="NextStep"):
        parse_autoreset_mode("never")
    for seed in (-1, 1.5, "a"):
        with pytest.raises(Error):
            parse_seeds(seed, 2)
    with pytest.raises(ValueError, match="num_envs=2"):
        parse_seeds([1], 2)
    assert parse_seeds(np.int64(3), 2) == [3, 4]


def test_metadata_is_of_the_instance() -> None:
    one, other = WalkVector(1, AutoresetMode.SAME_STEP), WalkVector(1, "next_step")
    assert one.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert other.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert "autoreset_mode" not in Walk.metadata
