"""The comparison of models of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from worldmodels.evaluation.comparison import Comparison
from worldmodels.evaluation.pixels import problems as pixel_problems
from worldmodels.evaluation.pixels import report
from worldmodels.evaluation.pixels.baselines import PixelEntry
from worldmodels.evaluation.pixels.probing import FRAMES, Reading, read_latents
from worldmodels.evaluation.pixels.scoring import (
    HORIZONS,
    PixelTask,
    entries_of,
    ruler_of,
    score,
)
from worldmodels.evaluation.states.scoring import scale_of
from worldmodels.imagination import check_sees_pixels
from worldmodels.models.backgrounds import background_of

PROBE_SHARE = 0.3
"""Share of the work that the probes are, about."""


@dataclass(frozen=True)
class PixelComparison(Comparison):
    """Frames predicted from the first frames and actions, and what the latents know of the physics."""

    medium: ClassVar[str] = "pixels"
    horizon: ClassVar[int] = 60
    reports: ClassVar[ModuleType] = report
    horizons: tuple[int, ...] = HORIZONS
    """Steps at which errors are reported, beside the last."""
    probe_frames: int = FRAMES
    """Frames that the probes of the latent are fitted on; 0 for none (and no energies)."""

    def check(self, name: str, model: Any, dataset: Any) -> None:
        """Raises for a model of states too, and for a dataset without pictures or of another size."""
        check_sees_pixels(model)
        super().check(name, model, dataset)
        pixel_problems.check_pictures(dataset)
        size = dataset.pixels[0].shape[1]
        if model.spec.image_size != size:
            raise ValueError(
                f"{name} learned from pictures of {model.spec.image_size} px, but {dataset.path} has "
                f"{size} px: compare runs and datasets of one image size"
            )

    def longest(self, models: Mapping[str, Any], dataset: Any) -> int:
        """Less the frames that the models see first."""
        context = max(model.context_frames for model in models.values())
        return super().longest(models, dataset) - context + 1

    def problems(
        self, models: Mapping[str, Any], dataset: Any, horizon: int, count: int
    ) -> PixelTask:
        """Windows of the test split behind the longest context, and scales of the train split."""
        train = dataset.subset("train")
        context = max(model.context_frames for model in models.values())
        windows = pixel_problems.cut(dataset.subset("test"), context, horizon, count)
        shared = background_of(train)
        ruler = ruler_of(windows, shared, self.horizons)
        return PixelTask(windows, ruler, shared.mean, scale_of(train).energy)

    def entries(
        self, models: Mapping[str, Any], problems: PixelTask, dataset: Any
    ) -> dict[str, PixelEntry]:
        """Models, what each makes of the true frames, and two baselines."""
        return entries_of(models, problems.background)

    def score(
        self,
        models: Mapping[str, Any],
        entries: Mapping[str, PixelEntry],
        problems: PixelTask,
        dataset: Any,
        dt_values: Sequence[float],
        advance: Callable[[float], object],
    ) -> dict[str, Any]:
        """Scores of every entry, and of probes that are fitted to each model's latents first."""
        readings: dict[str, Reading] = {}
        for name, model in models.items() if self.probe_frames else ():
            readings[name] = read_latents(model, dataset, self.probe_frames)
            advance(PROBE_SHARE / len(models))
        rest = 1.0 - PROBE_SHARE if readings else 1.0
        return score(
            models, entries, problems, readings, dt_values, lambda share: advance(rest * share)
        )


COMPARISON = PixelComparison()
