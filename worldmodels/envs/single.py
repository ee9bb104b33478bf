"""Learned envs: a world model behind Gymnasium's interfaces, with the true env's spaces and task.

(TorchRL has a `WorldModelEnv` of its own, over TensorDicts; this one is Gymnasium's.)
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

from physgym.autoreset import parse_autoreset_mode, parse_seed
from physgym.env import RENDER_MODES
from physgym.foreign.pictures import Pictured
from physgym.keyboard import keys_to_action, played
from physgym.task import Task
from worldmodels.envs.quick import QuickRow, quick_row
from worldmodels.envs.task import arguments_of, find_system, parse_action
from worldmodels.envs.vector import WorldModelVectorEnv, resolve_model
from worldmodels.interface import Spec, WorldModel
from worldmodels.registration import completed

__all__ = ["WorldModelEnv", "WorldModelVectorEnv", "make_env", "make_truth", "resolve_model"]


class WorldModelEnv(gymnasium.Env[Any, Any]):
    """A world model as a single Gymnasium env: one row of a `WorldModelVectorEnv`.

    Args:
        model: a `WorldModel`, or the run or checkpoint folder of one.
        checkpoint: the same, for `gymnasium.make("WorldModels/Learned-v0", checkpoint="runs/x")`.
        render_mode: "rgb_array" or "human".
        arguments: those of `WorldModelVectorEnv`, less num_envs and autoreset_mode.

    The time limit is inside: the env itself returns truncated=True at the true env's limit, or at the
    `max_episode_steps` given to it or to `gymnasium.make` (-1: at none).

    Raises:
        ValueError: as `WorldModelVectorEnv`.
        gymnasium.error.ResetNeeded: step before reset or after the end.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 20}

    def __init__(
        self,
        model: WorldModel | str | Path | None = None,
        *,
        checkpoint: str | Path | None = None,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            allowed = ", ".join(RENDER_MODES)
            raise ValueError(f"render_mode={render_mode!r} is neither None nor one of {allowed}")
        if "autoreset_mode" in arguments:
            raise ValueError("autoreset_mode= is of vector envs: give num_envs=, too")
        mode = AutoresetMode.DISABLED
        self._rows = WorldModelVectorEnv(
            model, 1, checkpoint=checkpoint, autoreset_mode=mode, **arguments
        )
        self.render_mode = render_mode
        fps = self._rows.metadata["render_fps"]
        self.metadata = {"render_modes": list(RENDER_MODES), "render_fps": fps}
        self.observation_space = self._rows.single_observation_space
        self.action_space = self._rows.single_action_space
        self._spec: EnvSpec | None = None
        self._window: Any = None
        self._over = True
        self._played = False
        self._quick: QuickRow | None = None

    @property
    def model(self) -> WorldModel:
        """The world model."""
        return self._rows.model

    @property
    def task(self) -> Task:
        """The true env's arguments, and what follows from them."""
        return self._rows.task

    @property
    def given(self) -> dict[str, Any]:
        """Functions that were given in place of what was learned of a foreign env's rewards and ends."""
        return self._rows.given

    @property
    def system(self) -> Any:
        """The `physgym.System` that the model learned."""
        return self._rows.task.system

    @property
    def spec(self) -> EnvSpec | None:
        """What `gymnasium.make` was asked for, with the time limit and the reward threshold."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        rows = self._rows
        self._spec = completed(spec, rows.max_episode_steps, rows.task.system.reward_threshold)

    @property
    def dt(self) -> float:
        """Seconds a step."""
        return self._rows.dt

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options` may hold "state", "params" and "randomize"."""
        super().reset(seed=None if seed is None else parse_seed(seed))
        self._rows.use_generator(0, self.np_random)
        self._rows.begin(None, options)
        self._over = False
        self._quick = quick_row(self._rows, self._quick)
        if self.render_mode == "human":
            self._show()
        if self._quick is not None:
            return self._quick.beginning()
        return _first(self._rows.observe()), _first_info(self._rows.first_info())

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Predict what `action` does in one control step."""
        if self._over:
            raise ResetNeeded("Call reset() before step(): there is no running episode.")
        task = self._rows.task
        given = played(task, action) if self._played else action
        result = None if self._quick is None else self._quick.step(given)
        if result is None:
            result = _first_result(self._rows.step(parse_action(task, given)))
        self._over = result[2] or result[3]
        if self.render_mode == "human":
            self._show()
        return result

    def render(self) -> np.ndarray | None:
        """A picture (480, 480, 3) uint8 of what is predicted, with the action visible."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs a render_mode: make the env with "rgb_array"')
            return None
        if self.render_mode == "human":
            self._show()
            return None
        return self._rows.portrait(0)

    def _show(self) -> None:
        if self._window is None:
            from physgym.window import Window

            self._window = Window(f"learned {self._rows.task.system.env_id}", optional=True)
        if self._window.opened():
            self._window.show(self._rows.portrait(0), fps=self.metadata["render_fps"])

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def get_keys_to_action(self) -> dict[tuple[str, ...], Any]:
        """Keys for `gymnasium.utils.play.play`, as the true env has them."""
        self._played = True
        return keys_to_action(self._rows.task)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_window": None, "_quick": None}


def made_by_gymnasium(**arguments: Any) -> WorldModelEnv:
    """What `gymnasium.make("WorldModels/Learned-v0", ...)` calls: a `WorldModelEnv`.

    `make` keeps `max_episode_steps` to itself, for a `TimeLimit` around the env, which can shorten the
    env's own limit but not lengthen it. So the caller's variables are asked; where they are not those of
    `make`, the limit is the model's.
    """
    asked = _asked_limit(sys._getframe(1).f_locals)
    if asked not in (None, -1):
        arguments["max_episode_steps"] = asked
    env = WorldModelEnv(**arguments)
    if asked == -1:  # Gymnasium's word for no limit
        env._rows.max_episode_steps = None
    return env


made_by_gymnasium.metadata = WorldModelEnv.metadata  # type: ignore[attr-defined]  # make() looks for it


def _asked_limit(variables: Mapping[str, Any]) -> int | None:
    """`max_episode_steps` among the variables of `gymnasium.make`, the argument before the spec's."""
    spec = variables.get("env_spec")
    asked = variables.get("max_episode_steps")
    if asked is None and isinstance(spec, EnvSpec):
        asked = spec.max_episode_steps
    return asked if isinstance(asked, int) and (asked == -1 or asked > 0) else None


def make_env(
    model: WorldModel | str | Path, num_envs: int | None = None, **arguments: Any
) -> WorldModelEnv | WorldModelVectorEnv:
    """A learned env of a model, or of a run or checkpoint folder.

    Args:
        model: a folder alone is enough.
        num_envs: None for a single env, else the number of rows of a vector env.
        arguments: those of `WorldModelVectorEnv`.
    """
    if num_envs is None:
        return WorldModelEnv(model, **arguments)
    return WorldModelVectorEnv(model, num_envs, **arguments)


def make_truth(
    model: WorldModel | Spec | str | Path, num_envs: int | None = None, **arguments: Any
) -> gymnasium.Env | VectorEnv:
    """The true env that a model learned from, single or as native vector env; it shows what the
    model sees.

    Args:
        model: the model, its spec, or a run or checkpoint folder.
        num_envs: None for a single env, else the number of rows of a vector env.
        arguments: of the true env, over those of the buffer (and `autoreset_mode`).
    """
    spec = model if isinstance(model, Spec) else resolve_model(model).spec
    if spec.foreign:
        return _foreign_truth(spec, num_envs, arguments)
    kwargs = {**arguments_of(spec), **arguments}
    env_id = find_system(spec).env_id
    if num_envs is None:
        return gymnasium.make(env_id, **kwargs)
    return gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
    )


