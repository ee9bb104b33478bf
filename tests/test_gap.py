"""Whether a model plans as well as the truth: intervals, and the words for them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from model_doubles import Perfect, make_spec

import worldmodels
from worldmodels.agents.gap import gap_of, planning_gap, verdict

TRUTH = np.linspace(90.0, 110.0, 16)
CHANCE = np.full(16, 20.0)


def test_what_is_the_same_scores_one() -> None:
    gap = gap_of(TRUTH.copy(), TRUTH, CHANCE, threshold=100.0)
    assert (gap.score, gap.low, gap.high) == pytest.approx((1.0, 1.0, 1.0))
    assert gap.ratio == pytest.approx(1.0) and gap.success == 0.5
    assert gap.verdict == "as good as the truth"


def test_a_model_that_costs_much_is_the_bottleneck() -> None:
    gap = gap_of(TRUTH - 40.0, TRUTH, CHANCE)
    assert gap.score == pytest.approx(0.5, abs=0.01) and gap.high < 0.6
    assert gap.verdict == "model bottleneck" and np.isnan(gap.success)


def test_a_planner_that_gains_nothing_is_the_bottleneck() -> None:
    rng = np.random.default_rng(0)
    same = CHANCE + rng.normal(size=16)
    assert gap_of(same, same, CHANCE).verdict == "planner bottleneck"


def test_few_noisy_episodes_say_nothing() -> None:
    rng = np.random.default_rng(1)
    gap = gap_of(TRUTH + rng.normal(0.0, 60.0, 16), TRUTH, CHANCE)
    assert gap.low < 0.95 and gap.high > 1.0 and gap.verdict == "inconclusive"


def test_starts_are_paired() -> None:
    """The same cost everywhere is seen through starts that differ a hundred times as much."""
    truth = np.linspace(0.0, 2000.0, 16)
    gap = gap_of(truth - 20.0, truth, truth - 200.0)
    assert gap.high - gap.low < 1e-9 and gap.score == pytest.approx(0.9)


def test_negative_returns_have_a_score_and_no_ratio() -> None:
    gap = gap_of(np.full(8, -160.0), np.full(8, -150.0), np.full(8, -1200.0))
    assert np.isnan(gap.ratio) and gap.score == pytest.approx(1040 / 1050)


def test_verdicts() -> None:
    assert verdict(0.96, 1.1, 5.0) == "as good as the truth"
    assert verdict(0.5, 0.99, 5.0) == "model bottleneck"
    assert verdict(0.5, 1.2, 5.0) == "inconclusive"
    assert verdict(0.99, 1.0, -0.1) == "planner bottleneck"


def test_a_perfect_model_plans_as_the_truth_does() -> None:
    def make(count: int) -> Any:
        return gymnasium.make_vec(
            "PhysGym/Oscillator-v0",
            num_envs=count,
            vectorization_mode="vector_entry_point",
            max_episode_steps=24,
        )

    places = {
        "truth": gymnasium.make("PhysGym/Oscillator-v0"),
        "model": Perfect(make_spec("oscillator")),
    }
    found = planning_gap(places, make, 4, horizon=12, samples=16, rounds=1)
    assert found["model"].returns == pytest.approx(found["truth"].returns, rel=1e-6)
    assert found["truth"].returns.mean() > found["random"].returns.mean()
    with pytest.raises(ValueError, match="planning in the 'truth'"):
        worldmodels.planning_gap({"model": places["model"]}, make)
