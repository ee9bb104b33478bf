"""What published experiments share: the rows that are missing, a trained model with its cost, marks on every seed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import kept_rows, train_missing, write_json

SEEDS = (0, 1, 2)
Row = dict[str, Any]
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""States (N, D) and actions (N, T, A) to states (N, T, D)."""


def run_missing(
    arguments: argparse.Namespace,
    names: Sequence[str],
    wanted: Iterable[tuple[Any, ...]],
    row_of: Callable[..., Row],
    result_of: Callable[[list[Row]], dict[str, Any]],
) -> list[Row]:
    """The rows of ``arguments.out`` with those of ``wanted`` that it lacks, each written as soon as it is there.

    A row is known by its values under ``names``, and made by ``row_of(arguments, *values)``.
    """
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    for values in wanted:
        if values not in {tuple(row[name] for name in names) for row in rows}:
            rows.append(row_of(arguments, *values))
            write_json(arguments.out, result_of(rows))
    return rows


def trained(config: Any) -> tuple[Any, float | None]:
    """The best model of ``config.out``, trained now where it is not there, and the CPU seconds of that; None where
    it was.
    """
    import worldmodels

    there = (Path(config.out) / "checkpoints" / "best").is_dir()
    began = time.process_time()
    run = train_missing(config)
    seconds = None if there else round(time.process_time() - began, 1)
    return worldmodels.load(run), seconds


def cost(config: Any, model: Any, seconds: float | None) -> Row:
    """What stands beside every score."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "updates": config.epochs * config.optim.steps_per_epoch,
        "cpu_seconds": seconds,
    }


def predictor(model: Any) -> Predict:
    """Open loop from true starts."""
    from worldmodels.imagination import imagine

    def predict(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            latent = model.encode(torch.as_tensor(starts, dtype=torch.float32).unsqueeze(1))
            return imagine(model, latent, torch.as_tensor(actions)).double().numpy()

    return predict


def on_every_seed(values: Sequence[float | None], holds: Callable[[float], bool]) -> str:
    """Of a value a seed, None where it has not run: "missed" where one does not hold, else "reached", or "open" where
    one has not run.
    """
    known = [value for value in values if value is not None]
    if not all(holds(value) for value in known):
        return "missed"
    return "reached" if len(known) == len(values) else "open"
