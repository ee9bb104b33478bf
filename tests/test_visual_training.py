"""Training of visual models: modes, frozen parts, pretrained weights, and what it learns of physics."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_cases import Log
from visual_cases import (
    SIDE,
    VAES,
    fitted,
    pictures,
    tiny_spec,
    tiny_training,
    trained_on_oscillator,
)

from worldmodels.data import CollectConfig, collect, load_dataset
from worldmodels.data import frames as pixel_batches
from worldmodels.data.batches import TrainingError
from worldmodels.data.frames import Frames, FrameWindows
from worldmodels.imagination import imagine
from worldmodels.interface import Latent
from worldmodels.storage.checkpoint import CheckpointError, load
from worldmodels.training import fit as training
from worldmodels.training import trainer as trainers
from worldmodels.training.optimisers import optimiser
from worldmodels.training.validation import FrameValidation

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def buffer(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# Batches


def test_windows_are_cut_from_the_buffer(buffer):
    windows = FrameWindows(buffer.subset("train"), 5, 8, 0, "cpu")
    rows = buffer.splits["train"]
    episode, start = torch.tensor([0, 2, 3]), torch.tensor([0, 4, 11])
    batch = windows.at(episode, start)
    assert batch.frames.dtype == torch.uint8 and batch.frames.shape == (3, 6, SIDE, SIDE, 3)
    for row in range(3):
        source, at = int(rows[episode[row]]), int(start[row])
        expected = buffer.pixels[source][at : at + 6]
        np.testing.assert_array_equal(batch.frames[row].numpy(), expected)
        np.testing.assert_array_equal(batch.actions[row], buffer.actions[source, at : at + 5])
        np.testing.assert_allclose(batch.rewards[row], buffer.rewards[source, at : at + 5], 1e-6)
        np.testing.assert_array_equal(batch.terminated[row], buffer.terminated[source, at : at + 5])


def test_frames_read_from_disk_are_those_kept_in_memory(buffer, monkeypatch):
    episode, times = torch.tensor([1, 5]), torch.tensor([[0, 3, 16], [2, 2, 7]])
    kept = Frames(buffer, "cpu")
    assert kept.place == "memory"
    monkeypatch.setattr(pixel_batches, "free_memory", lambda: 10.0)
    with pytest.warns(RuntimeWarning, match="do not fit into memory"):
        read = Frames(buffer, "cpu")
    assert read.place == "disk"
    assert torch.equal(read.take(episode, times), kept.take(episode, times))


class Fake(SimpleNamespace):
    """A model made of functions; unlike its base it can be known weakly."""

    __hash__ = object.__hash__


def test_validation_scores_copies_and_the_truth(buffer):
    """A model that repeats the last frame scores 1 against copying it; a perfect one scores 0."""
    validation = FrameValidation(buffer.subset("train"), 2, 10, "cpu")
    truth, last = validation.truth.float() / 255.0, validation.seen[:, -1].float() / 255.0

    def scores(sequence: torch.Tensor) -> dict[str, float]:
        model = Fake(
            training=False,
            spec=tiny_spec(),
            parameters=lambda: iter(()),
            eval=lambda: None,
            train=lambda mode: None,
            encode=lambda frames, params, actions: Latent(torch.zeros(len(frames), 1)),
            step=lambda latent, action, dt=None: Latent(latent.z + 1),
            decode=lambda latent: sequence[:, int(latent.z[0]) - 1],
        )
        return validation.score(model)

    assert scores(truth)["nmse"] == 0.0 and scores(truth)["mse_10"] == 0.0
    copied = scores(last[:, None].expand_as(truth))
    assert copied["versus_copy_10"] == pytest.approx(1.0) and copied["mse_10"] > 1e-3
    dark = scores(torch.zeros_like(truth))
    assert dark["nmse"] == pytest.approx(1.0)
    lost = scores(torch.full_like(truth, float("nan")))
    assert lost["nmse"] == np.inf and lost["finite"] == 0.0


# Training


@pytest.mark.parametrize("predictor", VAES)
def test_every_predictor_trains_and_is_saved(predictor, buffer, tmp_path):
    result, model, _ = fitted(tiny_training(predictor), buffer, tmp_path)
    assert result["steps"] == 6 and result["skipped"] == 0
    assert np.isfinite(result["best_nmse"]) and model.config.predictor == predictor
    assert model.reach > 0
    assert {"train/kl", "train/reconstruction", "train/reward"} <= set(result)


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("mode", ["hgn", "detached"])
def test_a_stopped_run_goes_on_bit_for_bit(mode, buffer, tmp_path):
    config = tiny_training("spatial_hamiltonian", training_mode=mode)
    whole = fitted(config, buffer, tmp_path / "whole")[1]
    run = SimpleNamespace(checkpoints=tmp_path / "parts" / "checkpoints")

    def stop(done: float, pace: str) -> None:
        if done > 1.2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training.fit(config, buffer, run, Log(), on_step=stop)
    training.fit(config, buffer, run, Log(), resume=True)
    parts = load(run.checkpoints / "last")
    for name, tensor in tensors(whole).items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_two_seeds_differ_and_one_repeats(buffer, tmp_path):
    config = tiny_training()
    one = fitted(config, buffer, tmp_path / "a")[1]
    again = fitted(config, buffer, tmp_path / "b")[1]
    other = fitted(replace(config, seed=1), buffer, tmp_path / "c")[1]
    name = "decoder.first.weight"
    assert torch.equal(one.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("frozen", ["encoder", "decoder", "predictor"])
@pytest.mark.parametrize("mode", ["hgn", "detached"])
def test_a_frozen_part_stays_as_it_was(mode, frozen, buffer, tmp_path):
    options = {"training_mode": mode, f"train_{frozen}": False}
    config = tiny_training("spatial_newtonian", **options)
    before = tensors(trainers.seeded_model(config, buffer))
    after = tensors(fitted(config, buffer, tmp_path)[1])
    parts = {"encoder": ("encoder", "transform"), "decoder": ("decoder",)}
    kept = parts.get(frozen, ("dynamics",))
    for part in ("encoder", "transform", "decoder", "dynamics"):
        names = [name for name in before if name.startswith(f"{part}.") and "unit_step" not in name]
        same = all(torch.equal(before[name], after[name]) for name in names)
        assert same == (part in kept), part


def test_nothing_left_to_train_is_an_error(buffer, tmp_path):
    config = tiny_training(train_encoder=False, train_decoder=False, train_predictor=False)
    model = trainers.seeded_model(config, buffer)
    model.freeze()
    model.heads.requires_grad_(False)
    with pytest.raises(TrainingError, match="every part of the model is frozen"):
        optimiser(config.optim, model)


def test_detached_mode_has_an_optimiser_for_each_part(buffer, tmp_path):
    config = tiny_training(training_mode="detached")
    run = SimpleNamespace(checkpoints=tmp_path / "checkpoints")
    trainer = training.Trainer(config, buffer, run, Log())
    parts = trainer.optimiser.parts
    assert list(parts) == ["encoder", "decoder", "predictor", "heads"]
    owned = [p for part in parts.values() for g in part.param_groups for p in g["params"]]
    assert len(owned) == len(set(map(id, owned))) == len(list(trainer.model.parameters()))


def test_accumulated_gradients_are_the_mean_of_their_batches(buffer, tmp_path):
    config = tiny_training(rollout_growth=False)
    run = SimpleNamespace(checkpoints=tmp_path / "checkpoints")

    def gradient(accumulate: int, step: int) -> torch.Tensor:
        optim = replace(config.optim, accumulate=accumulate)
        trainer = training.Trainer(replace(config, optim=optim), buffer, run, Log())
        trainer._gradients(step)
        return trainer.model.decoder.first.weight.grad

    halves = [gradient(1, step) for step in (2, 3)]  # batches 2 and 3 are those of step 1
    torch.testing.assert_close(gradient(2, 1), (halves[0] + halves[1]) / 2)


# Pretrained weights


def test_a_swapped_predictor_keeps_the_vae(buffer, tmp_path):
    source = fitted(tiny_training("spatial_jump"), buffer, tmp_path / "first")[1]
    best = load(tmp_path / "first" / "checkpoints" / "best")
    config = tiny_training("spatial_hamiltonian", train_encoder=False, train_decoder=False)
    config = replace(config, pretrained=str(tmp_path / "first"))
    _, model, lines = fitted(config, buffer, tmp_path / "second")
    assert source.config.predictor == "spatial_jump"
    for name, tensor in best.state_dict().items():
        if name.startswith(("encoder.", "transform.", "decoder.")) and "action" not in name:
            assert torch.equal(tensor, model.state_dict()[name]), name
    count = sum(1 for name in model.state_dict() if name.startswith("decoder."))
    assert f"decoder: {count} of {count} tensors loaded" in lines
    assert re.search(
        r"skipped dynamics\.f\.hidden\.0\.weight: this model has no such tensor", lines
    )
    assert re.search(r"skipped dynamics\.potential\.out\.weight: not in the checkpoint", lines)


def test_other_shapes_are_skipped_and_said(buffer, tmp_path):
    fitted(tiny_training(), buffer, tmp_path / "first")
    config = tiny_training(width=16)
    config = replace(config, pretrained=str(tmp_path / "first"))
    lines = fitted(config, buffer, tmp_path / "second")[2]
    assert re.search(r"skipped decoder\.first\.weight: its shape is \(8, 6, 1, 1\) there", lines)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        fitted(replace(config, pretrained=str(tmp_path / "no")), buffer, tmp_path / "third")
    fitted(tiny_training(), pictures(tmp_path, "pendulum"), tmp_path / "other")
    config = replace(config, pretrained=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="env='pendulum', and this run has env='oscillator'"):
        fitted(config, buffer, tmp_path / "fourth")


def commands() -> list[list[str]]:
    """The commands of the two-phase recipe in docs/visual.md, and of what follows it."""
    text = (ROOT / "docs" / "visual.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    ours = [line for line in lines if "outputs/vae" in line or "outputs/predictor" in line]
    return [shlex.split(line.removeprefix("physgym ")) for line in ours]


@pytest.mark.slow
def test_the_documented_recipe_runs(tmp_path):
    """The commands of docs/visual.md at tiny size, one after the other."""
    line = (
        "--size tiny --data.episodes 12 --data.image-size 32 --optim.batch-size 4 "
        "--optim.steps-per-epoch 3 --epochs 2 --validation-steps 4"
    )
    words = shlex.split(line)
    small = dict(zip(words[::2], words[1::2], strict=True))
    printed = []
    for words in commands():
        verb, *options = words
        script = str(ROOT / "scripts" / f"{verb}.py")
        own = [word for name in small if name not in options for word in (name, small[name])]
        extra = {"train": own, "evaluate": ["--horizon", "10", "--problems", "4"]}
        options += extra.get(verb, ["--steps", "5"])
        done = subprocess.run(
            [sys.executable, script, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        printed.append(done.stdout)
    assert len(printed) == 5
    assert re.search(r"encoder: (\d+) of \1 tensors loaded", printed[1])
    assert "skipped dynamics.f.out.weight: this model has no such tensor" in printed[1]
    first, second = (load(tmp_path / "outputs" / name) for name in ("vae", "predictor"))
    for name, tensor in first.decoder.state_dict().items():
        assert torch.equal(tensor, second.decoder.state_dict()[name]), name
    assert (tmp_path / "beside.mp4").stat().st_size > 1000


# Bad input


def test_a_buffer_without_pixels_is_refused(tmp_path):
    config = CollectConfig(env="oscillator", name="blind", episodes=10, steps=12)
    blind = load_dataset(collect(config, tmp_path, progress=False))
    with pytest.raises(TrainingError, match="was collected without pixels: collect with --pixels"):
        fitted(tiny_training(), blind, tmp_path)


def test_too_short_episodes_are_refused(buffer, tmp_path):
    with pytest.raises(
        TrainingError, match=r"windows of 41 steps are longer than the longest episode, 16.*by 25"
    ):
        fitted(tiny_training(rollout_steps=40), buffer, tmp_path)


def test_an_odd_image_size_is_refused(tmp_path):
    odd = pictures(tmp_path, image_size=20)
    with pytest.raises(ValueError, match=r"image_size=20 is not valid for spatial_size=4"):
        fitted(tiny_training(), odd, tmp_path)


def test_losses_that_are_not_finite_end_the_training(buffer, tmp_path, monkeypatch):
    config = tiny_training()
    config = replace(config, optim=replace(config.optim, max_bad_steps=2))
    model = trainers.seeded_model(config, buffer)
    monkeypatch.setattr(
        type(model), "draw", lambda self, z: z.sum() * torch.nan + self.decoder(z.chunk(2, 1)[0])
    )
    with pytest.raises(TrainingError, match="2 losses in a row were not finite"):
        fitted(config, buffer, tmp_path)
    assert (tmp_path / "checkpoints" / "last").is_dir()


# What a trained model knows


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(model, buffer): the oscillator, learned by a Hamiltonian in about a minute."""
    return trained_on_oscillator("spatial_hamiltonian", tmp_path_factory.mktemp("oscillator"))


