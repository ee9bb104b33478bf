"""What a model learned of the rewards and ends of an env that nobody else knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldmodels.evaluation.problems import Problems
from worldmodels.imagination import device_of, evaluating, forecast

AT_ONCE = 16_384
"""Transitions in one batch."""


def outcome_scores(model: Any, tasks: Problems) -> dict[str, float]:
    """R^2 of rewards, recall and precision of ends, and how rollouts end; NaN where there is nothing to tell.

    ``reward_r_squared``, ``end_recall`` and ``end_precision`` at true transitions; ``rollout_reward_r_squared``
    at imagined ones. ``ends_early`` and ``ends_late``: shares of the rollouts whose imagined end comes before
    the true one (or where there is none within them), or after it (or not at all).
    """
    truth = tasks.states
    seen = judged(model, truth[:, :-1], tasks.actions, truth[:, 1:])
    told = tasks.param_array(model.spec.param_names)
    future = forecast(model, truth[:, :1], tasks.actions, told, tasks.dt)
    before = np.concatenate([truth[:, :1], future[:, :-1]], 1)
    return compared(tasks, seen, judged(model, before, tasks.actions, future))


def compared(
    tasks: Problems, seen: tuple[np.ndarray, np.ndarray], imagined: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """``outcome_scores`` of learned rewards (B, T) and ends (B, T) bool of transitions ``seen`` in the truth, and
    of those ``imagined``.
    """
    (reward, ended), (dreamt, stopped) = seen, imagined
    known, over = np.asarray(tasks.rewards), np.asarray(tasks.terminated)
    valid, hits = tasks.valid, ended & over & tasks.valid
    early, late = _ends(stopped, over, valid)
    return {
        "reward_r_squared": r_squared(known[valid], reward[valid]),
        "rollout_reward_r_squared": r_squared(known[valid], dreamt[valid]),
        "end_recall": _ratio(hits.sum(), (over & valid).sum()),
        "end_precision": _ratio(hits.sum(), (ended & valid).sum()),
        "ends_early": early,
        "ends_late": late,
    }


def judged(
    model: Any, before: np.ndarray, actions: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Learned rewards (B, T) and ends (B, T) bool of transitions (B, T, D)."""
    device, shape = device_of(model), actions.shape[:2]
    rows = [values.reshape(-1, *values.shape[2:]) for values in (before, actions, after)]
    rewards, ends = [], []
    with evaluating(model):
        for first in range(0, len(rows[0]), AT_ONCE):
            part = [values[first : first + AT_ONCE] for values in rows]
            states = [torch.as_tensor(v, dtype=torch.float32, device=device) for v in part[::2]]
            reward, logit = model.judge(
                states[0], torch.as_tensor(part[1], device=device), states[1]
            )
            rewards.append(reward.double().cpu().numpy())
            ends.append((logit > 0.0).cpu().numpy())
    return np.concatenate(rewards).reshape(shape), np.concatenate(ends).reshape(shape)


def r_squared(truth: np.ndarray, guess: np.ndarray) -> float:
    """Share of the variance of ``truth`` (N,) that ``guess`` explains; of what never varies, 1 if it is right
    to 1e-3 of its size, else 0. What is not finite explains nothing.
    """
    guess = np.where(np.isfinite(guess), guess, 0.0)
    variance = float(((truth - truth.mean()) ** 2).mean()) if len(truth) else 0.0
    if not len(truth):
        return float("nan")
    wrong = float(((truth - guess) ** 2).mean())
    size = float((truth**2).mean())
    if variance <= 1e-12 * max(size, 1e-300):
        return float(wrong <= 1e-6 * max(size, 1e-300))
    return 1.0 - wrong / variance


def _ends(stopped: np.ndarray, over: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Shares of rollouts that end too early, and too late."""
    steps = stopped.shape[1]
    first = np.where((stopped & valid).any(1), (stopped & valid).argmax(1), steps)
    true = np.where((over & valid).any(1), (over & valid).argmax(1), steps)
    return float((first < true).mean()), float((first > true).mean())


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else float("nan")
