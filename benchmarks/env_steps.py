"""Environment steps per second beside named peers, measured in turns in one run.

`python benchmarks/env_steps.py` (extra `bench`) prints a table and writes
`benchmarks/results/env_steps.json`. A peer that is not installed is left out and named. Each pair
is timed in alternating blocks; the ratio is the median over blocks of our time to the peer's, so a
slow moment of the machine hits both. Time is the CPU's, of all threads together, and a block is made
of whole episodes: restarts count.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from reporting import print_table, write_json

import physgym
from physgym.compile import native

EPISODE = 200
"""Steps of an episode of the pendulums: theirs and ours."""


@dataclass(frozen=True)
class Args:
    """Time environment steps against Gymnasium, EnvPool and gymnax."""

    blocks: int = 9
    """Alternating blocks a pair."""
    seconds: float = 0.2
    """About how long a block lasts at least [s]."""
    out: Path = Path(__file__).parent / "results" / "env_steps.json"
    """Where the JSON goes."""


def single(env_id: str, **arguments: Any) -> Callable[[], Any]:
    """One step of a single env as users make it, with random actions and resets."""
    env = gymnasium.make(env_id, **arguments)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(997)]
    env.reset(seed=0)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        _, _, terminated, truncated, _ = env.step(actions[count % 997])
        if terminated or truncated:
            env.reset()

    return step


def vector(env_id: str, num_envs: int, **arguments: Any) -> Callable[[], Any]:
    """One step of a native vector env, with rewards, infos and autoreset."""
    envs = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments
    )
    actions = sampled(envs)
    envs.reset(seed=0)
    return lambda: envs.step(next(actions))


def sampled(envs: Any) -> Iterator[Any]:
    """Random actions of all rows, over and over."""
    envs.action_space.seed(0)
    return itertools.cycle([envs.action_space.sample() for _ in range(32)])


def tensors(env_id: str, num_envs: int) -> Callable[[], Any]:
    """One step of a native vector env on torch, without gradients."""
    import torch

    torch.set_num_threads(1)
    envs = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", backend="torch"
    )
    actions = sampled(envs)
    sets = itertools.cycle([torch.as_tensor(next(actions)) for _ in range(4)])
    envs.reset(seed=0)
    return lambda: envs.step(next(sets))


def staggered(env_id: str, num_envs: int, **arguments: Any) -> Callable[[], Any]:
    """One step of a native vector env whose rows end one after another, some at every step."""
    envs = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments
    )
    rows: Any = envs.unwrapped
    actions = sampled(envs)
    rows.reset(seed=0)
    rows.elapsed[:] = np.arange(num_envs) % EPISODE
    for _ in range(EPISODE):
        rows.step(next(actions))
    return lambda: rows.step(next(actions))


class BetweenRestarts:
    """One step of a native vector env none of whose rows ends; its states are those of an episode, since
    `prepare` starts anew off the clock.
    """

    def __init__(self, env_id: str, num_envs: int, **arguments: Any) -> None:
        self._envs = gymnasium.make_vec(
            env_id,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            max_episode_steps=-1,
            **arguments,
        )
        self._actions = sampled(self._envs)

    def prepare(self) -> None:
        """Begin an episode."""
        self._envs.reset(seed=0)

    def __call__(self) -> None:
        """Step."""
        self._envs.step(next(self._actions))


def sync(env_id: str, num_envs: int) -> Callable[[], Any]:
    """One step of Gymnasium's SyncVectorEnv over our single env."""
    envs = gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="sync")
    actions = envs.action_space.sample()
    envs.reset(seed=0)
    return lambda: envs.step(actions)


def envpool_pendulum(num_envs: int) -> Callable[[], Any]:
    """One step of EnvPool's Pendulum (C++ threads)."""
    import envpool

    envs = envpool.make("Pendulum-v1", env_type="gymnasium", num_envs=num_envs)
    envs.reset()
    random = np.random.default_rng(0).uniform(-1, 1, (32, num_envs, 1)).astype(np.float32)
    actions = itertools.cycle(random)
    return lambda: envs.step(next(actions))


def gymnax_pendulum(num_envs: int) -> Callable[[], Any]:
    """One step of gymnax's Pendulum, jitted and vmapped (one float32 Euler step, with
    autoreset).
    """
    import gymnax
    import jax

    env, params = gymnax.make("Pendulum-v1")
    keys = jax.random.split(jax.random.PRNGKey(0), num_envs)
    _, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    advance = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    random = np.random.default_rng(0).uniform(-1, 1, (32, num_envs, 1)).astype(np.float32)
    actions = itertools.cycle([jax.device_put(a) for a in random])

    def step() -> None:
        nonlocal state
        observations, state, *_ = advance(keys, state, next(actions), params)
        jax.block_until_ready(observations)

    return step


def block(step: Callable[[], Any], episodes: int) -> float:
    """Seconds a call, over so many episodes, each with the step that starts it anew."""
    if isinstance(step, BetweenRestarts):
        step.prepare()
    count = episodes * (EPISODE if isinstance(step, BetweenRestarts) else EPISODE + 1)
    start = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - start) / count