def held_out(model, dataset, steps: int = 10):
    """(context, actions before, actions after, true frames) of the test split."""
    rows = dataset.splits["test"]
    frames = torch.from_numpy(dataset.pixels[rows])
    actions = torch.as_tensor(dataset.actions[rows])
    first = model.context_frames - 1
    truth = frames[:, first + 1 : first + 1 + steps].float() / 255.0
    return frames[:, : first + 1], actions[:, :first], actions[:, first : first + steps], truth


def squared(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b) ** 2).mean())


@pytest.mark.slow
def test_it_predicts_better_than_copying(learned):
    model, dataset = learned
    seen, before, actions, truth = held_out(model, dataset)
    with torch.no_grad():
        predicted = imagine(model, model.encode(seen, None, before), actions)
    copied = seen[:, -1:].float() / 255.0
    assert squared(predicted[:, -1], truth[:, -1]) < 0.5 * squared(
        copied.expand_as(truth)[:, -1], truth[:, -1]
    )


@pytest.mark.slow
def test_momentum_carries_motion(learned):
    """With p set to zero at every step the picture stands nearly still."""
    model, dataset = learned
    seen, before, actions, _ = held_out(model, dataset)
    with torch.no_grad():
        start = model.encode(seen, None, before)
        drawn = model.decode(start)
        latent, moving = start, imagine(model, start, actions)
        for t in range(actions.shape[1]):
            q, p = latent.z.chunk(2, 1)
            latent = model.step(Latent(torch.cat((q, torch.zeros_like(p)), 1)), actions[:, t])
        stopped = model.decode(latent)
    assert squared(stopped, drawn) < 0.2 * squared(moving[:, -1], drawn)


