"""What a world model imagines, shown beside the truth: the same calls for every medium."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.films.recording import Recording


class Viewer(ABC):
    """How a model of one medium is shown; a medium has one, without state."""

    after_training: bool = True
    """Whether a training ends with ``pictures``, which a run of this medium has beside its scores."""

    @abstractmethod
    def film(
        self, model: Any, recording: Recording, size: int, advance: Callable[[], object]
    ) -> np.ndarray:
        """Film uint8 (T+1, H, W, 3): truth, model and their difference, panels about ``size`` wide.

        ``advance`` is called for each of its T+1 pictures.
        """

    @abstractmethod
    def pictures(self, model: Any, dataset: Any, folder: Path, seed: int) -> list[Path]:
        """Write what there is to see of ``model`` as PNG into ``folder``, and return the paths.

        The episodes shown are of ``dataset``, chosen by ``seed``. Raises ``ValueError`` for a dataset that
        does not fit.
        """


def viewer_of(medium: str) -> Viewer:
    """The viewer of a medium: the object ``VIEWER`` in the module that has its name."""
    return importlib.import_module(f"{__package__}.{medium}").VIEWER
