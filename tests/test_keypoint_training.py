"""Models of keypoints from a buffer of pictures to an env: stages, what they leave, and what they refuse."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import Log
from gymnasium.utils.env_checker import check_env
from visual_cases import KEYPOINTS, fitted, pictures, random_batch, tiny_model

import worldmodels
from worldmodels.configs.training import TrainConfig, default_config
from worldmodels.data import Dataset
from worldmodels.data.batches import TrainingError
from worldmodels.data.readings import read_states
from worldmodels.storage.checkpoint import load
from worldmodels.training import fit as training


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A pendulum in pictures of 32 pixels."""
    return pictures(
        tmp_path_factory.mktemp("data"), "pendulum", episodes=30, steps=30, image_size=32
    )


def tiny(predictor: str = "keypoint_hamiltonian", **model: Any) -> TrainConfig:
    config = default_config("pendulum", "visual", predictor, "tiny")
    optim = replace(config.optim, steps_per_epoch=3, batch_size=8)
    model = {"sight_frames": 100, "sprite_steps": 30, **model}
    return replace(
        config,
        model=replace(config.model, **model),
        optim=optim,
        epochs=2,
        validation_steps=6,
        save_seconds=0.0,
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("predictor", KEYPOINTS)
def test_every_structure_is_trained_on_what_is_read(
    predictor: str, buffer: Dataset, tmp_path: Path
):
    result, model, lines = fitted(tiny(predictor), buffer, tmp_path)
    assert result["steps"] == 6 and result["skipped"] == 0 and np.isfinite(result["best_nmse"])
    assert {"train/prediction", "train/reward", "eval/pixels_6"} <= set(result)
    assert model.config.points == 1 and model.config.coordinates == "circle"
    assert "1 body moves" in lines and "body 1 lives on a circle" in lines
    truth = buffer.subset("val")
    frames = torch.from_numpy(truth.pixels[0][None, :8])
    read = model.sight.chart.coordinates(model.look(frames).points)[0, :, 0].double().numpy()
    off = np.unwrap(read) - truth.states[0, :8, 0]
    turned = np.unwrap(read) + truth.states[0, :8, 0]  # a picture's y points down
    assert min(np.ptp(off), np.ptp(turned)) < 0.02


@pytest.mark.usefixtures("heard_signals")
def test_a_stopped_run_goes_on_bit_for_bit(buffer: Dataset, tmp_path: Path) -> None:
    whole = fitted(tiny(), buffer, tmp_path / "whole")[1]
    run = SimpleNamespace(checkpoints=tmp_path / "parts" / "checkpoints")

    def stop(done: float, pace: str) -> None:
        if done > 1.2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training.fit(tiny(), buffer, run, Log(), on_step=stop)
    training.fit(tiny(), buffer, run, Log(), resume=True)
    parts = weights(load(run.checkpoints / "last"))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, parts[name]), name


def test_pictures_are_read_once_for_all_structures(tmp_path: Path) -> None:
    dataset = pictures(tmp_path, "pendulum", episodes=12, steps=20, image_size=32)
    stages: list[str] = []

    def hear(done: float, words: str) -> None:
        stages.append(words.split()[0])

    first = fitted(tiny(), dataset, tmp_path / "a", on_step=hear)[1]
    assert {"seeing", "reading"} <= set(stages)
    (kept,) = Path(f"{dataset.path}.readings").iterdir()
    stages.clear()
    second = fitted(tiny("keypoint_jump"), dataset, tmp_path / "b", on_step=hear)[1]
    assert not {"seeing", "reading"} & set(stages)
    for name, tensor in first.sight.state_dict().items():
        assert torch.equal(tensor, second.sight.state_dict()[name])
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="cannot be used.*read again"):
        again = fitted(tiny(), dataset, tmp_path / "c")[1]
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(again)[name])


