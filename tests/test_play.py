"""`physgym play`: the same keys move the truth and the model, in a window that a test stands in for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import DependencyNotInstalled, Error
from model_doubles import (
    Perfect,
    PerfectPixels,
    Still,
    make_pixel_spec,
    make_spec,
    save_untrained,
)

import physgym
from physgym import steering, window
from physgym.keyboard import Keyboard
from physgym.steering import Keys, SteeringWindow
from worldmodels.commands import play as command
from worldmodels.commands import terminal as cli
from worldmodels.configs.training import MODELS
from worldmodels.envs.single import make_env, make_truth
from worldmodels.films.pairs import GAP, Side
from worldmodels.films.playing import legend, play
from worldmodels.interface import Spec
from worldmodels.models.building import build


class FakeWindow:
    """Hands out keys, one a picture, then is closed; keeps the pictures and what the sides were like."""

    def __init__(self, keys: Iterable[str | None], sides: list[Side]) -> None:
        self.keys, self.sides = iter(keys), sides
        self.frames: list[np.ndarray] = []
        self.seen: list[list[Any]] = []

    def show(self, frame: np.ndarray, fps: float) -> Keys | None:
        self.frames.append(frame)
        self.seen.append([(s.steps, s.total, s.ending, s.info, s.observation) for s in self.sides])
        word = next(self.keys, None)
        if word is None:
            return None
        held = frozenset(word.split("+")) - {""}
        return Keys(held, held)


def foreign_untrained(env_id: str) -> Any:
    """A model of another package's env with weights of chance."""
    system = physgym.get_system(env_id)
    spec = Spec(
        env_name=env_id,
        env_kwargs={},
        dt=system.dt,
        state_size=system.state_size,
        angles=(),
        action_kind=system.action_mode,
        action_size=system.action_count,
        param_names=(),
        max_episode_steps=system.max_episode_steps,
        foreign=True,
    )
    return build(spec, "jump", MODELS["jump"](hidden=8)).eval()


def both(model: Any, size: int = 64, **arguments: Any) -> list[Side]:
    return [
        Side(make_truth(model, **arguments), "true", size),
        Side(make_env(model, **arguments), "learned", size),
    ]


def steered(keys: Iterable[str | None], sides: list[Side], seed: int = 0) -> tuple[Any, Any]:
    screen = FakeWindow(keys, sides)
    return play(sides, screen, seed), screen


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_the_same_keys_move_both(mode: str) -> None:
    sides = both(Perfect(make_spec("spaceship", action_mode=mode)))
    played, screen = steered(["d", "d+w", "", "a"], sides)
    assert len(screen.frames) == 5
    states = [[info["state"] for _, _, _, info, _ in seen] for seen in screen.seen]
    for true, learned in states:
        np.testing.assert_allclose(true, learned, rtol=1e-12)
    velocities = np.array([true[2:] for true, _ in states])
    pushed = np.diff(velocities, axis=0)
    idle = both(Perfect(make_spec("spaceship", action_mode=mode)))
    _, still = steered([""] * 4, idle)
    rested = np.diff([seen[0][3]["state"][2:] for seen in still.seen], axis=0)
    assert (pushed - rested)[0, 0] > 0.01 and abs((pushed - rested)[0, 1]) < 1e-3
    assert (pushed - rested)[1].min() > 0.001, "two keys together"
    (episode,) = played
    assert episode.steps == (4, 4) and episode.endings == ("", "")
    assert episode.returns[0] == pytest.approx(episode.returns[1])


@pytest.mark.parametrize("again", ["r", "return"])
def test_restart_goes_back_to_the_start_and_another_key_to_another(again: str) -> None:
    sides = both(Perfect(make_spec("pendulum")))
    played, screen = steered(["d", "d", again, "a", "n", "", "q", "d"], sides, seed=5)
    starts = [seen for seen in screen.seen if seen[0][0] == 0]
    assert len(starts) == 3
    first, second, third = ([info["state"] for _, _, _, info, _ in seen] for seen in starts)
    for one, other in (first, second, third):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first, second)
    assert (third[0] != first[0]).any()
    assert [episode.seed for episode in played] == [5, 5, 6]
    assert [episode.steps for episode in played] == [(2, 2), (1, 1), (1, 1)]
    assert len(screen.frames) == 7, "q leaves at once"


def test_an_episode_ends_at_the_limit_and_waits() -> None:
    sides = both(Perfect(make_spec("pendulum")), max_episode_steps=3)
    played, screen = steered(["d"] * 6 + ["r", "d", "escape"], sides)
    assert [seen[0][0] for seen in screen.seen] == [0, 1, 2, 3, 3, 3, 3, 0, 1]
    assert played[0].endings == ("time limit", "time limit") and played[0].steps == (3, 3)
    assert played[1].endings == ("", "")
    np.testing.assert_array_equal(screen.frames[3], screen.frames[5])
    assert (screen.frames[3] != screen.frames[2]).any()


