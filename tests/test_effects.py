"""Options that a run does not use are said, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from worldmodels.configs.effects import without_effect
from worldmodels.configs.training import KINDS, PREDICTORS, TrainConfig, default_config


def changed(base: TrainConfig, **changes: Any) -> TrainConfig:
    """A config with fields of its parts changed: `model={"rtol": 1e-3}`."""
    parts = {
        name: replace(getattr(base, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(base, **parts)


@pytest.mark.parametrize("name", KINDS)
def test_defaults_are_all_used(name: str) -> None:
    for system in ("pendulum", "spaceship", "three_body"):
        assert without_effect(default_config(system, name)) == []


def test_defaults_of_every_predictor_are_used() -> None:
    for predictor in PREDICTORS:
        for size in ("tiny", "small", "base"):
            assert without_effect(default_config("pendulum", "visual", predictor, size)) == []


@pytest.mark.parametrize(
    ("model", "changes", "named"),
    [
        ("jump", {"model": {"rollout_steps": 20}}, "model.rollout_steps=20 "),
        ("jump", {"model": {"rollout_growth": True}}, "model.rollout_growth=True "),
        ("jump", {"model": {"rollout_steps": 20, "objective": "shooting"}}, ""),
        ("lstm", {"model": {"rollout_steps": 20, "objective": "matching"}}, ""),
        ("first_order", {"model": {"rtol": 1e-3}}, "model.rtol=0.001 "),
        ("first_order", {"model": {"rtol": 1e-3, "integrator": "dopri5"}}, ""),
        ("first_order", {"model": {"substeps": 2, "integrator": "dopri5"}}, "model.substeps=2 "),
        ("port_hamiltonian", {"model": {"mass": "network"}}, ""),
        (
            "port_hamiltonian",
            {"model": {"mass": "network", "kinetic": "network"}},
            "model.kinetic='network' ",
        ),
        ("jump", {"data": {"image_size": 32}}, "data.image_size=32 "),
        ("jump", {"precision": "bfloat16"}, "precision='bfloat16' "),
        ("jump", {"precision": "float32"}, ""),
        ("jump", {"compile": "on"}, ""),
        ("jump", {"log": {"group": "g"}}, "log.group='g' "),
        ("jump", {"log": {"group": "g", "wandb": "offline"}}, ""),
        ("visual", {"model": {"flat_size": 32}}, "model.flat_size=32 "),
        ("visual", {"model": {"latent_channels": 16}}, ""),
        ("visual", {"model": {"predictor_weight": 2.0}}, "model.predictor_weight=2.0 "),
        ("visual", {"precision": "bfloat16", "compile": "on"}, ""),
    ],
)
def test_what_nothing_reads_is_said(model: str, changes: dict[str, Any], named: str) -> None:
    lines = without_effect(changed(default_config("pendulum", model), **changes))
    assert [line.partition("has no effect")[0] for line in lines] == ([named] if named else [])
