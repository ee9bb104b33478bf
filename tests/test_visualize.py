"""Films and the scripts that make them: files that play, and errors of one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from model_doubles import Perfect, build_model, make_spec
from PIL import Image, ImageSequence

import physgym
from worldmodels.commands import evaluate, visualize
from worldmodels.configs.training import DataConfig, default_config, to_dict
from worldmodels.data import CollectConfig, DatasetError, collect, dataset_for
from worldmodels.data.store import read_header
from worldmodels.films import video
from worldmodels.films.recording import record
from worldmodels.films.states import film_beside, predict
from worldmodels.films.video import film, side_by_side, write_video
from worldmodels.interface import Spec
from worldmodels.storage.checkpoint import save_checkpoint
from worldmodels.storage.runs import RunFolder
from worldmodels.training import experiment

cv2 = pytest.importorskip("cv2")


def moving_square(count: int = 12, height: int = 41, width: int = 63) -> np.ndarray:
    frames = np.zeros((count, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[10:30, 3 * index : 3 * index + 20] = (230, 159, 0)
    return frames


def read_mp4(path: Path) -> tuple[np.ndarray, float]:
    capture = cv2.VideoCapture(str(path))
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        more, frame = capture.read()
        if not more:
            return np.stack(frames), fps
        frames.append(frame[..., ::-1])


def test_mp4_holds_every_frame_at_its_rate(tmp_path: Path) -> None:
    frames = moving_square()
    path = write_video(frames, tmp_path / "new" / "film.mp4", 20)
    back, fps = read_mp4(path)
    assert fps == pytest.approx(20)
    assert back.shape == (12, 42, 64, 3), "odd sizes are padded, nothing is cut"
    assert np.abs(back[:, :41, :63].astype(int) - frames).mean() < 8


@pytest.mark.parametrize(("fps", "count", "duration"), [(20, 12, 50), (50, 12, 20), (100, 6, 20)])
def test_gif_keeps_time(tmp_path: Path, fps: float, count: int, duration: int) -> None:
    with Image.open(write_video(moving_square(), tmp_path / "film.GIF", fps)) as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (count, duration, 0)
        shown = np.asarray(gif.convert("RGB")).astype(int)
    assert np.abs(shown - moving_square()[0]).mean() < 4


@pytest.mark.parametrize(
    ("frames", "name", "fps", "message"),
    [
        (moving_square(), "film.avi", 20, "end in .mp4 or .gif"),
        (moving_square(), "film.mp4", 0, "fps=0"),
        (moving_square(), "film.gif", float("nan"), "fps=nan"),
        ([], "film.gif", 20, "at least one"),
        ([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], "film.gif", 20, "differ in shape"),
    ],
)
def test_bad_films_are_named_and_leave_nothing(
    tmp_path: Path, frames: Any, name: str, fps: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(frames, tmp_path / name, fps)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(moving_square(), tmp_path / "film.gif", 20)
    before = path.read_bytes()

    def fail(film: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(video, "_write_gif", fail)
    with pytest.raises(OSError, match="disk full"):
        write_video(moving_square(), path, 20)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_gifs_keep_the_colours_of_small_bodies(name: str, tmp_path: Path) -> None:
    shown = record(name, {}, "controller", steps=20)
    frames = film(shown.system, shown.states, shown.controls, shown.params, 240)
    path = write_video(frames, tmp_path / "film.gif", 20)
    with Image.open(path) as written:
        kept = np.stack(
            [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(written)]
        )
    colourful = np.ptp(frames, axis=-1) > 100
    off = np.abs(kept.astype(int) - frames).max(-1)[colourful]
    assert colourful.any() and off.max() < 20


def test_panels_are_the_films_and_their_difference() -> None:
    truth, learned = moving_square(), np.roll(moving_square(), 25, axis=2)
    panels = side_by_side(truth, learned, gap=2)
    height, width = truth.shape[1:3]
    assert panels.shape[2] == 3 * width + 4
    np.testing.assert_array_equal(panels[:, -height:, :width], truth)
    np.testing.assert_array_equal(panels[:, -height:, width + 2 : 2 * width + 2], learned)
    contrast = panels[0, -height:, -width:]
    np.testing.assert_array_equal(contrast[20, 5], video.TRUE_COLOR)
    np.testing.assert_array_equal(contrast[20, 40], video.LEARNED_COLOR)
    same = side_by_side(truth, truth)[:, -height:, -width:]
    assert len(np.unique(same.reshape(-1, 3), axis=0)) == 1, "no difference, no ink"
    with pytest.raises(ValueError, match="cannot be compared"):
        side_by_side(truth, truth[:5])


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_every_system_is_filmed_with_its_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = record(name, {}, "random", steps=6)
    learned = predict(Perfect(make_spec(name)), recording)
    written: list[str] = []
    monkeypatch.setattr(video, "write_text", lambda panel, text, *_, **__: written.append(text))
    frames = film_beside(recording, learned, 64)
    assert sum("less than a pixel" in text for text in written) == 7, "a black panel says why"
    far = learned + 0.3 * recording.system.view
    written.clear()
    film_beside(recording, far, 64)
    assert not any("less than a pixel" in text for text in written)
    assert len(frames) == 7 and frames.dtype == np.uint8
    learned[3:] = np.nan
    empty = film(recording.system, learned, recording.controls, recording.params, 64)
    assert (empty[3:] == empty[-1]).all(), "what is not finite is an empty picture"
    film_beside(recording, learned, 64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of two structures, hardly trained."""
    root = tmp_path_factory.mktemp("runs")
    folders = {}
    for name in ("jump", "newtonian"):
        config = default_config("pendulum", name)
        config = replace(
            config,
            epochs=1,
            data=DataConfig(episodes=30),
            optim=replace(config.optim, steps_per_epoch=5),
            model=replace(config.model, hidden=8),
            out=str(root / name),
        )
        dataset = dataset_for(config, root=root / "datasets", progress=False)
        run = experiment.start(config)
        experiment.train(config, dataset, run, progress=False)
        folders[name] = run.path
    return folders


