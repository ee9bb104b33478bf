"""What plans are worth: the futures that they lead to, summed up, and the slope of that sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodels.agents.simulators import Seen, Simulator


class Problem(NamedTuple):
    """K rows to plan for. Plans (K, S, blocks[, A]) hold each of their actions for `hold` steps."""

    simulator: Simulator
    seen: Seen
    horizon: int
    """Steps that a plan is imagined for."""
    hold: int
    batch: int
    """Most futures at once."""

    def score(self, plans: np.ndarray) -> np.ndarray:
        """Returns (K, S) of plans, for ranking: a lost future stands behind all others of its row."""
        totals, missed = zip(
            *(_returns(self, rows, flat) for rows, flat in self._parts(plans)), strict=True
        )
        shape = plans.shape[:2]
        return ranked(np.concatenate(totals).reshape(shape), np.concatenate(missed).reshape(shape))

    def slope(self, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (K, S) of continuous plans (K, S, blocks, A), and their gradients in the plans.

        Raises ValueError where the simulator, the reward or the cost has no gradients.
        """
        totals, missed, slopes = zip(
            *(_slopes(self, rows, flat) for rows, flat in self._parts(plans)), strict=True
        )
        shape = plans.shape[:2]
        scores = ranked(
            np.concatenate(totals).reshape(shape), np.concatenate(missed).reshape(shape)
        )
        return scores, np.concatenate(slopes).reshape(plans.shape)

    def _parts(self, plans: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The rows (B,) and plans (B, blocks[, A]) of at most `batch` futures at a time."""
        count, samples = plans.shape[:2]
        rows = np.repeat(np.arange(count), samples)
        flat = plans.reshape(count * samples, *plans.shape[2:])
        at = range(0, len(rows), self.batch)
        return [(rows[i : i + self.batch], flat[i : i + self.batch]) for i in at]


def ranked(totals: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Returns (K, S) in which a future that was lost `missed` > 0 steps before its end ranks behind all others
    of its row, the earlier lost the further.
    """
    sound = missed == 0
    low = np.where(sound, totals, np.inf).min(axis=1, keepdims=True)
    high = np.where(sound, totals, -np.inf).max(axis=1, keepdims=True)
    some = np.isfinite(low) & np.isfinite(high)
    low = np.where(some, low, 0.0)
    room = np.where(some, high - low, 0.0) + 1e-9 + 1e-6 * abs(low)
    share = missed / np.maximum(missed.max(axis=1, keepdims=True), 1)
    return np.where(sound, totals, low - room * share)


def _returns(
    problem: Problem, rows: np.ndarray, plans: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of rewards (B,), and how many steps (B,) were missed for being lost."""
    simulator, horizon = problem.simulator, problem.horizon
    carry = simulator.begin(problem.seen, rows)
    total, missed = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    going = np.ones(len(rows), dtype=np.bool_)
    for t in range(horizon):
        moment = simulator.advance(carry, plans[:, t // problem.hold])
        carry, rewards = moment.carry, moment.rewards
        lost = going & (moment.lost | ~np.isfinite(rewards))
        missed[lost] = horizon - t
        going = going & ~lost
        total[going] += rewards[going]
        ended = going & moment.ended
        if simulator.cost is not None:
            total[ended] += (horizon - t - 1) * rewards[ended]
        going = going & ~ended
        if not going.any():
            break
    return total, missed


def _slopes(
    problem: Problem, rows: np.ndarray, plans: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_returns`, and the gradients (B, blocks, A) of the sums."""
    simulator, horizon = problem.simulator, problem.horizon
    missed, going = np.zeros(len(rows), dtype=np.int64), np.ones(len(rows), dtype=np.bool_)
    with torch.inference_mode(False), torch.enable_grad():
        moves = torch.tensor(plans, dtype=torch.float64, requires_grad=True)
        carry = simulator.begin_tensors(problem.seen, rows)
        total: Any = torch.zeros(len(rows), dtype=torch.float64)
        for t in range(horizon):
            moment = simulator.advance_tensors(carry, moves[:, t // problem.hold])
            carry, rewards = moment.carry, moment.rewards.cpu().double()
            lost = going & (moment.lost | ~rewards.detach().isfinite().numpy())
            missed[lost] = horizon - t
            going = going & ~lost
            ended = going & moment.ended.detach().cpu().numpy()
            rest = 1.0 + (ended * (horizon - t - 1.0) if simulator.cost is not None else 0.0)
            weight = torch.as_tensor(going * rest)
            total = total + weight * torch.where(weight > 0.0, rewards, 0.0)
            going = going & ~ended
            if not going.any():
                break
        if not total.requires_grad:
            raise ValueError(
                "method='gradient' needs a reward that changes with the actions: this one has no gradients"
            )
        (slope,) = torch.autograd.grad(total.sum(), moves)
    return total.detach().numpy(), missed, np.nan_to_num(slope.numpy(), posinf=0.0, neginf=0.0)
