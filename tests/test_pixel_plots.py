"""Pictures and films of a model of pixels: what they show is what the model and the truth are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from model_doubles import build_model, make_spec, small_model
from PIL import Image

from physgym.rendering import SCREEN
from worldmodels.configs.training import default_config
from worldmodels.data import CollectConfig, collect, load_dataset
from worldmodels.evaluation.problems import idle_actions, without_action
from worldmodels.films import energy, latents, mosaics
from worldmodels.films import pixels as pixel_plots
from worldmodels.films.pixels import film_pixels, true_frames, write_pictures
from worldmodels.films.recording import record
from worldmodels.films.scenes import Scenes, cut
from worldmodels.films.video import LEARNED_COLOR, TRUE_COLOR
from worldmodels.imagination import imagine_frames
from worldmodels.interface import Batch, DivergenceError, Latent, Spec, WorldModel

SIZE = 32
cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = CollectConfig(
        env="pendulum", name="seen", episodes=12, steps=14, pixels=True, image_size=SIZE,
        randomize=True, val_fraction=0.25, test_fraction=0.25,
    )  # fmt: skip
    return load_dataset(collect(config, tmp_path_factory.mktemp("datasets"), progress=False))


def visual(predictor: str = "spatial_hamiltonian", **options: Any) -> Any:
    """An untrained tiny model of the buffer, always the same one."""
    spec = Spec("pendulum", dt=0.05, image_size=SIZE, angles=(0,))
    torch.manual_seed(0)
    model = build_model(spec, default_config("pendulum", "visual", predictor, "tiny").model).eval()
    with torch.no_grad():
        for weights in model.decoder.parameters():
            weights.mul_(2.0)  # so that its pictures differ visibly
    return model


class Replay(WorldModel):
    """Plays given pictures (T+1, S, S, 3), whatever it is told."""

    context_frames = 2

    def __init__(self, frames: np.ndarray, fail_at: int = 10**6) -> None:
        super().__init__()
        self.spec = Spec("pendulum", dt=0.05, image_size=frames.shape[1])
        self.config = SimpleNamespace(predictor="replay")
        self.frames, self.fail_at = torch.from_numpy(frames), fail_at

    def encode(self, context: Any, params: Any = None, actions: Any = None) -> Latent:
        assert actions.shape[1] == context.shape[1] - 1
        count = torch.full((len(context),), context.shape[1] - 1)
        return Latent(torch.zeros(len(context), 2), (count,))

    def step(self, latent: Latent, action: Any, dt: Any = None) -> Latent:
        if int(latent.memory[0][0]) + 1 >= self.fail_at:
            raise DivergenceError("underflow in dt")
        return latent._replace(memory=(latent.memory[0] + 1,))

    def decode(self, latent: Latent) -> torch.Tensor:
        return self.frames[latent.memory[0]] / 255.0

    def loss(self, batch: Batch) -> Any:
        raise NotImplementedError


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the last picture was made of: its cells and labels."""
    caught: dict[str, Any] = {}
    names = ("cells", "path", "title", "rows", "columns", "notes", "heads", "row_groups")

    def catch(*arguments: Any) -> Path:
        caught.update(zip(names, arguments, strict=False))
        return Path(arguments[1])

    for module in (pixel_plots, latents):
        monkeypatch.setattr(module, "draw_grid", catch)
    return caught


def one_color(pictures: np.ndarray) -> bool:
    return len(np.unique(pictures.reshape(-1, 3), axis=0)) == 1


# Grids


