"""What a model is told of the env it learns: of a buffer, and as a run began that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldmodels.configs.training import coordinates_of
from worldmodels.data.frames import check_pictures
from worldmodels.interface import Spec
from worldmodels.models.inputs import idle_action
from worldmodels.training.resumption import newest_document


def spec_of(dataset: Any, visual: bool = False, coordinates: str | None = None) -> Spec:
    """What a model must know of the env that ``dataset`` came from; its pictures if ``visual``.

    ``coordinates``: those of a foreign env's observations; None: what is known of it.
    """
    import physgym

    system = physgym.system_of(dataset)
    discrete, own = dataset.actions.ndim == 2, "parameters" in system.knows
    known = None if own or visual else coordinates_of(coordinates, system)
    spec = Spec(
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
    return replace(spec, idle=idle_action(spec))


def as_begun(spec: Spec, checkpoints: Path) -> Spec:
    """``spec`` as a run began: without the idle action where that was before checkpoints told it.

    (A structure that relies on it has other weights, which could not go on.)
    """
    before = newest_document(checkpoints).get("spec")
    unsaid = isinstance(before, Mapping) and "idle" not in before
    return replace(spec, idle=None) if unsaid else spec
