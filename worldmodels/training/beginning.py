"""What a training begins with: what its model must know, its weights, and what one of keypoints has seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worldmodels.configs.training import (
    KeypointConfig,
    PixelConfig,
    TrainConfig,
    VisualConfig,
    coordinates_of,
)
from worldmodels.data.frames import check_pictures
from worldmodels.interface import Spec, WorldModel
from worldmodels.models.building import build
from worldmodels.training.devices import mixed_dtype
from worldmodels.training.sight import Sighted, sighted

MOST_BYTES = 64 * 2**20
"""Of states (float64) that scales are taken from; they are held about eight times over meanwhile."""


def spec_of(dataset: Any, visual: bool = False, coordinates: str | None = None) -> Spec:
    """What a model must know of the env that ``dataset`` came from; its pictures if ``visual``.

    ``coordinates``: those of a foreign env's observations; None: what is known of it.
    """
    import physgym

    system = physgym.system_of(dataset)
    discrete, own = dataset.actions.ndim == 2, "parameters" in system.knows
    known = None if own or visual else coordinates_of(coordinates, system)
    return Spec(
        env_name=system.name,
        env_kwargs=dict(dataset.env_kwargs),
        dt=float(dataset.dt),
        state_size=system.state_size,
        angles=tuple(system.angles) if known is None else known.angle_observations,
        action_kind="discrete" if discrete else "continuous",
        action_size=system.action_count if discrete else system.action_size,
        param_names=tuple(dataset.params),
        max_episode_steps=int(system.max_episode_steps),
        image_size=check_pictures(dataset) if visual else 0,
        foreign=not own,
        coordinates="" if known is None else known.text,
    )


def seeded_model(config: TrainConfig, dataset: Any, made: Sighted | None = None) -> WorldModel:
    """Model of ``config`` with weights drawn from its seed, normalised to ``dataset``'s train split.

    ``made``: what one of keypoints has seen of the pictures; its scales are those of its readings.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        spec = spec_of(dataset, isinstance(config.model, PixelConfig), config.env.coordinates)
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


def accelerate(model: Any, config: TrainConfig, device: str) -> None:
    """Make a visual model quick on ``device``: memory layout, mixed precision, compilation."""
    if not isinstance(config.model, VisualConfig):
        return
    model.freeze()
    compiled = config.compile == "on" or (config.compile == "auto" and device.startswith("cuda"))
    model.accelerate(mixed_dtype(config.precision, device), compiled)
