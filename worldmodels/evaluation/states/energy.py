"""The energy that a model of states learned, at true states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.statistics import affine_r_squared
from worldmodels.imagination import device_of, evaluating

AT_ONCE = 16_384
"""States in one batch."""


def learned_energy(model: Any, states: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Learned energies (N,) of states (N, D), ``params`` (N, P) in the order of the model's spec.

    Up to a scale and an offset that are the model's own. Raises where the structure has none.
    """
    device, values = device_of(model), []
    with evaluating(model):
        for first in range(0, len(states), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            context = torch.as_tensor(states[rows, None], device=device)
            told = torch.as_tensor(params[rows], device=device)
            values.append(model.energy(model.encode(context, told)).cpu().double().numpy())
    return np.concatenate(values)


def energy_r_squared(model: Any, tasks: Problems) -> float | None:
    """R^2 of the true energy under the best affine map of the learned one.

    None where there is no learned one, or nobody knows the true one. Over every state that the problems visit.
    """
    if not getattr(model, "has_energy", False) or "energy" not in tasks.system.knows:
        return None
    steps = tasks.states.shape[1]
    known = np.concatenate([np.ones_like(tasks.valid[:, :1]), tasks.valid], axis=1)
    told = np.repeat(tasks.param_array(model.spec.param_names), steps, axis=0)
    states = tasks.states.reshape(-1, tasks.states.shape[2])
    truth, kept = tasks.energy(tasks.states).reshape(-1), known.reshape(-1)
    return affine_r_squared(truth[kept], learned_energy(model, states[kept], told[kept]))