def test_a_model_that_diverges_says_so_and_the_truth_goes_on() -> None:
    spec = make_spec("pendulum")
    lost = Still(spec, lambda z, count: torch.where(count[:, None] > 1, torch.nan, z))
    sides = both(lost)
    (episode,), _ = steered(["d"] * 4, sides)
    assert episode.steps == (4, 2) and episode.endings == ("", "diverged")


@pytest.mark.parametrize("size", [64, 100])
def test_every_picture_has_the_size_of_its_panels(size: int) -> None:
    _, screen = steered(["d"] * 3, both(Perfect(make_spec("pendulum")), size))
    bar = 24
    assert {frame.shape for frame in screen.frames} == {(size + 2 * bar, 2 * size + GAP, 3)}
    assert all(frame.dtype == np.uint8 for frame in screen.frames)


def test_a_model_of_pixels_is_steered_beside_what_it_should_show() -> None:
    model = PerfectPixels(make_pixel_spec("pendulum", 32))
    sides = both(model, 70)
    sides[0].restart(3)
    _, screen = steered(["d", "d"], sides, seed=3)
    assert {frame.shape for frame in screen.frames} == {(64 + 48, 2 * 64 + GAP, 3)}
    true, learned = (seen[4] for seen in screen.seen[0])
    np.testing.assert_array_equal(true, learned)


def test_the_truth_alone_is_one_panel() -> None:
    sides = [Side(gymnasium.make("PhysGym/ThreeBody-v0"), "true", 80)]
    (episode,), screen = steered(["w", "w"], sides)
    assert screen.frames[0].shape == (80 + 48, 80, 3) and episode.steps == (2,)


def test_nothing_is_played_where_nobody_moved() -> None:
    played, _ = steered([None], both(Perfect(make_spec("pendulum"))))
    assert played == []


# -- keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_keys_stand_for_what_the_system_says(name: str) -> None:
    system = physgym.get_system(name)
    keyboard = Keyboard(gymnasium.make(system.env_id))
    for keys, action in system.keys.items():
        assert keyboard.action(set(keys)) == action
        assert keyboard.action({*keys, "shift"}) == action, "keys of no meaning are not in the way"
    idle = keyboard.action(())
    assert not system.discrete_actions[idle].any() and type(idle) is int
    assert keyboard.action({"a", "d"}) == idle
    continuous = Keyboard(gymnasium.make(system.env_id, action_mode="continuous"))
    assert continuous.action(()).shape == (system.action_size,)
    assert not continuous.action(()).any() and continuous.action({"d"}).any()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0", "Pendulum-v1"])
def test_an_env_of_others_is_steered_by_letters(env_id: str) -> None:
    env = gymnasium.make(env_id)
    keyboard = Keyboard(env)
    assert keyboard.keys[0] == "a" and keyboard.keys[-1] in "ds"
    ends = [keyboard.action({key}) for key in "ad"]
    assert all(env.action_space.contains(action) for action in (*ends, keyboard.action(())))
    assert np.all(np.asarray(ends[0]) < np.asarray(ends[1]))
    table = make_env(foreign_untrained(env_id)).get_keys_to_action()  # type: ignore[union-attr]
    assert {key for keys in table for key in keys} == set(keyboard.keys)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_learned_env_of_others_is_played_beside_it(env_id: str) -> None:
    pytest.importorskip("pygame")
    model = foreign_untrained(env_id)
    truth = make_truth(model, render_mode=None)
    sides = [Side(truth, "true", 64), Side(make_env(model), "learned", 64)]
    window = FakeWindow(["d", "a", "", None], sides)
    played = play(sides, window)
    assert [episode.seed for episode in played] == [0]
    assert all(1 <= steps <= 3 for steps in played[0].steps)
    assert all(frame.std() > 0 for frame in window.frames)


def test_a_system_without_keys_says_how_to_give_it_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(physgym.get_system("pendulum")), "keys", {})
    with pytest.raises(ValueError, match="names no keys.*keys = "):
        Keyboard(gymnasium.make("PhysGym/Pendulum-v0"))


def test_keys_that_steer_mean_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(physgym.get_system("pendulum")), "keys", {"q": 0, "r": 2})
    (episode,), screen = steered(["q", "r", "escape"], both(Perfect(make_spec("pendulum"))))
    assert episode.steps == (2, 2) and len(screen.frames) == 3


