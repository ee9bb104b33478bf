"""What a trained agent leaves behind: learning curves, plots and films, over states and over pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from model_doubles import Perfect, PerfectPixels, Still, make_pixel_spec, make_spec, visual_model

from worldmodels.agents import stable_baselines
from worldmodels.agents.learning import ROWS, LearningCurve
from worldmodels.commands import agent as command
from worldmodels.commands import agent_files
from worldmodels.configs.training import to_dict
from worldmodels.envs.single import make_env, make_truth
from worldmodels.films.pairs import GAP, Side, ending, filmed, panels
from worldmodels.films.returns import Trained, returns_over_steps
from worldmodels.storage.checkpoint import save_checkpoint
from worldmodels.training.tracking import read_metrics

# -- learning curves ------------------------------------------------------------------------------


def test_a_curve_has_the_mean_of_the_episodes_of_each_hundredth() -> None:
    told: list[tuple[Any, int]] = []
    curve = LearningCurve(10_000, lambda row, step: told.append((dict(row), step)))
    for step, value in ((10, 1.0), (99, 3.0), (250, 5.0), (9_999, 7.0)):
        curve.add(step, value, 20)
    assert len(told) == 2, "the last episodes wait for the end of their share"
    curve.close()
    curve.close()
    assert [row["env_steps"] for row in curve.rows] == [99, 250, 9_999]
    assert [row["agent/return"] for row in curve.rows] == [2.0, 5.0, 7.0]
    assert curve.rows[0] == {
        "env_steps": 99, "agent/return": 2.0, "agent/return_std": 1.0, "agent/length": 20.0, "agent/episodes": 2,
    }  # fmt: skip
    assert told == [
        ({k: v for k, v in r.items() if k != "env_steps"}, r["env_steps"]) for r in curve.rows
    ]


@pytest.mark.parametrize("steps", [1, 50, 12_345])
def test_a_curve_is_short_and_loses_no_episode(steps: int) -> None:
    curve = LearningCurve(steps)
    for step in range(1, steps + 1):
        curve.add(step, 0.0, 1)
    curve.close()
    assert len(curve.rows) <= ROWS + 2 or steps < ROWS
    assert sum(row["agent/episodes"] for row in curve.rows) == steps


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_the_plot_of_any_number_of_rows(rows: int, tmp_path: Path) -> None:
    row = {"agent/return": 1.0, "agent/return_std": 0.5}
    known = [{"env_steps": 10 * i, **row} for i in range(rows)]
    agents = {"model": Trained(50, known, 3.0, None), "truth": Trained(50, known)}
    path = returns_over_steps(agents, tmp_path / "new" / "x.png", "ppo", "newtonian")
    assert path.stat().st_size > 5_000


# -- sides ---------------------------------------------------------------------------------------------


def pair(**arguments: Any) -> list[Side]:
    model = Perfect(make_spec("pendulum"))
    envs = (make_truth(model, **arguments), make_env(model, **arguments))
    return [Side(env, name, 64) for env, name in zip(envs, ("true", "learned"), strict=True)]


def test_a_perfect_model_is_filmed_without_a_difference() -> None:
    sides, steps = pair(max_episode_steps=5), []
    acts = [lambda observation: 2] * 2
    frames = list(filmed(sides, acts, seed=3, advance=lambda: steps.append(None)))
    assert len(frames) == 6 and len(steps) == 5
    assert len({frame.shape for frame in frames}) == 1 and frames[0].shape[1] == 3 * 64 + 2 * GAP
    last = frames[-1][24:]
    np.testing.assert_array_equal(last[14:, :64], last[14:, 64 + GAP : 128 + GAP])
    assert sides[0].total == sides[1].total > 0 and sides[0].ending == "time limit"
    assert (frames[1][24:, :64] != frames[0][24:, :64]).any(), "the action is drawn"


def test_each_side_acts_on_what_it_sees_itself() -> None:
    sides, seen = pair(max_episode_steps=3), ([], [])
    acts = [lambda observation, own=own: own.append(observation) or 0 for own in seen]
    list(filmed(sides, acts, seed=1))
    assert [len(own) for own in seen] == [3, 3]
    for side, own in zip(sides, seen, strict=True):
        assert all(side.env.observation_space.contains(observation) for observation in own)


def test_a_side_that_has_ended_stays_while_the_other_goes_on() -> None:
    spec = make_spec("pendulum")
    fading = Still(spec, lambda z, count: z * torch.where(count[:, None] > 2, torch.nan, 1.0))
    sides = [Side(make_truth(spec, max_episode_steps=5), "a", 32), Side(make_env(fading), "b", 32)]
    frames = list(filmed(sides, [lambda o: 1] * 2, seed=0))
    assert len(frames) == 6
    assert (sides[0].steps, sides[1].steps) == (5, 3)
    assert (sides[0].ending, sides[1].ending) == ("time limit", "diverged")


def test_pictures_are_shown_as_the_model_sees_them() -> None:
    model = PerfectPixels(make_pixel_spec("pendulum", 32))
    env = make_truth(model)
    side = Side(env, "true", 100)
    side.restart(0)
    picture = side.picture()
    assert picture.shape == (96, 96, 3)
    np.testing.assert_array_equal(picture[::3, ::3], side.observation)
    assert panels([side, side], "keys").shape == (96 + 48, 2 * 96 + GAP, 3)


@pytest.mark.parametrize(
    ("info", "terminated", "said"),
    [
        ({"diverged": True}, False, "diverged"),
        ({"out_of_bounds": True}, False, "out of bounds"),
        ({"out_of_bounds": False}, False, "time limit"),
        ({"collision": True, "out_of_bounds": True, "reached_goal": True}, True, "collision, reached goal"),
        ({"collision": False}, True, "ended"),
    ],
)  # fmt: skip
def test_an_ending_is_told_in_words(info: dict[str, Any], terminated: bool, said: str) -> None:
    assert ending(info, terminated) == said


def test_continuous_actions_are_drawn_too() -> None:
    env = gymnasium.make("PhysGym/Spaceship-v0", action_mode="continuous")
    side = Side(env, "true", 64)
    side.restart(0)
    before = side.picture()
    side.step(np.array([1.0, 0.0], np.float32))
    assert side.picture().shape == before.shape and side.limit == side.system.max_episode_steps


# -- the command ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small films, and agents that learn little."""
    monkeypatch.setattr(agent_files, "FILM_SIZE", 48)
    few = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
    monkeypatch.setitem(stable_baselines.PIXEL_SETTINGS, "ppo", few)


