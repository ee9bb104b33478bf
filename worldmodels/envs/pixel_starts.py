"""Where episodes of a learned env in pixels start: the real frames that the model sees first.

A model of pixels reads motion from L frames, of which the last is the start. A buffer has the earlier
ones. The true start distribution does not, so the system itself is taken back in time from the drawn
state, while nothing acts, and drawn. The start stays the true env's own that way, frame and draws alike;
stepping a true start L - 1 times forward would have shifted it, and could have ended the episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from physgym.compile.program import MAX_SUBSTEPS, substep
from physgym.task import Task
from worldmodels.envs.starts import BufferStarts, Start
from worldmodels.interface import Spec


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
        super().__init__(dataset, task, TrueFrames(task, spec, length), length)
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
