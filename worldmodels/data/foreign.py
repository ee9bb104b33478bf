"""Episodes of an env that is not of this package: stepped one at a time, observations in place of states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from physgym.foreign.pictures import replayed
from physgym.foreign.system import ForeignSystem
from worldmodels.data.config import CollectConfig
from worldmodels.data.policies import Policy, asked, plan_episode
from worldmodels.data.rollouts import Tick, episode_seeds, steps_of
from worldmodels.data.store import DatasetError

LARGEST_SEED = 2**31
"""Seeds of foreign envs lie below it: some take no larger ones."""
MIXED = ("random", "bang")
"""Behaviours that a mixed buffer of a foreign env draws from: it has no controller, and no known idleness."""


def check(config: CollectConfig, system: ForeignSystem) -> None:
    """Raise DatasetError for a policy that means nothing to this env."""
    if config.policy == "zero" and system.discrete:
        raise DatasetError(
            f"policy='zero' is not valid: nobody knows which action of {system.env_id} does nothing; "
            "choose random or bang"
        )
    if config.policy == "ou" and system.discrete:
        raise DatasetError(
            f"policy='ou' is not valid: {system.env_id} has {system.action_space}, and the process is of "
            "numbers; choose random or bang"
        )


def roll_out(
    config: CollectConfig,
    system: ForeignSystem,
    first: int,
    count: int,
    tick: Tick = bool,
    policy: Policy | None = None,
) -> dict[str, np.ndarray]:
    """Collect episodes first ... first + count - 1: the arrays of a shard, pixels excepted.

    `policy`: what acts, where it is none of this package.
    """
    steps, size = steps_of(config, system), system.state_size
    shape = (count, steps) if system.discrete else (count, steps, system.action_size)
    arrays = {
        "states": np.zeros((count, steps + 1, size)),
        "actions": np.zeros(shape, np.int64 if system.discrete else np.float32),
        "rewards": np.zeros((count, steps)),
        "terminated": np.zeros((count, steps), bool),
        "truncated": np.zeros((count, steps), bool),
        "lengths": np.zeros(count, np.int64),
        "seeds": np.zeros(count, np.int64),
        "behaviours": np.zeros(count, np.int8),
    }
    env = system.make(max_episode_steps=steps)
    player = _Player(env, system, policy, config.policy)
    try:
        for row, episode in enumerate(range(first, first + count)):
            seed, rng = episode_seeds(config.seed, episode)
            own = {name: array[row] for name, array in arrays.items() if array.ndim > 1}
            arrays["seeds"][row] = seed % LARGEST_SEED
            table = system.discrete_actions
            plan = plan_episode(config.policy, table, system.discrete, steps, rng, MIXED)
            arrays["behaviours"][row] = plan.behaviour
            arrays["lengths"][row] = player.play(plan.actions, seed % LARGEST_SEED, own)
            tick((row + 1) / count)
    finally:
        env.close()
    return arrays


class _Player:
    """One env and who acts in it; `policy` None: the actions that were planned."""

    def __init__(
        self, env: Any, system: ForeignSystem, policy: Policy | None = None, name: str = ""
    ) -> None:
        self.env, self.system, self.policy, self.name = env, system, policy, name

    def action(self, planned: Any, observation: np.ndarray) -> Any:
        """What to do now, as a buffer holds it: an integer, or (A,) in [-1, 1]."""
        if self.policy is None:
            return planned
        shape = (1, *self.system.action_space.shape)
        row = np.asarray(observation, self.system.observation_space.dtype)[None]
        return self.system.from_env(asked(self.policy, row, shape, self.name)[0])

    def play(self, planned: np.ndarray, seed: int, own: dict[str, np.ndarray]) -> int:
        """One episode into its arrays; its length.

        Raises DatasetError for an observation or a reward that is not finite.
        """
        system, observation = self.system, self.env.reset(seed=seed)[0]
        own["states"][0], length = observation, len(planned)
        for step in range(len(planned)):
            own["actions"][step] = self.action(planned[step], observation)
            result = self.env.step(system.to_env(own["actions"][step]))
            observation, reward, terminated, truncated, _ = result
            if not (np.isfinite(observation).all() and np.isfinite(reward)):
                raise DatasetError(
                    f"{system.env_id} gave an observation or a reward that is not finite, at step {step + 1} "
                    f"of the episode with seed {seed}: {observation}, {reward}"
                )
            own["states"][step + 1], own["rewards"][step] = observation, float(reward)
            own["terminated"][step], own["truncated"][step] = terminated, truncated
            if terminated or truncated:
                length = step + 1
                break
        own["states"][length + 1 :] = own["states"][length]
        return length


def pictures(
    config: CollectConfig, system: ForeignSystem, arrays: dict[str, np.ndarray], tick: Tick = bool
) -> Iterator[np.ndarray]:
    """The pictures (T+1, H, W, 3) uint8 of each episode: what the env renders as its actions are repeated.

    Raises DatasetError for an env that renders no pictures, or does not repeat itself under its seed.
    """
    env = system.make(render_mode="rgb_array", max_episode_steps=steps_of(config, system))
    try:
        for row, states in enumerate(arrays["states"]):
            length = int(arrays["lengths"][row])
            frames = np.empty((len(states), config.image_size, config.image_size, 3), np.uint8)
            seed, actions = int(arrays["seeds"][row]), arrays["actions"][row, :length]
            try:
                frames[: length + 1], last = replayed(env, system, seed, actions, config.image_size)
            except ValueError as error:
                raise DatasetError(str(error)) from error
            if not np.allclose(last, states[length], rtol=1e-4, atol=1e-5):
                raise DatasetError(
                    f"{system.env_id} does not repeat an episode under its seed and actions, so pictures and "
                    "observations would not belong together"
                )
            frames[length:] = frames[length]
            yield frames
            tick((row + 1) / len(arrays["states"]))
    finally:
        env.close()