def compare(ours: Callable[[], Any], peer: Callable[[], Any], args: Args) -> dict[str, float]:
    """Median microseconds of either and the median ratio, timed in turns."""
    episodes, whole = [], 0.0
    for step in (ours, peer):
        cost = EPISODE * block(step, 1)
        alone = isinstance(step, BetweenRestarts)
        episodes.append(1 if alone else max(1, round(args.seconds / cost)))
        whole += cost
    blocks = args.blocks if whole < LONG else min(3, args.blocks)
    pairs = [(block(ours, episodes[0]), block(peer, episodes[1])) for _ in range(blocks)]
    mine, theirs = np.array(pairs).T
    return {
        "microseconds": float(np.median(mine) * 1e6),
        "peer_microseconds": float(np.median(theirs) * 1e6),
        "ratio": float(np.median(mine / theirs)),
    }


LONG = 10.0
"""Seconds of an episode of both beyond which three blocks are enough."""
PEERS = {"acrobot": ("Acrobot-v1", "<= 1.0"), "cart_pole": ("CartPole-v1", "<= 1.0")}
"""The env of Gymnasium that a system is timed beside, and the goal; the others beside Pendulum-v1."""


def pairs() -> list[tuple[str, Callable[[], Any], str, Callable[[], Any], str]]:
    """(what, ours, peer's name, peer, goal for our time over the peer's)."""
    pendulum = "PhysGym/Pendulum-v0"
    found = [
        (
            "Pendulum, single",
            lambda: single(pendulum),
            "gymnasium Pendulum-v1",
            lambda: single("Pendulum-v1"),
            "<= 1.0",
        ),
    ]
    for system in physgym.SYSTEMS.values():
        if system.env_id != pendulum:
            name = system.env_id.split("/")[1].split("-")[0]
            ours = lambda env_id=system.env_id: single(env_id)  # noqa: E731
            peer, goal = PEERS.get(system.name, ("Pendulum-v1", "<= 2.0"))
            theirs = lambda peer=peer: single(peer)  # noqa: E731
            found.append((f"{name}, single", ours, f"gymnasium {peer}", theirs, goal))
    return [*found, *batches(pendulum)]


def batches(pendulum: str) -> list[tuple[str, Callable[[], Any], str, Callable[[], Any], str]]:
    """`pairs` of vector envs, each size beside each peer, and beside itself without restarts."""
    found = [
        (
            "Pendulum, 64 rows",
            lambda: vector(pendulum, 64),
            "SyncVectorEnv, 64",
            lambda: sync(pendulum, 64),
            "",
        )
    ]
    peers = {"EnvPool": envpool_pendulum, "gymnax jit": gymnax_pendulum}
    goals = {("EnvPool", 1024): "<= 0.333", ("gymnax jit", 16384): "<= 1.0"}
    for count, (name, make) in itertools.product((1, 1024, 16384), peers.items()):
        what, ours = f"Pendulum, {count} rows", lambda n=count: vector(pendulum, n)
        if count == 1:
            what, ours = "Pendulum, single", lambda: single(pendulum)
        theirs = lambda make=make, n=count: make(n)  # noqa: E731
        found.append((what, ours, f"{name}, {count}", theirs, goals.get((name, count), "")))
    for count, goal in ((16384, ""), (262144, "<= 0.2")):
        ours = lambda n=count: tensors(pendulum, n)  # noqa: E731
        theirs = lambda n=count: gymnax_pendulum(n)  # noqa: E731
        found.append((f"Pendulum, {count} rows, torch", ours, f"gymnax jit, {count}", theirs, goal))
    for randomize in (False, True):
        drawn = ", parameters drawn" if randomize else ""
        for words, make in (("all rows restart at once", vector), ("some at each step", staggered)):
            ours = lambda make=make, r=randomize: make(pendulum, 16384, randomize=r)  # noqa: E731
            plain = lambda r=randomize: BetweenRestarts(pendulum, 16384, randomize=r)  # noqa: E731
            found.append((f"16384 rows{drawn}, {words}", ours, "between restarts", plain, ""))
    return found


def main(args: Args) -> None:
    """Measure every pair, print and save."""
    rows, missing = [], []
    warnings.simplefilter("ignore")
    for what, ours, name, peer, goal in pairs():
        try:
            other = peer()
        except ImportError as reason:
            missing.append(f"{name}: {reason}")
            continue
        rows.append({"what": what, "peer": name, **compare(ours(), other, args), "goal": goal})
    title = f"Microseconds a step (native code {'on' if native.available() else 'off'})"
    print_table(
        rows, ("what", "microseconds", "peer", "peer_microseconds", "ratio", "goal"), title=title
    )
    for line in missing:
        print(f"left out: {line} (pip install -e '.[bench]')")
    write_json(
        args.out,
        {
            "clock": "CPU time, all threads",
            "native": native.available(),
            "rows": rows,
            "missing": missing,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Args))
