"""What a training begins with: what its model must know, its weights, and what one of keypoints has seen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physgym.compile.native import available
from worldmodels.configs.training import KeypointConfig, PixelConfig, TrainConfig, VisualConfig
from worldmodels.interface import WorldModel
from worldmodels.models.building import build
from worldmodels.training.devices import mixed_dtype
from worldmodels.training.sight import Sighted, sighted
from worldmodels.training.specs import as_begun, spec_of

LONG_ENOUGH = 300
"""Gradients from which on machine code is compiled for a model of states."""

MOST_BYTES = 64 * 2**20
"""Of states (float64) that scales are taken from; they are held about eight times over meanwhile."""


def seeded_model(
    config: TrainConfig,
    dataset: Any,
    made: Sighted | None = None,
    checkpoints: Path | None = None,
) -> WorldModel:
    """Model of ``config`` with weights drawn from its seed, normalised to ``dataset``'s train split.

    ``made``: what one of keypoints has seen of the pictures; its scales are those of its readings.
    ``checkpoints``: of the run that it is for, where that may have begun with an earlier version.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        spec = spec_of(dataset, isinstance(config.model, PixelConfig), config.env.coordinates)
        if checkpoints is not None:
            spec = as_begun(spec, checkpoints)
        model = build(spec, config.model_name, config.model if made is None else made.config)
    if made is not None:
        model.sight.load_state_dict(made.sight.state_dict())
    source = dataset if made is None else made.readings
    model.fit_normaliser(thinned(source.subset("train")))
    return model


def thinned(dataset: Any) -> Any:
    """``dataset``, or of one with more states than scales need every n-th episode: the same on every machine."""
    apart = math.ceil(np.asarray(dataset.states).nbytes / MOST_BYTES)
    return dataset.take(np.arange(0, len(dataset.lengths), apart)) if apart > 1 else dataset


def seen_first(
    config: TrainConfig, dataset: Any, on_step: Callable[[float, str], None] | None
) -> Sighted | None:
    """What a model of keypoints reads before it is trained; None for every other model."""
    if not isinstance(config.model, KeypointConfig):
        return None
    done: dict[str, float] = {}

    def advance(share: float, stage: str) -> None:
        done[stage] = min(done.get(stage, 0.0) + share, 1.0)
        if on_step is not None:
            on_step(0.0, f"{stage} {100 * done[stage]:.0f} %")

    return sighted(config.model, config.seed, dataset, advance)


def accelerate(model: Any, config: TrainConfig, device: str, steps: int) -> None:
    """Make a model quick on ``device``: memory layout, mixed precision, compilation.

    ``steps`` gradients will be taken: where those are few, compiling would take longer than it saves.
    """
    if isinstance(config.model, VisualConfig):
        model.freeze()
        cuda = device.startswith("cuda")
        compiled = config.compile == "on" or (config.compile == "auto" and cuda)
        model.accelerate(mixed_dtype(config.precision, device), compiled)
    elif config.compile == "on" or (config.compile == "auto" and steps >= LONG_ENOUGH):
        if config.compile == "on" and not available():
            warnings.warn(
                "compile='on' finds no llvmlite, and trains by torch: pip install 'physgym[native]'",
                UserWarning,
                stacklevel=2,
            )
        getattr(model, "motion", model).accelerate()