def test_a_pretrained_run_gives_motion_and_heads_and_eyes_stay_ones_own(
    buffer: Dataset, tmp_path: Path
) -> None:
    first = fitted(tiny(), buffer, tmp_path / "a")[1]
    config = replace(tiny("keypoint_jump"), pretrained=str(tmp_path / "a"), seed=1)
    config = replace(config, optim=replace(config.optim, lr=1e-12))
    _, second, lines = fitted(config, buffer, tmp_path / "b")
    assert "heads: 7 of 7 tensors loaded" in lines, lines
    assert re.search(r"kept as fitted to the new data: .*sight", lines), lines
    for name, tensor in first.heads.named_parameters():
        torch.testing.assert_close(dict(second.heads.named_parameters())[name], tensor)
    assert not torch.equal(second.sight.sprites.mask, first.sight.sprites.mask)


def test_nothing_of_the_true_system_is_learned_from(buffer: Dataset, tmp_path: Path) -> None:
    """States, energies and parameters that are not there change no weight."""
    blind = replace(
        buffer,
        states=np.full_like(buffer.states, np.nan),
        energy=np.full_like(buffer.energy, np.nan),
        params={name: np.full_like(values, np.nan) for name, values in buffer.params.items()},
        path=tmp_path / "elsewhere",  # nothing that was kept is found
    )
    seeing = weights(fitted(tiny(), buffer, tmp_path / "seeing")[1])
    for name, tensor in weights(fitted(tiny(), blind, tmp_path / "blind")[1]).items():
        assert torch.equal(tensor, seeing[name]), name


def test_it_is_an_env(buffer: Dataset, tmp_path: Path) -> None:
    fitted(tiny(), buffer, tmp_path)
    model = load(tmp_path / "checkpoints" / "best")
    env = worldmodels.make_env(model)
    check_env(env, skip_render_check=True)
    vector = worldmodels.make_env(model, num_envs=3)
    shown, _ = vector.reset(seed=0)
    assert shown.shape == (3, 32, 32, 3) and shown.max() > 100
    for _ in range(5):
        after, reward, *_, info = vector.step(np.zeros(3, np.int64))
        assert not info["diverged"].any() and np.isfinite(reward).all()
    assert not np.array_equal(after, shown)


def test_an_ensemble_shares_a_reader_and_disagrees(buffer: Dataset, tmp_path: Path) -> None:
    config = tiny()
    dynamics = replace(config.model.dynamics, ensemble=3)
    model = fitted(tiny(dynamics=dynamics), buffer, tmp_path)[1]
    assert sum(name.startswith("sight.reader") for name in weights(model)) == 5
    frames = torch.from_numpy(buffer.pixels[0][None, :8])
    actions = torch.from_numpy(buffer.actions[:1, :7])
    latent = model.encode(frames, None, actions)
    assert latent.z.shape == (1, 3, 2) and bool((model.disagreement(latent) > 0.0).all())
    assert model.decode(latent).shape == (1, 32, 32, 3)
    model.judge(latent, actions[:, 0])
    assert model.energy(model.conserve(latent)).shape == (1,)


def test_what_cannot_be_read_is_one_clear_line(buffer: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"model\.points=3, but 1 body moves"):
        fitted(tiny(points=3), buffer, tmp_path / "a")
    blank = replace(buffer, pixels=Blank(buffer.pixels), path=tmp_path / "blank")
    with pytest.raises(TrainingError, match="nothing moves"):
        fitted(tiny(), blank, tmp_path / "b")
    with pytest.raises(TrainingError, match="context_frames=28 needs 28"):
        fitted(tiny(context_frames=28, smoothing_frames=5), short(buffer), tmp_path / "c")
    with pytest.raises(ValueError, match=r"context_frames.*from 2 to 1000"):
        tiny(context_frames=1)
    with pytest.raises(ValueError, match="are found in pictures: worldmodels.train"):
        tiny_model("keypoint_jump", points=0)