def test_a_grid_holds_its_pictures_pixel_for_pixel(tmp_path: Path) -> None:
    cells = np.random.default_rng(0).integers(1, 250, (3, 2, 90, 70, 3), dtype=np.uint8)
    canvas, tops, lefts = mosaics.compose(cells, (1,), ())
    assert (tops, lefts) == (
        [0, 90 + mosaics.WIDE_GAP, 180 + mosaics.WIDE_GAP + mosaics.GAP],
        [0, 74],
    )
    np.testing.assert_array_equal(canvas[tops[2] :, lefts[1] :], cells[2, 1])
    path = mosaics.draw_grid(
        cells, tmp_path / "new" / "grid.png", "a title that is far longer than the pictures are wide",
        ("one", "two", "a long label\nof two lines"), ("left", ""), (("note", "#000000"),),
        ("head", "another"), (1,), (), mosaics.Scale(2.0, "value"),
    )  # fmt: skip
    page = np.asarray(Image.open(path).convert("RGB"))
    height, width = canvas.shape[:2]
    places = np.argwhere((page == canvas[0, 0]).all(-1))
    assert any(np.array_equal(page[y : y + height, x : x + width], canvas) for y, x in places)
    edges = (page[:6], page[-6:], page[:, :6], page[:, -6:])
    assert all((edge == 255).all() for edge in edges), "nothing is cut"


def test_enlarging_repeats_pixels() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = mosaics.enlarged(picture, 3)
    np.testing.assert_array_equal(large[::3, ::3], picture)
    np.testing.assert_array_equal(large[2::3, 2::3], picture)


def test_signed_colors_are_symmetric() -> None:
    ends = mosaics.colored(np.array([-9.0, -2.0, 0.0, 2.0, 9.0]), 2.0)
    np.testing.assert_array_equal(ends[2], (255, 255, 255))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert ends[0][2] > ends[0][0] and ends[4][0] > ends[4][2], "blue below 0, vermilion above"
    np.testing.assert_array_equal(mosaics.colored(np.zeros(3), 0.0), np.full((3, 3), 255))


# Over time


def scenes_of(buffer: Any, model: Any, count: int = 1, seed: int = 0) -> Scenes:
    return cut(model, buffer, count, 100, np.random.default_rng(seed))


def told(scenes: Scenes, count: int) -> torch.Tensor:
    """The action between the two frames of each context."""
    return torch.from_numpy(scenes.problems.actions[:count, :1])


def test_scenes_are_one_moment_of_one_episode(buffer: Any) -> None:
    scenes = cut(visual(), buffer, 3, 5, np.random.default_rng(0))
    tasks = scenes.problems
    assert tasks.states.shape[:2] == (3, 6) and tasks.actions.shape == (3, 5)
    assert len(set(scenes.names)) == 3 and any("from 0 s" not in name for name in scenes.names)
    for row, frames in enumerate(scenes.frames):
        params = type(tasks.params)(*(values[row] for values in tasks.params))
        drawn = SimpleNamespace(system=tasks.system, params=params, states=tasks.states[row])
        np.testing.assert_array_equal(true_frames(drawn, SIZE), frames)
    params = scenes.told(SimpleNamespace(spec=SimpleNamespace(param_names=("length", "mass"))))
    np.testing.assert_array_equal(params, np.stack([tasks.params.length, tasks.params.mass], 1))


def test_the_grid_of_a_perfect_prediction_has_empty_differences(
    buffer: Any, drawn: dict[str, Any], tmp_path: Path
) -> None:
    scenes = scenes_of(buffer, visual())
    truth = scenes.frames[0]
    assert len(truth) == 15, "all of the longest episodes"
    pixel_plots.rollout_grid(Replay(truth), scenes, tmp_path / "x.png", factor=3)
    cells = drawn["cells"]
    assert cells.shape == (3, 5, 3 * SIZE, 3 * SIZE, 3)
    times = (0, 1, 2, 6, 11)  # the context, then 1, 5 and 10 steps
    np.testing.assert_array_equal(cells[0, :, ::3, ::3], truth[list(times)])
    np.testing.assert_array_equal(cells[1, 1:], cells[0, 1:])
    assert one_color(cells[2]) and one_color(cells[1, 0]), "what is only read has no prediction"
    assert list(drawn["columns"]) == [
        "−0.05 s\ncontext", "0 s\ncontext", "0.05 s\n", "0.25 s\n", "0.5 s\n",
    ]  # fmt: skip
    assert list(drawn["rows"]) == ["true", "predicted", "difference"]