Script = Callable[..., Any]


def test_evaluate_script_compares_runs(
    runs: dict[str, Path], run_script: Script, tmp_path: Path
) -> None:
    out = run_script(
        "evaluate", *runs.values(), "--dt-values", 0.05, 0.1, "--horizon", 40, "--out", "report"
    )
    assert out.returncode == 0, out.stderr
    for word in ("jump", "newtonian", "copy-last-state", "linear-fit", "oracle (rk4", "n/a"):
        assert word in out.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["step_lengths"]["rows"]["jump"]["0.1"] is None
    assert report["step_lengths"]["rows"]["newtonian"]["0.1"]["count"] > 0


def test_runs_of_other_physics_are_compared_only_on_a_named_buffer(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def model(**kwargs: Any) -> Any:
        return SimpleNamespace(spec=make_spec("pendulum", **kwargs))

    models = {"a": model(), "b": model(params={"length": 0.9})}
    dataset = evaluate.find_test_data(None, runs["jump"])
    with pytest.raises(ValueError, match=r"length is 1.0 for a, and 0.9 for b.*--dataset"):
        evaluate.check_physics(None, models, dataset)
    with pytest.warns(UserWarning, match=r"b with env.params.length 0.9 \(the dataset: 1.0\)"):
        evaluate.check_physics("it", models, dataset)


def test_evaluation_of_one_run_lies_inside_it(runs: dict[str, Path]) -> None:
    one = evaluate.EvaluateConfig((runs["jump"],))
    assert evaluate.default_folder(one) == runs["jump"] / "evaluation"
    both = evaluate.EvaluateConfig(tuple(runs.values()))
    assert evaluate.default_folder(both).parent == Path("outputs")


def test_runs_of_one_structure_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs["jump"], other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "seed": 7}))
    names = evaluate.load_models(evaluate.EvaluateConfig((runs["jump"], other)))
    assert list(names) == ["jump s0", "jump s7"]
    again = evaluate.load_models(evaluate.EvaluateConfig((runs["jump"], runs["jump"] / "../jump")))
    assert len(again) == 2, "equal seeds are told apart by their folders"


def test_evaluation_wants_the_dataset_the_run_learned_from(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        evaluate.find_test_data("nowhere", runs["jump"])
    other = tmp_path / "other"
    shutil.copytree(runs["jump"], other)
    record = json.loads((other / "run.json").read_text())
    record["dataset"]["sha256"] = "0" * 64
    (other / "run.json").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match="holds another one now"):
        evaluate.find_test_data(None, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "run"),
        (("nowhere",), "no checkpoint in nowhere"),
        (("RUN", "--horizon", 0), "--horizon 0"),
        (("RUN", "--dt-values", -1), "--dt-values"),
    ],
)
def test_evaluate_script_names_bad_input(
    runs: dict[str, Path], run_script: Script, arguments: tuple[Any, ...], message: str
) -> None:
    out = run_script("evaluate", *(runs["jump"] if a == "RUN" else a for a in arguments))
    assert out.returncode == 2
    assert message in out.stderr and "Traceback" not in out.stderr


def test_visualize_script_films_a_run(
    runs: dict[str, Path], run_script: Script, tmp_path: Path
) -> None:
    path = tmp_path / "beside.gif"
    options = ("--steps", 9, "--size", 64, "--policy", "random", "--speed", 2)
    out = run_script("visualize", "--run", runs["newtonian"], "--out", path, *options)
    assert out.returncode == 0, out.stderr
    with Image.open(path) as gif:
        assert gif.n_frames == 10 and gif.width == 3 * 64 + 4 and gif.info["duration"] in (20, 30)


