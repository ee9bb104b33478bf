"""Mean return of doing nothing, random actions and each system's hand-written controller.

`python benchmarks/baselines.py` runs 256 episodes a cell (discrete actions; default and
randomised parameters) and writes `benchmarks/results/baselines.json` beside a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from reporting import print_table, write_json

import physgym

POLICIES = ("nothing", "random", "controller")


@dataclass(frozen=True)
class Args:
    """Mean returns of the baseline policies."""

    episodes: int = 256
    """Episodes a cell."""
    seed: int = 0
    """Seed of the first episode; episode i has seed + i."""
    out: Path = Path(__file__).parent / "results" / "baselines.json"
    """Where the JSON goes."""


def returns_of(system: Any, policy: str, episodes: int, seed: int, randomize: bool) -> np.ndarray:
    """Undiscounted returns (episodes,) of `policy` on the true environment."""
    envs = gymnasium.make_vec(
        system.env_id,
        num_envs=episodes,
        vectorization_mode="vector_entry_point",
        randomize=randomize,
        autoreset_mode="SameStep",
    )
    _, info = envs.reset(seed=seed)
    rng = np.random.default_rng(seed)
    nothing = int(np.flatnonzero((system.discrete_actions == 0.0).all(axis=1))[0])
    total, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    for step in range(system.max_episode_steps):
        if policy == "nothing":
            actions = np.full(episodes, nothing)
        elif policy == "random":
            actions = rng.integers(len(system.discrete_actions), size=episodes)
        else:
            params = system.Params(
                **{k: v for k, v in info["params"].items() if not k.startswith("_")}
            )
            actions = system.controller(info["state"], params, step)
        _, rewards, terminated, truncated, info = envs.step(actions)
        total += rewards * running
        running &= ~(terminated | truncated)
    return total


def main(args: Args) -> None:
    """Measure, print and save."""
    rows = []
    for randomize in (False, True):
        for system in physgym.SYSTEMS.values():
            row: dict[str, Any] = {"system": system.name, "randomize": randomize}
            row["most"] = system.max_episode_steps
            for policy in POLICIES:
                returns = returns_of(system, policy, args.episodes, args.seed, randomize)
                row[policy] = float(returns.mean())
                row[f"{policy}_standard_error"] = float(returns.std(ddof=1) / np.sqrt(len(returns)))
            row["reward_threshold"] = system.reward_threshold
            rows.append(row)
    print_table(
        rows,
        ("system", "randomize", *POLICIES, "most", "reward_threshold"),
        title="Mean return of the baselines",
    )
    write_json(args.out, {"episodes": args.episodes, "seed": args.seed, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Args))