def run_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["physgym agent", *map(str, words)])
    command.main()


def test_every_file_is_there_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    out = tmp_path / "mine" / "x.json"
    words = ("--env", "pendulum", "--steps", 512, "--num-envs", 2, "--episodes", 1, "--out", out)
    for _ in range(2):  # again, over the files that lie there
        run_command(monkeypatch, *words)
    said = capsys.readouterr().out
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row["files"]) == {"learning", "agent", "film", "plot"}
    for path in (*row["files"].values(), out):
        assert Path(path).stat().st_size > 100 and str(path) in said
    rows = read_metrics(row["files"]["learning"])
    assert rows and sum(each["agent/episodes"] for each in rows) == 2, "begun anew"
    assert rows[0]["agent/length"] == 200


def test_a_visual_model_is_filmed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    model = visual_model("pendulum")
    described = {
        "spec": model.spec.to_dict(),
        "model_name": "visual",
        "model": to_dict(model.config),
    }
    save_checkpoint(tmp_path / "checkpoints" / "best", described, model.state_dict())
    run_command(monkeypatch, "--run", tmp_path, "--steps", 16, "--num-envs", 2, "--episodes", 1)
    names = {path.name for path in (tmp_path / "agents").iterdir()}
    kinds = ("-model.zip", "-model.jsonl", "-model.mp4", "-learning.png", ".json")
    assert names == {f"ppo-seed0{kind}" for kind in kinds}