def _foreign_truth(
    spec: Spec, num_envs: int | None, arguments: dict[str, Any]
) -> gymnasium.Env | VectorEnv:
    """The true env of a model that learned one which is not of PhysGym."""
    mode = arguments.pop("autoreset_mode", AutoresetMode.NEXT_STEP)
    given = {**spec.env_kwargs, **arguments}
    return foreign_env(spec.env_name, num_envs, mode, spec.image_size, **given)


def foreign_env(
    env_id: str,
    num_envs: int | None = None,
    autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
    picture_size: int = 0,
    **kwargs: Any,
) -> gymnasium.Env | VectorEnv:
    """A true env that is not of this package: single, or one after another behind the vector interface.

    `picture_size`: 0, it shows its observations; else the pictures (picture_size, picture_size, 3) that it renders.
    """
    if picture_size:
        kwargs = {**kwargs, "render_mode": "rgb_array"}
    if num_envs is None:
        env = gymnasium.make(env_id, **kwargs)
        return Pictured(env, picture_size) if picture_size else env
    chosen = parse_autoreset_mode(autoreset_mode)
    return gymnasium.make_vec(
        env_id,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": chosen},
        wrappers=[functools.partial(Pictured, size=picture_size)] if picture_size else None,
        **kwargs,
    )


def _first(observations: Any) -> Any:
    if isinstance(observations, Mapping):
        return {key: value[0] for key, value in observations.items()}
    return observations[0]


def _first_result(result: tuple[Any, ...]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """What a vector env's step says of row 0."""
    observations, rewards, terminated, truncated, info = result
    ends = bool(terminated[0]), bool(truncated[0])
    return _first(observations), float(rewards[0]), *ends, _first_info(info)


def _first_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Row 0 of a vector info as a single env's: plain floats and bools, no masks."""
    single: dict[str, Any] = {}
    for key, value in info.items():
        if key.startswith("_"):
            continue
        if isinstance(value, Mapping):
            single[key] = _first_info(value)
        else:
            single[key] = value[0].item() if value.ndim == 1 else value[0]
    return single
