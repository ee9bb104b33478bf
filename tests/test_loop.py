"""A model and an agent that learn from each other: rounds that are kept, and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_cases as cases
import numpy as np
import pytest
from test_commands import command

from worldmodels.configs.schema import ConfigError
from worldmodels.data import load_dataset
from worldmodels.loops.config import LoopConfig

pytest.importorskip("stable_baselines3")

from worldmodels.loops import loop

TINY = LoopConfig(
    env=cases.CART, agent="ppo", rounds=2, first_episodes=4, episodes=2, ensemble=2, first_epochs=1,
    epochs=1, imagined_steps=64, rollout_steps=4, num_envs=4, evaluation_episodes=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a moment."""
    usual = loop.default_config

    def short(*names: str) -> Any:
        config = usual(*names)
        optim = replace(config.optim, steps_per_epoch=3, batch_size=8)
        return replace(config, optim=optim, validation_steps=4)

    monkeypatch.setattr(loop, "default_config", short)


def without_times(record: Any) -> Any:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in record["rows"]]


class Killed(Exception):
    """What ends a loop in the middle."""


def test_a_killed_loop_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.run(TINY, tmp_path / "whole")
    assert whole["rows"][0]["true_steps"] <= 4 * 30
    assert whole["rows"][1]["true_steps"] > whole["rows"][0]["true_steps"]
    dataset = load_dataset(next((tmp_path / "whole" / "datasets").glob("*/loop")))
    assert len(dataset) == 6 and len(dataset.metadata["appended"]) == 1
    for stage in ("_trained", "_improved", "_evaluated"):
        folder, usual = tmp_path / stage, getattr(loop, stage)
        count = 0

        def dying(*arguments: Any, usual: Any = usual) -> Any:
            nonlocal count
            count += 1
            found = usual(*arguments)
            if count == 2:
                raise Killed
            return found

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop, stage, dying)
            loop.run(TINY, folder)
        assert len(json.loads((folder / "loop.json").read_text())["rows"]) == 1
        assert without_times(loop.run(TINY, folder)) == without_times(whole)


def test_a_loop_that_was_killed_in_its_first_collection_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, rounds=1)

    def dying(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("worldmodels.data.collecting.collect_shard", dying)
        loop.run(config, tmp_path / "killed")
    begun = next((tmp_path / "killed" / "datasets").glob("*/loop"))
    assert not list(begun.glob("shard-*.h5")) and (begun / "dataset.json").is_file()
    found = loop.run(config, tmp_path / "killed")
    assert without_times(found) == without_times(loop.run(config, tmp_path / "whole"))


def test_more_rounds_and_a_comparison_may_be_asked_for(tmp_path: Path) -> None:
    first = loop.run(replace(TINY, rounds=1), tmp_path)
    again = loop.run(replace(TINY, rounds=2, model_free_steps=512), tmp_path)
    assert again["rows"][0] == first["rows"][0] and len(again["rows"]) == 2
    assert again["model_free"][-1]["true_steps"] >= 512
    with pytest.raises(ConfigError, match="imagined_steps=64, not 65"):
        loop.run(replace(TINY, imagined_steps=65), tmp_path)


def test_our_own_systems_are_seen_embedded(tmp_path: Path) -> None:
    config = replace(TINY, env="pendulum", agent="sac", rounds=1)
    record = loop.run(config, tmp_path)
    assert record["rows"][0]["true_steps"] == 4 * 200


def test_the_first_episodes_are_of_the_policy_that_was_asked_for(tmp_path: Path) -> None:
    extremes = {}
    for policy in ("random", "bang"):
        config = replace(
            TINY, env="pendulum", agent="sac", rounds=1, first_episodes=3, first_policy=policy
        )
        actions = loop._grown(config, tmp_path / policy, 0).actions
        extremes[policy] = float((np.abs(actions) == 1.0).mean())
    assert extremes == {"random": 0.0, "bang": 1.0}


def test_a_loop_of_before_an_option_goes_on(tmp_path: Path) -> None:
    path = tmp_path / loop.RECORD
    loop._record(TINY, tmp_path)
    record = json.loads(path.read_text())
    del record["config"]["first_policy"]
    path.write_text(json.dumps(record))
    assert loop._record(TINY, tmp_path)["config"]["first_policy"] == "random"
    with pytest.raises(ConfigError, match="first_policy='random', not 'bang'"):
        path.write_text(json.dumps(record))
        loop._record(replace(TINY, first_policy="bang"), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env": "CartPole-v1", "agent": "sac"}, "ppo, dqn"),
        ({"agent": "dqn"}, "sac, td3 or ppo"),
        ({"rounds": 0}, "rounds=0"),
        ({"model": "port_hamiltonia"}, "did you mean 'port_hamiltonian'"),
        ({"first_episodes": 1}, "first_episodes=1"),
        ({"first_policy": "bangs"}, "first_policy"),
        ({"env": "CartPol-v1"}, "CartPole-v1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(TINY, **changes)


def test_the_command_draws_what_was_earned(tmp_path: Path) -> None:
    short = ("--rounds", 1, "--first-episodes", 3, "--first-epochs", 1, "--imagined-steps", 64)
    few = ("--evaluation-episodes", 2, "--num-envs", 4, "--ensemble", 1, "--out", "l")
    said = command(tmp_path, "loop", "--env", "CartPole-v1", "--agent", "ppo", *short, *few)
    assert said.returncode == 0, said.stderr
    assert "round 1 of 1" in said.stdout and (tmp_path / "l" / "loop.png").stat().st_size > 5000
