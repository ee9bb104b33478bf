"""Autoreset over arrays, written once for every vector env: true ones and learned ones.

`AutoresetVectorEnv` does what `gymnasium.vector.SyncVectorEnv` does over single envs, step for
step and in all three modes, but without a Python loop over rows on the ordinary step: a subclass
says how rows start, advance and are observed, and this file says when each of these happens, which
generator is used and what `info` then holds. The arrays may be NumPy's or tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

from physgym.streams import Streams
from physgym.validation import truth_of, whole_number
from physgym.vector_info import copy, flattened, row_of, stacked, vector_info, zero_outside


def parse_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """The Gymnasium mode called "NextStep", "same_step" ...; ValueError for no mode."""
    if isinstance(mode, AutoresetMode):
        return mode
    for known in AutoresetMode:
        names = {known.value.lower(), known.name.lower()}
        if isinstance(mode, str) and mode.lower() in names:
            return known
    allowed = ", ".join(repr(known.value) for known in AutoresetMode)
    raise ValueError(f"autoreset_mode={mode!r} is none of {allowed}.")


def parse_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed per row: an int counts up from row 0, a sequence is taken as it is, None stays None.

    Raises gymnasium.error.Error for a negative or non-integer seed and ValueError for a sequence
    of another length.
    """
    if seed is None:
        return [None] * num_envs
    if (
        isinstance(seed, Iterable)
        and not isinstance(seed, str)
        and getattr(seed, "shape", None) != ()
    ):
        seeds = [None if one is None else parse_seed(one) for one in seed]
        if len(seeds) != num_envs:
            raise ValueError(f"{len(seeds)} seeds for num_envs={num_envs}: give one for each env.")
        return list(seeds)
    first = parse_seed(seed)
    return [first + row for row in range(num_envs)]


def parse_seed(seed: Any) -> int:
    """`seed` as a Python int; gymnasium.error.Error unless it is a whole number >= 0."""
    value = whole_number(seed)
    if value is None:
        raise Error(f"seed={seed!r} is not an integer: give an integer >= 0.")
    if value < 0:
        raise Error(f"seed={seed!r} is negative: give an integer >= 0.")
    return value


def parse_limit(max_episode_steps: Any) -> int | None:
    """A time limit [steps]; None where there is none (None, or -1 as Gymnasium writes it)."""
    limit = whole_number(max_episode_steps)
    if max_episode_steps is None or limit == -1:
        return None
    if limit is None or limit < 1:
        raise ValueError(
            f"max_episode_steps={max_episode_steps!r} must be a whole number >= 1, or None or -1 for "
            "no limit."
        )
    return limit


class Rollout(NamedTuple):
    """T steps of N rows, as `step` returns them: see `AutoresetVectorEnv.rollout`."""

    observations: Any
    """(T + 1, N, ...), or a dict of such."""
    rewards: Any
    """(T, N)."""
    terminated: Any
    """(T, N) bool."""
    truncated: Any
    """(T, N) bool."""


