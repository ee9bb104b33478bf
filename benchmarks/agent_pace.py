"""How many steps a second an agent learns by in a learned env, beside the same agent in the true one.

    python benchmarks/agent_pace.py --env pendulum

A stock DQN of Stable-Baselines3 (its own defaults, with its gradient steps) goes on in each env in turns, in blocks of
one process on one thread: one env of each kind, and rows of a vector env. The models are trained for some seconds,
so that their episodes are like true ones. A third row has the agent alone: what it takes per step in an env
that does nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from imagination import measured
from reporting import print_table, train_missing, write_json

HERE = Path(__file__).parent
MODELS = ("jump", "port_hamiltonian")
STEPS = 256
"""Steps of a block's unit, whole rounds of all rows."""
COLUMNS = ("rows", "env", "steps_per_second", "over_truth")


class Idle(gymnasium.Env[Any, Any]):
    """The spaces of a true env, and nothing behind them."""

    def __init__(self, like: gymnasium.Env[Any, Any]) -> None:
        self.observation_space, self.action_space = like.observation_space, like.action_space
        self._blank = np.zeros(like.observation_space.shape, np.float32)  # type: ignore[arg-type]

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Nothing begins."""
        return self._blank, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Nothing moves."""
        return self._blank, 0.0, False, False, {}


def learning(env: Any, rows: int) -> Callable[[], None]:
    """A function that lets a stock DQN learn for another `STEPS` steps."""
    from stable_baselines3 import DQN

    from worldmodels.agents.stable_baselines import to_sb3_vecenv

    agent = DQN("MlpPolicy", env if rows == 1 else to_sb3_vecenv(env), seed=0, device="cpu")
    agent.learn(2 * STEPS)  # gradient steps have begun

    def more() -> None:
        agent.learn(STEPS, reset_num_timesteps=False)

    return more


def trained(env: str, name: str, folder: Path) -> Any:
    """A model after some seconds of training."""
    import worldmodels

    config = worldmodels.default_config(env, name)
    config = replace(config, data=replace(config.data, episodes=200), epochs=5)
    return worldmodels.load(train_missing(replace(config, out=str(folder / f"{env}-{name}"))))


def rows_of(env: str, models: dict[str, Any], rows: int, blocks: int) -> list[dict[str, Any]]:
    """Steps a second in the true env, in each model, and in none, with so many rows."""
    from worldmodels.envs.single import make_env, make_truth

    first, count = next(iter(models.values())), None if rows == 1 else rows
    envs = {"truth": make_truth(first, count)}
    envs |= {name: make_env(model, count) for name, model in models.items()}
    if rows == 1:
        envs["nothing"] = Idle(make_truth(first))  # type: ignore[arg-type]
    contestants = {name: learning(one, rows) for name, one in envs.items()}
    seconds = measured(contestants, blocks, least=1)
    return [
        {
            "task": env,
            "rows": rows,
            "env": name,
            "steps_per_second": float(STEPS / np.median(values)),
            "over_truth": float(np.median(seconds["truth"] / values)),
        }
        for name, values in seconds.items()
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="pendulum")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--blocks", type=int, default=9, help="of every contestant, in turns")
    parser.add_argument("--runs", type=Path, help="where trained models stay; else nowhere")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "agent_pace.json")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kept = (arguments.runs or Path(folder)).absolute()
        os.chdir(folder)
        models = {name: trained(arguments.env, name, kept) for name in arguments.models}
        rows = [
            row
            for count in arguments.rows
            for row in rows_of(arguments.env, models, count, arguments.blocks)
        ]
    write_json(out, {"load": list(os.getloadavg()), "steps": STEPS, "rows": rows})
    print_table(rows, COLUMNS, f"DQN on {arguments.env}: steps a second of CPU time")


if __name__ == "__main__":
    main()
