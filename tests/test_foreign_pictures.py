"""Envs that are not of PhysGym, learned from what they render."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_cases as cases
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import physgym
import worldmodels
from worldmodels.configs.schema import ConfigError
from worldmodels.data import CollectConfig, Dataset, DatasetError, collect, load_dataset
from worldmodels.data.batches import TrainingError
from worldmodels.envs.pixel_starts import TRIES, frames_of
from worldmodels.envs.single import make_truth
from worldmodels.evaluation.comparison import evaluate, write_report
from worldmodels.evaluation.pixels.baselines import BACKGROUND_ROW
from worldmodels.evaluation.pixels.comparison import PixelComparison
from worldmodels.films.pixels import film_pixels, true_frames, write_pictures
from worldmodels.films.recording import record

pytest.importorskip("cv2")
SIZE = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures of the disc."""
    config = CollectConfig(
        env=cases.DISC, name="b", episodes=40, pixels=True, image_size=SIZE, policy="ou"
    )
    return load_dataset(collect(config, tmp_path_factory.mktemp("datasets"), progress=False))


def trained(dataset: Dataset, out: Path, predictor: str, **options: Any) -> Any:
    """A model of pictures after a training of a moment."""
    config = worldmodels.default_config(dataset.env_name, "visual", predictor, "tiny")
    config = replace(config, out=str(out), dataset=str(dataset.path), device="cpu", **options)
    worldmodels.train(config, dataset, progress=False)
    return worldmodels.load(out)


