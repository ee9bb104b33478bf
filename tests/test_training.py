"""Laws of training: what it learns, and that nothing that interrupts it changes a bit."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import Log

import physgym
from worldmodels.configs.training import MODELS, OptimConfig, TrainConfig, default_config
from worldmodels.data import batches
from worldmodels.storage.checkpoint import load, resume_checkpoint
from worldmodels.training import fit as training
from worldmodels.training import loaders, optimisers
from worldmodels.training import trainer as trainers
from worldmodels.training.beginning import LONG_ENOUGH
from worldmodels.training.soap import SOAP


def buffer(name: str = "oscillator", count: int = 24, steps: int = 30) -> SimpleNamespace:
    """A small buffer of a true system, episodes of unequal lengths."""
    system = physgym.get_system(name)
    params = system.Params()
    rng = np.random.default_rng(0)
    starts = [system.sample_state(rng, params) for _ in range(count)]
    states = [np.array(starts, dtype=np.float64)]
    actions = rng.integers(0, len(system.discrete_actions), (count, steps))
    for t in range(steps):
        control = system.control(system.discrete_actions[actions[:, t]], params)
        states.append(np.asarray(system.step(states[-1], control, params, system.dt)))
    fields = {
        "states": np.stack(states, 1),
        "actions": actions,
        "lengths": rng.integers(steps // 2, steps + 1, count),
        "params": {name: np.full(count, float(v)) for name, v in params._asdict().items()},
        "dt": system.dt,
        "env_name": system.name,
        "env_kwargs": {},
    }
    rows = np.arange(count)
    splits = {"train": rows[: count - 8], "val": rows[count - 8 : count - 4], "test": rows[-4:]}

    def subset(split: str) -> SimpleNamespace:
        kept = splits[split]
        chosen = {k: fields[k][kept] for k in ("states", "actions", "lengths")}
        told = {k: v[kept] for k, v in fields["params"].items()}
        return SimpleNamespace(**{**fields, **chosen, "params": told, "splits": {}})

    return SimpleNamespace(**fields, splits=splits, subset=subset)


DATA = buffer()


def small(name: str = "jump", epochs: int = 4, **model: Any) -> TrainConfig:
    config = default_config("oscillator", name)
    options = {"hidden": 8, "rollout_steps": 4, **model}
    return replace(
        config,
        model=replace(config.model, **options),
        optim=replace(config.optim, batch_size=32, steps_per_epoch=5),
        epochs=epochs,
        validation_steps=10,
        save_seconds=0.0,
    )


def folder(path: Path) -> SimpleNamespace:
    return SimpleNamespace(checkpoints=path / "checkpoints")


def outcome(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    checkpoint = resume_checkpoint(path / "checkpoints" / "last")
    return checkpoint.tensors, checkpoint.train_state


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    else:
        assert a == b or (a != a and b != b)


@pytest.mark.parametrize("objective", ["matching", "shooting"])
@pytest.mark.parametrize("name", MODELS)
def test_every_structure_learns_by_either_objective(
    name: str, objective: Any, tmp_path: Path
) -> None:
    config = small(name, 2, objective=objective)
    config = replace(config, optim=replace(config.optim, steps_per_epoch=50, lr=1e-2))
    result = training.fit(config, DATA, folder(tmp_path), Log())
    assert (result["epochs"], result["steps"]) == (2, 100)
    batch = batches.Windows(DATA.subset("train"), 4, 256, 0, "cpu").batch(0)
    before = trainers.seeded_model(config, DATA).loss(batch)[0]
    assert load(tmp_path).loss(batch)[0] < 0.5 * before


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in MODELS),
        ("port_hamiltonian", {"ensemble": 2}),
        ("newtonian", {"objective": "shooting", "rollout_growth": True}),
        ("newtonian", {"objective": "shooting", "rollout_growth": True, "compile": "on"}),
        ("jump", {"condition": "params"}),
    ],
    ids=str,
)
def test_interrupted_anywhere_and_resumed_it_ends_bit_equal(
    name: str, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, compiled = dict(options), options.get("compile", "auto")
    options.pop("compile", None)
    config = replace(small(name, 3, **options), compile=compiled)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight, broken = Log(), Log()
    result = training.fit(config, DATA, folder(whole), straight)
    descend = training.Trainer.descend

    def interrupted_at(stop: int) -> Callable[[training.Trainer], None]:
        def run(trainer: training.Trainer) -> None:
            descend(trainer)
            if trainer.progress.step == stop:
                os.kill(os.getpid(), signal.SIGINT)

        return run

    for resume, stop in ((False, 3), (True, 7), (True, 10)):
        monkeypatch.setattr(training.Trainer, "descend", interrupted_at(stop))
        with pytest.raises(KeyboardInterrupt):
            training.fit(config, DATA, folder(parts), broken, resume=resume)
    monkeypatch.setattr(training.Trainer, "descend", descend)
    again = training.fit(config, DATA, folder(parts), broken, resume=True)
    assert_equal(outcome(whole), outcome(parts))
    assert_equal(straight.rows, broken.rows)
    assert result == again


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jump", {}),
        ("lstm", {}),
        ("port_hamiltonian", {"objective": "shooting", "integrator": "leapfrog"}),
        ("velocity", {"ensemble": 2, "objective": "shooting"}),
        ("first_order", {"condition": "params"}),
    ],
    ids=str,
)
def test_machine_code_trains_as_torch_does(name: str, options: Any, tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    logs: list[Log] = []
    for compiled in ("on", "off"):
        config = replace(small(name, 2, **options), compile=compiled)
        logs.append(Log())
        training.fit(config, DATA, folder(tmp_path / compiled), logs[-1])
    for (_, ours), (_, theirs) in zip(logs[0].rows, logs[1].rows, strict=True):
        for key in ("train/loss", "eval/nmse"):
            assert ours[key] == pytest.approx(theirs[key], rel=5e-3), key


def test_a_short_training_is_not_compiled(tmp_path: Path) -> None:
    models = [
        trainers.Trainer(replace(small(epochs=n), epochs=n), DATA, folder(tmp_path), Log()).model
        for n in (4, LONG_ENOUGH // 5)
    ]
    assert [model.accelerated for model in models] == [False, True]


def test_sigterm_saves_and_exits_143(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descend = training.Trainer.descend

    def run(trainer: training.Trainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        descend(trainer)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(training.Trainer, "descend", run)
    with pytest.raises(SystemExit) as ended:
        training.fit(small(), DATA, folder(tmp_path), Log())
    assert ended.value.code == 143
    assert outcome(tmp_path)[1]["progress"]["step"] == 1
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("heard_signals")
def test_a_second_signal_acts_at_once() -> None:
    interruption = training.Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.watched():
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training import DATA, Log, folder, small
from worldmodels.data import batches
from worldmodels.training import loaders
from worldmodels.training import optimisers
from worldmodels.training import fit as training
training.fit(small("newtonian", 40), DATA, folder(Path(sys.argv[2])), Log(), resume=sys.argv[3] == "resume")
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_bit_equal(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.fit(small("newtonian", 40), DATA, folder(whole), Log())
    here = Path(__file__).parent
    command = [sys.executable, "-c", CHILD, str(here), str(parts)]
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    child = subprocess.Popen([*command, "fresh"], env=environment)
    deadline = time.monotonic() + 60
    while not (parts / "checkpoints" / "best").is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    child.kill()
    assert child.wait() in (0, -signal.SIGKILL)
    subprocess.run([*command, "resume"], env=environment, check=True, timeout=120)
    assert_equal(outcome(whole), outcome(parts))


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(ord(name))  # the global generator must not matter
        training.fit(replace(small(), seed=seed), DATA, folder(tmp_path / name), Log())
    assert_equal(outcome(tmp_path / "a"), outcome(tmp_path / "b"))
    first, other = outcome(tmp_path / "a")[0], outcome(tmp_path / "c")[0]
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_training_leaves_the_global_generator_and_threads_alone(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    training.fit(small(epochs=1), DATA, folder(tmp_path), Log())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    training.fit(small(), DATA, folder(tmp_path), Log())
    before = outcome(tmp_path)
    training.fit(small(), DATA, folder(tmp_path), Log(), resume=True)
    assert_equal(before, outcome(tmp_path))


def spoil_losses(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    from worldmodels.models.states import StateWorldModel

    loss, calls = StateWorldModel.loss, [0]

    def spoilt(model: Any, batch: Any) -> Any:
        value, logs = loss(model, batch)
        calls[0] += 1
        return (value * float("nan"), logs) if bad(calls[0]) else (value, logs)

    monkeypatch.setattr(StateWorldModel, "loss", spoilt)


def test_a_loss_that_is_not_finite_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_losses(monkeypatch, lambda call: call % 3 == 0)
    result = training.fit(small(), DATA, folder(tmp_path), Log())
    assert result["skipped"] == 6
    assert all(bool(tensor.isfinite().all()) for tensor in outcome(tmp_path)[0].values())


def test_losses_that_stay_not_finite_stop_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_losses(monkeypatch, lambda call: call > 7)
    config = replace(small(epochs=20), optim=replace(small().optim, max_bad_steps=4))
    with pytest.raises(training.TrainingError, match=r"lower --optim\.lr"):
        training.fit(config, DATA, folder(tmp_path), Log())
    assert load(tmp_path).spec.env_name == "oscillator"


def test_a_model_that_diverges_is_never_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders.Validation, "score", lambda self, model: {"nmse": math.inf})
    result = training.fit(small(epochs=2), DATA, folder(tmp_path), Log())
    assert result["best_epoch"] == -1
    assert not (tmp_path / "checkpoints" / "best").exists()


def test_windows_never_cross_an_episodes_end() -> None:
    windows = batches.Windows(DATA.subset("train"), 4, 16, 0, "cpu")
    seen: set[tuple[float, ...]] = set()
    for step in range(windows.batches_per_pass):
        batch = windows.batch(step)
        assert batch.states.shape == (16, 5, 2)
        assert batch.mask.all()
        rows = {tuple(row) for row in batch.states[:, 0].tolist()}
        assert not seen & rows
        seen |= rows
    again = batches.Windows(DATA.subset("train"), 4, 16, 0, "cpu")
    assert torch.equal(again.batch(7).states, windows.batch(7).states)


def test_episodes_shorter_than_a_window_are_masked() -> None:
    data = DATA.subset("train")
    data.lengths = np.minimum(data.lengths, 3)
    data.lengths[0] = 20
    windows = batches.Windows(data, 10, 512, 0, "cpu")
    batch = windows.batch(0)
    assert set(batch.mask.sum(1).tolist()) == {3, 10}


def test_learning_rates_rise_and_fall() -> None:
    for schedule, first, last in (("onecycle", 0.1, 0.01), ("cosine", 1.0, 0.01)):
        config = OptimConfig(lr=1.0, schedule=schedule)
        rates = [optimisers.learning_rate(config, step, 1000) for step in range(1000)]
        assert rates[0] <= first
        assert rates[-1] < last
        assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert optimisers.learning_rate(OptimConfig(lr=0.5, schedule="constant"), 999, 1000) == 0.5


def test_soap_descends_an_ill_conditioned_bowl_further_than_adam() -> None:
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(8, 8))[0] * torch.logspace(0, -2, 8)
    target = torch.randn(8, 8)
    losses = {}
    for kind in (SOAP, torch.optim.Adam):
        weight = torch.zeros(8, 8, requires_grad=True)
        optimiser = kind([weight], lr=0.03)
        for step in range(600):
            optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / 600)
            loss = ((left.T @ (weight - target)) ** 2).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses[kind] = float(loss.detach())
    assert losses[SOAP] < losses[torch.optim.Adam]


def test_soap_takes_vectors_maps_and_long_sides() -> None:
    torch.manual_seed(0)
    shapes = [(5,), (6, 4, 3, 3), (3, 50), (1, 7)]
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimiser = SOAP(weights, lr=0.05, max_size=40, every=2, weight_decay=0.01)
    start = sum(float((w**2).sum().detach()) for w in weights)
    for _ in range(200):
        optimiser.zero_grad()
        sum((w**2).sum() for w in weights).backward()
        optimiser.step()
    assert sum(float((w**2).sum().detach()) for w in weights) < 0.2 * start