@pytest.fixture(scope="module")
def pixel_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a model of pixels, untrained, and of the buffer that it names."""
    root = tmp_path_factory.mktemp("pixels")
    buffer = CollectConfig(
        env="pendulum", name="seen", episodes=6, steps=8, pixels=True, image_size=32,
        val_fraction=0.2, test_fraction=0.2,
    )  # fmt: skip
    path = collect(buffer, root / "datasets", progress=False)
    config = default_config("pendulum", "visual", "spatial_hamiltonian", "tiny")
    spec = Spec("pendulum", dt=0.05, image_size=32, angles=(0,))
    run = RunFolder.create(to_dict(config), root / "run")
    run.update(dataset={"path": str(path), "sha256": read_header(path)["seal"]})
    built = {"spec": spec.to_dict(), "model_name": "visual", "model": to_dict(config)["model"]}
    save_checkpoint(run.checkpoints / "best", built, build_model(spec, config.model).state_dict())
    return run.path


def test_visualize_script_films_a_model_of_pixels(
    pixel_run: Path, run_script: Script, tmp_path: Path
) -> None:
    path = tmp_path / "beside.mp4"
    options = ("--steps", 5, "--size", 70, "--policy", "random", "--out", path)
    out = run_script("visualize", "--run", pixel_run, *options)
    assert out.returncode == 0, out.stderr
    back, fps = read_mp4(path)
    assert back.shape == (6, 64 + 24, 3 * 64 + 4, 3) and fps == pytest.approx(20)


def test_visualize_script_writes_pictures(
    pixel_run: Path, run_script: Script, tmp_path: Path
) -> None:
    out = run_script("visualize", "--run", pixel_run, "--pictures", "shown", DISPLAY="")
    assert out.returncode == 0, out.stderr
    made = {path.name for path in (tmp_path / "shown").iterdir()}
    assert {Path(line).name for line in out.stdout.split()} == made
    assert {"rollout_grid.png", "traversal.png"} <= made and len(made) == 5


def test_visualize_script_writes_pictures_of_a_model_of_states(
    runs: dict[str, Path], run_script: Script, tmp_path: Path
) -> None:
    assert not (runs["newtonian"] / "pictures").exists(), "a training of states stays short"
    out = run_script("visualize", "--run", runs["newtonian"], "--pictures", "shown", DISPLAY="")
    assert out.returncode == 0, out.stderr
    made = {path.name for path in (tmp_path / "shown").iterdir()}
    assert {Path(line).name for line in out.stdout.split()} == made
    assert made == {"phase_portrait.png", "coefficients.png", "series.png"}


def test_pictures_name_bad_input(pixel_run: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    shown, taken = tmp_path / "shown", tmp_path / "taken"
    taken.write_text("")
    alone = shutil.copytree(pixel_run / "checkpoints" / "best", tmp_path / "alone")
    whole = visualize.VisualizeConfig(run=pixel_run, pictures=shown)
    for change, message in (
        ({"run": None}, "name its --run"),
        ({"pictures": None, "dataset": "x"}, "name a folder for --pictures"),
        ({"pictures": taken}, "taken: it is a file"),
        ({"run": alone}, "is a checkpoint without its run"),
        ({"dataset": "gone"}, "no dataset 'gone'"),
        ({"env": "oscillator"}, "not the env of the run"),
    ):
        config = replace(whole, **change)
        with pytest.raises((ValueError, DatasetError), match=message):
            config.check()
            visualize.draw(config, shown)
    assert not shown.exists()


def test_visualize_script_films_an_env(run_script: Script, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    out = run_script("visualize", "--env", "three_body", "--steps", 5, "--size", 64, "--out", path)
    assert out.returncode == 0, out.stderr
    assert len(read_mp4(path)[0]) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env", "pendulun", "--out", "x.gif"), "did you mean 'pendulum'"),
        (("--out", "x.avi"), ".mp4 or .gif"),
        (("--steps", 0, "--out", "x.gif"), "--steps 0"),
        (("--size", 1, "--out", "x.gif"), "--size 1"),
        (("--run", "nowhere", "--out", "x.gif"), "no checkpoint in nowhere"),
        ((), "needs a display"),
    ],
)
def test_visualize_script_names_bad_input(
    run_script: Script, arguments: tuple[Any, ...], message: str
) -> None:
    out = run_script("visualize", *arguments, DISPLAY="", WAYLAND_DISPLAY="", QT_QPA_PLATFORM="")
    assert out.returncode == 2
    assert message in out.stderr and "Traceback" not in out.stderr


@pytest.mark.slow
def test_demo_goes_the_whole_road(run_script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    options = ("--episodes", 30, "--epochs", 1, "--agents", 2, "--out", folder)
    out = run_script("demo", *options, timeout=300, DISPLAY="")
    assert out.returncode == 0, out.stderr
    made = {path.name for path in folder.rglob("*")}
    assert {"beside.mp4", "beside.gif", "planner.gif", "report.md"} <= made
    assert {"error_over_horizon.png", "energy_over_time.png", "jump", "port_hamiltonian"} <= made
    for word in ("in the truth", "planner", "oracle", "Everything lies in", os.fspath(folder)):
        assert word in out.stdout
