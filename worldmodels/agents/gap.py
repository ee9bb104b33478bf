"""Does a model plan as well as the truth? The same planner, starts and seeds in both, and what is between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.agents.planning import Planner
from worldmodels.agents.returns import evaluate_agent

RESAMPLES = 10_000
"""Of the bootstrap."""
MARGIN = 0.05
"""Share of what the planner earns over chance in the truth that a model may cost and still count as good."""


class Gap(NamedTuple):
    """What planning in a model costs, over N episodes that the truth was planned in, too."""

    returns: np.ndarray
    """(N,) in the truth, planned in the model."""
    ratio: float
    """Mean return over that of planning in the truth; NaN where that is not positive."""
    score: float
    """Share of what the truth earns over chance: 1 is as good as the truth, 0 as chance."""
    low: float
    high: float
    """95 % interval of ``score``: paired percentile bootstrap over episodes."""
    success: float
    """Share of the episodes that reach the env's reward threshold; NaN where it has none."""
    verdict: str
    """In words: as good as the truth, model bottleneck, planner bottleneck or inconclusive."""


def planning_gap(
    places: Mapping[str, Any],
    make_env: Callable[[int], VectorEnv],
    episodes: int = 16,
    seed: int = 0,
    threshold: float | None = None,
    advance: Callable[[str], object] = lambda name: None,
    **planner: Any,
) -> dict[str, Gap]:
    """Plan in every place, act in the truth, and compare what is earned.

    Args:
        places: what `Planner` takes, by name; "truth" must be among them.
        make_env: the true vector env of so many rows, which start as the task says.
        episodes: N; episode i starts from seed + i wherever it is planned.
        seed: of starts and planners.
        threshold: return of an episode that counts as success.
        advance: told the name of each place that is done.
        planner: arguments of `Planner`.

    Returns:
        a `Gap` by name, that of chance (actions drawn at random) as "random".

    Raises:
        ValueError: no "truth"; as `Planner`.
    """
    if "truth" not in places:
        raise ValueError(
            f"places={list(places)} are not valid: planning in the 'truth' is what they are held to"
        )
    returns = {"random": _chance(make_env, episodes, seed)}
    for name, place in places.items():
        env = make_env(episodes)
        act = Planner(place, seed=seed, **planner)
        returns[name] = evaluate_agent(act, env, seed).returns
        env.close()
        advance(name)
    truth, chance = returns["truth"], returns["random"]
    return {
        name: gap_of(values, truth, chance, threshold, seed) for name, values in returns.items()
    }


def _chance(make_env: Callable[[int], VectorEnv], episodes: int, seed: int) -> np.ndarray:
    env = make_env(episodes)
    env.action_space.seed(seed)
    found = evaluate_agent(lambda seen: env.action_space.sample(), env, seed).returns
    env.close()
    return found


def gap_of(
    returns: np.ndarray,
    truth: np.ndarray,
    chance: np.ndarray,
    threshold: float | None = None,
    seed: int = 0,
) -> Gap:
    """What ``returns`` (N,) are worth beside those of the ``truth`` and of ``chance`` on the same starts."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(returns), size=(RESAMPLES, len(returns)))
    drawn = [values[rows].mean(1) for values in (returns, truth, chance)]
    with np.errstate(all="ignore"):
        scores = (drawn[0] - drawn[2]) / (drawn[1] - drawn[2])
    gains = truth - chance
    low, high = np.quantile(np.nan_to_num(scores), (0.025, 0.975))
    gained = np.quantile(gains[rows].mean(1), 0.025)
    score = float((returns.mean() - chance.mean()) / gains.mean()) if gains.mean() else np.nan
    ratio = float(returns.mean() / truth.mean()) if truth.mean() > 0 else np.nan
    success = np.nan if threshold is None else float((returns >= threshold).mean())
    return Gap(
        returns, ratio, score, float(low), float(high), success, verdict(low, high, float(gained))
    )


def verdict(low: float, high: float, gained: float) -> str:
    """In words, of the interval of a score, and the least that the truth gains over chance."""
    if gained <= 0.0:
        return "planner bottleneck"  # even in the truth it does not beat chance
    if low >= 1.0 - MARGIN:
        return "as good as the truth"
    return "model bottleneck" if high < 1.0 else "inconclusive"