def test_the_legend_names_free_keys_alone() -> None:
    assert (
        legend("ad", ("r", "return"), ("n",), ("escape",))
        == "a d steer   R again   N new start   Esc leave"
    )
    assert legend("r", ("return",), (), ("q",)) == "r steer   Enter again   Q leave"


# -- the window ----------------------------------------------------------------------------------------


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """pygame on SDL's driver that shows nothing."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield pygame
    pygame.display.quit()


def test_the_window_tells_what_is_held_and_what_was_pressed(no_screen: Any) -> None:
    pygame, shown = no_screen, SteeringWindow("PhysGym")
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:16] = (255, 0, 0)

    def press(kind: int, *keys: int) -> Keys | None:
        for key in keys:
            pygame.event.post(pygame.event.Event(kind, key=key))
        return shown.show(frame, 1000.0)

    assert shown.show(frame, 1000.0) == Keys()
    assert pygame.display.get_window_size() == (48, 32)
    assert pygame.display.get_surface().get_at((5, 5))[:3] == (255, 0, 0)
    assert press(pygame.KEYDOWN, pygame.K_d) == Keys(frozenset("d"), frozenset("d"))
    assert press(pygame.KEYDOWN, pygame.K_UP) == Keys(frozenset("dw"), frozenset("w"))
    assert press(pygame.KEYUP, pygame.K_d) == Keys(frozenset("w"), frozenset())
    assert press(pygame.KEYDOWN, pygame.K_ESCAPE).pressed == {"escape"}  # type: ignore[union-attr]
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_r))
    assert press(pygame.KEYUP, pygame.K_r).held >= {"r"}, "a tap between two pictures counts"  # type: ignore[union-attr]
    assert "r" not in shown.show(frame, 1000.0).held  # type: ignore[union-attr]
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert shown.show(frame, 1000.0) == Keys()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert shown.show(frame, 1000.0) is None
    shown.close()
    shown.close()
    assert not pygame.display.get_init()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are asked for on Linux")
def test_without_a_display_it_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    for name in (*window._SURROUNDINGS, "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Error, match="needs a display"):
        SteeringWindow("PhysGym").show(np.zeros((8, 8, 3), np.uint8), 20.0)
    monkeypatch.setattr(steering, "missing_display", lambda: "")  # as if OpenCV had been mistaken
    with pytest.raises(Error, match="needs a display"):
        SteeringWindow("PhysGym").show(np.zeros((8, 8, 3), np.uint8), 20.0)


def test_without_pygame_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(DependencyNotInstalled, match=r"physgym\[play\]"):
        SteeringWindow("PhysGym").check()


# -- the command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of an untrained pendulum model."""
    return save_untrained(tmp_path_factory.mktemp("run") / "best")


def run_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["physgym play", *map(str, words)])
    command.main()


@pytest.mark.parametrize("alone", [False, True])
def test_the_command_plays_and_tells(
    alone: bool,
    run: Path,
    no_screen: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pygame, count = no_screen, [0]
    original = SteeringWindow.show

    def show(self: SteeringWindow, frame: np.ndarray, fps: float) -> Keys | None:
        count[0] += 1
        key = {2: pygame.K_d, 4: pygame.K_r, 6: pygame.K_ESCAPE}.get(count[0])
        if key is not None:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        assert fps == pytest.approx(40.0)
        return original(self, frame, 1000.0)

    monkeypatch.setattr(SteeringWindow, "show", show)
    words = ("--env", "pendulum") if alone else ("--run", run, "--env", "PhysGym/Pendulum-v0")
    run_command(monkeypatch, *words, "--size", 64, "--speed", 2, "--seed", 3)
    said = capsys.readouterr().out
    assert "return, true" in said and ("return, learned" in said) != alone
    assert said.count("left") == (2 if alone else 4) and not pygame.display.get_init()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--run RUN"),
        (("--env", "pendulum", "--steps", 0), "--steps 0"),
        (("--env", "pendulum", "--size", 8), "64 to 2048"),
        (("--env", "pendulum", "--speed", "nan"), "--speed nan"),
        (("--env", "pendulum", "--seed", -1), "--seed -1"),
        (("--env", "pendulun"), "did you mean 'pendulum'"),
        (("--run", "missing"), "no checkpoint in missing"),
        (("--run", "RUN", "--env", "spaceship"), "is not the env of the run, which is pendulum"),
    ],
)
def test_what_cannot_be_played_is_a_line(
    words: tuple[object, ...], said: str, run: Path, no_screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match=said) as caught:
        run_command(monkeypatch, *(run if word == "RUN" else word for word in words))
    assert cli.is_user_error(caught.value)
