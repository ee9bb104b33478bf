"""Does a learned model plan as well as the truth?

    python benchmarks/planning_gap.py --envs pendulum Pendulum-v1 --models jump port_hamiltonian

For each env a model is trained with the defaults on random actions (of the classic ones, on those of `POLICY`);
then the same planner, on the same starts and seeds, plans in the truth and in the model and acts in the truth.
What is missing in the results is run; `--out` keeps the rest.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from never_saw import GIVEN, SOURCES, agent_of
from reporting import kept_rows, print_table, train_missing, write_json

HERE = Path(__file__).parent
OURS = ("oscillator", "pendulum", "spaceship", "three_body")
CLASSIC = ("Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0")
POLICY = {"Pendulum-v1": "ou", "MountainCar-v0": "bang"}
"""Who collects where chance sees too little."""
_FEW = {"samples": 64, "rounds": 2}
PLANNER: dict[str, dict[str, Any]] = {
    "Acrobot-v1": {"horizon": 60, "hold": 3, **_FEW},
    "MountainCar-v0": {"horizon": 100, "hold": 5, **_FEW},
    "CartPole-v1": {"horizon": 24, "hold": 2, **_FEW},
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
    """The model of a run that is there, or of a new one; where chance sees too little, that of never_saw.py."""
    import worldmodels

    if env in SOURCES and SOURCES[env].later:
        return agent_of(arguments, env, "ppo", arguments.seed)[1]
    config = worldmodels.default_config(env, model)
    data = replace(config.data, policy=POLICY.get(env, "random"), episodes=arguments.buffer)
    out = arguments.runs / f"{env}-{model}-s{arguments.seed}"
    config = replace(config, data=data, seed=arguments.seed, out=str(out))
    return worldmodels.load(train_missing(config))


def rows_of(arguments: argparse.Namespace, env: str, models: list[str]) -> list[dict[str, Any]]:
    """Train, plan in the truth and in every model, compare."""
    import gymnasium

    import physgym
    import worldmodels
    from worldmodels.agents.gap import planning_gap
    from worldmodels.envs.single import make_truth
    from worldmodels.evaluation.statistics import plain

    learned = {model: trained(arguments, env, model) for model in models}
    places = {
        name: worldmodels.make_env(model, **GIVEN[env]) if env in GIVEN else model
        for name, model in learned.items()
    }
    spec, system = learned[models[0]].spec, physgym.get_system(env)
    began = time.process_time()
    gaps = planning_gap(
        {"truth": gymnasium.make(system.env_id), **places},
        lambda count: make_truth(spec, num_envs=count),
        arguments.episodes,
        1000 * (1 + arguments.seed),
        system.reward_threshold,
        **PLANNER.get(env, {}),
    )
    shared = {
        "env": env,
        "rounds": len(SOURCES[env].later) + 1 if env in SOURCES else 1,
        "seed": arguments.seed,
        "buffer": arguments.buffer,
        "episodes": arguments.episodes,
        "planner": {"method": "cem", **PLANNER.get(env, {})},
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