class Blank:
    """Pictures in which nothing is to be seen."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def take(self, rows: Any) -> Blank:
        return Blank(self.pixels.take(rows))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.zeros_like(self.pixels[rows])

    def __len__(self) -> int:
        return len(self.pixels)


def short(dataset: Dataset) -> Dataset:
    """The dataset with episodes of 20 steps."""
    return replace(dataset, lengths=np.minimum(dataset.lengths, 20), path=Path(f"{dataset.path}20"))


# The observer


def test_every_weight_of_motion_and_heads_gets_a_gradient() -> None:
    for predictor in KEYPOINTS:
        model = tiny_model(predictor)
        batch = random_batch(model)
        for observed in (0, model.context_frames):
            model.zero_grad(set_to_none=True)
            loss, logs = model.loss(batch._replace(observed=observed))
            loss.backward()
            assert torch.isfinite(loss) and all(torch.isfinite(value) for value in logs.values())
            idle = {
                name
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
            }
            assert idle == set(), (predictor, observed)
        assert not any(parameter.requires_grad for parameter in model.sight.parameters())


def free(model: Any) -> None:
    """Let nothing act: q'' = 0."""
    with torch.no_grad():
        for parameter in model.motion.parameters():
            parameter.zero_()


def test_the_structure_filters_velocity_and_passes_over_what_is_hidden() -> None:
    model = tiny_model("keypoint_hamiltonian").double()
    free(model)
    rate, steps = 0.1, 10
    read = (0.4 + rate * torch.arange(steps, dtype=torch.float64)).reshape(1, steps, 1)
    seen, radii = torch.ones(1, steps, 1, dtype=torch.bool), torch.full((1, 1), 0.5).double()
    actions = torch.ones(1, steps - 1, dtype=torch.int64)
    latent = model.observe(read, seen, radii, actions, None)
    found = model.coordinates(latent)[0]
    assert found.tolist() == pytest.approx([0.4 + 9 * rate, rate / model.spec.dt], rel=1e-6)
    spoilt, hidden = read.clone(), seen.clone()
    spoilt[0, [0, 4, 9]], hidden[0, [0, 4, 9]] = 77.0, False
    latent = model.observe(spoilt, hidden, radii, actions, None)
    gap = model.sight.chart.nearest(model.coordinates(latent)[0, :1] - found[:1])
    assert float(gap.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(model.coordinates(latent)[0, 1]) == pytest.approx(float(found[1]), rel=1e-6)
    never = model.observe(read, torch.zeros_like(seen), radii, actions, None)
    assert torch.isnan(never.z).all() and torch.isnan(model.decode(never)).all()


def test_more_frames_make_noise_smaller() -> None:
    """The gains are those of a least-squares line: velocity noise falls as n^-3/2."""
    model = tiny_model("keypoint_hamiltonian").double()
    free(model)
    generator = torch.Generator().manual_seed(0)
    noise = 1e-3 * torch.randn((4000, 12, 1), generator=generator, dtype=torch.float64)
    radii = torch.full((4000, 1), 0.5).double()
    for frames in (4, 8, 12):
        seen = torch.ones(4000, frames, 1, dtype=torch.bool)
        actions = torch.ones(4000, frames - 1, dtype=torch.int64)
        latent = model.observe(noise[:, :frames], seen, radii, actions, None)
        rates = model.coordinates(latent)[:, 1] * model.spec.dt
        times = np.arange(frames) - (frames - 1) / 2
        wanted = 1e-3 / np.sqrt((times**2).sum())
        assert float(rates.std()) == pytest.approx(wanted, rel=0.06)


def test_velocities_are_smoothed_and_episodes_cut_where_a_body_hides() -> None:
    time = 0.05 * np.arange(60)
    angles = np.sin(time)[None, :, None]
    dataset = SimpleNamespace(
        dt=0.05, path="d", params={}, splits={"train": np.array([0])},
        actions=np.arange(59)[None], rewards=np.zeros((1, 59)), terminated=np.zeros((1, 59), bool),
    )  # fmt: skip
    good = np.ones((1, 60), bool)
    good[0, 25:28] = good[0, 50] = False
    readings = read_states(dataset, angles, np.ones((1, 60, 1)), good, (0,), 9)
    assert readings.lengths.tolist() == [24, 21] and len(readings.subset("train")) == 2
    assert readings.actions[1, :21].tolist() == list(range(28, 49))
    rates = readings.states[1, :22, 1]
    np.testing.assert_allclose(rates, np.cos(time[28:50]), atol=2e-5)
