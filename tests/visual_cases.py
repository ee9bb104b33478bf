"""Small visual models and buffers that several test files use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from data_cases import Log
from model_doubles import build_model

from worldmodels.configs.training import PREDICTORS, TrainConfig, default_config
from worldmodels.data import CollectConfig, Dataset, collect, load_dataset
from worldmodels.interface import Batch, Spec
from worldmodels.storage.checkpoint import load
from worldmodels.training import fit as training

SIDE = 16
"""Height and width of the smallest pictures."""
FOUND = {"points": 1, "coordinates": "circle", "sprite_reach": 4}
"""What a model of keypoints would find in pictures of a pendulum."""
VAES = [name for name in PREDICTORS if not name.startswith("keypoint_")]
"""Predictors behind the beta-VAE."""
KEYPOINTS = [name for name in PREDICTORS if name.startswith("keypoint_")]
"""Predictors of what is read."""


def tiny_config(predictor: str = "spatial_jump", **options: Any) -> Any:
    """Config of the smallest visual model of pictures of `SIDE`."""
    config = default_config("pendulum", "visual", predictor, "tiny").model
    if predictor.startswith("keypoint_"):
        return replace(config, **{**FOUND, **options})
    return replace(config, spatial_size=4, **options)


def tiny_spec(kind: str = "discrete", size: int = 3, **values: Any) -> Spec:
    """Spec of a pendulum seen in pictures of `SIDE`."""
    fields = {"dt": 0.05, "angles": (0,), "image_size": SIDE, **values}
    return Spec("pendulum", action_kind=kind, action_size=size, **fields)


def tiny_model(predictor: str = "spatial_jump", spec: Spec | None = None, **options: Any) -> Any:
    """An untrained model, always the same one."""
    torch.manual_seed(0)
    model = build_model(spec or tiny_spec(), tiny_config(predictor, **options))
    if predictor.startswith("keypoint_"):
        open_eyes(model)
    return model


def open_eyes(model: Any, frames: torch.Tensor | None = None) -> None:
    """Let a model of keypoints see orange discs of 4 pixels on black, or such discs as in `frames` (N, S, S, 3)."""
    sight, kind = model.sight, torch.float32
    orange, radius = torch.tensor([[0.9, 0.62, 0.0]], dtype=kind), torch.tensor([2.0], dtype=kind)
    sight.sprites.begin(torch.zeros_like(sight.reader.background), orange, radius)
    sight.reader.colours.copy_(orange)
    sight.reader.radius.copy_(radius)
    sight.reader.mass.fill_(1.0)
    if frames is None:
        drawn = sight.sprites(torch.zeros(1, 1, 2, dtype=kind))
    else:
        drawn = frames.permute(0, 3, 1, 2).to(kind) / 255.0
    sight.reader.mass.copy_(sight.reader(drawn).seen.median(0).values)
    model.reach.fill_(10.0)


def drawn_batch(model: Any, rows: int, steps: int, actions: torch.Tensor) -> Batch:
    """Windows in which a disc goes round; coordinates and rates stand where states do."""
    generator = torch.Generator().manual_seed(1)
    start = 6.0 * torch.rand((rows, 1), generator=generator)
    rate = 0.2 + 0.2 * torch.rand((rows, 1), generator=generator)
    angle = start + rate * torch.arange(steps + 1)
    radii = torch.full((rows, steps + 1, 1), 0.5)
    places = model.sight.chart.points(angle.unsqueeze(2).to(model.reach.dtype), radii)
    frames = model.sight.sprites(places.flatten(0, 1).to(model.reach.dtype))
    frames = (255.0 * frames.clamp(0.0, 1.0)).round().to(torch.uint8).permute(0, 2, 3, 1)
    return Batch(
        torch.stack((angle, rate.expand_as(angle) / model.spec.dt), 2).to(model.reach.dtype),
        actions,
        torch.rand((rows, len(model.spec.param_names)), generator=generator),
        torch.ones(rows, steps, dtype=torch.bool),
        frames.unflatten(0, (rows, steps + 1)),
        torch.rand((rows, steps), generator=generator),
        torch.zeros(rows, steps, dtype=torch.bool),
    )


def random_batch(model: Any, rows: int = 3, steps: int = 4) -> Batch:
    """Windows of noise that fit `model`."""
    spec, before = model.spec, model.context_frames - 1
    count, generator = before + steps, torch.Generator().manual_seed(1)
    if spec.action_kind == "discrete":
        actions = torch.randint(0, spec.action_size, (rows, count), generator=generator)
    else:
        actions = torch.rand((rows, count, spec.action_size), generator=generator) * 2 - 1
    if model.config.latent == "keypoint":
        return drawn_batch(model, rows, count, actions)
    size = spec.image_size
    shape = (rows, count + 1, size, size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Batch(
        torch.zeros(rows, count + 1, spec.state_size),
        actions,
        torch.rand((rows, len(spec.param_names)), generator=generator),
        torch.ones(rows, count, dtype=torch.bool),
        frames,
        torch.rand((rows, count), generator=generator),
        torch.zeros(rows, count, dtype=torch.bool),
    )


def pictures(folder: Path, env: str = "oscillator", **values: Any) -> Dataset:
    """A small buffer with pictures, collected into `folder`."""
    options = {"episodes": 12, "steps": 16, "image_size": SIDE, "seed": 3, **values}
    config = CollectConfig(env=env, name="pictures", pixels=True, **options)
    return load_dataset(collect(config, folder, progress=False))


def tiny_training(predictor: str = "spatial_jump", **model: Any) -> TrainConfig:
    """The shortest training of a visual model on `pictures`."""
    config = default_config("oscillator", "visual", predictor, "tiny")
    optim = replace(config.optim, steps_per_epoch=3, batch_size=4)
    return replace(
        config,
        model=tiny_config(predictor, **model),
        optim=optim,
        epochs=2,
        validation_steps=6,
        device="cpu",
        precision="float32",
        save_seconds=0.0,
    )


def fitted(config: TrainConfig, dataset: Dataset, folder: Path, **options: Any) -> Any:
    """(result, model, lines announced) of a training in `folder`."""
    lines: list[str] = []
    run = SimpleNamespace(checkpoints=folder / "checkpoints")
    result = training.fit(config, dataset, run, Log(), announce=lines.append, **options)
    return result, load(folder / "checkpoints" / "last"), "\n".join(lines)


def trained_on_oscillator(predictor: str, folder: Path) -> tuple[Any, Dataset]:
    """A model that has learned the oscillator in pictures of 32 pixels, in about a minute on one core."""
    dataset = pictures(folder, episodes=150, steps=40, image_size=32)
    config = default_config("oscillator", "visual", predictor, "tiny")
    dynamics = replace(config.model.dynamics, hidden=16)
    model = replace(
        config.model,
        spatial_size=4,
        width=16,
        transform_width=16,
        rollout_steps=10,
        dynamics=dynamics,
    )
    optim = replace(config.optim, steps_per_epoch=400, batch_size=16)
    config = replace(config, model=model, optim=optim, epochs=4, validation_steps=10, device="cpu")
    return fitted(config, dataset, folder)[1], dataset