class AutoresetVectorEnv(VectorEnv, ABC):
    """A vector env over arrays that equals `SyncVectorEnv` over its rows; abstract.

    A subclass sets the spaces and defines `start`, `advance`, `observe` and `facts`; it may define
    `blank` to keep the step counter and the masks as tensors.

    Attributes:
        streams: the rows' random numbers; what `generator` hands out is taken from there.
        autoreset_mode: also in `metadata`, which is a copy of the instance.
        max_episode_steps: steps after which a row is truncated; None for no limit (-1 is taken for
            it, as Gymnasium's `make` does).
        flat_info: whether `info` has "params_mass" instead of {"params": {"mass": ...}}.
        elapsed: (N,) steps since each row's reset.

    Raises:
        ValueError: num_envs < 1, an unknown autoreset mode, max_episode_steps of 0 or less than -1.
    """

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None,
        autoreset_mode: str | AutoresetMode,
        metadata: Mapping[str, Any],
        flat_info: bool = False,
    ) -> None:
        count = whole_number(num_envs)
        if count is None or count < 1:
            raise ValueError(f"num_envs={num_envs!r} must be an integer >= 1.")
        self.num_envs = count
        self.max_episode_steps = parse_limit(max_episode_steps)
        self.autoreset_mode = parse_autoreset_mode(autoreset_mode)
        self.metadata = {**metadata, "autoreset_mode": self.autoreset_mode}
        self.flat_info = truth_of("flat_info", flat_info)
        self.elapsed = self.blank(np.int64)
        self._done = self.blank(np.bool_)
        self._any_done = False
        self._started = False
        self.streams = Streams(self.num_envs)

    @abstractmethod
    def start(self, rows: np.ndarray, options: Mapping[str, Any]) -> None:
        """Put new episodes into `rows` ((K,) int64), drawing row i from its stream alone: by
        `streams`, or from `generator(i)`.

        `options` are those of `reset` without "reset_mask", and empty on an autoreset. Must
        validate before it changes anything.
        """

    @abstractmethod
    def advance(self, actions: Any, resting: Any | None) -> tuple[Any, Any, Any]:
        """Move every row one step.

        Returns fresh rewards (N,) float64, terminated (N,) bool and truncated (N,) bool.

        `resting` is None, or a mask of rows that are reset right after: their actions are to be
        ignored and whatever is returned for them is overwritten. The time limit is added by the
        caller. Must validate the actions before it changes anything.
        """

    @abstractmethod
    def observe(self, rows: np.ndarray | None = None) -> Any:
        """Fresh observations of `rows` (None: of all), batched: an array or a dict of arrays."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What `info` says of the rows: fresh (N, ...) arrays in nested dicts, constant keys."""

    def blank(self, dtype: type) -> Any:
        """(N,) zeros of `dtype` (np.int64 or np.bool_), where the subclass keeps its arrays."""
        return np.zeros(self.num_envs, dtype=dtype)

    def mask_of(self, mask: Any) -> Any:
        """A bool array or tensor (N,), where the subclass keeps its arrays."""
        return np.asarray(mask)

    def generator(self, row: int) -> np.random.Generator:
        """The random generator of `row`; seeded by the operating system if never seeded."""
        return self.streams.generator(row)

    def use_generator(self, row: int, generator: np.random.Generator) -> None:
        """Let `row` draw from `generator` from now on, until a reset with a seed."""
        self.streams.use(row, generator)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The rows' generators, as SyncVectorEnv gives them."""
        return tuple(self.generator(row) for row in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed that each row's generator was made with."""
        return tuple(self.streams.seed_of(row) for row in range(self.num_envs))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes in all rows, or in those of `options["reset_mask"]` ((N,) bool).

        Args:
            seed: row i is seeded `seed + i`, or `seed[i]`; None goes on with the generators as
                they are.
            options: handed to every row's start, less "reset_mask".

        Returns:
            observations of all rows, and the info of those that were reset.
        """
        mask = self.begin(seed, options)
        return self.observe(), self._info(mask)

    def begin(
        self, seed: int | Sequence[int | None] | None, options: Mapping[str, Any] | None
    ) -> Any | None:
        """What `reset` does, without looking at it: the mask of the rows that have begun anew, None where all have."""
        seeds = parse_seeds(seed, self.num_envs)
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"options={options!r} must be a dict.")
        rest = dict(options or {})
        mask = self._reset_mask(rest.pop("reset_mask", None))
        rows = np.arange(self.num_envs) if mask is None else self._rows(mask)
        before = self.streams.snapshot(places=bool(rest))
        given = [(row, one) for row in rows.tolist() if (one := seeds[row]) is not None]
        self.streams.seed([row for row, _ in given], [one for _, one in given])
        try:
            self.start(rows, rest)
        except BaseException:
            self.streams.restore(before)
            raise
        if mask is None:
            self.elapsed, self._done = self.blank(np.int64), self.blank(np.bool_)
        else:
            self.elapsed[mask], self._done[mask] = 0, False
        self._any_done = bool(self._done.any())
        self._started = True
        return mask

    def _reset_mask(self, mask: Any) -> Any | None:
        if mask is None:
            return None
        if "bool" not in str(getattr(mask, "dtype", "")):
            raise TypeError(f"options['reset_mask'] must be a bool array, got {mask!r}.")
        mask = self.mask_of(mask)
        if tuple(mask.shape) != (self.num_envs,):
            raise ValueError(
                f"options['reset_mask'] has shape {tuple(mask.shape)}, not ({self.num_envs},)."
            )
        if not mask.any():
            raise ValueError("options['reset_mask'] selects no env: set at least one row to True.")
        if not (self._started or bool(mask.all())):
            raise ResetNeeded("The first reset must reset every env: call reset() without a mask.")
        return mask

    def _rows(self, mask: Any) -> np.ndarray:
        return np.flatnonzero(mask if isinstance(mask, np.ndarray) else mask.cpu().numpy())

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance every row by one action; rows whose episode is over follow `autoreset_mode`.

        Returns:
            observations, rewards (N,) float64, terminated (N,) bool, truncated (N,) bool, info.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset; in DISABLED mode also while a row
                is over.
        """
        if not self._started:
            raise ResetNeeded("Call reset() before step().")
        rewards, terminated, truncated, info = self._moved(actions)
        info.update(self._info())
        return self.observe(), rewards, terminated, truncated, info

    def rollout(self, actions: Any) -> Rollout:
        """As many steps as there are `actions` ((T, N, ...), as a sequence or an array) in one call.

        What it returns is what `step` would return for them, T of each beneath one another, and the
        env is then where those steps would have led; it is quicker by the `info` that nobody gets.
        Observations begin with the present ones. With autoreset_mode="SameStep" the last
        observation of an episode stands in no field; with "NextStep" it does.

        Raises:
            gymnasium.error.ResetNeeded, gymnasium.error.InvalidAction: as `step` does, at the step
                concerned; those before it are taken.
        """
        if not self._started:
            raise ResetNeeded("Call reset() before rollout().")
        observations, outcomes, taken = [self.observe()], [], 0
        while taken < len(actions):
            for *outcome, after in self.quiet_steps(actions[taken:]) or [
                self._step(actions[taken])
            ]:
                outcomes.append(outcome)
                observations.append(after)
            taken = len(outcomes)
        if not outcomes:
            raise ValueError(f"actions {actions!r} have no step: give (T, N, ...) of them, T >= 1.")
        return Rollout(stacked(observations), *map(stacked, zip(*outcomes, strict=True)))

    def quiet_steps(self, actions: Any) -> Sequence[tuple[Any, Any, Any, Any]]:
        """Rewards, terminated, truncated and observations of some of the first steps under `actions`, none
        of which ends an episode: those that a subclass takes quicker together. By default none.
        """
        return ()

    def _step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        return (*self._moved(actions)[:3], self.observe())

    def _moved(self, actions: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Rewards and ends of a step, and what `info` says of episodes that it has reset already."""
        resting = self._done if self._any_done else None
        if resting is not None and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"The episodes of rows {self._rows(resting).tolist()} are over and autoreset is "
                "disabled: call reset(options={'reset_mask': terminated | truncated}) first."
            )
        rewards, terminated, truncated = self.advance(actions, resting)
        self.elapsed += 1
        if self.max_episode_steps is not None:
            truncated = truncated | (self.elapsed >= self.max_episode_steps)
        if resting is not None:
            rewards = zero_outside(rewards, ~resting)  # a copy: a graph may hold the rewards
            terminated[resting], truncated[resting] = False, False
            self._restart(resting)
        self._done = terminated | truncated
        self._any_done = bool(self._done.any())
        info: dict[str, Any] = {}
        if self._any_done and self.autoreset_mode is AutoresetMode.SAME_STEP:
            info = self._final(self._done)
            self._restart(self._done)
            self._done, self._any_done = self.blank(np.bool_), False
        return rewards, terminated, truncated, info

    def _info(self, mask: Any = None) -> dict[str, Any]:
        facts = self.facts()
        return vector_info(flattened(facts) if self.flat_info else facts, mask)

    def _restart(self, mask: Any) -> None:
        self.start(self._rows(mask), {})
        self.elapsed[mask] = 0

    def _final(self, mask: Any) -> dict[str, Any]:
        rows = self._rows(mask)
        batch = self.observe(rows)
        observations = np.full(self.num_envs, None, dtype=object)
        for index, row in enumerate(rows):
            observations[row] = row_of(batch, index)
        return {
            "final_obs": observations,
            "_final_obs": copy(mask),
            "final_info": self._info(mask),
            "_final_info": copy(mask),
        }
