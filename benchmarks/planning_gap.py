"""Does a learned model plan as well as the truth?

    python benchmarks/planning_gap.py --envs pendulum Pendulum-v1 --models jump port_hamiltonian

For each env a model is trained with the defaults on random actions (of the classic ones, as `never_saw.py` does it);
then the same planner, on the same starts and seeds, plans in the truth and in the model and acts in the truth. It plans
for the env's reward, or, where that says nothing within its horizon, for one of `COSTS`. What is missing in the results
is run; `--out` keeps the rest.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from never_saw import GIVEN, SOURCES, agent_of, learned_env, model_of
from reporting import kept_rows, print_table, train_missing, write_json

HERE = Path(__file__).parent
OURS = ("oscillator", "pendulum", "spaceship", "three_body")
CLASSIC = ("Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0")


def pole_cost(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of an upright pole [rad] in the middle of the track [m]: nothing."""
    return 10.0 * after[:, 2] ** 2 + 0.1 * after[:, 0] ** 2


def acrobot_cost(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Depth of the tip below the pivot, in lengths of a rod."""
    cos_a, sin_a, cos_b, sin_b = after[:, :4].T
    return cos_a + (cos_a * cos_b - sin_a * sin_b)


def car_cost(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mechanical energy that is missing, up to a constant: 0.0025 cos(3 x) is what the hill takes a step."""
    return -1000.0 * (0.0025 / 3.0 * np.sin(3.0 * after[:, 0]) + 0.5 * after[:, 1] ** 2)


COSTS = {"CartPole-v1": pole_cost, "Acrobot-v1": acrobot_cost, "MountainCar-v0": car_cost}
"""What is planned for where every step before the end earns the same."""
_FEW = {"samples": 32, "rounds": 2}
PLANNER: dict[str, dict[str, Any]] = {
    "Pendulum-v1": {"horizon": 30, "hold": 3, "samples": 64, "rounds": 3},
    "CartPole-v1": {"horizon": 16, "hold": 2, **_FEW},
    "Acrobot-v1": {"horizon": 40, "hold": 4, **_FEW},
    "MountainCar-v0": {"horizon": 60, "hold": 5, **_FEW},
}
"""Arguments of the planner beside the defaults: fewer candidates where the truth is stepped one by one."""
COLUMNS = (
    "env",
    "model",
    "return",
    "truth",
    "random",
    "ratio",
    "score",
    "low",
    "high",
    "success",
    "verdict",
)


def trained(arguments: argparse.Namespace, env: str, model: str) -> Any:
    """The model of a run that is there, or of a new one; of a classic env, that of never_saw.py."""
    import worldmodels

    if env in SOURCES:
        if model != SOURCES[env].model:
            raise SystemExit(f"--models {model}: never_saw.py learns {env} by {SOURCES[env].model}")
        if SOURCES[env].later:
            return agent_of(arguments, env, "ppo", arguments.seed)[1]
        return model_of(arguments, env, arguments.seed, [])[0]
    config = worldmodels.default_config(env, model)
    data = replace(config.data, episodes=arguments.buffer)
    out = arguments.runs / f"{env}-{model}-s{arguments.seed}"
    config = replace(config, data=data, seed=arguments.seed, out=str(out))
    return worldmodels.load(train_missing(config))


def rows_of(arguments: argparse.Namespace, env: str, models: list[str]) -> list[dict[str, Any]]:
    """Train, plan in the truth and in every model, compare."""
    import gymnasium

    import physgym
    from worldmodels.agents.gap import planning_gap
    from worldmodels.envs.single import make_truth
    from worldmodels.evaluation.statistics import plain

    learned = {model: trained(arguments, env, model) for model in models}
    places = {
        name: learned_env(model, env) if env in GIVEN else model for name, model in learned.items()
    }
    spec, system = learned[models[0]].spec, physgym.get_system(env)
    began = time.process_time()
    gaps = planning_gap(
        {"truth": gymnasium.make(system.env_id), **places},
        lambda count: make_truth(spec, num_envs=count),
        arguments.episodes,
        1000 * (1 + arguments.seed),
        system.reward_threshold,
        cost=COSTS.get(env),
        **PLANNER.get(env, {}),
    )
    shared = {
        "env": env,
        "rounds": len(SOURCES[env].later) + 1 if env in SOURCES else 1,
        "seed": arguments.seed,
        "buffer": SOURCES[env].episodes if env in SOURCES else arguments.buffer,
        "episodes": arguments.episodes,
        "planner": {"method": "cem", **PLANNER.get(env, {})},
        "cost": env in COSTS,
        "truth": float(gaps["truth"].returns.mean()),
        "random": float(gaps["random"].returns.mean()),
        "success_of_truth": gaps["truth"].success,
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    known = {name: gaps[name].returns.tolist() for name in ("random", "truth")}
    rows = []
    for model in models:
        values = gaps[model]._asdict()
        own = values.pop("returns")
        returns = {**known, "model": own.tolist()}
        rows.append(
            {**shared, "model": model, "return": float(own.mean()), **values, "returns": returns}
        )
    return plain(rows)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=[*OURS, *CLASSIC])
    parser.add_argument("--models", nargs="+", default=["jump"])
    parser.add_argument("--episodes", type=int, default=16, help="planned in each place")
    parser.add_argument("--buffer", type=int, default=1000, help="episodes that are learned from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("outputs/planning_gap"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "planning_gap.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = kept_rows(arguments.out)
    for env in arguments.envs:
        done = {row["model"] for row in rows if (row["env"], row["seed"]) == (env, arguments.seed)}
        if missing := [model for model in arguments.models if model not in done]:
            rows += rows_of(arguments, env, missing)
            write_json(arguments.out, {"rows": rows})
    print_table(rows, COLUMNS, "planning by the cross-entropy method: returns in the truth")


if __name__ == "__main__":
    main()
