"""What a world model of states imagines beside the truth: a film of both, and of their difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.evaluation.states.metrics import state_error
from worldmodels.films.portraits import energy_landscape, phase_portrait
from worldmodels.films.recording import FAINT, Recording, captions
from worldmodels.films.series import coefficients, series
from worldmodels.films.subjects import Subject
from worldmodels.films.video import film, side_by_side
from worldmodels.films.viewer import Viewer
from worldmodels.imagination import forecast


def film_beside(
    recording: Recording,
    learned: np.ndarray,
    size: int = 360,
    advance: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Film (T+1, H, W, 3) of the truth, of ``learned`` states (T+1, D), and of their difference.

    ``advance`` is called for each of its T+1 pictures.
    """
    system = recording.system
    half = system.state_size // (2 if "equations" in system.knows else 1)
    truth, guess = (
        film(system, states, recording.controls, recording.params, size, advance=told)
        for states, told in ((recording.states, advance), (learned, lambda: None))
    )
    error = state_error(recording.states[None], learned[None], system.angles)[0, :, :half]
    ink = [np.abs(a.astype(np.int16) - b).max() for a, b in zip(truth, guess, strict=True)]
    lines = [
        f"off by {np.abs(row).max():.1e} {system.state_units[0]}".rstrip()
        + (", less than a pixel" if most < FAINT and np.abs(row).max() < system.view / 20 else "")
        for row, most in zip(error, ink, strict=True)
    ]
    both = [captions(recording, states) for states in (recording.states, learned)]
    return side_by_side(truth, guess, captions=(*both, lines))


def predict(model: Any, recording: Recording) -> np.ndarray:
    """States (T+1, D) that ``model`` imagines from the recording's first state and its actions."""
    told = [[float(getattr(recording.params, name)) for name in model.spec.param_names]]
    start, actions = recording.states[None, :1], recording.actions[None]
    return np.concatenate([start[0], forecast(model, start, actions, told, recording.dt)[0]])


def write_pictures(model: Any, dataset: Any, folder: str | Path, seed: int = 0) -> list[Path]:
    """Write every picture of ``model`` as PNG into ``folder``, and return the paths.

    Its flow and its coefficients beside the true ones, a test episode over time, and the energy where it
    learned one. ``seed`` chooses episodes and states of the test split of ``dataset``, or of the validation
    split, or of all, whichever has any. Raises ``ValueError`` for a model of pixels, and for a buffer of
    another env, action kind or dt.
    """
    if model.spec.image_size:
        raise ValueError("this model sees pixels: worldmodels.films.pixels draws its pictures")
    subject, folder = Subject(model, dataset, seed), Path(folder)
    if (
        "equations" not in subject.system.knows
    ):  # there is nothing to draw a flow or an energy beside
        return [series(subject, folder / "series.png")]
    made = [
        phase_portrait(subject, folder / "phase_portrait.png"),
        coefficients(subject, folder / "coefficients.png"),
        series(subject, folder / "series.png"),
    ]
    if getattr(model, "has_energy", False):
        made.append(energy_landscape(subject, folder / "learned_energy.png"))
    return made


class StateViewer(Viewer):
    """Models of states: the system is drawn in the predicted states."""

    after_training = False

    def film(
        self, model: Any, recording: Recording, size: int, advance: Callable[[], object]
    ) -> np.ndarray:
        """``film_beside`` of what the model predicts."""
        return film_beside(recording, predict(model, recording), size, advance)

    def pictures(self, model: Any, dataset: Any, folder: Path, seed: int) -> list[Path]:
        """``write_pictures``."""
        return write_pictures(model, dataset, folder, seed)


VIEWER = StateViewer()
