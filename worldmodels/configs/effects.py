"""Options of a run that were chosen and that nothing in it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worldmodels.configs.keypoints import KeypointConfig
from worldmodels.configs.structures import ADAPTIVE
from worldmodels.configs.training import TrainConfig
from worldmodels.configs.visual import VisualConfig, visual_config

Rule = tuple[str, Any, Any, bool, str]
"""Name of an option, its value, its default, whether nothing reads it, and what would."""


def without_effect(config: TrainConfig) -> list[str]:
    """A line for every option of ``config`` that is not at its default and that the run does not use."""
    model = config.model
    rules = list(_of_run(config))
    if isinstance(model, KeypointConfig):
        rules += _of_structure(model.dynamics, "model.dynamics.")
    elif isinstance(model, VisualConfig):
        rules += [*_of_visual(model), *_of_structure(model.dynamics, "model.dynamics.")]
    else:
        rules += [*_of_states(model), *_of_structure(model, "model.")]
    return [
        f"{name}={value!r} has no effect in this run: it is of {reader}"
        for name, value, default, unread, reader in rules
        if unread and value != default
    ]


def _of_run(config: TrainConfig) -> Iterator[Rule]:
    states, log = config.model_name != "visual", config.log
    own = config.data.image_size
    yield "data.image_size", own, type(config.data)().image_size, states, "models of pictures"
    small, reader = not isinstance(config.model, VisualConfig), "spatial_ and flat_ predictors"
    bfloat = config.precision if config.precision == "bfloat16" else "auto"
    yield "precision", bfloat, "auto", small, reader
    silent = log.wandb == "disabled"
    for name in ("project", "group"):
        default = getattr(type(log)(), name)
        yield f"log.{name}", getattr(log, name), default, silent, "log.wandb other than 'disabled'"


def _of_states(model: Any) -> Iterator[Rule]:
    usual, matching = type(model)(), model.objective == "matching"
    windowed = not matching or model.name == "lstm"
    reader = "objective='shooting' (and of lstm)"
    yield "model.rollout_steps", model.rollout_steps, usual.rollout_steps, not windowed, reader
    grows = model.rollout_growth
    yield "model.rollout_growth", grows, usual.rollout_growth, matching, "objective='shooting'"


def _of_visual(model: VisualConfig) -> Iterator[Rule]:
    usual = visual_config(model.predictor, model.size)
    unread = {
        "latent_channels": (not model.spatial, "spatial_ predictors"),
        "flat_size": (model.spatial, "flat_ predictors"),
        "predictor_weight": (model.training_mode == "hgn", "training_mode='detached'"),
        "pushforward_steps": (model.training_mode == "detached", "training_mode='hgn'"),
    }
    for name, (idle, reader) in unread.items():
        yield f"model.{name}", getattr(model, name), getattr(usual, name), idle, reader


def _of_structure(model: Any, where: str) -> Iterator[Rule]:
    usual = type(model)()
    if hasattr(model, "integrator"):
        adaptive = model.method in ADAPTIVE
        for name in ("rtol", "atol"):
            own, default = getattr(model, name), getattr(usual, name)
            yield (
                f"{where}{name}",
                own,
                default,
                not adaptive,
                "adaptive integrators such as dopri5",
            )
        yield f"{where}substeps", model.substeps, usual.substeps, adaptive, "fixed-step integrators"
    if hasattr(model, "separable"):
        quadratic = model.mass == "network"
        reader = "mass='identity', 'diagonal' or 'full'" if quadratic else "separable=True"
        idle = quadratic or not model.separable
        yield f"{where}kinetic", model.kinetic, usual.kinetic, idle, reader
