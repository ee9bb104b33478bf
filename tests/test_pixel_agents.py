"""Stock agents in pixels: a visual model's env and the true one take them alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_doubles import make_pixel_spec, visual_model

from worldmodels.agents import returns
from worldmodels.agents import stable_baselines as agents
from worldmodels.configs.training import to_dict
from worldmodels.envs.single import make_env, make_truth
from worldmodels.storage.checkpoint import save_checkpoint

pytest.importorskip("stable_baselines3")
ROOT = Path(__file__).parent.parent
FEW: dict[str, dict[str, Any]] = {
    "ppo": {"n_steps": 8},
    "dqn": {"learning_starts": 8, "buffer_size": 100},
    "sac": {"learning_starts": 8, "buffer_size": 100},
}


@pytest.mark.parametrize("agent", ["sac", "dqn", "ppo"])  # sac must leave the others alone
def test_an_agent_learns_from_pictures_and_plays_in_the_truth(agent: str) -> None:
    mode = "continuous" if agent == "sac" else "discrete"
    model = visual_model("pendulum", spec=make_pixel_spec("pendulum", action_mode=mode))
    envs = [make(model, num_envs=2, max_episode_steps=6) for make in (make_env, make_truth)]
    for env in envs:
        trained = agents.train_agent(env, agent, steps=24, batch_size=8, **FEW[agent])
        assert type(trained.policy).__name__ in ("ActorCriticCnnPolicy", "CnnPolicy")
        for place in envs:
            result = returns.evaluate_agent(returns.greedy(trained), place)
            assert result.returns.shape == (2,) and np.isfinite(result.returns).all()


def test_pictures_have_settings_of_their_own() -> None:
    assert set(agents.PIXEL_SETTINGS) == set(agents.AGENTS)
    frame = 2 * 64 * 64 * 3
    assert all(s.get("buffer_size", 0) * frame < 1e9 for s in agents.PIXEL_SETTINGS.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an untrained visual model."""
    folder, model = tmp_path_factory.mktemp("run"), visual_model("pendulum")
    config, spec = to_dict(model.config), model.spec.to_dict()
    described = {"spec": spec, "model_name": "visual", "model": config}
    save_checkpoint(folder / "checkpoints" / "best", described, model.state_dict())
    return folder


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/train_agent.py", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT
    )


def test_the_script_takes_a_visual_run_unchanged(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "agent.json"
    few = ("--steps", 128, "--num-envs", 2, "--episodes", 2, "--compare", "--no-film", "--out", out)
    done = script("--run", run, *few)
    assert done.returncode == 0, done.stderr
    values = json.loads(out.read_text())
    rows = values["rows"]
    assert values["stack"] == 3, "one picture shows no motion"
    assert [row["trained in"] for row in rows] == ["model", "truth"]
    assert all(len(row[place]["returns"]) == 2 for row in rows for place in ("model", "truth"))
    assert (tmp_path / "agent-model.zip").exists()


def test_the_script_says_what_a_visual_run_cannot_show(run: Path, tmp_path: Path) -> None:
    done = script("--run", run, "--obs-mode", "state", "--out", tmp_path / "x.json")
    assert done.returncode == 2, done
    assert "obs_mode='state'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