def test_the_grid_of_a_wrong_prediction_shows_both_places(
    buffer: Any, drawn: dict[str, Any], tmp_path: Path
) -> None:
    scenes = scenes_of(buffer, visual())
    moved = np.roll(scenes.frames[0], 12, axis=2)
    pixel_plots.rollout_grid(Replay(moved), scenes, tmp_path / "x.png")
    change = drawn["cells"][2, 2].reshape(-1, 3).astype(int)
    assert (np.abs(change - TRUE_COLOR).sum(1) < 6).any()
    assert (np.abs(change - LEARNED_COLOR).sum(1) < 6).any()


def test_every_episode_has_its_rows(buffer: Any, drawn: dict[str, Any], tmp_path: Path) -> None:
    model = visual()
    scenes = scenes_of(buffer, model, 3)
    pixel_plots.rollout_grid(model, scenes, tmp_path / "x.png", factor=1)
    assert len(drawn["cells"]) == 9 and list(drawn["row_groups"]) == [3, 6]
    assert len(set(drawn["heads"])) == 3
    for row, frames in enumerate(scenes.frames):
        np.testing.assert_array_equal(drawn["cells"][3 * row, 1], frames[1])


def test_a_rollout_that_fails_is_black_from_there_on(buffer: Any) -> None:
    frames = np.full((6, SIZE, SIZE, 3), 200, np.uint8)
    actions = np.zeros((1, 5), np.int64)
    model, params = Replay(frames, 4), np.zeros((1, 0))
    shown = imagine_frames(model, frames[None, :2], actions, params)
    assert shown.shape == (1, 5, SIZE, SIZE, 3)
    assert np.isfinite(shown[0, :3]).all() and np.isnan(shown[0, 3:]).all()
    assert (mosaics.quantised(shown)[0, 3:] == 0).all()


# The latent


