"""Where episodes of a learned env in pixels start: the real frames that the model sees first.

A model of pixels reads motion from L frames, of which the last is the start. A buffer has the earlier
ones. The true start distribution does not, so the system itself is taken back in time from the drawn
state, while nothing acts, and drawn. The start stays the true env's own that way, frame and draws alike;
stepping a true start L - 1 times forward would have shifted it, and could have ended the episode.

A foreign env cannot be taken back in time, and one frame L times would say that nothing moves. There a start
does lie L - 1 steps into a true episode, under random actions, which the model is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from physgym.compile.program import MAX_SUBSTEPS, substep
from physgym.foreign.pictures import Pictured
from physgym.foreign.task import true_seed
from physgym.task import Task
from worldmodels.envs.starts import BufferStarts, Start
from worldmodels.interface import Spec

TRIES = 100
"""Episodes of a foreign env that may end before a model has seen enough of one."""


def frames_of(task: Any, spec: Spec, length: int) -> TrueFrames | SteppedFrames:
    """True starts of L = ``length`` frames: what led there where the equations are known, else the first steps."""
    if "equations" in task.system.knows:
        return TrueFrames(task, spec, length)
    return SteppedFrames(task, spec, length)


class TrueFrames:
    """The true env's starts, draw for draw, each behind the frames that lead to it.

    Args:
        task: of the env the model learned.
        spec: of the model; frames are ``spec.dt`` apart, whatever step the env takes.
        length: L, the frames of a start.
    """

    def __init__(self, task: Task, spec: Spec, length: int) -> None:
        self._task, self._dt, self._length = task, spec.dt, length
        levels = task.system.discrete_actions
        if task.discrete:
            self._rest: Any = int((levels**2).sum(1).argmin())
            self._level = levels[self._rest]
        else:
            self._rest = self._level = np.zeros(task.system.action_size)

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Start:
        """As the true env would start from `rng`. Raises ValueError for a bad option."""
        task = self._task
        state, params = task.sample(rng, options)
        control = task.system.control_of(tuple(self._level.tolist()), params)
        states = [state]
        for _ in range(self._length - 1):
            states.append(rewind(task, states[-1], control, params, self._dt))
        frames = np.stack([task.picture(state, params) for state in reversed(states)])
        actions = np.repeat(np.asarray(self._rest)[None], self._length - 1, axis=0)
        return Start(frames, actions, params)


class SteppedFrames:
    """The first L frames of true episodes of a foreign env, under random actions between them.

    Args:
        task: `physgym.foreign.task.ForeignTask` of the env.
        spec: of the model.
        length: L, the frames of a start.
    """

    def __init__(self, task: Any, spec: Spec, length: int) -> None:
        self._task, self._size, self._length = task, spec.image_size, length
        self._env: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_env": None}

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Start:
        """The start of the true episode that `rng` seeds, of the next one where it ends too early.

        Raises ValueError for any option, and where `TRIES` episodes end too early.
        """
        system = self._task.system
        if options:
            name = sorted(options)[0]
            raise ValueError(
                f"unknown reset option {name!r}: a learned {system.env_id} in pictures takes none; it begins as "
                'the true env does, or with starts="buffer" as a buffer goes on'
            )
        if self._env is None:
            self._env = Pictured(system.make(render_mode="rgb_array"), self._size)
        for _ in range(TRIES):
            frames, actions = self._begun(rng)
            if len(frames) == self._length:
                return Start(np.stack(frames), actions, self._task.base)
        raise ValueError(
            f"{TRIES} episodes of {system.env_id} ended before the {self._length} frames that the model reads: "
            'start in a buffer (starts="buffer", dataset=...), or train with fewer --model.context-frames'
        )

    def _begun(self, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
        """The first frames of an episode, as many as it has up to L, and the actions drawn for them."""
        system, count = self._task.system, self._length - 1
        seed = true_seed(rng)
        if system.discrete:
            actions: np.ndarray = rng.integers(system.action_count, size=count)
        else:
            actions = rng.uniform(-1.0, 1.0, (count, system.action_size))
        frames = [self._env.reset(seed=seed)[0]]
        for action in actions:
            frame, _, terminated, truncated, _ = self._env.step(system.to_env(action))
            if terminated or truncated:
                break
            frames.append(frame)
        return frames, actions


class BufferFrames(BufferStarts):
    """L frames in a row that a collected buffer holds, with the actions between them.

    Args:
        dataset: a `worldmodels.data.Dataset` or its path; its train split is used.
        task: of the env the model learned.
        spec: of the model.
        length: L, the frames of a start.

    Raises:
        ValueError: as `BufferStarts`; a buffer without pictures, or with pictures of another size,
            of another step or of other actions than the model's.
    """

    def __init__(self, dataset: Any, task: Task, spec: Spec, length: int) -> None:
        super().__init__(dataset, task, frames_of(task, spec, length), length)
        dataset = self._dataset
        if dataset.pixels is None:
            raise ValueError(
                'starts="buffer" of a model of pixels needs a buffer with pictures: collect one with '
                "--pixels"
            )
        shape = dataset.pixels[int(self._episodes[0])].shape[1:]
        size = spec.image_size
        if shape != (size, size, 3):
            raise ValueError(
                f"the buffer's pictures are of shape {shape}, the model's of {(size, size, 3)}: "
                f"collect with --image-size {size}"
            )
        if not math.isclose(dataset.dt, spec.dt):
            raise ValueError(f"the buffer's dt={dataset.dt} is not the model's, {spec.dt}")
        if (dataset.actions.ndim == 2) != task.discrete:
            raise ValueError(f"the buffer's actions are not {task.action_mode}, as the model's are")

    def _read(self, episode: int, first: int, params: Any) -> Start:
        frames = self._dataset.pixels[episode][first : first + self._length]
        actions = self._dataset.actions[episode, first : first + self._length - 1]
        return Start(frames, actions, params)


def rewind(
    task: Task, state: tuple[float, ...], control: tuple[float, ...], params: Any, dt: float
) -> tuple[float, ...]:
    """The state (floats) that `control` (held) takes to `state` in `dt` [s].

    The env's own integrator takes negative sub-steps, which the equations allow for every system, damped
    ones included. Where bodies would have met, or the past has no finite state, time stops there: the
    motion of the truth ends at a collision too.
    """
    system = task.system
    integrator = "rk4" if task.integrator == "dop853" else task.integrator
    remaining = dt
    for _ in range(MAX_SUBSTEPS):
        if remaining <= 0.0 or system.collision(state, params):
            break
        if task.substeps is not None:
            h = min(dt / task.substeps, remaining)
        elif integrator == "exact":
            h = dt
        else:
            h = remaining / math.ceil(remaining / system.max_step(state, params))
        earlier = substep(system, integrator, state, control, params, -h)
        if not all(map(math.isfinite, earlier)):
            break
        state, remaining = earlier, remaining - h
    return state
