"""Many rows draw together what each would draw alone, to the bit, whoever asks for their generators."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import seeding
from hypothesis import given, settings
from hypothesis import strategies as st
from system_cases import NAMES, STARTS
from vector_cases import assert_same

from physgym import SYSTEMS, PhysicsVectorEnv, wide
from physgym.streams import Streams
from physgym.task import Task

COUNT = 40
"""Rows: enough that they are drawn together."""
TOGETHER = [name for name in NAMES if SYSTEMS[name].drawn_together]
SEEDS = st.lists(
    st.one_of(st.integers(0, 99), st.integers(0, 2**70), st.integers(2**127, 2**160)), min_size=1
)
WISHES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 4), st.integers(0, 10**6))
)


@pytest.fixture(params=["1", "0"], ids=["native", "arrays"])
def machine_code(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With machine code, where it is installed, and without."""
    monkeypatch.setenv("PHYSGYM_NATIVE", request.param)


@pytest.mark.usefixtures("machine_code")
@settings(max_examples=60, deadline=None)
@given(seeds=SEEDS, wishes=WISHES)
def test_streams_are_those_of_gymnasium(seeds: list[int], wishes: Any) -> None:
    """Uniform numbers and coins of some of the rows, some of which are lent or handed out meanwhile."""
    streams, alone = Streams(len(seeds)), [seeding.np_random(seed)[0] for seed in seeds]
    streams.seed(range(len(seeds)), seeds)
    for uniform, coins, what, chance in wishes:
        rows = np.flatnonzero(np.random.default_rng(chance).random(len(seeds)) < 0.7)
        drawn = streams.draws(rows, uniform, coins)
        for row, numbers in zip(rows.tolist(), drawn, strict=True):
            wanted = [*alone[row].random(uniform), *alone[row].integers(2, size=coins)]
            assert numbers.tolist() == wanted
        row = chance % len(seeds)
        if what == 1:
            assert streams.generator(row).normal() == alone[row].normal()
        elif what == 2:
            with streams.lent(row) as generator:
                assert (
                    generator.integers(7, size=3).tolist()
                    == alone[row].integers(7, size=3).tolist()
                )
        elif what == 3:
            snapshot = streams.snapshot()
            streams.seed([row], [0])
            streams.draws(np.arange(len(seeds)), 1, 1)
            streams.restore(snapshot)
    assert [streams.seed_of(row) for row in range(len(seeds))] == seeds
    for row, generator in enumerate(alone):
        assert streams.generator(row).bit_generator.state == generator.bit_generator.state
        spawned = streams.generator(row).spawn(1)[0], generator.spawn(1)[0]
        assert spawned[0].random() == spawned[1].random()


def test_rows_that_nobody_seeds_differ_and_say_their_seeds() -> None:
    streams = Streams(3)
    drawn = streams.draws(np.arange(3), 2)
    assert len(np.unique(drawn)) == 6
    again = Streams(3)
    again.seed(range(3), [streams.seed_of(row) for row in range(3)])
    assert np.array_equal(again.draws(np.arange(3), 2), drawn)


def test_a_generator_that_is_given_to_a_row_nobody_seeded_is_the_one_that_draws() -> None:
    streams = Streams(2)
    streams.use(1, np.random.default_rng(5))
    found = streams.draws(np.array([0, 1]), 3)
    np.testing.assert_array_equal(found[1], np.random.default_rng(5).random(3))
    with streams.lent(1) as rng:
        assert rng is streams.generator(1)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(0, 63))
def test_wide_numbers_are_whole_numbers_modulo_2_to_the_128(a: int, b: int, places: int) -> None:
    x, y = wide.split([a]), wide.split([b])
    assert wide.joined(wide.add(x, y)) == [(a + b) % 2**128]
    assert wide.joined(wide.times(x, y)) == [a * b % 2**128]
    low = a % 2**64
    turned = wide.turned(np.array([low], np.uint64), np.array([places], np.uint64))
    assert turned.tolist() == [(low >> places | low << 64 - places) % 2**64]


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("randomize", [False, True])
@pytest.mark.parametrize(("name", "start"), STARTS)
def test_starts_of_rows_are_those_of_single_envs(name: str, start: str, randomize: bool) -> None:
    """Few rows and many, one restart after another, from the same streams."""
    starts = Task(name, start=start, randomize=randomize).starts
    streams, alone = Streams(COUNT), [seeding.np_random(seed)[0] for seed in range(COUNT)]
    streams.seed(range(COUNT), range(COUNT))
    for step in (1, 9, 2, 31, 1):
        rows = np.arange(0, COUNT, step)
        states, params = starts.draw_rows(streams, rows)
        wanted = [starts.draw(alone[row]) for row in rows.tolist()]
        assert np.array_equal(states.T, [state for state, _ in wanted])
        assert np.array_equal(params.T, [row for _, row in wanted])


@pytest.mark.parametrize("name", TOGETHER)
def test_no_row_gets_a_generator_that_nobody_asks_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded resets, masks and restarts of systems that say what they draw."""
    envs = PhysicsVectorEnv(name, COUNT, max_episode_steps=2, randomize=True)
    monkeypatch.setattr(Streams, "generator", lambda *_: pytest.fail("a generator was made"))
    envs.reset(seed=0)
    envs.reset(options={"reset_mask": np.arange(COUNT) % 3 == 0})
    for _ in range(4):
        envs.step(envs.action_space.sample())


def test_a_start_that_is_none_is_drawn_again_from_its_own_stream() -> None:
    starts = Task("spaceship", params={"crash_radius": 2.6}).starts
    streams, alone = Streams(COUNT), [seeding.np_random(seed)[0] for seed in range(COUNT)]
    streams.seed(range(COUNT), range(COUNT))
    first = starts.system.start_of(
        tuple(streams.draws(np.arange(COUNT), 4, 1).T), starts.base, None
    )
    near = np.hypot(first[0], first[1]) < 2.6
    assert 2 < near.sum() < COUNT - 2, "some are refused, and some are not"
    streams.seed(range(COUNT), range(COUNT))
    states, _ = starts.draw_rows(streams, np.arange(COUNT))
    assert np.array_equal(states.T, [starts.draw(rng)[0] for rng in alone])


@pytest.mark.parametrize("name", NAMES)
def test_generators_that_are_asked_for_stay_in_step(name: str) -> None:
    """What a user draws from `np_random` moves the next starts, as in SyncVectorEnv; and a seed ends it."""
    env_id = SYSTEMS[name].env_id
    ours = gym.make_vec(env_id, num_envs=COUNT, vectorization_mode="vector_entry_point")
    theirs = gym.make_vec(env_id, num_envs=COUNT, vectorization_mode="sync")
    for seed in (3, 4):
        assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
        assert ours.np_random[5].normal() == theirs.np_random[5].normal()
        assert_same(ours.reset(), theirs.reset())
        mask = np.arange(COUNT) % 2 == 0
        options = {"reset_mask": mask}
        assert_same(ours.reset(options=options.copy()), theirs.reset(options=options.copy()))
    assert ours.np_random_seed == theirs.np_random_seed
    ours.close()
    theirs.close()
