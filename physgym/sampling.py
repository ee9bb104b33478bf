"""Where episodes start: parameters and states drawn, one at a time or for many rows at once.

Each row draws from a generator of its own, exactly what a single env would draw: uniform numbers
first, which `System.start_of` turns into states of all rows together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym.elementwise import where

if TYPE_CHECKING:
    from physgym.system import System

MOST_DRAWS = 100_000
"""Draws of one start after which it is given up."""
PROBES = 1000
"""Draws that must contain a start when an env is made: beyond it an episode would wait for one."""

Ranges = Mapping[str, tuple[float, float]]


def can_start(system: System, state: tuple[Any, ...], params: Any) -> Any:
    """Whether an episode may start at `state` (components): inside the bounds and at no end."""
    good = system.within_bounds(state, params)
    for happened in system.events_of(state, params).values():
        good = good & where(happened, False, True)
    return good


def sample_params(rng: np.random.Generator, ranges: Ranges, base: Any) -> Any:
    """`base` with the parameters of `ranges` drawn uniformly, in the order of its fields."""
    names = [name for name in base._fields if name in ranges]
    return base._replace(
        **{n: _between(*ranges[n], u) for n, u in zip(names, _uniform(rng, names), strict=True)}
    )


def params_of_rows(draws: np.ndarray, ranges: Ranges, base: Any) -> dict[str, np.ndarray]:
    """What `sample_params` makes of the uniform numbers `draws` (N, len(ranges)): (N,) values of the
    parameters in `ranges`.
    """
    names = [name for name in base._fields if name in ranges]
    return {n: _between(*ranges[n], u) for n, u in zip(names, draws.T, strict=True)}


def _uniform(rng: np.random.Generator, names: list[str]) -> list[float]:
    return rng.random(len(names)).tolist() if names else []


def _between(low: float, high: float, u: Any) -> Any:
    return low + (high - low) * u


def sample_state(
    system: System, rng: np.random.Generator, params: Any, start: str | None
) -> tuple[float, ...]:
    """A start of one episode, as floats; see `System.sample_state`."""
    for _ in range(MOST_DRAWS):
        draws = system.draw_start(rng, start)
        state = system.start_of(tuple(map(float, draws)), params, start)
        if can_start(system, state, params):
            return tuple(map(float, state))
    raise _no_start(system, params, MOST_DRAWS)


def sample_states(
    system: System,
    fresh: Callable[[np.ndarray], np.ndarray],
    params: Any,
    start: str | None,
    count: int,
) -> np.ndarray:
    """Starts (D, N) of N = `count` rows, row i the one that `sample_state` draws with its parameters
    (`params`: floats, or rows (N,)). `fresh` draws numbers (J, K) for the rows of an index (J,).
    """
    states, index, mine = np.empty((system.state_size, count)), np.arange(count), params
    for _ in range(MOST_DRAWS):
        with np.errstate(all="ignore"):
            drawn = system.start_of(tuple(np.ascontiguousarray(fresh(index).T)), mine, start)
            good = can_start(system, drawn, mine)
        for component, x in zip(states, drawn, strict=True):
            component[index] = x
        if np.all(good):
            return states
        index = index[~np.broadcast_to(good, len(index))]
        mine = params._make(x if isinstance(x, float) else x[index] for x in params)
    raise _no_start(system, mine._make(float(np.ravel(x)[0]) for x in mine), MOST_DRAWS)


def check_startable(system: System, corners: Any, start: str | None) -> None:
    """ValueError where, at some row of the parameters `corners`, hardly any draw is a start."""
    rng = np.random.default_rng(0)
    missing = np.ones(len(corners[0]), dtype=bool)
    for _ in range(PROBES):
        draws = tuple(map(float, system.draw_start(rng, start)))
        with np.errstate(all="ignore"):
            # One draw in every row: floats alone would raise where rows read infinity.
            state = system.start_of(tuple(np.full(len(missing), z) for z in draws), corners, start)
            good = can_start(system, state, corners) & np.isfinite(system.energy_of(state, corners))
            missing &= ~np.broadcast_to(good, len(missing))
        if not missing.any():
            return
    row = int(np.flatnonzero(missing)[0])
    raise _no_start(system, corners._make(float(x[row]) for x in corners), PROBES)


def _no_start(system: System, params: Any, draws: int) -> ValueError:
    return ValueError(
        f"{system.name} finds no start in {draws} draws with parameters {params._asdict()}: each "
        "lies beyond the bounds, is already an end of the episode or has no finite energy. Take parameters that leave "
        "room for the starts that `Starting State` of the system describes"
    )