@pytest.fixture(scope="module")
def model(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model in a map, hardly trained."""
    return trained(dataset, tmp_path_factory.mktemp("runs") / "run", "spatial_jump")


def test_it_draws_beside_the_mean_picture(model: Any, dataset: Dataset) -> None:
    train = dataset.subset("train")
    frames = [train.pixels[row][: train.lengths[row] + 1] for row in range(len(train))]
    mean = np.concatenate(frames).mean(0) / 255.0
    assert model.background.permute(1, 2, 0).numpy() == pytest.approx(mean, abs=1e-6)
    worldmodels.check_world_model(model)


def test_a_learned_env_shows_pictures_and_begins_with_true_ones(model: Any) -> None:
    env = worldmodels.make_env(model)
    check_env(env, skip_render_check=True)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    first, _ = env.reset(seed=5)
    rng = np.random.default_rng(np.random.PCG64(np.random.SeedSequence(5)))
    truth = make_truth(model)
    shown, _ = truth.reset(seed=int(rng.integers(2**31)))
    for action in rng.uniform(-1.0, 1.0, (model.context_frames - 1, 1)):
        shown = truth.step(physgym.get_system(cases.DISC).to_env(action))[0]
    assert (first == shown).all()
    again = copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    for twin in again:
        assert (twin.reset(seed=5)[0] == first).all()
    with pytest.raises(ValueError, match="'state'.*in pictures takes none"):
        env.reset(options={"state": [0.0, 0.0]})
    with pytest.raises(ValueError, match="reward_fn=.* is of observations"):
        worldmodels.make_env(model, reward_fn=cases.reward)


def test_rows_are_single_envs_and_may_begin_in_a_buffer(model: Any, dataset: Dataset) -> None:
    rows = worldmodels.make_env(model, num_envs=2)
    sync = gymnasium.vector.SyncVectorEnv([lambda: worldmodels.make_env(model)] * 2)
    assert (rows.reset(seed=4)[0] == sync.reset(seed=4)[0]).all()
    for actions in np.random.default_rng(1).uniform(-3, 5, (12, 2, 1)):
        one, two = rows.step(actions), sync.step(actions)
        assert one[0].astype(int) == pytest.approx(two[0].astype(int), abs=1)
        for left, right in zip(one[1:4], two[1:4], strict=True):
            assert left == pytest.approx(right, abs=1e-4)
    env = worldmodels.make_env(model, starts="buffer", dataset=dataset)
    first, _ = env.reset(seed=0)
    train = dataset.subset("train").pixels
    assert any((train[row] == first).all((1, 2, 3)).any() for row in range(len(train)))


def test_the_truth_of_it_is_pictures_too(model: Any) -> None:
    rows = make_truth(model, num_envs=2)
    single = make_truth(model)
    shown, _ = rows.reset(seed=3)
    assert rows.single_observation_space == single.observation_space
    assert (shown[0] == single.reset(seed=3)[0]).all()
    assert (rows.step(np.ones((2, 1)))[0][0] == single.step(np.ones(1))[0]).all()


def test_what_nobody_knows_of_it_reads_na(model: Any, dataset: Dataset, tmp_path: Path) -> None:
    few = PixelComparison(probe_frames=200)
    report = evaluate({"m": model}, dataset, horizon=8, count=8, comparison=few)
    row = report["rows"]["m"]
    assert report["bodies"] == [] and row["energy_error"] is None and row["centroid"] == {}
    assert list(report["probes"]["m"]["linear"]) == ["observation 0", "observation 1"]
    assert set(row["outcomes"]) >= {"reward_r_squared", "end_recall", "ends_early"}
    assert report["rows"][BACKGROUND_ROW]["nmse"]["1"]["median"] == pytest.approx(1.0, abs=0.6)
    files = write_report(report, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "n/a, nobody knows what the pictures show" in text and "mean picture" in text
    assert not [path for path in files if "energy" in path.name or "centroid" in path.name]
    with pytest.raises(ValueError, match="nobody knows its equations"):
        evaluate({"m": model}, dataset, horizon=8, count=8, dt_values=(0.05, 0.1))


def test_it_is_filmed_and_drawn(model: Any, dataset: Dataset, tmp_path: Path) -> None:
    names = {path.stem for path in write_pictures(model, dataset, tmp_path)}
    assert names == {"rollout_grid", "latent_channels", "prior_samples", "traversal"}
    shown = record(cases.DISC, {}, "random", 6, seed=2)
    frames = true_frames(shown, SIZE)
    assert frames.shape == (7, SIZE, SIZE, 3) and (frames[0] != frames[-1]).any()
    assert len(film_pixels(model, shown, 64)) == 7


@pytest.mark.slow
def test_points_are_read_before_any_wall(dataset: Dataset, tmp_path: Path) -> None:
    model = trained(dataset, tmp_path / "run", "keypoint_jump")
    assert len(model.sight.chart.kinds) == 1 and not model.motion.spec.foreign
    worldmodels.check_world_model(model)
    env = worldmodels.make_env(model)
    check_env(env, skip_render_check=True)
    none = PixelComparison(probe_frames=0)
    report = evaluate({"m": model}, dataset, horizon=4, count=4, comparison=none)
    assert report["explained"]["m"] > 0.5 and report["rows"]["m"]["outcomes"]
    assert "card" in {path.stem for path in write_pictures(model, dataset, tmp_path / "p")}


def test_what_no_model_of_pictures_can_be_given(tmp_path: Path) -> None:
    config = worldmodels.default_config(cases.DISC, "visual")
    with pytest.raises(ConfigError, match="env.coordinates='0 | 1'.*sees no observations"):
        replace(config, env=replace(config.env, coordinates="0 | 1"))
    blind = CollectConfig(env=cases.BLIND, name="b", episodes=2, pixels=True, image_size=SIZE)
    with pytest.raises(DatasetError, match="renders str, no picture"):
        collect(blind, tmp_path, progress=False)


def test_episodes_of_one_step_are_too_short_for_pictures(tmp_path: Path, dataset: Dataset) -> None:
    config = CollectConfig(env=cases.BLINK, name="b", episodes=8, pixels=True, image_size=SIZE)
    short = load_dataset(collect(config, tmp_path, progress=False))
    assert (short.lengths == 1).all()
    with pytest.raises(TrainingError, match="longer than the longest episode, 1: lower"):
        trained(short, tmp_path / "run", "spatial_jump")
    task = physgym.get_system(cases.BLINK).task(obs_mode="pixels", image_size=SIZE)
    spec: Any = type("Spec", (), {"image_size": SIZE})
    with pytest.raises(ValueError, match=f"{TRIES} episodes of .* ended before.*context-frames"):
        frames_of(task, spec, 3).draw(np.random.default_rng(0), {})
