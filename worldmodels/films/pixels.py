"""What a world model of pixels imagines beside the truth: grids over time, and films."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from physgym.foreign.pictures import replayed
from physgym.rendering import SCREEN, render_batch
from worldmodels.evaluation.problems import check_source
from worldmodels.films.energy import energy_over_time
from worldmodels.films.keypoints import model_card
from worldmodels.films.latents import latent_channels, prior_samples, traversal
from worldmodels.films.mosaics import (
    LEGEND,
    draw_grid,
    enlarged,
    quantised,
)
from worldmodels.films.recording import Recording, captions
from worldmodels.films.scenes import Scenes, cut
from worldmodels.films.video import difference, side_by_side
from worldmodels.films.viewer import Viewer
from worldmodels.imagination import (
    check_sees_pixels,
    imagine_frames,
)

STEPS = (1, 5, 10, 20, 40, 60, 100)
"""Steps after the context that a grid over time shows."""
SHOWN = 3
"""Episodes of a grid over time."""
WINDOWS = 64
"""Windows that say how much a channel of the latent tells, and that the learned energy is fitted on."""


def write_pictures(model: Any, dataset: Any, folder: str | Path, seed: int = 0) -> list[Path]:
    """Write every picture of ``model`` as PNG into ``folder``, and return the paths.

    The episodes are of the test split of ``dataset``, or the validation split, or all, whichever has any;
    ``seed`` chooses them, and the samples of the prior. Raises ``ValueError`` for a model of states, and
    for a buffer of another env or dt, without pixels, of another size, or without an episode longer than
    the context.
    """
    check_sees_pixels(model)
    check_source(model.config.predictor, model.spec, dataset)
    folder, rng = Path(folder), np.random.default_rng(seed)
    scenes = cut(model, dataset, SHOWN, model.context_frames - 1 + max(STEPS), rng)
    windows = cut(model, dataset, WINDOWS, model.context_frames, rng, repeat=True)
    grid = rollout_grid(model, scenes, folder / "rollout_grid.png")
    energies = []
    if "energy" in scenes.problems.system.knows:
        energies = [energy_over_time(model, scenes, windows, folder / "learned_energy.png")]
    if model.config.latent == "keypoint":
        return [model_card(model, scenes, windows, folder / "card.png"), grid, *energies]
    return [
        grid,
        latent_channels(model, scenes, folder / "latent_channels.png"),
        *energies,
        prior_samples(model, folder / "prior_samples.png", seed),
        traversal(model, windows, folder / "traversal.png"),
    ]


def rollout_grid(model: Any, scenes: Scenes, path: str | Path, factor: int = 3) -> Path:
    """Draw truth, prediction and difference over time, of ``SHOWN`` scenes; the context is marked."""
    tasks, first = scenes.problems, model.context_frames - 1
    frames, actions = scenes.frames[:SHOWN], tasks.actions[:SHOWN]
    told = scenes.told(model)[:SHOWN]
    imagined = imagine_frames(model, frames[:, : first + 1], actions, told, tasks.dt)
    after = [step for step in STEPS if step < imagined.shape[1]]
    before = [-1, 0] if first else [0]
    times = np.array([*before, *after])
    truth, learned = frames[:, first + times], quantised(imagined[:, times.clip(0)])
    unread = times < 0
    learned[:, unread] = SCREEN
    columns = [
        f"{seconds:g} s\n{'context' if seconds <= 0 else ''}".replace("-", "−")
        for seconds in times * tasks.dt
    ]
    rows = ("true", "predicted", "difference") * len(truth)
    title = (
        f"{tasks.system.name}, {model.config.predictor}: what it sees of an episode ends at 0 s, "
        "then it is told the actions alone"
    )
    cells = time_cells(truth, learned)
    cells[2::3, unread] = SCREEN
    groups = range(3, 3 * len(truth), 3), (len(before),)
    heads = scenes.names[: len(truth)]
    return draw_grid(enlarged(cells, factor), path, title, rows, columns, LEGEND, heads, *groups)


def time_cells(truth: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Cells (3 E, T, S, S, 3) of pictures (E, T, S, S, 3): of each episode truth, prediction, difference."""
    change = difference(truth, learned)
    return np.stack([truth, learned, change], 1).reshape(-1, *truth.shape[1:])


