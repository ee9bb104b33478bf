"""Where the episodes of an env start: the options of `reset`, checked, and the draws they leave."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from physgym import energies, sampling, validation

if TYPE_CHECKING:
    from physgym.streams import Streams
    from physgym.system import System

RESET_OPTIONS = ("state", "params", "randomize", "start", "energy")
_FEW = 4
"""Fewer rows than this are drawn one by one, which is quicker then."""


class Starts(NamedTuple):
    """The starts of one system: what is drawn, and what is given."""

    system: System
    kind: str
    """One of `System.starts`."""
    base: Any
    """`Params` of what is neither drawn nor given."""
    ranges: dict[str, tuple[float, float]]
    """What is drawn first, uniformly."""
    given: dict[str, float]
    """Parameters that are set after the draw."""
    state: Any = None
    """The state to start at; None draws one."""
    band: tuple[float, float] | None = None
    """Where `kind` is "energy": the energies that are drawn from, see `physgym.energies`."""

    def draw(self, rng: np.random.Generator) -> tuple[tuple[float, ...], Any]:
        """(state, params) of one episode, as floats. Raises ValueError for a state that is no
        start with these parameters.
        """
        params = self.base
        if self.ranges:
            params = sampling.sample_params(rng, self.ranges, params)
        if self.given:
            params = params._replace(**self.given)
        if self.state is not None:
            return validation.check_state(self.system, self.state, params), params
        if self.band is not None:
            return energies.draw(self.system, rng, params, self.band), params
        return sampling.sample_state(self.system, rng, params, self.kind), params

    def draw_rows(self, streams: Streams, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States (D, K) and parameters (P, K) of `rows` (K,) of `streams`: column i is what `draw`
        says for the generator of row i, to the bit.

        No Python loop goes over rows where starts are made of uniform numbers and coins, or a
        state is given; starts by energy, of normal numbers, and those that a system draws by a
        rule of its own (`System.draw_start`) are drawn row by row.
        """
        if len(rows) < _FEW or (self.band is not None and self.state is None):
            return self._one_by_one(streams, rows)
        drawn: dict[str, Any] = {}
        if self.ranges:
            uniform = streams.draws(rows, len(self.ranges))
            drawn = sampling.params_of_rows(uniform, self.ranges, self.base)
        params = self.base._replace(**{**drawn, **self.given})
        table = np.empty((len(params), len(rows)))
        for line, values in zip(table, params, strict=True):
            line[...] = values
        if self.state is None:
            fresh = self._numbers(streams, rows)
            return sampling.sample_states(self.system, fresh, params, self.kind, len(rows)), table
        states = [
            validation.check_state(self.system, self.state, params._make(row))
            for row in table.T.tolist()
        ]
        return np.array(states).T, table

    def _one_by_one(self, streams: Streams, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = []
        for row in rows.tolist():
            if not self.system.drawn_together:  # they keep the generators that draw them every time
                streams.generator(row)
            with streams.lent(row) as rng:
                drawn.append(self.draw(rng))
        return np.array([s for s, _ in drawn]).T, np.array([p for _, p in drawn]).T

    def _numbers(self, streams: Streams, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """What `System.draw_start` says to each of some of the `rows`, picked by an index (J,): (J, K)."""
        system, kind = self.system, self.kind
        if system.drawn_together:
            uniform, coins = system.uniform_draws, system.coin_draws
            return lambda index: streams.draws(rows[index], uniform, coins)
        rngs = streams.generators(rows.tolist())
        return lambda index: np.array(
            [system.draw_start(rngs[i], kind) for i in index.tolist()], dtype=np.float64
        )

    def check_startable(self, corners: Any) -> None:
        """ValueError where, at some row of the parameters `corners`, hardly any draw is a start."""
        if self.band is None:
            return sampling.check_startable(self.system, corners, self.kind)
        rng = np.random.default_rng(0)
        for row in zip(*(np.asarray(x).tolist() for x in corners), strict=True):
            for end in self.band:
                energies.draw(self.system, rng, corners._make(row), (end, end))

    def corners(self) -> Any:
        """Parameters as rows: all combinations of the ends of what may be drawn."""
        ends: dict[str, Any] = {n: (x,) for n, x in self.base._asdict().items()}
        ends |= self.ranges | {n: (x,) for n, x in self.given.items()}
        grids = np.meshgrid(*(np.unique(e) for e in ends.values()), indexing="ij")
        return self.base._make(g.ravel() for g in grids)


def decide(starts: Starts, options: Mapping[str, Any]) -> Starts:
    """`starts` as the options of a reset change them; ValueError names a bad option."""
    if not isinstance(options, Mapping):
        raise ValueError(f"options={options!r} must be a dict of {', '.join(RESET_OPTIONS)}")
    unknown = sorted(str(name) for name in options if name not in RESET_OPTIONS)
    if unknown:
        close = difflib.get_close_matches(unknown[0], RESET_OPTIONS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"unknown reset option {unknown[0]!r}; {hint}choose of {', '.join(RESET_OPTIONS)}"
        )
    if "randomize" in options:
        ranges = validation.check_ranges(starts.system, options["randomize"])
        starts = starts._replace(ranges=ranges)
    if options.get("params") is not None:
        params = options["params"]
        values = validation.check_params(starts.system, params)._asdict()
        names = params if isinstance(params, Mapping) else values
        starts = starts._replace(given={name: values[name] for name in names})
    if options.get("start") is not None or options.get("energy") is not None:
        told = options.get("start"), options.get("energy")
        kind, band = choose_start(starts.system, starts.kind, *told, kinds=(starts.kind,))
        starts = starts._replace(kind=kind, band=band)
    return starts._replace(state=validation.plain(options.get("state")))


def choose_start(
    system: System, usual: str, start: Any, energy: Any, kinds: tuple[str, ...] | None = None
) -> tuple[str, tuple[float, float] | None]:
    """The kind of start (`usual` for None) and, for "energy", its band; `kinds`: those of the system.

    Raises ValueError for a kind that is unknown, and for an energy that is missing, out of place or bad.
    """
    kinds = system.starts if kinds is None else kinds
    known = dict.fromkeys((*kinds, "energy"))
    if start is None:
        start = usual if energy is None else "energy"
    kind = validation.choice_of("start", start, tuple(known))
    if kind == "energy":
        return kind, energies.check_band(system, energy)
    if energy is not None:
        raise ValueError(
            f'energy={energy!r} is of start="energy", not of start={start!r}: leave one of the two out'
        )
    return kind, None


def by_row(options: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]] | None:
    """The options of every row, where they differ between rows: those with a state (N, D) or
    parameters (N,), such as the `info` of a vector env holds them. None where all rows share them.

    A mask of `info`, `_key` (N,), may stand beside its key: rows it leaves out are not given it.

    Raises:
        ValueError: a batch of another size than `num_envs`.
    """
    if not isinstance(options, Mapping):
        return None
    batches = dict(_batches(options, num_envs))
    if not batches:
        return None
    return [dict(_row(options, batches, row)) for row in range(num_envs)]


def _batches(options: Mapping[str, Any], num_envs: int) -> Iterator[tuple[str, Any]]:
    """(name, (N, ...) values) of each option given by row; parameters are named "params/mass"."""
    for name, value in options.items():
        if name == "params" and isinstance(value, Mapping):
            for field, values in value.items():
                yield from _batch(f"params/{field}", values, 1, num_envs)
        elif name in ("state", "_state", "_params"):
            yield from _batch(name, value, 2 if name == "state" else 1, num_envs)


def _batch(name: str, value: Any, ndim: int, num_envs: int) -> Iterator[tuple[str, np.ndarray]]:
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return
    try:
        array = np.asarray(validation.plain(value))
    except Exception:  # ragged: the check of a single value says what is wrong
        return
    if array.ndim == ndim and len(array) != num_envs:
        keys = "".join(f"[{key!r}]" for key in name.split("/"))
        raise ValueError(f"options{keys} has {len(array)} rows for num_envs={num_envs}")
    if array.ndim == ndim:
        yield name, array


def _row(
    options: Mapping[str, Any], batches: Mapping[str, np.ndarray], row: int
) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if name.startswith("_") and name[1:] in options:
            continue
        if not _has(batches, f"_{name}", row):
            continue
        if name == "params" and isinstance(value, Mapping):
            yield name, dict(_params_row(value, batches, row))
        else:
            yield name, batches[name][row] if name in batches else value


def _params_row(
    params: Mapping[str, Any], batches: Mapping[str, np.ndarray], row: int
) -> Iterator[tuple[str, Any]]:
    for field, value in params.items():
        if field.startswith("_") and field[1:] in params:
            continue
        if _has(batches, f"params/_{field}", row):
            key = f"params/{field}"
            yield field, batches[key][row].item() if key in batches else value


def _has(batches: Mapping[str, np.ndarray], mask: str, row: int) -> bool:
    return mask not in batches or bool(batches[mask][row])
