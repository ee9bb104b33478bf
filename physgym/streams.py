"""The random streams of many rows, drawn from together without a Python loop.

Each row has the stream that Gymnasium gives a single env, NumPy's PCG64 behind a `SeedSequence`,
and reads the same numbers from it, to the bit. The states of all rows lie side by side in arrays,
and a draw is integer arithmetic on those of the rows asked for: a state k steps on is one product
and one sum away. A row whose `Generator` somebody asked for is drawn from that object ever after,
until it is seeded anew, so that there is one owner of each stream.

Sources: M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms
for Random Number Generation", HMC-CS-2014-0905 (the generator, XSL-RR 128/64); the same author's
"Developing a seed_seq Alternative", 2015 (how seeds are spread); NumPy's NEP 19 promises that
neither changes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from physgym import wide
from physgym.compile import drawing

_FEW = 32
"""Where there are fewer streams than this, each keeps a generator once it was lent one."""
_POOL = 4
"""Words of 32 bits in the pool that a seed is spread over; longer seeds are left to NumPy."""
_HALF = np.uint64(32)


class Streams:
    """The streams of `count` rows; seeded by the operating system where nobody seeds them."""

    def __init__(self, count: int) -> None:
        self._made: list[np.random.Generator | None] = [None] * count
        self._seeds: list[int] = [-1] * count
        self._single = np.zeros(count, dtype=np.bool_)
        """Rows with a generator of their own."""
        self._any_single = False
        self._known = np.zeros(count, dtype=np.bool_)
        """Rows that have been seeded."""
        self._all_known = False
        self._state = np.zeros((2, count), dtype=np.uint64)
        """High and low half of each state."""
        self._step = np.zeros((2, count), dtype=np.uint64)
        """High and low half of what each step adds."""
        self._spare = np.zeros((2, count), dtype=np.uint64)
        """Whether 32 bits of the last number of 64 are left over, and which."""

        self._stand_in = np.random.Generator(np.random.PCG64(0))

    def seed(self, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin the streams of `rows` anew, each at its seed (>= 0)."""
        if not len(rows):
            return
        for row, seed in zip(rows, seeds, strict=True):
            self._made[row], self._seeds[row] = None, seed
        index = np.asarray(rows, dtype=np.int64)
        self._known[index] = True
        self._all_known = bool(self._known.all())
        words, fits = _words(seeds)
        alone = ~fits if _as_numpy_does() else np.ones_like(fits)
        self._single[index] = alone
        self._any_single = bool(self._single.any())
        self._spare[:, index] = 0
        self._state[:, index], self._step[:, index] = _begin(words)
        for row in index[alone].tolist():
            self._made[row] = seeding.np_random(self._seeds[row])[0]

    def _seed_unseeded(self, rows: np.ndarray) -> None:
        if not self._all_known and len(missing := rows[~self._known[rows]]):
            random = os.urandom(16 * len(missing))
            seeds = [
                int.from_bytes(random[i : i + 16], "little") for i in range(0, len(random), 16)
            ]
            self.seed(missing.tolist(), seeds)

    def seed_of(self, row: int) -> int:
        """The seed that the stream of `row` began at."""
        self._seed_unseeded(np.array([row]))
        return self._seeds[row]

    def generator(self, row: int) -> np.random.Generator:
        """The generator that goes on with the stream of `row`."""
        made = self._made[row]
        if made is None:
            self._seed_unseeded(np.array([row]))
            made = self._made[row] or seeding.np_random(self._seeds[row])[0]
            if not self._single[row]:
                made.bit_generator.state = self._place(row)
            self.use(row, made)
        return made

    @contextlib.contextmanager
    def lent(self, row: int) -> Iterator[np.random.Generator]:
        """A generator that stands for `row` inside the context, one row at a time."""
        if not self._known[row]:
            self._seed_unseeded(np.array([row]))
        if self._single[row] or len(self._made) < _FEW:
            yield self.generator(row)
            return
        generator = self._stand_in
        generator.bit_generator.state = self._place(row)
        try:
            yield generator
        finally:
            place: Any = generator.bit_generator.state
            self._state[0, row], self._state[1, row] = divmod(place["state"]["state"], 2**64)
            self._spare[0, row], self._spare[1, row] = place["has_uint32"], place["uinteger"]

    def _place(self, row: int) -> dict[str, Any]:
        (high, low), (up, down) = self._state[:, row].tolist(), self._step[:, row].tolist()
        left, word = self._spare[:, row].tolist()
        state = {"state": high << 64 | low, "inc": up << 64 | down}
        return {"bit_generator": "PCG64", "state": state, "has_uint32": left, "uinteger": word}

    def generators(self, rows: Sequence[int]) -> list[np.random.Generator]:
        """Those of `rows`, in order."""
        return [self._made[row] or self.generator(row) for row in rows]

    def use(self, row: int, generator: np.random.Generator) -> None:
        """Let `row` draw from `generator` from now on, until it is seeded."""
        self._made[row] = generator
        self._single[row] = self._any_single = True
        if not self._known[row]:
            self._known[row] = True
            self._all_known = bool(self._known.all())

    def draws(self, rows: np.ndarray, uniform: int, coins: int = 0) -> np.ndarray:
        """(K, uniform + coins) of `rows` (K,), all different: what `random(uniform)` and then
        `integers(2, size=coins)` of their generators say.
        """
        found = np.empty((len(rows), uniform + coins))
        self._seed_unseeded(rows)
        if not self._any_single or not (single := self._single[rows]).any():
            self._draw_together(rows, found, uniform)
            return found
        for i in np.flatnonzero(single).tolist():
            _draw_alone(self.generator(int(rows[i])), found[i], uniform)
        if not single.all():
            part = np.empty((int((~single).sum()), uniform + coins))
            self._draw_together(rows[~single], part, uniform)
            found[~single] = part
        return found

    def _draw_together(self, rows: np.ndarray, found: np.ndarray, uniform: int) -> None:
        if uniform:
            found[:, :uniform] = ((self._next(rows, uniform) >> np.uint64(11)) * 2.0**-53).T
        for column in range(uniform, found.shape[1]):
            found[:, column] = self._halves(rows) >> np.uint64(31)

    def _next(self, rows: np.ndarray, count: int) -> np.ndarray:
        """(count, K): the next numbers of 64 bits."""
        if (draw := drawing.draws(_MULTIPLIER)) is not None:
            return draw(rows, count, self._state, self._step)
        powers, sums = _jumps(count)
        states = wide.add(
            wide.times(powers, self._state[:, None, rows]),
            wide.times(sums, self._step[:, None, rows]),
        )
        self._state[:, rows] = states[:, -1]
        return wide.turned(states[0] ^ states[1], states[0] >> np.uint64(58))

    def _halves(self, rows: np.ndarray) -> np.ndarray:
        """(K,): the next numbers of 32 bits, two of which make up one of 64, the low one first."""
        left, word = self._spare[:, rows]
        fresh = left == 0
        if fresh.any():
            number = self._next(rows[fresh], 1)[0]
            self._spare[1, rows[fresh]] = number >> _HALF
            word[fresh] = number & wide.LOW
        self._spare[0, rows] = fresh
        return word

    def snapshot(self, places: bool = True) -> Any:
        """All streams as they are, for `restore`; `places`: how far generators that were handed out
        have got, too.
        """
        made = [g for g in self._made if g is not None] if places else []
        kept = {n: copy.copy(x) for n, x in self.__dict__.items() if n != "_stand_in"}
        return kept, [(g, g.bit_generator.state) for g in made]

    def restore(self, snapshot: Any) -> None:
        """Be as at the `snapshot`."""
        kept, places = snapshot
        self.__dict__.update(kept)
        for generator, place in places:
            generator.bit_generator.state = place


