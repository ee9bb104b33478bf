"""The comparison of models of states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

from worldmodels.evaluation import problems as open_loop
from worldmodels.evaluation.comparison import Comparison
from worldmodels.evaluation.problems import Problems
from worldmodels.evaluation.states import report
from worldmodels.evaluation.states.baselines import baseline_entries, model_entry, oracles_of
from worldmodels.evaluation.states.energy import energy_r_squared
from worldmodels.evaluation.states.outcomes import outcome_scores
from worldmodels.evaluation.states.scoring import Entry, Scale, over_step_lengths, scale_of, score


class StateProblems(NamedTuple):
    """Problems, and what errors are divided by."""

    tasks: Problems
    scale: Scale


class StateComparison(Comparison):
    """States predicted from a true state and actions, in units of their spread."""

    medium = "states"
    horizon = 100
    reports: ClassVar[ModuleType] = report

    def problems(
        self, models: Mapping[str, Any], dataset: Any, horizon: int, count: int
    ) -> StateProblems:
        """Problems of the test split, and the scales of the train split."""
        tasks = open_loop.from_dataset(dataset.subset("test"), horizon, count)
        specs = [model.spec for model in models.values() if model.spec.foreign]
        if specs:  # which observations are angles, a model's coordinates say
            tasks = tasks._replace(angles=specs[0].angles)
        return StateProblems(tasks, scale_of(dataset.subset("train"), tasks.angles))

    def entries(
        self, models: Mapping[str, Any], problems: StateProblems, dataset: Any
    ) -> dict[str, Entry]:
        """Models, three baselines, and an oracle for each integrator among the models."""
        rows = {name: model_entry(model, model.config.name) for name, model in models.items()}
        system = problems.tasks.system
        known = "equations" in system.knows
        baselines = baseline_entries(dataset.subset("train"), problems.tasks.angles)
        return {**rows, **baselines, **(oracles_of(models, system.integrators) if known else {})}

    def score(
        self,
        models: Mapping[str, Any],
        entries: Mapping[str, Entry],
        problems: StateProblems,
        dataset: Any,
        dt_values: Sequence[float],
        advance: Callable[[float], object],
    ) -> dict[str, Any]:
        """Scores of every entry, and with ``dt_values`` a study of step lengths."""
        share = 1.0 / (len(entries) * (1 + len(dt_values)))

        def done() -> None:
            advance(share)

        scores = score(entries, problems.tasks, problems.scale, advance=done)
        for name, model in models.items():
            scores["rows"][name]["energy_r_squared"] = energy_r_squared(model, problems.tasks)
            if model.spec.foreign:
                scores["rows"][name]["outcomes"] = outcome_scores(model, problems.tasks)
        if dt_values:
            scores["step_lengths"] = over_step_lengths(
                entries, problems.tasks, problems.scale, dt_values, done
            )
        return scores


COMPARISON = StateComparison()
