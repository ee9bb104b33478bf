"""What moves the weights: one optimiser, or one for each part of a model; and how fast, over a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worldmodels.configs.training import OptimConfig
from worldmodels.data.batches import TrainingError
from worldmodels.training.soap import SOAP


class Optimisers:
    """Several optimisers stepped together, one for each part of a model that learns for itself."""

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer]) -> None:
        self.parts = dict(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """One update by each part."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """States of the parts by name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Reverse ``state_dict``."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def optimiser(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer | Optimisers:
    """The optimiser that ``config`` names, over the parameters of ``model`` that are trained.

    Parts that a model lists (``separate_parts``) get one each, with rates over ``config.lr`` where it says so
    (``rate_scales``; ``"scale"`` of a group). Raises ``TrainingError`` for nothing
    to train.
    """
    named: dict[str, Any] = getattr(model, "separate_parts", dict)() or {"all": [model]}
    scales: dict[str, float] = getattr(model, "rate_scales", {})
    made = {}
    for name, modules in named.items():
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        if not parameters:
            continue
        kind = torch.optim.AdamW if config.name == "adam" else SOAP
        made[name] = kind(parameters, lr=config.lr, weight_decay=config.weight_decay)
        for group in made[name].param_groups:
            group["scale"] = scales.get(name, 1.0)
    if not made:
        raise TrainingError("every part of the model is frozen: nothing is left to train")
    return made["all"] if list(made) == ["all"] else Optimisers(made)


def learning_rate(config: OptimConfig, step: int, total: int) -> float:
    """Learning rate of ``step`` (from 0) of ``total``: a pure function, so nothing of it is saved."""
    if config.schedule == "constant":
        return config.lr
    warmup = 0.05 * total if config.schedule == "onecycle" else 0.0
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1.0)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