@pytest.mark.slow
def test_shuffled_actions_raise_the_error(learned):
    model, dataset = learned
    seen, before, actions, truth = held_out(model, dataset)
    with torch.no_grad():
        start = model.encode(seen, None, before)
        right = squared(imagine(model, start, actions)[:, 3:], truth[:, 3:])
        wrong = [
            squared(imagine(model, start, actions.roll(shift, 0))[:, 3:], truth[:, 3:])
            for shift in (1, 2, 5)
        ]
    assert min(wrong) > 1.05 * right


@pytest.mark.slow
def test_learned_energy_is_kept_and_is_the_true_one_up_to_scale(learned):
    """Drift over 100 steps of the model's own unforced, undamped motion; R^2 after an affine fit."""
    model, dataset = learned
    seen, before, _, _ = held_out(model, dataset)
    with torch.no_grad():
        latent = model.encode(seen, None, before)
        start = model.energy(latent)
        spread = float(start.std())
        worst = torch.zeros_like(start)
        for _ in range(100):
            latent = model.conserve(latent)
            worst = torch.maximum(worst, (model.energy(latent) - start).abs())
    assert float(worst.median()) < 0.5 * spread
    rows, first = dataset.splits["train"][:60], model.context_frames - 1
    frames, actions = dataset.pixels[rows], dataset.actions[rows]
    values, truth = [], []
    with torch.no_grad():
        for t in range(first, 40, 4):
            context = torch.from_numpy(frames[:, t - first : t + 1])
            done = torch.as_tensor(actions[:, t - first : t])
            values.append(model.energy(model.encode(context, None, done)).numpy())
            truth.append(dataset.energy[rows, t])
    correlation = np.corrcoef(np.concatenate(values), np.concatenate(truth))[0, 1]
    assert correlation**2 > 0.3
