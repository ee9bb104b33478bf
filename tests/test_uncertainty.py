"""An ensemble's disagreement reaches info, reward and the end of an episode."""

from __future__ import annotations

import numpy as np
import pytest
from model_doubles import assert_same, make_spec, small_model

import physgym
from worldmodels.envs.predictor import calibrate_uncertainty
from worldmodels.envs.single import WorldModelEnv, WorldModelVectorEnv


def test_an_ensemble_tells_its_uncertainty() -> None:
    spec = make_spec("pendulum")
    model = small_model("newtonian", spec, ensemble=3)
    plain, careful = (
        WorldModelVectorEnv(model, 4),
        WorldModelVectorEnv(model, 4, uncertainty_penalty=2.0),
    )
    assert_same(plain.reset(seed=0), careful.reset(seed=0))
    for _ in range(3):
        _, rewards, *_, info = plain.step(np.zeros(4, dtype=np.int64))
        _, reduced, *_ = careful.step(np.zeros(4, dtype=np.int64))
    assert (info["uncertainty"] > 0).all()
    np.testing.assert_allclose(rewards - reduced, 2.0 * info["uncertainty"])
    limit = float(np.median(info["uncertainty"]))
    bounded = WorldModelVectorEnv(model, 4, uncertainty_limit=limit, autoreset_mode="Disabled")
    bounded.reset(seed=0)
    for _ in range(3):
        _, _, _, truncated, info = bounded.step(np.zeros(4, dtype=np.int64))
        if truncated.any():
            break
    np.testing.assert_array_equal(truncated, info["uncertainty"] > limit)
    assert "uncertainty" not in WorldModelEnv(small_model("newtonian", spec)).reset(seed=0)[1]
    assert "uncertainty" in plain.reset(seed=0)[1]


def test_the_limit_of_uncertainty_is_calibrated_on_validation_episodes() -> None:
    class Buffer:
        splits = {"train": np.array([0]), "val": np.array([1, 2])}
        lengths = np.array([3, 2, 3])
        states = np.array([0.1, 0.2, 0.3])[:, None, None] * np.ones((3, 4, 2))
        actions = np.array([[0, 1, 2], [2, 1, 0], [1, 1, 1]])
        params = physgym.get_system("pendulum").Params(*np.ones((5, 3)))._asdict()

    model = small_model("newtonian", make_spec("pendulum"), ensemble=3)
    env = WorldModelVectorEnv(model, 2)
    env.reset(options={"state": Buffer.states[1:, 0]})
    seen = [env.step(Buffer.actions[1:, t])[4]["uncertainty"] for t in range(3)]
    valid = np.concatenate([seen[0], seen[1], seen[2][1:]])
    for quantile in (0.5, 1.0):
        limit = calibrate_uncertainty(model, Buffer(), quantile)
        assert limit == pytest.approx(np.quantile(valid, quantile), rel=1e-5)
    lone = small_model("newtonian", make_spec("pendulum"))
    with pytest.raises(ValueError, match="ensemble"):
        calibrate_uncertainty(lone, Buffer())
    with pytest.raises(ValueError, match="ensemble"):
        WorldModelVectorEnv(lone, 2, uncertainty_limit=limit)
    with pytest.raises(ValueError, match="quantile"):
        calibrate_uncertainty(model, Buffer(), 2.0)
    with pytest.raises(ValueError, match="test"):
        calibrate_uncertainty(model, Buffer(), split="test")