def test_a_planner_is_filmed_after_it_was_scored_in_several_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.json"
    words = ("--env", "pendulum", "--agent", "plan", "--horizon", 4, "--hold", 4)
    run_command(monkeypatch, *words, "--episodes", 2, "--out", out)
    numbers = json.loads(out.read_text())
    assert numbers["planner"] == {"method": "cem", "horizon": 4, "hold": 4}
    assert "steps" not in numbers, "it learns nothing"
    (row,) = numbers["rows"]
    assert set(row["files"]) == {"film"} and Path(row["files"]["film"]).stat().st_size > 100


def test_two_sides_of_a_film_plan_for_themselves() -> None:
    from worldmodels.agents.planning import Planner

    truth = gymnasium.make("PhysGym/Pendulum-v0", disable_env_checker=True)
    planner = Planner(truth, horizon=4, hold=4, samples=8, rounds=1)
    planner(np.zeros((3, 2), np.float32))
    one, two = (agent_files._forgetful(planner) for _ in range(2))
    seen = np.array([[0.5, -1.0]], np.float32)
    np.testing.assert_array_equal([one(seen) for _ in range(9)], [two(seen) for _ in range(9)])
    assert len(planner.plans) == 3, "the planner itself goes on"


def test_no_film_is_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    words = ("--env", "oscillator", "--steps", 16, "--num-envs", 2, "--episodes", 1, "--no-film")
    run_command(monkeypatch, *words, "--device", "cpu", "--out", tmp_path / "x.json")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x.json", "x-truth.zip", "x-truth.jsonl", "x-learning.png"}


def test_a_film_that_cannot_be_encoded_costs_no_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")

    def refuse(*given: Any) -> None:
        raise OSError("OpenCV cannot write VP9 here; write a .gif instead")

    monkeypatch.setattr("worldmodels.films.video._write_mp4", refuse)
    out = tmp_path / "x.json"
    run_command(
        monkeypatch,
        "--env",
        "pendulum",
        "--steps",
        16,
        "--num-envs",
        2,
        "--episodes",
        1,
        "--out",
        out,
    )
    assert "no film: OpenCV cannot write VP9" in capsys.readouterr().err
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row["files"]) == {"learning", "agent", "plot"}


@pytest.mark.parametrize(
    ("device", "said"), [("gpu", "expected auto, cpu, cuda"), ("cuda:77", "finds . CUDA devices")]
)
def test_a_device_that_is_not_there_is_a_line(
    device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=said):
        run_command(monkeypatch, "--env", "pendulum", "--device", device)


def test_states_stay_on_the_cpu_and_pictures_go_to_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from worldmodels.agents.stable_baselines import device_of

    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of("auto", pixels=False) == device_of("cpu", pixels=True) == "cpu"
        assert device_of("auto", pixels=True) == ("cuda" if there else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no CUDA device"):
        device_of("cuda", pixels=False)


def test_wandb_gets_the_curve_the_plot_and_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("stable_baselines3")
    logged: list[str] = []

    class Log:
        def __init__(
            self, folder: Path, config: Any, values: Any, job: str, *, name: str, file: str
        ) -> None:
            assert (folder, config.wandb, job) == (tmp_path, "offline", "agent")
            assert (name, file) == ("x-truth", "x-truth.jsonl") and values["trained in"] == "truth"
            (folder / file).touch()

        def __enter__(self) -> Log:
            return self

        def __exit__(self, *_: object) -> None:
            logged.append("finish")

        def __getattr__(self, verb: str) -> Any:
            return lambda *given: logged.append(verb)

    monkeypatch.setattr("worldmodels.training.tracking.Logger", Log)
    few = ("--steps", 512, "--num-envs", 2, "--episodes", 1)
    run_command(
        monkeypatch,
        "--env",
        "pendulum",
        *few,
        "--out",
        tmp_path / "x.json",
        "--log.wandb",
        "offline",
    )
    assert logged == ["rewind", "log", "summary", "image", "video", "finish"]


def test_the_numbers_say_which_settings_they_are_of() -> None:
    args = command.Arguments(env="pendulum", device="cpu", stack=2)
    results = agent_files.Results(args, Path("x.json"), ["truth"], "")
    assert results.beside("truth", ".zip") == Path("x-truth.zip")
    assert results._settings()["device"] == "cpu" and results._settings()["stack"] == 2
