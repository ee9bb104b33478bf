"""Scores in pixels mean what they say: by hand, of a perfect model, of floors, and of untrained ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import Perfect, build_model, make_spec, small_model

import physgym
from physgym.rendering import render_batch
from worldmodels.configs.training import DataConfig, default_config
from worldmodels.data import CollectConfig, Dataset, collect, dataset_for, load_dataset
from worldmodels.evaluation import problems
from worldmodels.evaluation.comparison import comparison_of, medium_of, write_report
from worldmodels.evaluation.comparison import evaluate as compare
from worldmodels.evaluation.pixels import metrics as pixel_metrics
from worldmodels.evaluation.pixels import problems as pixel_problems
from worldmodels.evaluation.pixels import verdict
from worldmodels.evaluation.pixels.baselines import BACKGROUND_ROW, COPY_ROW, encode, model_entry
from worldmodels.evaluation.pixels.comparison import PixelComparison
from worldmodels.evaluation.pixels.readout import readout_of
from worldmodels.evaluation.pixels.report import definitions, tables
from worldmodels.evaluation.pixels.scores import Ruler, measure, reward_score, row_scores
from worldmodels.evaluation.pixels.scoring import entries_of
from worldmodels.interface import DivergenceError, Latent, Spec
from worldmodels.models.backgrounds import background_of
from worldmodels.training import experiment

SIZE, STEPS = 32, 8
cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def buffers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """A small buffer with pictures of every system."""
    root = tmp_path_factory.mktemp("datasets")

    def make(name: str) -> Dataset:
        config = CollectConfig(
            env=name, name="small", episodes=12, steps=24, pixels=True, image_size=SIZE,
            val_fraction=0.25, test_fraction=0.25,
        )  # fmt: skip
        return load_dataset(collect(config, root, progress=False))

    return {name: make(name) for name in physgym.SYSTEMS}


class Seer(Perfect):
    """The true system behind pictures: it knows the state behind every frame of a buffer by heart."""

    context_frames, has_energy = 2, True

    def __init__(self, dataset: Dataset, fail_at: int = 10**6, seed: int = 0) -> None:
        spec = make_spec(dataset.env_name, **dataset.env_kwargs)
        super().__init__(Spec(**{**spec.to_dict(), "image_size": SIZE}))
        self.known = {
            dataset.pixels[row][t].tobytes() + dataset.pixels[row][t - 1].tobytes(): state
            for row in range(len(dataset))
            for t, state in enumerate(dataset.states[row])
            if t
        }
        self.config = SimpleNamespace(
            name="visual", predictor="seer", structure="newtonian", encoder_frames=2
        )
        self.untrained = lambda: Seer(dataset, seed=1)
        self.fail_at, self.steps = fail_at, 0
        self.blind = seed > 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, context: Any, params: Any = None, actions: Any = None) -> Latent:
        self.steps = 0
        keys = [row[-1].numpy().tobytes() + row[-2].numpy().tobytes() for row in context]
        states = np.stack([self.known[key] for key in keys])
        if self.blind:
            states = np.random.default_rng(0).normal(size=states.shape)
        return Latent(torch.from_numpy(states), (), params)

    def step(self, latent: Latent, action: Any, dt: Any = None) -> Latent:
        self.steps += 1
        if self.steps >= self.fail_at:
            raise DivergenceError("a solver gave up")
        return super().step(latent, action, abs(dt) if dt else dt)

    def decode(self, latent: Latent) -> torch.Tensor:
        if not torch.isfinite(latent.z).all():
            return torch.full((len(latent.z), SIZE, SIZE, 3), torch.nan)
        params = latent.condition.tolist()
        scenes = [
            self.system.scene(tuple(state), None, self.system.Params(*row), False)
            for state, row in zip(latent.z.tolist(), params, strict=True)
        ]
        return torch.from_numpy(render_batch(scenes, self.system.view, SIZE)).float() / 255

    def judge(self, latent: Latent, action: Any) -> tuple[torch.Tensor, torch.Tensor]:
        params = self.system.Params(*latent.condition.double().numpy().T)
        control = self.system.control(self.system.discrete_actions[action.numpy()], params)
        reward = self.system.reward(latent.z.numpy(), control, latent.z.numpy(), params)
        return torch.from_numpy(np.asarray(reward)), torch.zeros(len(reward))

    def energy(self, latent: Latent) -> torch.Tensor:
        params = self.system.Params(*latent.condition.double().numpy().T)
        return 3.0 - 2.0 * torch.from_numpy(
            np.asarray(self.system.energy(latent.z.numpy(), params))
        )


def untrained(predictor: str, env: str = "pendulum", **options: Any) -> Any:
    """A tiny visual model, always the same one."""
    system = physgym.get_system(env)
    spec = Spec(**{**make_spec(env).to_dict(), "image_size": SIZE})
    assert spec.action_size == len(system.discrete_actions)
    config = default_config(env, "visual", predictor, "tiny").model
    torch.manual_seed(0)
    return build_model(spec, type(config)(**{**config.__dict__, **options}))


NO_PROBES = PixelComparison(probe_frames=0)


def scored(dataset: Dataset, models: dict[str, Any], **options: Any) -> dict[str, Any]:
    comparison = PixelComparison(probe_frames=60)
    return compare(models, dataset, STEPS, 12, comparison=comparison, **options)


# -- pure functions -------------------------------------------------------------------------------


def test_errors_by_hand() -> None:
    truth, predicted = torch.zeros(1, 2, 2, 2, 3), torch.zeros(1, 2, 2, 2, 3)
    truth[0, :, 0, 0] = torch.tensor([1.0, 0.5, 0.0])
    predicted[0, 1, 0, 0] = torch.tensor([0.5, 0.5, 0.0])
    error = pixel_metrics.squared_error(truth, predicted)
    assert error.tolist() == [[1.25, 0.25]]
    assert pixel_metrics.energy(truth).tolist() == [[1.25, 1.25]]
    found = pixel_metrics.normalised_error(error, truth, 0.0)
    assert found.tolist() == [[1.0, pytest.approx(0.2)]]
    assert pixel_metrics.normalised_error(error, truth, 2.5).tolist() == [[0.5, pytest.approx(0.1)]]


def test_bytes_are_brightness_in_255_parts() -> None:
    frames = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8)
    assert pixel_metrics.energy(frames).item() == pytest.approx(12 * 0.04)
    assert pixel_metrics.squared_error(frames, frames.float() / 255).item() == 0.0


def test_frames_that_are_not_finite_are_infinite_errors() -> None:
    truth = torch.zeros(3, 2, 2, 3)
    predicted = truth.clone()
    predicted[1, 0, 0, 0], predicted[2, 1, 1, 1] = torch.nan, torch.inf
    assert pixel_metrics.squared_error(truth, predicted).tolist() == [0.0, math.inf, math.inf]


def test_psnr_by_hand() -> None:
    found = pixel_metrics.psnr(np.array([0.01, 1.0, 0.0, np.inf]))
    assert found.tolist() == [pytest.approx(20.0), 0.0, pixel_metrics.BEST_PSNR, -math.inf]


def test_ssim_is_that_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (3, 32, 32, 3), generator=generator, dtype=torch.uint8)
    predicted = truth.float() / 255
    predicted[1] += 0.1 * torch.rand(32, 32, 3, generator=generator)
    predicted[2, 0, 0, 0] = torch.nan
    found = pixel_metrics.ssim(truth, predicted)
    known = functional.structural_similarity_index_measure(
        predicted[1:2].movedim(-1, 1), truth[1:2].movedim(-1, 1) / 255, data_range=1.0
    )
    assert found.tolist() == [pytest.approx(1.0), pytest.approx(float(known)), -math.inf]
    assert 0.5 < float(known) < 0.999


def test_ratio_is_of_means_over_valid_rollouts() -> None:
    errors, reference = np.array([[1.0, 2.0], [3.0, np.inf]]), np.array([[4.0, 4.0], [4.0, 4.0]])
    valid = np.array([[True, True], [True, False]])
    assert pixel_metrics.ratio(errors, reference, valid, 1) == pytest.approx(0.5)
    assert pixel_metrics.ratio(errors, reference, valid, 2) == pytest.approx(0.5)
    assert pixel_metrics.ratio(errors, reference, np.ones((2, 2), bool), 2) == math.inf
    assert math.isnan(pixel_metrics.ratio(errors, reference, np.zeros((2, 2), bool), 1))


# -- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_frames_asked_for_are_those_of_the_states(name: str, buffers: dict[str, Dataset]) -> None:
    windows = pixel_problems.cut(buffers[name], 3, STEPS, 5)
    ((_, batch),) = pixel_problems.batches(windows)
    assert batch.context.shape[1] == 3 and batch.truth.shape[1] == STEPS
    drawn = pixel_problems.draw(batch.tasks, SIZE)
    shown = torch.cat((batch.context[:, -1:], batch.truth), 1).numpy()
    alive = np.concatenate([batch.tasks.valid[:, :1], batch.tasks.valid], 1)
    np.testing.assert_array_equal(drawn[alive], shown[alive])


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_time_runs_backward_over_the_same_window(name: str, buffers: dict[str, Dataset]) -> None:
    ((_, batch),) = pixel_problems.batches(pixel_problems.cut(buffers[name], 3, STEPS, 5))
    turned = pixel_problems.reverse(batch)
    assert turned.dt == -batch.dt and turned.backward
    kept = turned.tasks.valid[:, 0]
    assert kept.any() and (kept == batch.tasks.valid[:, -1]).all()
    tasks = problems.part(turned.tasks, slice(None))
    for t in range(STEPS):
        before, after = tasks.states[:, t + 1], tasks.states[:, t]
        moved = tasks.system.step(before, tasks.controls[:, t], tasks.params, tasks.dt)
        np.testing.assert_allclose(moved[kept], after[kept], atol=1e-9)
    drawn = pixel_problems.draw(turned.tasks, SIZE)
    np.testing.assert_array_equal(drawn[kept, 1:], turned.truth.numpy()[kept])
    np.testing.assert_array_equal(drawn[kept, 0], turned.context.numpy()[kept, -1])
    forward = np.concatenate([batch.past_actions, batch.tasks.actions], 1)
    np.testing.assert_array_equal(turned.past_actions, forward[:, -2:])


def test_batches_hold_every_window_once(
    buffers: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = pixel_problems.cut(buffers["pendulum"], 2, STEPS, 20)
    ((_, whole),) = pixel_problems.batches(windows)
    monkeypatch.setattr(pixel_problems, "FRAMES_AT_ONCE", 1)
    parts = [batch for _, batch in pixel_problems.batches(windows)]
    assert len(parts) > 3
    torch.testing.assert_close(torch.cat([part.truth for part in parts]), whole.truth)
    states = np.concatenate([part.tasks.states for part in parts])
    np.testing.assert_array_equal(states, whole.tasks.states)


def test_another_step_length_keeps_the_frames_seen(buffers: dict[str, Dataset]) -> None:
    dataset = buffers["pendulum"]
    ((_, batch),) = pixel_problems.batches(pixel_problems.cut(dataset, 2, STEPS, 5))
    asked = pixel_problems.at_step_length(batch, 0.025, 0.1, 0.4)
    assert asked.tasks.actions.shape[1] == 16 and asked.truth.shape[1] == 1
    assert asked.context is batch.context and asked.dt == 0.025
    same = pixel_problems.at_step_length(batch, 0.05, 0.05, 0.05 * STEPS)
    np.testing.assert_array_equal(same.truth[:, 0].numpy(), batch.truth[:, -1].numpy())


# -- a comparison ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def perfect(buffers: dict[str, Dataset]) -> dict[str, dict[str, Any]]:
    """Reports of a model that knows the truth, on every system."""
    return {
        name: scored(data, {"seer": Seer(data)}, dt_values=(data.dt / 2, data.dt))
        for name, data in buffers.items()
    }


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_a_perfect_model_has_no_error(name: str, perfect: dict[str, dict[str, Any]]) -> None:
    report = perfect[name]
    for row in (report["rows"]["seer"], report["rows"]["seer, reconstruction"]):
        for cell in row["mse"].values():
            assert cell["median"] < 1e-5 and cell["finite"] == 1.0
        assert row["valid_time"]["median"] == pytest.approx(STEPS * report["dt"])
        assert max(row["copy_ratio"].values()) < 1e-2
        for cells in row["centroid_pixels"].values():
            assert cells[str(STEPS)]["median"] < 0.02 and cells[str(STEPS)]["finite"] == 1.0
    study = report["step_lengths"]
    for cell in study["rows"]["seer"].values():
        assert cell["median"] < 1e-3
    assert all(cell is None for cell in study["rows"]["seer, reconstruction"].values())
    assert report["rows"]["seer, reconstruction"]["backward"] is None


def test_probes_and_energies_of_a_perfect_model(perfect: dict[str, dict[str, Any]]) -> None:
    report = perfect["oscillator"]
    scores = report["probes"]["seer"]
    assert min(scores["linear"].values()) > 0.9999 and list(scores["linear"]) == ["x", "v"]
    assert max(scores["random weights"].values()) < 0.5
    assert min(scores["network"].values()) > 0.9
    learned = report["learned_energy"]["seer"]
    assert learned["r_squared"] == pytest.approx(1.0)
    errors = [
        report["rows"][name]["energy_error"][str(STEPS)]["median"]
        for name in ("seer", "seer, reconstruction")
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3), "a perfect rollout adds no error"
    assert errors[0] < 0.5
    assert np.asarray(report["rows"]["seer"]["energy"]).shape == (3, STEPS + 1)


def test_energy_is_kept_without_control(tmp_path: Path) -> None:
    config = CollectConfig(
        env="pendulum", name="free", episodes=12, steps=24, pixels=True, image_size=SIZE,
        params={"damping": 0.0}, val_fraction=0.25, test_fraction=0.25,
    )  # fmt: skip
    data = load_dataset(collect(config, tmp_path, progress=False))
    learned = scored(data, {"seer": Seer(data)})["learned_energy"]["seer"]
    assert learned["drift"][str(STEPS)]["median"] < 1e-4 and learned["r_squared"] > 0.9999
    assert learned["wander"]["median"] < 1e-3


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_baselines(
    name: str, buffers: dict[str, Dataset], perfect: dict[str, dict[str, Any]]
) -> None:
    report = perfect[name]
    copy, constant = report["rows"][COPY_ROW], report["rows"][BACKGROUND_ROW]
    assert set(copy["copy_ratio"].values()) == {1.0}
    assert set(copy["backward"]["copy_ratio"].values()) == {1.0}
    assert copy["kind"] == constant["kind"] == "baseline"
    assert copy["nmse"]["1"]["median"] < copy["nmse"][str(STEPS)]["median"]
    train = buffers[name].subset("train")
    frames = np.concatenate(
        [train.pixels[row][: train.lengths[row] + 1] for row in range(len(train))]
    )
    shared = background_of(train)
    frame, bright = shared.mean, shared.brightness
    np.testing.assert_allclose(frame, frames.mean(0) / 255, atol=1e-12)
    assert bright == pytest.approx(((frames / 255) ** 2).sum((1, 2, 3)).mean(), rel=1e-5)


def test_divergence_is_an_infinite_error(buffers: dict[str, Dataset]) -> None:
    data = buffers["pendulum"]
    row = scored(data, {"lost": Seer(data, fail_at=4)})["rows"]["lost"]
    assert row["mse"]["1"]["finite"] == 1.0 and row["mse"][str(STEPS)]["finite"] == 0.0
    assert row["mse"][str(STEPS)]["median"] is None and row["copy_ratio"][str(STEPS)] is None
    assert row["psnr"][str(STEPS)]["median"] is None
    assert row["centroid"]["orange"][str(STEPS)]["finite"] == 0.0
    assert row["energy_error"][str(STEPS)]["finite"] == 0.0
    assert row["valid_time"]["median"] == pytest.approx(3 * data.dt)


class Copier(Seer):
    """Shows the last frame it saw for ever, and gives a reward that is not finite."""

    def step(self, latent: Latent, action: Any, dt: Any = None) -> Latent:
        return latent

    def judge(self, latent: Latent, action: Any) -> tuple[torch.Tensor, torch.Tensor]:
        reward, logit = super().judge(latent, action)
        return reward + torch.inf, logit


def first_table(report: dict[str, Any]) -> dict[str, list[str]]:
    """Rows of the one table that a terminal shows, by model."""
    (shown,) = (table for table in tables(report) if table.brief)
    assert shown == tables(report)[0]
    assert [len(row) for row in shown.rows] == [len(shown.head)] * len(shown.rows)
    return {name: cells for name, *cells in shown.rows}


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_the_first_table_of_a_perfect_model(name: str, perfect: dict[str, dict[str, Any]]) -> None:
    report = perfect[name]
    steps, place, reward, words = first_table(report)["seer"]
    assert (steps, reward) == (f">= {STEPS}", "1.00")
    assert words == f"better than copying to the end ({STEPS} steps)"
    assert float(place.split()[0]) < 0.02
    assert place.endswith(")") == (len(report["bodies"]) > 1), "the worst of several is named"
    copied = verdict.places(report, report["rows"][COPY_ROW])
    assert (
        f"copying the last frame: {copied})" in definitions(report)
        and float(copied.split()[0]) > 0.1
    )
    assert f"has {len(tables(report)) - 1} more tables" in comparison_of("pixels").legend(report)


def test_the_first_table_of_models_that_fail(buffers: dict[str, Dataset]) -> None:
    data = buffers["pendulum"]
    models = {"copier": Copier(data), "lost": Seer(data, fail_at=4)}
    report = compare(models, data, STEPS, 12, comparison=NO_PROBES)
    rows = first_table(report)
    assert (rows["copier"][0], rows["copier"][2:]) == ("0", ["-inf", "never better than copying"])
    assert rows["lost"] == ["3", "inf", "-inf", "no better than copying from step 4 on"]


@pytest.mark.parametrize(
    ("better", "steps", "words"),
    [
        ([1, 1, 1], ">= 3", "better than copying to the end (3 steps)"),
        ([1, 1, 0], "2", "no better than copying from step 3 on"),
        ([0, 0, 0], "0", "never better than copying"),
        ([1, 0, 1], "1", "no better than copying at 1 of 3 steps, first at step 2"),
        ([0, 1, 0], "0", "no better than copying at 2 of 3 steps, first at step 1"),
        ([], "n/a", "n/a"),
    ],
)
def test_what_is_said_against_copying(better: list[int], steps: str, words: str) -> None:
    assert verdict.against_copying(np.array(better, np.bool_)) == (steps, words)


def test_reward_scores_by_hand() -> None:
    truth, valid = np.array([[0.0], [2.0], [9.0]]), np.array([[True], [True], [False]])
    found = [
        reward_score(np.array(own)[:, None], truth, valid, 1)
        for own in ([0.0, 2.0, 0.0], [1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, np.nan, 0.0])
    ]
    assert [cell["median"] for cell in found] == [1.0, 0.0, -3.0, -np.inf]
    assert [cell["finite"] for cell in found] == [1.0, 1.0, 1.0, 0.5]
    assert reward_score(truth, np.ones((3, 1)), valid, 1)["count"] == 0, "nothing to explain"


def test_rewards_are_those_of_the_steps_asked_for(buffers: dict[str, Dataset]) -> None:
    data = buffers["pendulum"]
    ((_, batch),) = pixel_problems.batches(pixel_problems.cut(data.subset("test"), 3, STEPS, 12))
    tasks = batch.tasks
    after = tasks.states[:, 1:]
    params = problems.columns(tasks.params)
    known = tasks.system.reward(tasks.states[:, :-1], tasks.controls, after, params)
    np.testing.assert_allclose(batch.rewards[tasks.valid], known[tasks.valid], atol=1e-12)
    np.testing.assert_array_equal(
        pixel_problems.rows_of(batch, slice(1, 2)).rewards, batch.rewards[1:2]
    )
    assert pixel_problems.reverse(batch).rewards is None


PREDICTORS = ("spatial_jump", "flat_jump", "spatial_hamiltonian", "flat_ode", "spatial_lstm")


@pytest.fixture(scope="module")
def compared(buffers: dict[str, Dataset]) -> dict[str, Any]:
    """A report of untrained models of several structures, one with a longer context."""
    models = {name: untrained(name) for name in PREDICTORS[:-1]}
    models["spatial_lstm"] = untrained("spatial_lstm", context_frames=4)
    shares: list[float] = []
    report = scored(
        buffers["pendulum"], models, dt_values=(0.025, 0.05, 0.1), advance=shares.append
    )
    assert sum(shares) == pytest.approx(1.0)
    return report


def test_structures_are_asked_what_they_can_do(compared: dict[str, Any]) -> None:
    assert compared["context"] == 4 and compared["problems"] > 2
    for name in PREDICTORS:
        row = compared["rows"][name]
        able = name in ("spatial_hamiltonian", "flat_ode")
        assert (row["backward"] is not None) == able
        cells = compared["step_lengths"]["rows"][name]
        assert (cells["0.025"] is not None) == (cells["0.1"] is not None) == able
        assert cells["0.05"]["count"] == compared["problems"]
        assert row["mse"][str(STEPS)]["finite"] == 1.0
    assert list(compared["learned_energy"]) == ["spatial_hamiltonian"]
    assert set(compared["probes"]) == set(PREDICTORS)


def test_reports_are_written_whole(compared: dict[str, Any], tmp_path: Path) -> None:
    files = write_report(compared, tmp_path / "new" / "folder")
    assert all(path.stat().st_size > 500 for path in files)
    assert [path.suffix for path in files] == [".json", ".md", ".png", ".png", ".png", ".png"]
    assert json.loads(files[0].read_text()) == compared
    text = files[1].read_text()
    for word in (
        "0.025",
        "copy-last-frame",
        "n/a",
        "random weights",
        "SSIM",
        "centroid",
        *PREDICTORS,
    ):
        assert word in text, word
    for table in tables(compared):
        assert all(len(row) == len(table.head) for row in table.rows), table.title


def test_without_torchmetrics_the_column_says_what_to_install(
    buffers: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_metrics, "has_ssim", lambda: False)
    report = compare(
        {"jump": untrained("flat_jump")}, buffers["pendulum"], 4, 4, comparison=NO_PROBES
    )
    assert report["rows"]["jump"]["ssim"] is None and report["probes"] == {}
    (table,) = (table for table in tables(report) if table.title == "SSIM")
    assert {cell for row in table.rows for cell in row[1:]} == {"n/a"}
    assert definitions(report).count("pip install") == 1


def test_the_ceiling_follows_the_frames_and_not_the_actions(buffers: dict[str, Dataset]) -> None:
    ((_, batch),) = pixel_problems.batches(pixel_problems.cut(buffers["pendulum"], 2, STEPS, 4))
    other = batch._replace(tasks=batch.tasks._replace(actions=2 - batch.tasks.actions))
    model = untrained("spatial_jump", encoder_actions=False)
    rows = entries_of({"m": model}, np.zeros((SIZE, SIZE, 3)))
    drawn = [rows["m, reconstruction"].predict(c, False).frames for c in (batch, other)]
    assert torch.equal(*drawn)
    moved = [rows["m"].predict(c, False).frames for c in (batch, other)]
    assert not torch.equal(*moved)


def test_every_model_starts_at_the_last_frame_seen(buffers: dict[str, Dataset]) -> None:
    ((_, batch),) = pixel_problems.batches(pixel_problems.cut(buffers["pendulum"], 5, STEPS, 4))
    model = untrained("spatial_jump").eval()
    with torch.inference_mode():
        past = torch.from_numpy(np.ascontiguousarray(batch.past_actions[:, -1:]))
        expected = model.encode(batch.context[:, -2:], None, past).z
        assert torch.equal(encode(model, batch).z, expected)
        predicted = model_entry(model).predict(batch, False)
        one = model.step(
            model.encode(batch.context[:, -2:], None, past),
            torch.from_numpy(batch.tasks.actions[:, 0]),
        )
        torch.testing.assert_close(predicted.frames[:, 0], model.decode(one))
        last = model_entry(model).predict(batch, True)
    torch.testing.assert_close(last.frames, predicted.frames[:, -1:])


def test_valid_time_is_that_of_the_threshold(buffers: dict[str, Dataset]) -> None:
    windows = pixel_problems.cut(buffers["pendulum"], 2, 4, 2)
    ruler = Ruler(readout_of(windows.tasks.system, SIZE), 1.0, (1, 4), False)
    errors = np.array([[0.01, 0.024, 0.026, 0.01], [0.01, 0.01, 0.01, 0.01]])
    values = {
        "mse": errors, "nmse": errors, "centroid": errors[..., None],
        "seen": np.ones((2, 4, 1), np.bool_),
    }  # fmt: skip
    found = row_scores(values, values, windows.asked, ruler, 1.0)
    dt = windows.tasks.dt
    assert found["valid_time"]["q25"] == pytest.approx(2 * dt)
    assert found["valid_time"]["q75"] == pytest.approx(4 * dt)
    assert found["centroid_pixels"]["orange"]["1"]["median"] == pytest.approx(
        0.01 / ruler.readout.meters_per_pixel
    )


def test_a_body_that_the_truth_hides_does_not_count(buffers: dict[str, Dataset]) -> None:
    windows = pixel_problems.cut(buffers["three_body"], 2, 2, 2)
    ((_, batch),) = pixel_problems.batches(windows)
    ruler = Ruler(readout_of(windows.tasks.system, SIZE), 1.0, (1, 2), False)
    hidden = batch._replace(truth=torch.zeros_like(batch.truth))
    values = measure(hidden, torch.zeros(batch.truth.shape), ruler)
    assert not values["seen"].any() and (values["mse"] == 0).all()
    found = row_scores(values, values, windows.asked, ruler, 1.0)
    assert {cells["2"]["count"] for cells in found["centroid"].values()} == {0}


@pytest.mark.parametrize("predictor", ["spatial_hamiltonian", "flat_newtonian"])
def test_a_step_back_undoes_a_step(predictor: str, buffers: dict[str, Dataset]) -> None:
    ((_, batch),) = pixel_problems.batches(pixel_problems.cut(buffers["pendulum"], 2, STEPS, 4))
    model = untrained(predictor).double().eval()
    with torch.inference_mode():
        start = model.encode(batch.context.double() / 255)
        action = torch.from_numpy(batch.tasks.actions[:, 0])
        there = model.step(start, action, batch.dt)
        back = model.step(there, action, pixel_problems.reverse(batch).dt)
    assert float((there.z - start.z).abs().max()) > 1e-4
    torch.testing.assert_close(back.z, start.z, atol=1e-6, rtol=0)


def test_batches_do_not_change_a_report(
    buffers: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def report() -> dict[str, Any]:
        model = untrained("spatial_hamiltonian").train()
        found = compare(
            {"m": model}, buffers["pendulum"], 4, 6, (0.025, 0.05), comparison=NO_PROBES
        )
        assert model.training, "the model is left in the mode it was in"
        for row in found["rows"].values():
            del row["seconds"]
        return found

    whole = report()
    monkeypatch.setattr(pixel_problems, "FRAMES_AT_ONCE", 1)
    assert_close(report(), whole)


def assert_close(found: Any, known: Any) -> None:
    """Reports whose numbers agree but for rounding."""
    if isinstance(known, dict):
        assert found.keys() == known.keys()
        for key, value in known.items():
            assert_close(found[key], value)
    elif isinstance(known, list):
        for one, other in zip(found, known, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(known, rel=1e-3) if isinstance(known, float) else known)


@pytest.mark.gpu
def test_a_gpu_says_the_same(buffers: dict[str, Dataset]) -> None:
    reports = [
        scored(buffers["pendulum"], {"m": untrained("spatial_hamiltonian").to(device)})
        for device in ("cpu", "cuda")
    ]
    one, other = (report["rows"]["m"]["mse"][str(STEPS)]["median"] for report in reports)
    assert one == pytest.approx(other, rel=1e-2)


# -- the script -----------------------------------------------------------------------------------


def test_the_script_compares_visual_runs(run_script: Callable[..., Any], tmp_path: Path) -> None:
    config = default_config("oscillator", "visual", "flat_hamiltonian", "tiny")
    config = replace(
        config,
        epochs=1,
        data=DataConfig(episodes=12),
        optim=replace(config.optim, steps_per_epoch=2),
        out=str(tmp_path / "run"),
    )
    dataset = dataset_for(config, root=tmp_path / "datasets", progress=False)
    experiment.train(config, dataset, experiment.start(config), progress=False)
    out = run_script(
        "evaluate", tmp_path / "run", "--horizon", 6, "--problems", 4, "--dt-values", 0.05, 0.1
    )
    assert out.returncode == 0, out.stderr
    for word in ("flat_hamiltonian", "against copying", "more tables", "report.md"):
        assert word in out.stdout
    assert "backward" not in out.stdout, "one table for a terminal, the others in the file"
    text = (tmp_path / "run" / "evaluation" / "report.md").read_text()
    for word in ("reconstruction", "copy-last-frame", "dt 0.05 s", "Backward"):
        assert word in text
    report = json.loads((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert report["kind"] == "pixels" and report["steps"] == 6


def test_runs_of_states_and_of_pixels_are_not_mixed() -> None:
    states, pixels = make_spec("pendulum"), Spec("pendulum", image_size=64)
    assert medium_of({"a": pixels, "b": pixels}) == "pixels"
    with pytest.raises(ValueError, match="a learned from states and b learned from pixels"):
        medium_of({"a": states, "b": pixels})
    with pytest.raises(ValueError, match="no model"):
        medium_of({})


# -- bad input ------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused(buffers: dict[str, Dataset], tmp_path: Path) -> None:
    data, model = buffers["pendulum"], untrained("flat_jump")
    with pytest.raises(ValueError, match="has at most 24|at most 24 steps: expected 1 to 23"):
        compare({"a": model}, data, 24)
    with pytest.raises(ValueError, match="learned env 'pendulum'"):
        compare({"a": model}, buffers["oscillator"], 4)
    with pytest.raises(ValueError, match="sees states"):
        compare({"a": small_model("jump", make_spec("pendulum"))}, data, comparison=NO_PROBES)
    blind = load_dataset(
        collect(
            CollectConfig(env="pendulum", name="no", episodes=6, steps=9), tmp_path, progress=False
        )
    )
    with pytest.raises(ValueError, match=r"no pictures.*--pixels"):
        compare({"a": model}, blind, 4)
    wide = untrained("flat_jump")
    wide.spec = Spec(**{**wide.spec.to_dict(), "image_size": 64})
    with pytest.raises(ValueError, match=r"pictures of 64 px, but .* 32 px"):
        compare({"a": wide}, data, 4)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        compare({"a": model}, data, 4)
