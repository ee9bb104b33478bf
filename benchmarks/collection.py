"""Steps a second of collecting a buffer, beside a plain Gymnasium loop and Minari.

    python benchmarks/collection.py

The pendulum under random actions, whole episodes of 200 steps, states and pictures (64 x 64), in turns. "loop"
steps the true single env and writes one .npz, "Minari" the same env in its DataCollector and writes an HDF5 dataset
of it. Time is that of the CPU, of this process and the workers together; what starts workers and what writes files
is included: several end sooner where there are cores, but take no less of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from reporting import print_table, write_json

import physgym  # noqa: F401  # its ids

HERE = Path(__file__).parent
ENV_ID, STEPS = "PhysGym/Pendulum-v0", 200
SIZES = {"states": (100, 400, 1600), "pictures": (8, 32)}
SLOW = 400
"""Episodes beyond which only collections of ours are timed."""
COLUMNS = ("medium", "episodes", "how", "steps_per_second", "over_loop", "megabytes")


def ours(medium: str, episodes: int, workers: int) -> Callable[[Path], None]:
    """`physgym collect` with so many workers, four shards or more."""
    from worldmodels.data.collecting import collect
    from worldmodels.data.config import CollectConfig

    config = CollectConfig(
        env="pendulum",
        episodes=episodes,
        pixels=medium == "pictures",
        shard_episodes=max(1, episodes // 4),
    )
    return lambda folder: collect(config, folder, workers, progress=False) and None


def env_of(medium: str) -> Any:
    """The true env that shows this medium."""
    mode = {"states": "state", "pictures": "state_pixels"}[medium]
    return gymnasium.make(ENV_ID, obs_mode=mode)


def episode(env: Any, seed: int) -> list[tuple[Any, Any, float]]:
    """Observations, actions and rewards under random actions; of the end an action that nobody took."""
    observation, _ = env.reset(seed=seed)
    told, over = [], False
    while not over:
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        told.append((observation, action, float(reward)))
        observation, over = after, terminated or truncated
    return [*told, (observation, 0, 0.0)]


def loop(medium: str, episodes: int) -> Callable[[Path], None]:
    """What a user would write."""

    def run(folder: Path) -> None:
        env = env_of(medium)
        env.action_space.seed(0)
        told = [row for index in range(episodes) for row in episode(env, index)]
        seen, actions, rewards = zip(*told, strict=True)
        parts = (
            {"state": seen} if medium == "states" else {k: [s[k] for s in seen] for k in seen[0]}
        )
        arrays = {name: np.array(values) for name, values in parts.items()}
        np.savez(folder / "loop.npz", actions=actions, rewards=rewards, **arrays)  # type: ignore[arg-type]

    return run


def minari(medium: str, episodes: int) -> Callable[[Path], None]:
    """Minari's own collector. Raises ImportError where it, or the jax that it collects with, is not installed."""
    import jax.tree_util  # noqa: F401
    from minari import DataCollector

    def run(folder: Path) -> None:
        os.environ["MINARI_DATASETS_PATH"] = str(folder)
        env = DataCollector(env_of(medium), record_infos=False)
        env.action_space.seed(0)
        for index in range(episodes):
            episode(env, index)
        words = {
            "algorithm_name": "random",
            "code_permalink": "-",
            "author": "-",
            "author_email": "-",
        }
        env.create_dataset("physgym/pendulum-v0", **words)
        env.close()

    return run


def contestants(medium: str, episodes: int, missing: set[str]) -> dict[str, Callable[[Path], None]]:
    """Ways to collect so many episodes; `missing` is told of those that are not installed."""
    found = {"1 worker": ours(medium, episodes, 1), "2 workers": ours(medium, episodes, 2)}
    if episodes <= SLOW:
        found["loop"] = loop(medium, episodes)
        try:
            found["Minari"] = minari(medium, episodes)
        except ImportError as reason:
            missing.add(f"Minari: {reason}")
    return found


def cost(run: Callable[[Path], None]) -> tuple[float, float]:
    """CPU seconds of this process and its children, and megabytes that were written."""
    with tempfile.TemporaryDirectory() as folder:
        began = sum(os.times()[:4])
        run(Path(folder))
        seconds = sum(os.times()[:4]) - began
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return seconds, sum(path.stat().st_size for path in files) / 1e6


def rows_of(medium: str, episodes: int, blocks: int, missing: set[str]) -> list[dict[str, Any]]:
    """What each way costs, in turns."""
    ways = contestants(medium, episodes, missing)
    for run in ways.values():
        cost(run)  # compiled, imported, and read from the disk
    turns = [{name: cost(run) for name, run in ways.items()} for _ in range(blocks)]
    taken = {name: np.array([turn[name] for turn in turns]) for name in ways}
    rows = []
    for name, pairs in taken.items():
        row = {"medium": medium, "episodes": episodes, "how": name}
        row["steps_per_second"] = episodes * STEPS / float(np.median(pairs[:, 0]))
        other = taken.get("loop")
        row["over_loop"] = other if other is None else float(np.median(other[:, 0] / pairs[:, 0]))
        rows.append({**row, "megabytes": float(pairs[-1, 1])})
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--blocks", type=int, default=5, help="of every contestant")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "collection.json")
    arguments = parser.parse_args()
    pairs = [(medium, count) for medium in arguments.media for count in SIZES[medium]]
    missing: set[str] = set()
    rows = [row for pair in pairs for row in rows_of(*pair, arguments.blocks, missing)]
    told = {"load": list(os.getloadavg()), "missing": sorted(missing)}
    write_json(arguments.out, {**told, "rows": rows})
    for line in told["missing"]:
        print(f"left out: {line} (pip install 'minari[create]')")
    print_table(rows, COLUMNS, "collecting the pendulum: steps a second of CPU time")


if __name__ == "__main__":
    main()