def film_pixels(
    model: Any,
    recording: Recording,
    size: int = 360,
    advance: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Film uint8 (T+1, H, W, 3) of what the model is to see, what it imagines, and the difference.

    The model sees the first ``model.context_frames`` pictures, then the actions alone. Panels are the
    observations of S x S pixels, enlarged by the whole number that comes closest to ``size``; their
    difference is as in ``video.side_by_side``. ``advance`` is called for each of the T+1 pictures.
    Raises ``ValueError`` for a model of states, and for an episode no longer than the context.
    """
    check_sees_pixels(model)
    many, steps = model.context_frames, len(recording.actions)
    if steps < many:
        raise ValueError(
            f"an episode of {steps} steps is too short: the model reads {many} frames before it "
            f"imagines any; record {many} steps or more"
        )
    told = [[float(getattr(recording.params, name)) for name in model.spec.param_names]]
    truth = true_frames(recording, model.spec.image_size)
    imagined = imagine_frames(
        model, truth[None, :many], recording.actions[None], told, recording.dt
    )
    learned = np.concatenate([truth[: many - 1], quantised(imagined[0])])
    lines = (
        captions(recording, recording.states),
        _told(imagined[0], many, recording.dt),
        _errors(truth, learned),
    )
    factor = max(1, round(size / model.spec.image_size))
    film = np.empty((0, 0, 0, 3), np.uint8)
    for index in range(steps + 1):
        shown, drawn = (enlarged(panel[index : index + 1], factor) for panel in (truth, learned))
        (picture,) = side_by_side(shown, drawn, captions=[[line[index]] for line in lines])
        if not index:
            film = np.empty((steps + 1, *picture.shape), np.uint8)
        film[index] = picture
        advance()
    return film


def true_frames(recording: Recording, size: int) -> np.ndarray:
    """Pixel observations uint8 (T+1, size, size, 3) of a recording's states; of a foreign env, of its actions
    repeated. Raises ValueError where that one renders no pictures.
    """
    system, params = recording.system, recording.params
    if "pictures" not in system.knows:
        limit = len(recording.actions)
        env = system.make(render_mode="rgb_array", max_episode_steps=limit)
        try:
            return replayed(env, system, recording.seed, recording.actions, size)[0]
        finally:
            env.close()
    scenes = [system.scene(tuple(s), None, params, False) for s in recording.states.tolist()]
    return render_batch(scenes, system.view, size)


def _told(imagined: np.ndarray, many: int, dt: float) -> list[str]:
    """What each picture of the model is: given, decoded from the context, or imagined."""
    finite = np.isfinite(imagined).all(axis=(1, 2, 3))
    kinds = ["context, as given"] * (many - 1) + ["context, decoded"]
    kinds += ["imagined" if known else "diverged" for known in finite[1:]]
    return [f"t {index * dt:5.2f} s   {kind}" for index, kind in enumerate(kinds)]


def _errors(truth: np.ndarray, learned: np.ndarray) -> list[str]:
    """Mean squared and largest difference of each pair of pictures, of values in [0, 1]."""
    change = (truth.astype(np.float32) - learned) / 255.0
    mean, most = (change**2).mean(axis=(1, 2, 3)), np.abs(change).max(axis=(1, 2, 3))
    pairs = zip(mean, most, strict=True)
    return [f"MSE {square:.1e}   largest {100 * largest:.0f} %" for square, largest in pairs]


class PixelViewer(Viewer):
    """Models of pixels: their own pictures."""

    def film(
        self, model: Any, recording: Recording, size: int, advance: Callable[[], object]
    ) -> np.ndarray:
        """``film_pixels``."""
        return film_pixels(model, recording, size, advance)

    def pictures(self, model: Any, dataset: Any, folder: Path, seed: int) -> list[Path]:
        """``write_pictures``."""
        return write_pictures(model, dataset, folder, seed)


VIEWER = PixelViewer()
