"""What agents earned while they trained, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodels.evaluation.plots import ORACLE, color_of
from worldmodels.films.mosaics import figure_at


class Trained(NamedTuple):
    """One agent's training."""

    steps: int
    """Env steps of it."""
    rows: Sequence[Mapping[str, Any]]
    """`env_steps`, `agent/return` and `agent/return_std` of the episodes that ended up to there."""
    earned: float | None = None
    """What it earns in the truth once it is trained, acting greedily."""
    error: float | None = None
    """Standard error of that."""


def returns_over_steps(
    agents: Mapping[str, Trained], path: str | Path, title: str, structure: str = ""
) -> Path:
    """Draw the mean return of training episodes over env steps, one line a place that an agent trained in.

    The bands are a standard deviation of episodes; a point at the end is what the agent earns in the truth. The line
    of the place "model" has the colour of its ``structure``, any other that of the truth.
    """
    with figure_at(path, figsize=(7.6, 4.4), layout="constrained") as figure:
        axes = figure.subplots()
        for place, trained in agents.items():
            style = {"color": color_of(structure) if place == "model" else ORACLE["color"]}
            steps, mean, spread = (
                np.array([row[key] for row in trained.rows], np.float64)
                for key in ("env_steps", "agent/return", "agent/return_std")
            )
            axes.plot(steps, mean, label=f"trained in the {place}", marker=".", **style)
            axes.fill_between(steps, mean - spread, mean + spread, alpha=0.18, linewidth=0, **style)
            if trained.earned is not None:
                axes.errorbar(
                    [trained.steps], [trained.earned], yerr=[trained.error or 0.0],
                    marker="D", markersize=7, capsize=3, linestyle="none", label="then, in the truth", **style,
                )  # fmt: skip
        axes.set_xlim(0, 1.03 * max(trained.steps for trained in agents.values()))
        axes.set_xlabel("env steps")
        axes.set_ylabel("return of an episode")
        known = any(trained.rows for trained in agents.values())
        axes.set_title(title if known else f"{title} (no episode ended)")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return Path(path)
