"""Train a stock agent inside a learned world model, and see what it earns in the truth.

    python scripts/train_agent.py --run outputs/2026-01-31/12-00-00/newtonian --agent ppo
    python scripts/train_agent.py --env pendulum --agent ppo     # in the truth, for comparison

Needs the extra `agents` (Stable-Baselines3): pip install 'physgym[agents]'.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from cli import UsageError, main_guard, print_table, progress

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from worldmodels.agents import Returns


@dataclass(frozen=True)
class Arguments:
    """What is trained, and where."""

    run: Path | None = None
    """Run folder (or checkpoint) of a world model to train in."""
    env: str | None = None
    """System to train in instead: the truth itself."""
    agent: Literal["dqn", "ppo", "sac"] = "ppo"
    """Agent of Stable-Baselines3; sac needs continuous actions."""
    steps: int = 200_000
    """Env steps, over all envs together."""
    num_envs: int = 32
    """Envs stepped together."""
    episodes: int = 64
    """Episodes of each evaluation."""
    seed: int = 0
    """Seed of the agent and of the envs."""
    obs_mode: Literal["state", "embedded"] = "embedded"
    """Observations: embedded shows angles as (cos, sin)."""
    compare: bool = False
    """With --run: train a second agent in the truth, on the same budget."""
    out: Path | None = None
    """Where to write the numbers, as JSON, and the agent beside them (.zip)."""


def main() -> None:
    args = tyro.cli(Arguments, description=__doc__)
    if (args.run is None) == (args.env is None):
        raise UsageError("give either --run RUN (train in a world model) or --env NAME (the truth)")
    if args.steps < 1 or args.num_envs < 1 or args.episodes < 1:
        raise UsageError("--steps, --num-envs and --episodes must be at least 1")
    places = _places(args)
    rows = []
    for place in [name for name in places if name == "model" or args.compare or not args.run]:
        agent, seconds = _train(args, place, places[place])
        earned = {name: _evaluate(args, agent, make) for name, make in places.items()}
        rows.append({"trained in": place, "seconds": seconds, **earned})
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            agent.save(args.out.with_name(f"{args.out.stem}-{place}.zip"))
    _report(args, rows, list(places))


def _places(args: Arguments) -> dict[str, Any]:
    """Makers of vector envs by name: "model" (with --run) and "truth"."""
    import gymnasium

    import physgym
    import worldmodels
    from worldmodels.env import make_truth

    common = {"obs_mode": args.obs_mode, "autoreset_mode": "SameStep"}
    if args.run is None:
        system = physgym.get_system(str(args.env))
        if args.agent == "sac":
            common["action_mode"] = "continuous"
        mode = "vector_entry_point"
        return {
            "truth": lambda n: gymnasium.make_vec(
                system.env_id, num_envs=n, vectorization_mode=mode, **common
            )
        }
    model = worldmodels.load(args.run)
    return {
        "model": lambda n: worldmodels.make_env(model, num_envs=n, **common),
        "truth": lambda n: make_truth(model.spec, num_envs=n, **common),
    }


def _train(args: Arguments, place: str, make: Any) -> tuple[Any, float]:
    from worldmodels.agents import train_agent

    env: VectorEnv = make(args.num_envs)
    begun, done = time.perf_counter(), 0
    with progress(f"training {args.agent} in the {place}", args.steps) as advance:

        def report(steps: int) -> None:
            nonlocal done
            advance(steps - done)
            done = steps

        agent = train_agent(env, args.agent, args.steps, args.seed, report)
    env.close()
    return agent, time.perf_counter() - begun


def _evaluate(args: Arguments, agent: Any, make: Any) -> Returns:
    from worldmodels.agents import evaluate_agent, greedy

    env = make(args.episodes)
    result = evaluate_agent(greedy(agent), env, seed=args.seed + 1_000_000)
    env.close()
    return result


def _report(args: Arguments, rows: list[dict[str, Any]], places: list[str]) -> None:
    columns = ["agent", "trained in", "steps", "seconds", *(f"return in the {p}" for p in places)]
    cells = [
        [args.agent, row["trained in"], args.steps, row["seconds"], *(str(row[p]) for p in places)]
        for row in rows
    ]
    print_table(f"{args.agent}, {args.episodes} episodes, mean +- standard error", columns, cells)
    if args.out:
        values = {
            "agent": args.agent,
            "steps": args.steps,
            "seed": args.seed,
            "run": None if args.run is None else str(args.run),
            "env": args.env,
            "rows": [
                {
                    k: v._replace(returns=v.returns.tolist())._asdict() if k in places else v
                    for k, v in row.items()
                }
                for row in rows
            ],
        }
        args.out.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main_guard(main)
