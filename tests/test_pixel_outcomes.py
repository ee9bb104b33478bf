"""Learned envs in pixels: what ends an episode, and what it earned, when a model says so or fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from model_doubles import Glow, make_pixel_spec

from worldmodels.envs.single import WorldModelEnv, WorldModelVectorEnv

WAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nan": lambda z: z * float("nan"),
    "one nan": lambda z: torch.stack((z[:, 0], z[:, 1] * float("nan")), 1),
    "inf": lambda z: z / 0.0,
    "beyond ten reaches": lambda z: z * 0.0 + torch.tensor([0.0, -10.1]),
}


def astray(how: Callable[[torch.Tensor], torch.Tensor], spec: Any) -> Glow:
    """The row of the heaviest mass goes `how` in its third step."""

    def change(z: torch.Tensor, count: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        bad = (count == 3) & (told[:, 0] == model.bad_mass)
        return torch.where(bad[:, None], how(z), z)

    model = Glow(spec, change)
    model.bad_mass = -1.0
    return model


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("way", WAYS)
def test_only_the_row_that_diverges_ends(way: str, mode: AutoresetMode) -> None:
    spec = make_pixel_spec("oscillator", randomize=True)
    model = astray(WAYS[way], spec)
    env = WorldModelVectorEnv(model, 3, autoreset_mode=mode)
    twin = WorldModelVectorEnv(Glow(spec), 3)
    _, info = env.reset(seed=0)
    twin.reset(seed=0)
    row = int(info["params"]["mass"].argmax())
    model.bad_mass = float(torch.tensor(info["params"]["mass"][row], dtype=torch.float32))
    bad = np.arange(3) == row
    for _ in range(2):
        last, _, _, truncated, info = env.step(np.zeros(3, int))
        twin.step(np.zeros(3, int))
        assert not truncated.any() and not info["diverged"].any()
    observations, rewards, terminated, truncated, info = env.step(np.zeros(3, int))
    others = twin.step(np.zeros(3, int))[0]
    np.testing.assert_array_equal(truncated, bad)
    assert not terminated.any() and np.isfinite(rewards).all()
    same_step = mode is AutoresetMode.SAME_STEP
    np.testing.assert_array_equal((info["final_info"] if same_step else info)["diverged"], bad)
    kept = info["final_obs"][row] if same_step else observations[row]
    np.testing.assert_array_equal(kept, last[row])
    np.testing.assert_array_equal(observations[~bad], others[~bad])
    assert env.observation_space.contains(observations)
    if mode is AutoresetMode.DISABLED:
        env.reset(options={"reset_mask": truncated})
    observations, _, _, truncated, _ = env.step(np.zeros(3, int))
    assert not truncated.any()
    np.testing.assert_array_equal(observations[~bad], twin.step(np.zeros(3, int))[0][~bad])


def test_without_a_recorded_range_only_what_is_not_finite_diverges() -> None:
    spec, lost = make_pixel_spec("oscillator"), float("inf")
    for reach, factor, far, ends in (
        (0.0, 10.0, 100.0, False),
        (0.0, 10.0, lost, True),
        (1.0, 10.0, 100.0, True),
        (1.0, 1e3, 100.0, False),
    ):
        model = Glow(spec, lambda z, count, told, far=far: z + torch.tensor([0.0, far]))
        model.reach.fill_(reach)
        env = WorldModelEnv(model, divergence_factor=factor)
        env.reset(seed=0)
        assert env.step(1)[3] is ends, (reach, factor, far)
    with pytest.raises(ValueError, match="divergence_factor=0"):
        WorldModelEnv(model, divergence_factor=0.0)


@pytest.mark.parametrize(
    ("verdict", "reward", "expected"),
    [
        ((1.7, -9.0), "dense", (1.0, False)),
        ((-0.2, 0.01), "dense", (0.0, True)),
        ((0.3, -0.01), "sparse", (0.3, False)),
        ((0.4, 0.0), "quadratic", (0.0, False)),
        ((-30.5, 9.0), "quadratic", (-30.5, True)),
        ((-float("inf"), -9.0), "quadratic", (0.0, False)),
        ((float("nan"), float("nan")), "dense", (0.0, False)),
        ((0.4, -9.0), "none", (0.0, False)),
    ],
)
def test_the_heads_say_what_the_task_can_give(
    verdict: tuple[float, float], reward: str, expected: tuple[float, bool]
) -> None:
    model = Glow(make_pixel_spec("spaceship", reward=reward))
    model.verdict = verdict
    env = WorldModelEnv(model)
    env.reset(seed=0)
    _, earned, ended, truncated, info = env.step(0)
    assert (pytest.approx(earned), ended) == expected
    assert not truncated
    assert set(info) == {"params", "diverged"}, "what nobody knows is not told"


def test_what_never_ends_does_not_end_here() -> None:
    model = Glow(make_pixel_spec("pendulum"))
    model.verdict = (0.5, 9.0)
    env = WorldModelEnv(model, max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]
