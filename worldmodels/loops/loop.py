"""`run`: rounds of collecting, training and improving, each stage kept, so that a killed loop goes on.

In the folder of a loop: `loop.json` (what was asked for, and a row a round), `datasets/` (its buffer, which
grows), `models/` (a run a round), `agents/` (the agent after each round).
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import gymnasium

import physgym
from worldmodels.agents.returns import Returns, evaluate_agent, greedy
from worldmodels.agents.saved import load_agent, load_policy
from worldmodels.agents.stable_baselines import library, start_agent, watched
from worldmodels.configs.schema import ConfigError, shown
from worldmodels.configs.training import TrainConfig, default_config
from worldmodels.data import CollectConfig, Dataset, collect, load_dataset
from worldmodels.data.appending import append
from worldmodels.envs.single import foreign_env, make_env
from worldmodels.loops.config import LoopConfig
from worldmodels.storage.checkpoint import load
from worldmodels.storage.files import RunLock, atomic_write, read_json
from worldmodels.training.sweeps import train_to_end

RECORD = "loop.json"
BUFFER = "loop"
"""Name of the buffer."""


def run(
    config: LoopConfig, folder: str | Path, announce: Callable[[str], object] = lambda line: None
) -> dict[str, Any]:
    """Run the loop in ``folder``, or go on with it where it was; returns what `loop.json` then holds.

    Its ``rows`` hold ``round, true_steps, return, standard_error, returns, validation`` (the model's error) and
    ``seconds``; ``model_free`` the same of the agent without a model. ``announce`` is told what is done.

    Raises:
        ConfigError: the folder holds a loop of another config, whose first difference is named.
        LockedError: another process runs it.
    """
    folder = Path(folder)
    library()  # a package that is missing is said before the work
    with RunLock(folder):
        record = _record(config, folder)
        for number in range(len(record["rows"]), config.rounds):
            record["rows"].append(_round(config, folder, number, announce))
            _write(folder, record)
            row = record["rows"][-1]
            announce(
                f"round {number + 1} of {config.rounds}: {row['true_steps']} true steps, return "
                f"{row['return']:.1f} +- {row['standard_error']:.1f}, validation error {row['validation']:.2g}"
            )
        if config.model_free_steps:
            _model_free(config, folder, record, announce)
    return record


def _record(config: LoopConfig, folder: Path) -> dict[str, Any]:
    """What is there of this loop. Raises ConfigError where it is of another config."""
    wanted = json.loads(json.dumps(asdict(config)))
    if not (folder / RECORD).exists():
        record = {"config": wanted, "rows": [], "model_free": []}
        _write(folder, record)
        return record
    record = read_json(folder / RECORD)
    usual = {field.name: field.default for field in fields(LoopConfig)}
    for name, value in wanted.items():
        before = record["config"].get(name, usual[name])  # one that is younger than the record
        if before != value and name not in ("rounds", "model_free_steps"):
            raise ConfigError(
                f"{folder} holds a loop with {name}={shown(before)}, not {shown(value)}: give that value, or "
                "another folder; only rounds and model_free_steps may change"
            )
    record["config"] = wanted
    return record


def _write(folder: Path, record: dict[str, Any]) -> None:
    atomic_write(folder / RECORD, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def _round(
    config: LoopConfig, folder: Path, number: int, announce: Callable[[str], object]
) -> dict[str, Any]:
    """One round: the buffer as it is then, the model, the agent, and what it earns."""
    began = time.perf_counter()
    dataset = _grown(config, folder, number)
    announce(f"round {number + 1}: {len(dataset)} true episodes")
    model, validation = _trained(config, folder, number, dataset)
    path = folder / "agents" / f"round-{number}.zip"
    if path.exists():
        agent = load_agent(path)
    else:
        agent = _improved(config, folder, number, model, dataset)
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, agent.save)
    earned = _evaluated(config, agent)
    return {
        "round": number,
        "true_steps": int(dataset.lengths.sum()),
        "return": earned.mean,
        "standard_error": earned.standard_error if len(earned.returns) > 1 else 0.0,
        "returns": earned.returns.tolist(),
        "validation": validation,
        "seconds": time.perf_counter() - began,
    }


def _grown(config: LoopConfig, folder: Path, number: int) -> Dataset:
    """The buffer of round ``number``: the first episodes, and those of the agents of all rounds before."""
    root = folder / "datasets"
    own = config.env_kwargs.get("action_mode")
    wanted = CollectConfig(
        env=config.env,
        name=BUFFER,
        episodes=config.first_episodes,
        policy=config.first_policy,
        seed=config.seed,
        make_kwargs=config.make_kwargs,
        **({"action_mode": own} if own else {}),
    )
    place = root / physgym.get_system(config.env, config.make_kwargs).folder / BUFFER
    if not (
        folder / "agents"
    ).exists():  # one that was killed is gone on with, one that is whole stays
        collect(wanted, root, progress=False)
    expected = config.first_episodes + number * config.episodes
    while len(dataset := load_dataset(place)) < expected:
        done = (len(dataset) - config.first_episodes) // config.episodes
        path = folder / "agents" / f"round-{done}.zip"
        policy = functools.partial(load_policy, path, config.env, config.make_kwargs)
        more = replace(wanted, episodes=config.episodes, policy=str(path), seed=config.seed + 1)
        append(more, root, progress=False, policy=policy)
    return dataset


def _trained(config: LoopConfig, folder: Path, number: int, dataset: Dataset) -> tuple[Any, float]:
    """The model after round ``number``, and its best validation error."""
    out = folder / "models" / f"round-{number}"
    before = folder / "models" / f"round-{number - 1}"
    base: Any = default_config(config.env, config.model)
    epochs = config.epochs if number else config.first_epochs
    asked: TrainConfig = replace(
        base,
        env=replace(
            base.env,
            make_kwargs=config.make_kwargs,
            action_mode=_mode(config, base.env.action_mode),
        ),
        model=replace(base.model, ensemble=config.ensemble),
        epochs=epochs,
        seed=config.seed,
        out=str(out),
        dataset=str(dataset.path),
        pretrained=str(before) if number else None,
    )
    found = train_to_end(asked, out, dataset)
    return load(out), found["best_nmse"]


def _mode(config: LoopConfig, usual: Any) -> Any:
    return config.env_kwargs.get("action_mode", usual)


def _improved(config: LoopConfig, folder: Path, number: int, model: Any, dataset: Dataset) -> Any:
    """The agent of the round before, improved in short rollouts of the model."""
    env: Any = make_env(
        model,
        config.num_envs,
        max_episode_steps=config.rollout_steps,
        starts="buffer",
        dataset=dataset,
        autoreset_mode="SameStep",
        uncertainty_penalty=config.uncertainty_penalty if config.ensemble > 1 else 0.0,
        **({} if model.spec.foreign else {"obs_mode": "embedded"}),
    )
    before = folder / "agents" / f"round-{number - 1}.zip"
    if number:
        agent = load_agent(before)
        agent.set_env(watched(env))
        agent.set_random_seed(config.seed + number)
    else:
        agent = start_agent(env, config.agent, config.seed)
    agent.learn(total_timesteps=config.imagined_steps, reset_num_timesteps=not number)
    env.close()
    return agent


def _true_env(config: LoopConfig, count: int) -> Any:
    """The true vector env, seen as the agent sees it."""
    system = physgym.get_system(config.env, config.make_kwargs)
    if "equations" not in system.knows:
        return foreign_env(system.env_id, count, "SameStep", **config.env_kwargs)
    return gymnasium.make_vec(
        system.env_id,
        num_envs=count,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SameStep",
        obs_mode="embedded",
        **config.env_kwargs,
    )


def _evaluated(config: LoopConfig, agent: Any) -> Returns:
    env = _true_env(config, config.evaluation_episodes)
    found = evaluate_agent(greedy(agent), env, seed=config.seed + 1_000_000)
    env.close()
    return found


def _model_free(
    config: LoopConfig,
    folder: Path,
    record: dict[str, Any],
    announce: Callable[[str], object],
) -> None:
    """The same agent in the truth alone, looked at ten times; what it learned is kept only to its end."""
    if record["model_free"] and record["model_free"][-1]["true_steps"] >= config.model_free_steps:
        return
    rows: list[dict[str, Any]] = []
    rows_at_once = 8 if config.agent == "ppo" else 1
    agent = start_agent(_true_env(config, rows_at_once), config.agent, config.seed)
    part = max(1, config.model_free_steps // 10)
    while not rows or rows[-1]["true_steps"] < config.model_free_steps:
        agent.learn(total_timesteps=part, reset_num_timesteps=not rows)
        earned = _evaluated(config, agent)
        rows.append(
            {
                "true_steps": int(agent.num_timesteps),
                "return": earned.mean,
                "standard_error": earned.standard_error if len(earned.returns) > 1 else 0.0,
                "returns": earned.returns.tolist(),
            }
        )
        announce(f"without a model: {rows[-1]['true_steps']} true steps, return {earned.mean:.1f}")
    record["model_free"] = rows
    _write(folder, record)