def _draw_alone(generator: np.random.Generator, found: np.ndarray, uniform: int) -> None:
    generator.random(out=found[:uniform])
    if len(found) > uniform:
        found[uniform:] = generator.integers(2, size=len(found) - uniform)


@functools.cache
def _jumps(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(2, count, 1) each: the multiplier to the power of k, and the sum of its lower powers; a state
    k steps on is the first times the state and the second times what a step adds.
    """
    power, total, powers, sums = 1, 0, [], []
    for _ in range(count):
        power, total = power * _MULTIPLIER % 2**128, (total * _MULTIPLIER + 1) % 2**128
        powers.append(power)
        sums.append(total)
    return wide.split(powers)[:, :, None], wide.split(sums)[:, :, None]


_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645


def _words(seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Seeds as (4, K) words of 32 bits, the lowest first, and which of them have room there."""
    fits = np.array([seed < 2 ** (32 * _POOL) for seed in seeds], dtype=np.bool_)
    data = b"".join(
        (s if f else 0).to_bytes(16, "little") for s, f in zip(seeds, fits, strict=True)
    )
    return np.frombuffer(data, "<u4").astype(np.uint32).reshape(-1, _POOL).T, fits


def _begin(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(state, step), (2, K) each, of streams at the seeds that `words` (4, K) spell."""
    numbers = _spread(words)
    one = np.uint64(1)
    step = np.stack([numbers[2] << one | numbers[3] >> np.uint64(63), numbers[3] << one | one])
    state = wide.add(step, numbers[:2])
    factor = wide.split([_MULTIPLIER])
    return wide.add(wide.times(factor, state), step), step


def _spread(words: np.ndarray) -> np.ndarray:
    """(4, K) numbers of 64 bits from (4, K) words of 32: `SeedSequence.generate_state`."""
    mixed = _Hash(0x43B0D7E5, 0x931E8875)
    pool: list[Any] = [mixed(word) for word in words]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                value = np.uint32(0xCA01F9DD) * pool[target]
                value = value - np.uint32(0x4973F715) * mixed(pool[source])
                pool[target] = value ^ value >> np.uint32(16)
    drawn = _Hash(0x8B51F9DD, 0x58F38DED)
    halves = [drawn(pool[i % _POOL]).astype(np.uint64) for i in range(2 * _POOL)]
    return np.stack([low | high << _HALF for low, high in zip(halves[::2], halves[1::2])])  # noqa: B905


class _Hash:
    """A hash of words of 32 bits whose constant moves on with every call."""

    def __init__(self, constant: int, factor: int) -> None:
        self._constant, self._factor = constant, factor

    def __call__(self, word: np.ndarray) -> np.ndarray:
        """The hash (K,) of `word` (K,)."""
        value = word ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor % 2**32
        value = value * np.uint32(self._constant)
        return value ^ value >> np.uint32(16)


@functools.cache
def _as_numpy_does() -> bool:
    """Whether a stream begins where Gymnasium's does: else every row has a generator of its own."""
    seed = 2**127 + 12345
    state, step = (wide.joined(x)[0] for x in _begin(_words([seed])[0]))
    place: Any = seeding.np_random(seed)[0].bit_generator.state
    return place["bit_generator"] == "PCG64" and place["state"] == {"state": state, "inc": step}
