"""What stock agents earn in classic envs that they never saw: they were trained in a learned model alone.

    python benchmarks/never_saw.py --envs Pendulum-v1 --agents sac --seeds 0 1 2 3 4

For each seed a model is learned from at most a tenth of the true steps that the agent of RL Baselines3 Zoo was trained
on, an agent is trained in it, and plays 100 episodes in Gymnasium's own env. PPO and DQN have the zoo's settings, SAC
and TD3 those of `physgym agent`, but that SAC makes one gradient step a step of two envs, and TD3 learns when the
zoo's does. The zoo's figures are one run each (github.com/DLR-RM/rl-baselines3-zoo, benchmark.md). What is there
already is kept.
"""

from __future__ import annotations

import argparse
import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from reporting import kept_rows, print_table, train_missing, write_json

HERE = Path(__file__).parent


class Trial(NamedTuple):
    """An agent as the zoo trained it, and what it earned there."""

    zoo: float
    zoo_spread: float
    zoo_steps: int
    num_envs: int
    steps: int
    settings: dict[str, Any]


class Source(NamedTuple):
    """Where the model comes from."""

    model: str
    policy: str
    episodes: int
    epochs: int
    later: tuple[int, ...] = ()
    """True episodes that the agent plays after each of the rounds before the last: model and agent are then
    learned anew from all of them."""


_WIDE = {"net_arch": [256, 256]}
_PENDULUM_PPO = {
    "n_steps": 1024, "batch_size": 64, "gamma": 0.9, "gae_lambda": 0.95, "n_epochs": 10,
    "ent_coef": 0.0, "learning_rate": 1e-3, "use_sde": True, "sde_sample_freq": 4,
}  # fmt: skip
_CARTPOLE_PPO = {
    "n_steps": 32, "batch_size": 256, "gamma": 0.98, "gae_lambda": 0.8, "n_epochs": 20,
    "ent_coef": 0.0, "learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.2 * left,
}  # fmt: skip
_DQN = {
    "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0,
    "gamma": 0.99, "target_update_interval": 250, "train_freq": 4, "gradient_steps": -1,
    "exploration_fraction": 0.12, "exploration_final_eps": 0.1, "policy_kwargs": _WIDE,
}  # fmt: skip
_CAR_DQN = {
    "learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1000,
    "gamma": 0.98, "target_update_interval": 600, "train_freq": 16, "gradient_steps": 8,
    "exploration_fraction": 0.2, "exploration_final_eps": 0.07, "policy_kwargs": _WIDE,
}  # fmt: skip
_SAC = {"learning_starts": 200, "gradient_steps": 1}
_TD3 = {"learning_starts": 10_000, "gradient_steps": 1}
TRIALS: dict[tuple[str, str], Trial] = {
    ("Pendulum-v1", "sac"): Trial(-157.0, 88.7, 20_000, 2, 20_000, _SAC),
    ("Pendulum-v1", "td3"): Trial(-151.9, 90.2, 20_000, 1, 20_000, _TD3),
    ("Pendulum-v1", "ppo"): Trial(-172.2, 104.2, 100_000, 4, 100_000, _PENDULUM_PPO),
    ("CartPole-v1", "ppo"): Trial(500.0, 0.0, 100_000, 8, 100_000, _CARTPOLE_PPO),
    ("Acrobot-v1", "dqn"): Trial(-76.6, 11.8, 100_000, 1, 100_000, _DQN),
    ("MountainCar-v0", "dqn"): Trial(-100.8, 9.9, 120_000, 1, 120_000, _CAR_DQN),
}
SOURCES = {
    "Pendulum-v1": Source("jump", "ou", 10, 20),
    "CartPole-v1": Source("jump", "random", 150, 20, (6, 6)),
    "Acrobot-v1": Source("jump", "random", 20, 30),
    "MountainCar-v0": Source("jump", "bang", 60, 20),
}


