"""The batched envs on torch tensors follow those on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction
from system_cases import NAMES
from vector_cases import MODES, kwargs_of, native

from physgym import SYSTEMS


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
    kwargs = {**kwargs_of(name, variant), "autoreset_mode": mode, "max_episode_steps": 9}
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
