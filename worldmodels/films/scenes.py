"""Windows of a buffer with their pictures and true states, to be drawn beside what a model makes of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import physgym
from worldmodels.evaluation import problems
from worldmodels.evaluation.problems import Problems

ENOUGH = 3
"""Episodes that must be as long as a window, before it is made shorter."""


class Scenes(NamedTuple):
    """Windows of E episodes of a buffer, with the pictures."""

    frames: np.ndarray
    """(E, T+1, S, S, 3) uint8."""
    problems: Problems
    """Their true states and actions."""
    names: tuple[str, ...]
    """What each is called in a picture."""

    def told(self, model: Any) -> np.ndarray:
        """(E, P) parameters in the order of the model's spec."""
        return self.problems.param_array(model.spec.param_names)


def cut(
    model: Any,
    dataset: Any,
    count: int,
    steps: int,
    rng: np.random.Generator,
    repeat: bool = False,
) -> Scenes:
    """At most ``count`` windows of ``steps`` steps (fewer where episodes are shorter), one an episode.

    The episodes are of the test split, or of the validation split, or all, whichever has any; with
    ``repeat`` they give several windows where they are fewer than ``count``. Raises ``ValueError`` for a
    buffer without pixels, of another size, or without an episode longer than the model's context.
    """
    dataset = held_out(dataset)
    size, many = model.spec.image_size, model.context_frames
    if dataset.pixels is None:
        raise ValueError(f"{dataset.path} has no pixels: collect it with --pixels")
    lengths = np.asarray(dataset.lengths)
    steps = min(steps, int(np.sort(lengths)[::-1][: min(ENOUGH, count)][-1]))
    if steps < many:
        raise ValueError(
            f"the episodes of {dataset.path} have {steps} steps, too few: the model reads {many} "
            f"frames before it imagines any; collect episodes of {many} steps or more"
        )
    able = np.flatnonzero(lengths >= steps)
    rows = rng.permutation(able)[:count]
    if repeat and len(rows) < count:
        rows = np.concatenate([rows, rng.choice(able, count - len(rows))])
    starts = rng.integers(0, lengths[rows] - steps + 1)
    pairs = list(zip(rows, starts, strict=True))
    frames = np.stack([dataset.pixels[row][at : at + steps + 1] for row, at in pairs])
    if frames.shape[2:] != (size, size, 3):
        raise ValueError(
            f"{dataset.path} has pictures of {frames.shape[2]} x {frames.shape[3]} pixels, but the "
            f"model sees {size} x {size}: collect with --image-size {size}"
        )
    states = np.stack([dataset.states[row, at : at + steps + 1] for row, at in pairs])
    actions = np.stack([dataset.actions[row, at : at + steps] for row, at in pairs])
    system = physgym.system_of(dataset)
    given = {name: np.asarray(values, np.float64)[rows] for name, values in dataset.params.items()}
    known = {name: np.full(len(rows), x) for name, x in system.Params()._asdict().items()}
    params = system.Params(**{**known, **given})
    controls = problems.controls_of(system, actions, params)
    valid, integrator = np.ones(actions.shape[:2], np.bool_), dataset.env_kwargs.get("integrator")
    tasks = Problems(system, params, dataset.dt, states, actions, controls, valid, integrator)
    names = tuple(
        f"episode {dataset.episodes[row]}\nfrom {at * dataset.dt:g} s" for row, at in pairs
    )
    return Scenes(frames, tasks, names)


def held_out(dataset: Any) -> Any:
    """The episodes of the test split, or of the validation split, or all, whichever has any."""
    for split in ("test", "val"):
        if len(dataset.splits.get(split, ())):
            return dataset.subset(split)
    return dataset