def acrobot_ends(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether the tip is a rod's length above the pivot: -cos a - cos(a + b) > 1, as Gymnasium has it."""
    cos_a, sin_a, cos_b, sin_b = after[:, :4].T
    return -cos_a - (cos_a * cos_b - sin_a * sin_b) > 1.0


def car_ends(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether the car is at the flag: x >= 0.5 with a speed that is not backwards."""
    return (after[:, 0] >= 0.5) & (after[:, 1] >= 0.0)


def acrobot_rewards(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """-1 a step, 0 for the last."""
    return acrobot_ends(before, actions, after) - 1.0


def car_rewards(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """-1 a step."""
    return -np.ones(len(after))


GIVEN: dict[str, dict[str, Any]] = {
    "Acrobot-v1": {"reward_fn": acrobot_rewards, "terminated_fn": acrobot_ends},
    "MountainCar-v0": {"reward_fn": car_rewards, "terminated_fn": car_ends},
}
"""What is given where chance never ends an episode, so that no head could learn its reward or its end."""
COLUMNS = (
    "env",
    "agent",
    "seed",
    "rounds",
    "given",
    "true_steps",
    "return",
    "standard_error",
    "in_model",
    "zoo",
)


def learned_env(model: Any, env: str, num_envs: int | None = None) -> Any:
    """The learned env that agents and planners get, with what is given of it."""
    import worldmodels

    mode = {} if num_envs is None else {"autoreset_mode": "SameStep"}
    return worldmodels.make_env(model, num_envs, **mode, **GIVEN.get(env, {}))


def buffer_of(arguments: argparse.Namespace, env: str, seed: int, agents: list[Path]) -> Path:
    """The true episodes of a seed: those of the source's policy, and those that ``agents`` played since."""
    from worldmodels import load_policy
    from worldmodels.data import load_dataset
    from worldmodels.data.appending import append
    from worldmodels.data.collecting import collect
    from worldmodels.data.config import CollectConfig

    source, root = SOURCES[env], arguments.runs / "datasets"
    config = CollectConfig(
        env=env, name=f"s{seed}", episodes=source.episodes, policy=source.policy, seed=seed
    )
    place = root / env / config.name
    if not place.exists():
        collect(config, root, progress=False)
    for number, path in enumerate(agents):
        if len(load_dataset(place)) < source.episodes + sum(source.later[: number + 1]):
            more = replace(
                config, episodes=source.later[number], policy=str(path), seed=seed + 1000
            )
            append(more, root, progress=False, policy=functools.partial(load_policy, path, env))
    return place


def model_of(
    arguments: argparse.Namespace, env: str, seed: int, agents: list[Path]
) -> tuple[Any, int]:
    """The model of a seed, learned now where it is not there, and the true steps it has seen."""
    import worldmodels
    from worldmodels.data import load_dataset

    source = SOURCES[env]
    place = buffer_of(arguments, env, seed, agents)
    out = arguments.runs / f"{env}-{source.model}-s{seed}-{len(agents)}"
    config = worldmodels.default_config(env, source.model)
    config = replace(config, dataset=str(place), seed=seed, epochs=source.epochs, out=str(out))
    return worldmodels.load(train_missing(config)), int(np.sum(load_dataset(place).lengths))


def agent_of(
    arguments: argparse.Namespace, env: str, agent: str, seed: int
) -> tuple[Any, Any, int]:
    """The agent of the last round, its model, and the true steps that both have seen."""
    from worldmodels.agents.saved import load_agent
    from worldmodels.agents.stable_baselines import train_agent

    trial, agents = TRIALS[env, agent], []
    for number in range(len(SOURCES[env].later) + 1):
        model, true_steps = model_of(arguments, env, seed, agents)
        agents.append(arguments.runs / f"{env}-{agent}-s{seed}-{number}.zip")
        if agents[-1].exists():
            learned = load_agent(agents[-1])
            continue
        place = learned_env(model, env, trial.num_envs)
        learned = train_agent(place, agent, trial.steps, seed, **trial.settings)
        learned.save(agents[-1])
    return learned, model, true_steps


def row_of(arguments: argparse.Namespace, env: str, agent: str, seed: int) -> dict[str, Any]:
    """Train one agent in one model, and see what it earns in the truth and in the model."""
    from worldmodels.agents.returns import evaluate_agent, greedy
    from worldmodels.envs.single import make_truth

    trial, source = TRIALS[env, agent], SOURCES[env]
    began = time.process_time()
    learned, model, true_steps = agent_of(arguments, env, agent, seed)
    places = {
        "truth": make_truth(model.spec, num_envs=arguments.episodes, autoreset_mode="SameStep"),
        "model": learned_env(model, env, arguments.episodes),
    }
    earned = {
        name: evaluate_agent(greedy(learned), place, 1_000_000 + seed)
        for name, place in places.items()
    }
    return {
        "env": env,
        "agent": agent,
        "seed": seed,
        "model": source.model,
        "rounds": len(source.later) + 1,
        "given": env in GIVEN,
        "true_steps": true_steps,
        "imagined_steps": trial.steps,
        "return": earned["truth"].mean,
        "standard_error": earned["truth"].standard_error,
        "in_model": earned["model"].mean,
        "zoo": trial.zoo,
        "zoo_spread": trial.zoo_spread,
        "zoo_steps": trial.zoo_steps,
        "episodes": arguments.episodes,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--agents", nargs="+", default=["sac", "td3", "ppo", "dqn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--episodes", type=int, default=100, help="of an evaluation")
    parser.add_argument("--runs", type=Path, default=Path("outputs/never_saw"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "never_saw.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    done = {(row["env"], row["agent"], row["seed"], row.get("rounds", 1)) for row in rows}
    for env, agent in TRIALS:
        rounds = len(SOURCES[env].later) + 1
        for seed in arguments.seeds if env in arguments.envs and agent in arguments.agents else ():
            if (env, agent, seed, rounds) not in done:
                rows.append(row_of(arguments, env, agent, seed))
                write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "returns in the true env of agents that were trained in a model")


if __name__ == "__main__":
    main()
