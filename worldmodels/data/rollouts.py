"""Episodes of a true env, a whole shard at once in the native vector env.

Episode i is a function of (seed, i) alone: its env and its policy each have a generator of their
own, spawned from the dataset's seed by the episode's index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from physgym.system import System
from worldmodels.data.config import CollectConfig
from worldmodels.data.policies import Actor, Policy, plan_episode

Tick = Callable[[float], object]
"""Told the share of the work that is done, in [0, 1]."""


def episode_seeds(seed: int, episode: int) -> tuple[int, np.random.Generator]:
    """Seed of the env (below 2**63) and generator of the policy, for one episode of a dataset."""
    sequence = np.random.SeedSequence(seed, spawn_key=(episode,))
    env, policy = sequence.spawn(2)
    return int(env.generate_state(1, np.uint64)[0] >> np.uint64(1)), np.random.default_rng(policy)


def make_vector_env(config: CollectConfig, system: System, num_envs: int) -> Any:
    """The native vector env that a shard of `num_envs` episodes is collected in."""
    return gymnasium.make_vec(
        system.env_id,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        max_episode_steps=steps_of(config, system),
        autoreset_mode=AutoresetMode.NEXT_STEP,
        **config.env_kwargs,
    )


def steps_of(config: CollectConfig, system: Any) -> int:
    """T, the longest episode."""
    return config.steps or system.max_episode_steps


def roll_out(
    config: CollectConfig,
    system: System,
    first: int,
    count: int,
    tick: Tick = bool,
    policy: Policy | None = None,
) -> dict[str, np.ndarray]:
    """Collect episodes first ... first + count - 1: the arrays of a shard, pixels excepted.

    `policy`: what acts, where it is none of this package.
    """
    steps, discrete = steps_of(config, system), config.action_mode == "discrete"
    seeds, plans = [], []
    for episode in range(first, first + count):
        seed, rng = episode_seeds(config.seed, episode)
        seeds.append(seed)
        plans.append(plan_episode(config.policy, system.discrete_actions, discrete, steps, rng))
    env = make_vector_env(config, system, count)
    try:
        actor = Actor(system, plans, discrete, policy, config.policy)
        record = _record(env, actor, system, seeds, steps, tick)
    finally:
        env.close()
    record["seeds"] = np.array(seeds, dtype=np.int64)
    record["behaviours"] = np.array([plan.behaviour for plan in plans], dtype=np.int8)
    return record


def _record(
    env: Any, actor: Actor, system: System, seeds: list[int], steps: int, tick: Tick
) -> dict[str, np.ndarray]:
    """Step until every row has ended once; what a row does after its end is overwritten."""
    count = len(seeds)
    _, info = env.reset(seed=seeds)
    params = {
        name: np.array(info["params"][name], dtype=np.float64) for name in system.Params._fields
    }
    record_params = system.Params(**params)
    states = np.empty((steps + 1, count, system.state_size))
    energy, rewards = np.empty((steps + 1, count)), np.zeros((steps, count))
    terminated, truncated = np.zeros((2, steps, count), dtype=bool)
    states[0], energy[0] = info["state"], info["energy"]
    alive, lengths, actions = np.ones(count, dtype=bool), np.full(count, steps), []
    for step in range(steps):
        actions.append(actor.act(step, states[step], record_params))
        _, rewards[step], terminated[step], truncated[step], info = env.step(actions[-1])
        states[step + 1], energy[step + 1] = info["state"], info["energy"]
        ended = alive & (terminated[step] | truncated[step])
        lengths[ended] = step + 1
        alive &= ~ended
        tick((step + 1) / steps)
        if not alive.any():
            break
    return _cut(states, energy, rewards, terminated, truncated, actions, lengths, params)


def _cut(
    states: np.ndarray,
    energy: np.ndarray,
    rewards: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    actions: list[np.ndarray],
    lengths: np.ndarray,
    params: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Batch first; after each episode's end the last state and energy, and zeros elsewhere."""
    steps, count = rewards.shape
    padded = np.zeros((steps, *actions[0].shape), dtype=actions[0].dtype)
    padded[: len(actions)] = actions
    kept = np.minimum(np.arange(steps + 1)[:, None], lengths)
    rows = np.arange(count)
    over = np.arange(steps)[:, None] >= lengths
    for array in (padded, rewards, terminated, truncated):
        array[over] = 0
    ordered = {
        "states": states[kept, rows],
        "actions": padded,
        "rewards": rewards,
        "terminated": terminated,
        "truncated": truncated,
        "energy": energy[kept, rows],
    }
    arrays = {name: np.ascontiguousarray(np.swapaxes(a, 0, 1)) for name, a in ordered.items()}
    arrays["lengths"] = lengths.astype(np.int64)
    return {**arrays, **{f"params/{name}": values for name, values in params.items()}}


def pictures(
    config: CollectConfig, system: System, arrays: dict[str, np.ndarray], tick: Tick = bool
) -> Iterator[np.ndarray]:
    """The pictures (T+1, H, W, 3) uint8 of each episode: those the env's pixel mode shows."""
    from physgym.rendering import render_batch, warn_of_empty

    size = config.image_size
    for row, states in enumerate(arrays["states"]):
        length = int(arrays["lengths"][row])
        params = system.Params(
            *(float(arrays[f"params/{name}"][row]) for name in system.Params._fields)
        )
        valid = states[: length + 1].tolist()
        scenes = [system.scene(tuple(state), None, params, False) for state in valid]
        frames = np.empty((len(states), size, size, 3), dtype=np.uint8)
        frames[: length + 1] = render_batch(scenes, system.view, size)
        warn_of_empty(frames[: length + 1], system.env_id, system.view)
        frames[length:] = frames[length]
        yield frames
        tick((row + 1) / len(arrays["states"]))
