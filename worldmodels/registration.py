"""Makes learned envs known to Gymnasium, and structures to everything; imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec

from physgym import plugins

if TYPE_CHECKING:
    from worldmodels.interface import Dynamics

Structure = TypeVar("Structure", bound="type[Dynamics]")

ENV_ID = "WorldModels/Learned-v0"


def register() -> None:
    """Register `WorldModels/Learned-v0`, once: `gymnasium.make(ENV_ID, checkpoint="runs/x")`.

    The time limit, the spaces and the dt come from the checkpoint, so none is registered here;
    the envs add what they know of it to their own `spec`.
    """
    if ENV_ID in gymnasium.registry:
        return
    gymnasium.register(
        id=ENV_ID,
        entry_point="worldmodels.envs.single:made_by_gymnasium",
        vector_entry_point="worldmodels.envs.single:WorldModelVectorEnv",
    )


def completed(spec: EnvSpec | None, limit: int | None, threshold: float | None) -> EnvSpec | None:
    """A copy of `spec` with time limit and reward threshold where it says neither."""
    if spec is None:
        return None
    spec = copy.copy(spec)
    if spec.max_episode_steps is None:
        spec.max_episode_steps = limit
    if spec.reward_threshold is None:
        spec.reward_threshold = threshold
    return spec


def register_structure(name: str, config: Any) -> Callable[[Structure], Structure]:
    """Class decorator: make a `Dynamics` known as the structure `name`, built from a `config` of its options.

    Registered, it is a model over states, and over pixels as spatial_<name>, flat_<name> and
    keypoint_<name>, to every command, config, run, report and plot. Registering the same class again does
    nothing; one that is defined anew (a notebook's cell that runs twice) takes the place of the one before.

    Args:
        name: lower-case letters, digits and _.
        config: a frozen dataclass below `ModelConfig` (`FlowConfig`, where a flow is integrated), its own: the
            structure of a config is found by its type. Docstrings under its fields are their help.

    Raises:
        TypeError: not a `Dynamics`, or no such config.
        ValueError: a name that is malformed or another's, a config that is another's or has no defaults.
    """

    def add(kind: Structure) -> Structure:
        from worldmodels.configs.extension import check_structure, enter, leave
        from worldmodels.interface import STRUCTURES, check_dynamics

        check_dynamics(kind, name)
        before = check_structure(name, config, STRUCTURES.get(name), kind)
        if STRUCTURES.get(name) is kind and before is config:
            return kind
        replaced = STRUCTURES.get(name)
        enter(name, config)
        STRUCTURES[name] = kind

        def undo() -> None:
            leave(name)
            STRUCTURES.pop(name, None)
            if before is not None and replaced is not None:
                enter(name, before)
                STRUCTURES[name] = replaced

        plugins.JOURNAL.append(plugins.Entry("structure", name, kind.__module__, undo))
        return kind

    return add
