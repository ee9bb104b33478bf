"""What an agent earns over the true steps that it cost, with a model and without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.evaluation.plots import color_of
from worldmodels.films.mosaics import figure_at


def returns_over_true_steps(record: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the rows of a loop's record (`worldmodels.loops.loop.run`) into ``path``, and return it."""
    config = record["config"]
    with figure_at(path, figsize=(7.2, 4.2), layout="constrained") as figure:
        axes = figure.add_subplot()
        _line(axes, record["rows"], f"{config['agent']} in the model", color_of(config["model"]))
        if record["model_free"]:
            _line(axes, record["model_free"], f"{config['agent']} in the truth", "#555555")
            axes.set_xscale("log")
        axes.set_xlabel("true steps")
        axes.set_ylabel("return in the truth")
        axes.set_title(
            f"{config['env']}, {config['model']} x {config['ensemble']}: true steps and return"
        )
        axes.legend()
    return Path(path)


def _line(axes: Any, rows: Any, label: str, color: str) -> None:
    axes.errorbar(
        [row["true_steps"] for row in rows],
        [row["return"] for row in rows],
        [row["standard_error"] for row in rows],
        label=label,
        color=color,
        marker="o",
        markersize=3,
        capsize=2,
    )