def test_latent_maps_share_one_symmetric_scale(
    buffer: Any, drawn: dict[str, Any], tmp_path: Path
) -> None:
    model = visual()
    scenes = scenes_of(buffer, model)
    latents.latent_channels(model, scenes, tmp_path / "x.png", factor=1)
    frames = torch.from_numpy(scenes.frames[:1, :2])
    with torch.no_grad():
        z = model.encode(frames, None, told(scenes, 1)).z[0].numpy()
    limit = np.abs(z).max()
    cells, half = drawn["cells"], len(z) // 2
    np.testing.assert_array_equal(cells[0, 0], scenes.frames[0, 1])
    for index in range(half):
        small = slice(None, None, SIZE // z.shape[1])
        q, p = cells[0, 1 + index, small, small], cells[1, 1 + index, small, small]
        np.testing.assert_array_equal(q, mosaics.colored(z[index], limit))
        np.testing.assert_array_equal(p, mosaics.colored(z[half + index], limit))


def test_channels_are_ordered_by_what_they_tell() -> None:
    mean = torch.zeros(50, 4, 3, 3)
    mean[:25, 2], mean[25:, 2] = 2.0, -2.0
    mean[:, 1, 0, 0] = torch.linspace(-1, 1, 50)
    log_variance = torch.zeros_like(mean)
    moves = latents.channel_moves(mean, log_variance, 2)
    assert [name.split("\n")[0] for name in moves] == ["channel 2", "channel 1"]
    first = next(iter(moves.values()))
    torch.testing.assert_close(first[2], torch.full((3, 3), 5.0**0.5))
    assert not first[[0, 1, 3]].any(), "the others stay"
    assert "18.0 nats" in next(iter(moves))


def test_joint_directions_are_those_of_the_largest_spread() -> None:
    axis = torch.tensor([0.6, 0.0, 0.8])
    mean = torch.linspace(-1, 1, 41)[:, None] * axis + 5.0
    name, move = next(iter(latents.joint_moves(mean, 1).items()))
    torch.testing.assert_close(move.abs(), axis * torch.linspace(-1, 1, 41).std(correction=0))
    assert name == "direction 1\n100 % of variance"


def test_a_traversal_varies_along_its_axis_and_not_at_its_centre(
    buffer: Any, drawn: dict[str, Any], tmp_path: Path
) -> None:
    model = visual()
    windows = cut(model, buffer, 20, 2, np.random.default_rng(0), repeat=True)
    assert len(windows.frames) == 20, "the few episodes of the split give several windows"
    latents.traversal(model, windows, tmp_path / "x.png", factor=1)
    cells = drawn["cells"]
    count = latents.CHANNELS + latents.DIRECTIONS
    assert cells.shape == (2 * count, len(latents.DEVIATIONS), SIZE, SIZE, 3)
    centre = latents.DEVIATIONS.index(0)
    with torch.no_grad():
        mean, _ = model.posterior(torch.from_numpy(windows.frames[:1, :2]), told(windows, 1))
        wanted = model.decode(Latent(model.transform(mean)))
    for row in range(count):
        pictures = cells[2 * row].astype(int)
        np.testing.assert_array_equal(pictures[centre], mosaics.quantised(wanted)[0])
        off = np.abs(pictures - pictures[centre]).sum((1, 2, 3))
        assert off[centre] == 0 and (off[:centre] > 0).any() and (off[centre + 1 :] > 0).any()
        assert off[0] >= off[centre - 1] and off[-1] >= off[centre + 1], "further is more"
        assert (cells[2 * row + 1, centre] == SCREEN).all()


def test_prior_samples_are_decoded_draws_of_the_prior(
    buffer: Any, drawn: dict[str, Any], tmp_path: Path
) -> None:
    model = visual("flat_lstm")
    latents.prior_samples(model, tmp_path / "x.png", seed=3, factor=1)
    first = drawn["cells"]
    generator = torch.Generator().manual_seed(3)
    z = torch.randn((latents.PRIOR_SAMPLES, model.config.flat_size), generator=generator)
    with torch.no_grad():
        wanted = model.decode(Latent(model.transform(z)))
    np.testing.assert_array_equal(first[:, 0], mosaics.quantised(wanted))
    latents.prior_samples(model, tmp_path / "x.png", seed=4, factor=1)
    assert not np.array_equal(first, drawn["cells"])


# Energy


def test_the_affine_fit_finds_a_line_and_says_how_good_it_is() -> None:
    x = np.array([[0.0, 1.0, np.nan], [2.0, 3.0, 4.0]])
    slope, offset, explained = energy.affine_fit(x, 3.0 * x - 1.0)
    assert (slope, offset, explained) == pytest.approx((3.0, -1.0, 1.0))
    noise = np.random.default_rng(0).normal(size=(2, 1000))
    assert abs(energy.affine_fit(noise[0], noise[1])[2]) < 0.02
    assert np.isnan(energy.affine_fit(np.full(3, np.nan), np.ones(3))).all()


def test_without_action_the_truth_only_loses_energy(buffer: Any) -> None:
    model = visual()
    tasks = scenes_of(buffer, model, 3).problems
    still = without_action(tasks, model.spec)
    np.testing.assert_array_equal(still.states[:, 0], tasks.states[:, 0])
    energies = still.energy(still.states)
    assert (np.diff(energies, axis=1) <= 1e-9).all() and energies[0, -1] < energies[0, 0]
    assert not np.allclose(energies, tasks.energy(tasks.states))
    continuous = make_spec("pendulum", action_mode="continuous")
    assert idle_actions(continuous, 2, 3).shape == (2, 3, 1)


def test_the_energy_is_fitted_where_contexts_end(
    buffer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = visual()
    windows = cut(model, buffer, 20, 2, np.random.default_rng(0), repeat=True)
    seen: list[int] = []

    def learned(model: Any, scenes: Scenes, actions: np.ndarray, dt: float) -> np.ndarray:
        seen.append(actions.shape[1])
        return (windows.problems.energy(windows.problems.states)[:, 1:2] - 3.0) / 2.0

    monkeypatch.setattr(energy, "learned_energy", learned)
    assert energy.fitted_energy(model, windows) == pytest.approx((2.0, 3.0, 1.0))
    assert seen == [0]


def test_the_learned_energy_is_read_along_the_models_own_rollout(buffer: Any) -> None:
    model = visual()
    scenes = scenes_of(buffer, model, 2)
    actions = scenes.problems.actions[:, 1:4]
    values = energy.learned_energy(model, scenes, actions, 0.05)
    with torch.no_grad():
        latent = model.encode(torch.from_numpy(scenes.frames[:, :2]), None, told(scenes, 2))
        for step in range(4):
            np.testing.assert_allclose(values[:, step], model.energy(latent), rtol=1e-6)
            if step < 3:
                latent = model.step(latent, torch.from_numpy(actions[:, step]), 0.05)


@pytest.mark.parametrize(
    ("predictor", "words", "lines"),
    [("spatial_hamiltonian", "a H + b, fitted", 2), ("flat_jump", "jump learns none", 1)],
)
def test_the_energy_plot_says_what_was_fitted(
    buffer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: str, words: str, lines: int
) -> None:  # fmt: skip
    caught: dict[str, Any] = {}
    real = energy._draw

    def draw(truth: Any, learned: Any, *rest: Any) -> None:
        caught.update(truth=truth, learned=learned, title=rest[3])
        real(truth, learned, *rest)

    monkeypatch.setattr(energy, "_draw", draw)
    model = visual(predictor)
    scenes = scenes_of(buffer, model, 2)
    path = energy.energy_over_time(model, scenes, scenes, tmp_path / "energy.png")
    assert words in caught["title"] and path.stat().st_size > 5000
    assert list(caught["truth"]) == ["with actions", "without action"]
    np.testing.assert_allclose(
        caught["truth"]["with actions"], scenes.problems.energy(scenes.problems.states)[:, 1:]
    )
    assert len(caught["learned"]) == (2 if lines == 2 else 0)


# All of them


@pytest.mark.parametrize("predictor", ["spatial_hamiltonian", "flat_lstm"])
def test_all_pictures_are_written_and_nothing_else_changes(
    buffer: Any, tmp_path: Path, predictor: str
) -> None:
    model = visual(predictor).train()
    random, weights = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    paths = write_pictures(model, buffer, tmp_path / "a", seed=1)
    assert [path.name for path in paths] == [
        "rollout_grid.png", "latent_channels.png", "learned_energy.png", "prior_samples.png",
        "traversal.png",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(p.name for p in paths)
    for path in paths:
        page = np.asarray(Image.open(path).convert("RGB"))
        assert min(page.shape[:2]) > 200 and not one_color(page)
    assert model.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_pictures_depend_on_the_seed_alone(buffer: Any, tmp_path: Path) -> None:
    first, again, other = (
        write_pictures(visual("spatial_jump"), buffer, tmp_path / name, seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in first]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, other, strict=True))


def test_bad_input_is_named(buffer: Any, tmp_path: Path) -> None:
    state_model = small_model("jump", make_spec("pendulum"))
    with pytest.raises(ValueError, match="sees states and decodes no pictures"):
        write_pictures(state_model, buffer, tmp_path)
    bare = CollectConfig(env="pendulum", name="bare", episodes=4, steps=5)
    blind = load_dataset(collect(bare, tmp_path, progress=False))
    with pytest.raises(ValueError, match="has no pixels: collect it with --pixels"):
        write_pictures(visual(), blind, tmp_path)
    other = default_config("pendulum", "visual", "spatial_jump", "tiny").model
    large = build_model(Spec("pendulum", dt=0.05, image_size=64), other)
    with pytest.raises(ValueError, match="32 x 32 pixels, but the model sees 64 x 64"):
        write_pictures(large, buffer, tmp_path)
    foreign = default_config("oscillator", "visual", "spatial_jump", "tiny").model
    with pytest.raises(ValueError, match="learned env 'oscillator'"):
        write_pictures(build_model(Spec("oscillator", image_size=SIZE), foreign), buffer, tmp_path)
    patient = Replay(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    patient.context_frames = 15
    with pytest.raises(ValueError, match="have 14 steps, too few: the model reads 15"):
        write_pictures(patient, buffer, tmp_path)
    assert not list(tmp_path.glob("*.png"))


# Films


def panels(film: np.ndarray, side: int) -> list[np.ndarray]:
    """The three panels of each picture, below their captions."""
    below = film[:, -side + 30 :]
    return [below[:, :, left : left + side] for left in (0, side + 2, 2 * side + 4)]


def test_a_film_shows_the_frames_enlarged_and_a_perfect_model_no_difference() -> None:
    recording = record("pendulum", {}, "random", steps=6)
    truth = true_frames(recording, 64)
    calls: list[None] = []
    film = film_pixels(Replay(truth), recording, 200, lambda: calls.append(None))
    side = 3 * 64
    assert film.shape == (7, side + 24, 3 * side + 4, 3) and film.dtype == np.uint8
    assert len(calls) == 7
    shown, learned, change = panels(film, side)
    large = mosaics.enlarged(truth, 3)[:, 30:]
    np.testing.assert_array_equal(shown, large)
    np.testing.assert_array_equal(learned, large)
    assert one_color(change)
    dark = panels(film_pixels(Replay(np.zeros_like(truth)), recording, 192), side)
    np.testing.assert_array_equal(dark[0], large)
    np.testing.assert_array_equal(dark[1][0], large[0]), "the context as given"
    assert not dark[1][1:].any() and not one_color(dark[2][1:])


def test_true_frames_are_what_the_env_shows() -> None:
    recording = record("spaceship", {}, "random", steps=4, seed=5)
    env = gymnasium.make("PhysGym/Spaceship-v0", obs_mode="pixels", max_episode_steps=4)
    observed = [env.reset(seed=5)[0], *(env.step(action)[0] for action in recording.actions)]
    np.testing.assert_array_equal(true_frames(recording, 64), np.stack(observed))
    env.close()


def test_captions_say_what_each_picture_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, Any] = {}
    real: Callable[..., Any] = pixel_plots.side_by_side

    def catch(*arguments: Any, captions: Any) -> Any:
        for name, (line,) in zip(("true", "learned", "difference"), captions, strict=True):
            written.setdefault(name, []).append(line)
        return real(*arguments, captions=captions)

    monkeypatch.setattr(pixel_plots, "side_by_side", catch)
    recording = record("pendulum", {}, "zero", steps=4)
    truth = true_frames(recording, 64)
    film_pixels(Replay(truth, fail_at=4), recording, 64)
    kinds = [line.partition(" s   ")[2] for line in written["learned"]]
    assert kinds == [
        "context, as given", "context, decoded", "imagined", "imagined", "diverged",
    ]  # fmt: skip
    assert written["true"][2].startswith("t  0.10 s   energy")
    assert written["difference"][3] == "MSE 0.0e+00   largest 0 %"
    assert written["difference"][4] != "MSE 0.0e+00   largest 0 %"


def test_films_of_what_cannot_be_filmed_are_refused() -> None:
    recording = record("pendulum", {}, "zero", steps=1)
    with pytest.raises(ValueError, match="1 steps is too short: the model reads 2"):
        film_pixels(Replay(true_frames(recording, 64)), recording)
    with pytest.raises(ValueError, match="sees states"):
        film_pixels(small_model("jump", make_spec("pendulum")), recording)
