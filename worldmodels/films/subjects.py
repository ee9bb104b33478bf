"""What a picture of a model of states shows: the model, true episodes, and a plane of states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from worldmodels.evaluation.plots import MODEL_COLORS, SPARE_COLORS
from worldmodels.evaluation.problems import Problems, check_source, from_dataset, part
from worldmodels.evaluation.states.coefficients import Meter, meter_of, truth_of
from worldmodels.evaluation.states.energy import learned_energy
from worldmodels.evaluation.statistics import affine_r_squared
from worldmodels.films.energy import affine_fit
from worldmodels.films.scenes import held_out

SAMPLES = 4096
"""States at which energies are compared."""
EPISODES = 64
"""True episodes at most that a subject has."""
GRID = 41
"""States on each side of a plane."""
MARGIN = 0.05
"""Share of its range by which a plane goes beyond the data."""


class Energies(NamedTuple):
    """True and learned energies of N states, and the line that takes one to the other best."""

    truth: np.ndarray
    """(N,) [J]."""
    learned: np.ndarray
    """(N,), in no unit."""
    slope: float
    offset: float
    r_squared: float


class Subject:
    """A model of states with true episodes that it did not learn from.

    Args:
        model: what is drawn.
        dataset: a buffer of its env; its test split, or validation split, or all, whichever has any.
        seed: chooses the episodes that are shown, which ``episodes`` begins with.

    Raises:
        ValueError: a buffer of another env, action kind or dt.
    """

    def __init__(self, model: Any, dataset: Any, seed: int = 0) -> None:
        name = getattr(model.config, "name", "model")
        check_source(name, model.spec, dataset)
        self.model, self.name = model, name
        self.color = MODEL_COLORS.get(name, SPARE_COLORS[0])
        self.rng = np.random.default_rng(seed)
        given = held_out(dataset)
        tasks = from_dataset(given, int(given.lengths.max()), len(given))
        lengths = tasks.valid.sum(axis=1)
        order = self.rng.permutation(len(lengths))
        longest_first = order[np.argsort(-lengths[order], kind="stable")]
        self.episodes: Problems = part(tasks, longest_first[:EPISODES])
        self.system = self.episodes.system

    @cached_property
    def meter(self) -> Meter:
        """What measures the model."""
        return meter_of(self.model, self.system)

    @cached_property
    def true_meter(self) -> Meter:
        """What measures the truth."""
        return truth_of(self.model, self.system, self.episodes.integrator)

    @cached_property
    def known(self) -> np.ndarray:
        """(B, T+1) bool: states that lie in an episode."""
        valid = self.episodes.valid
        return np.concatenate([np.ones_like(valid[:, :1]), valid], axis=1)

    @cached_property
    def energies(self) -> Energies:
        """True and learned energies at test states. Raises where the structure has none."""
        states, params = self.sample(SAMPLES)
        truth = np.asarray(self.system.energy(states, params), np.float64)
        learned = self.learned_energy(states, params)
        slope, offset, _ = affine_fit(learned, truth)
        return Energies(truth, learned, slope, offset, affine_r_squared(truth, learned))

    def learned_energy(self, states: np.ndarray, params: Any) -> np.ndarray:
        """H (N,) of states (N, D), ``Params`` of (N,) arrays. Raises where the structure has none."""
        return learned_energy(self.model, states, table_of(params, self.model.spec.param_names))

    def told(self, tasks: Problems) -> np.ndarray:
        """(B, P) parameters in the order of the model's spec."""
        return tasks.param_array(self.model.spec.param_names)

    def sample(self, count: int) -> tuple[np.ndarray, Any]:
        """At most ``count`` states (N, D) of the episodes, no end of one, with ``Params`` of (N,) arrays."""
        rows, times = np.nonzero(self.episodes.valid)
        chosen = self.rng.permutation(len(rows))[:count]
        rows, times = rows[chosen], times[chosen]
        return self.episodes.states[rows, times], params_at(self.episodes.params, rows)

    def label(self, index: int) -> str:
        """Name and unit of a state component, for an axis."""
        unit = raised(self.system.state_units[index])
        return (
            f"{self.system.state_names[index]} [{unit}]" if unit else self.system.state_names[index]
        )


class Plane(NamedTuple):
    """States over one position and its velocity; what else there is stays as in one true state."""

    coordinate: int
    """Index of the position."""
    position: np.ndarray
    """(M,)."""
    velocity: np.ndarray
    """(M,)."""
    states: np.ndarray
    """(M M, D), the velocity running slower."""
    params: Any
    """``Params`` of (M M,) arrays."""
    alive: np.ndarray
    """(M M,) bool: not an end of an episode."""

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """(M, M) of ``values`` at the states that are alive, NaN elsewhere."""
        whole = np.full(len(self.states), np.nan)
        whole[self.alive] = values
        return whole.reshape(len(self.velocity), len(self.position))

    def living(self) -> tuple[np.ndarray, Any]:
        """The states that are alive, and their parameters."""
        return self.states[self.alive], params_at(self.params, self.alive)


def plane_of(subject: Subject, coordinate: int = 0) -> Plane:
    """The plane of position ``coordinate`` and its velocity through the start of the first episode."""
    episodes, system = subject.episodes, subject.system
    seen = episodes.states[subject.known]
    half = system.state_size // 2
    position, velocity = (
        _range(seen[:, at], GRID, at in system.angles) for at in (coordinate, half + coordinate)
    )
    states = np.repeat(episodes.states[:1, 0], GRID * GRID, axis=0)
    states[:, half + coordinate], states[:, coordinate] = (
        values.ravel() for values in np.meshgrid(velocity, position, indexing="ij")
    )
    params = params_at(episodes.params, np.zeros(len(states), np.int64))
    alive = np.broadcast_to(~np.asarray(system.terminated(states, params)), len(states))
    return Plane(coordinate, position, velocity, states, params, alive)


def params_at(params: Any, rows: np.ndarray) -> Any:
    """``Params`` of the ``rows`` of others."""
    return type(params)(*(np.asarray(values)[rows] for values in params))


def table_of(params: Any, names: Sequence[str]) -> np.ndarray:
    """(N, P) of ``Params`` of (N,) arrays, in the order of ``names``."""
    columns = [np.asarray(getattr(params, name), np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(params[0]), 0))


def raised(unit: str) -> str:
    """A unit as it is written: powers raised, and a second for each time it is divided by."""
    return unit.replace("/s/s", "/s²").replace("^2", "²").replace("^3", "³")


def _range(values: np.ndarray, size: int, angle: bool) -> np.ndarray:
    """Evenly spread values over those that were seen, a few outliers left out; a turn of an angle."""
    if angle:
        return np.linspace(-np.pi, np.pi, size)
    low, high = np.quantile(values, (0.005, 0.995))
    reach = max(high - low, 1e-6)
    return np.linspace(low - MARGIN * reach, high + MARGIN * reach, size)
