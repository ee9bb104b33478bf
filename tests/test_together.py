"""Laws of trainings that go together: each is the training that it is alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_cases import Log
from rank_cases import exact, seeded
from test_training import DATA, assert_equal, folder, outcome, small

from worldmodels.configs.training import MODELS, LogConfig, TrainConfig, default_config, to_dict
from worldmodels.models.ensemble import EnsembleWorldModel, losses
from worldmodels.storage.runs import RunFolder
from worldmodels.training import together, trainer
from worldmodels.training.fit import fit, fitting
from worldmodels.training.interruption import Interruption
from worldmodels.training.ranks import Ranks
from worldmodels.training.rows import read_metrics
from worldmodels.training.soap import SOAP, Together
from worldmodels.training.sweeps import plan
from worldmodels.training.together import Company, bundled, obstacle, run_cells

SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeds_of(name: str, optim: Any = "adam", epochs: int = 3, **model: Any) -> list[TrainConfig]:
    config = small(name, epochs, **model)
    config = replace(config, optim=replace(config.optim, name=optim, grad_clip=0.5))
    return [replace(config, seed=seed) for seed in SEEDS]


def in_company(
    configs: Sequence[TrainConfig], where: Path, interruption: Any = None, resume: bool = False
) -> tuple[list[dict[str, Any]], list[Log]]:
    """Results and rows of trainings that go together, in folders of their own."""
    logs = [Log() for _ in configs]
    interruption = interruption or Interruption()
    steps = [
        fitting(
            config, DATA, folder(where / str(config.seed)), log, resume, None, lambda line: None, Ranks(),
            interruption,
        )
        for config, log in zip(configs, logs, strict=True)
    ]  # fmt: skip
    return Company(steps).to_the_end(), logs


def assert_close(one: Any, other: Any) -> None:
    """Rows, or tensors by name, that differ by rounding alone."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == pytest.approx(other[name], rel=1e-8, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("objective", ["matching", "shooting"])
@pytest.mark.parametrize("name", MODELS)
def test_together_each_is_what_it_is_alone(
    name: str, objective: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "seeded_model", exact)
    configs = seeds_of(name, objective=objective)
    configs = [replace(c, optim=replace(c.optim, accumulate=2)) for c in configs]
    assert not obstacle(configs[0])
    results, logs = in_company(configs, tmp_path)
    for config, result, log in zip(configs, results, logs, strict=True):
        own, rows = tmp_path / "alone" / str(config.seed), Log()
        assert_close(result, fit(config, DATA, folder(own), rows))
        for (epoch, row), (number, expected) in zip(log.rows, rows.rows, strict=True):
            assert epoch == number
            assert_close(row, expected)
        tensors, expected = (outcome(path)[0] for path in (tmp_path / str(config.seed), own))
        assert_close(
            {k: v.numpy() for k, v in tensors.items()}, {k: v.numpy() for k, v in expected.items()}
        )


def spoil(monkeypatch: pytest.MonkeyPatch, seed: int, step: int) -> None:
    """A loss that is not finite, alone and together."""
    alone, many = trainer.Trainer._loss, together.losses
    now = [0]

    def one(self: Any, batch: Any, number: int) -> Any:
        bad = self.config.seed == seed and self.progress.step == step
        return (None, {}) if bad else alone(self, batch, number)

    def all_of(models: Any, batch: Any, own: bool) -> Any:
        found, logs = many(models, batch, own)
        now[0] += 1
        factor = torch.ones(len(models), dtype=found.dtype)
        if now[0] == step + 1:
            factor[seed] = math.nan
        return found * factor, logs

    monkeypatch.setattr(trainer.Trainer, "_loss", one)
    monkeypatch.setattr(together, "losses", all_of)


@pytest.mark.parametrize("optim", ["adam", "soap"])
def test_a_step_that_one_skips_the_others_make(
    optim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "seeded_model", exact)
    spoil(monkeypatch, seed=1, step=4)
    configs = seeds_of("jump", optim)
    results, _ = in_company(configs, tmp_path)
    assert [result["skipped"] for result in results] == [0, 1, 0]
    for config, result in zip(configs, results, strict=True):
        alone = fit(config, DATA, folder(tmp_path / "alone" / str(config.seed)), Log())
        close = 1e-8 if optim == "adam" else 1e-2  # see test_ranks
        assert result == pytest.approx(alone, rel=close, nan_ok=True)


def test_one_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, seed=1, step=4)
    configs = seeds_of("jump")
    configs = [replace(c, optim=replace(c.optim, max_bad_steps=1)) for c in configs]
    results, logs = in_company(configs, tmp_path)
    assert results[1]["status"] == "failed"
    assert "not finite" in results[1]["error"]
    assert [len(log.rows) for log in logs] == [3, 0, 3]


@pytest.mark.parametrize("optim", ["adam", "soap"])
def test_interrupted_and_resumed_together_they_end_bit_equal(
    optim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = seeds_of("port_hamiltonian", optim)
    in_company(configs, tmp_path / "whole")
    interruption, descend = Interruption(), together.Joint.descend

    def stopping(self: Any) -> Any:
        if self.trainers[0].progress.step == 12:  # SOAP's bases have turned
            interruption.signal = 15
        return descend(self)

    with monkeypatch.context() as patch:
        patch.setattr(together.Joint, "descend", stopping)
        results, _ = in_company(configs, tmp_path / "parts", interruption)
    assert {result["status"] for result in results} == {"interrupted"}
    in_company(configs, tmp_path / "parts", resume=True)
    for seed in map(str, SEEDS):
        assert_equal(outcome(tmp_path / "parts" / seed), outcome(tmp_path / "whole" / seed))


def test_those_behind_catch_up(tmp_path: Path) -> None:
    """Runs that were saved at other steps, as after a kill, go on together."""
    configs = seeds_of("jump")
    fit(replace(configs[1], epochs=1), DATA, folder(tmp_path / "1"), Log())
    results, _ = in_company(configs, tmp_path, resume=True)
    assert [result["steps"] for result in results] == [15, 15, 15]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_soap_steps_many_as_it_steps_one(decay: float) -> None:
    """Of gradients of full rank, whose bases rounding does not decide."""
    torch.manual_seed(0)
    shapes, count = ((8, 8), (5,), (300, 4), (4, 4, 1)), 3
    start = [[torch.randn(s, dtype=torch.float64) for s in shapes] for _ in range(count)]
    alone, company = (
        [[torch.nn.Parameter(p.clone()) for p in own] for own in start] for _ in range(2)
    )
    ones = [SOAP(own, weight_decay=decay) for own in alone]
    many = [SOAP(own, weight_decay=decay) for own in company]
    joint = Together(many)
    for step in range(30):
        for one, other in zip(alone, company, strict=True):
            for p, q in zip(one, other, strict=True):
                p.grad = torch.randn_like(p) if step != 17 or one is not alone[1] else None
                q.grad = None if p.grad is None else p.grad.clone()
        for optimiser in ones:
            optimiser.step()
        joint.step()
    for one, other, before in zip(ones, many, start, strict=True):
        for p, q, first in zip(
            one.param_groups[0]["params"], other.param_groups[0]["params"], before, strict=True
        ):
            torch.testing.assert_close(q, p, rtol=1e-8, atol=1e-10)
            assert not torch.equal(q, first)
        state = other.state_dict()["state"]
        assert all(
            value.untyped_storage().nbytes() == value.nbytes
            for values in state.values()
            for value in values.values()
            if isinstance(value, torch.Tensor)
        ), "what is saved of one holds nothing of the others"


def test_losses_are_those_of_the_models() -> None:
    config = small("newtonian", ensemble=3)
    model = seeded(config, DATA)
    assert isinstance(model, EnsembleWorldModel)
    loader = trainer.loader_of(config, DATA, "cpu", model.spec)
    batches = [loader.batch(number, number, 3) for number in range(3)]
    members: Any = list(model.models)
    kept = {k: v for k, v in batches[0]._asdict().items() if isinstance(v, torch.Tensor)}
    joined: Any = {k: torch.stack([getattr(batch, k) for batch in batches]) for k in kept}
    own, _ = losses(members, batches[0]._replace(**joined), own=True)
    same, _ = losses(members, batches[0])
    for index, member in enumerate(members):
        torch.testing.assert_close(own[index], member.loss(batches[index])[0])
        torch.testing.assert_close(same[index], member.loss(batches[0])[0])


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("first_order", {"integrator": "dopri5"}, "dopri5"),
        ("port_hamiltonian", {"mass": "network"}, "gauss4"),
        ("jump", {"ensemble": 2}, "ensemble"),
    ],
)
def test_what_cannot_go_together_says_why(name: str, changes: Any, reason: str) -> None:
    config = default_config("pendulum", name)
    assert reason in obstacle(replace(config, model=replace(config.model, **changes)))
    wandb = replace(default_config("pendulum"), log=LogConfig(wandb="offline"))
    assert "Weights & Biases" in obstacle(wandb)
    assert "pictures" in obstacle(default_config("pendulum", "visual"))


def test_bundles_hold_seeds_of_one_model_and_leave_no_worker_idle(tmp_path: Path) -> None:
    adaptive = default_config("pendulum", "first_order")
    adaptive = replace(adaptive, model=replace(adaptive.model, integrator="dopri5"))
    models = {"jump": default_config("pendulum"), "adaptive": adaptive}
    cells = plan(models, range(5), {}, tmp_path)
    for workers, most in ((1, None), (2, None), (4, None), (20, None), (1, 1), (1, 2), (8, 3)):
        bundles = bundled(cells, workers, most)
        found = [cell.name for bundle in bundles for cell in bundle]
        assert sorted(found) == sorted(cell.name for cell in cells)
        assert len(bundles) >= min(workers, len(cells)) or most
        assert max(map(len, bundles)) <= (most or math.ceil(len(cells) / workers))
        for bundle in bundles:
            assert len({cell.group for cell in bundle}) == 1
            assert len(bundle) == 1 or bundle[0].group == "jump"
    assert len(bundled(cells, 1, None)) == 6


@pytest.mark.slow
def test_a_sweep_trains_seeds_together_in_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = default_config("pendulum")
    config = replace(
        config,
        epochs=2,
        data=replace(config.data, episodes=20),
        optim=replace(config.optim, steps_per_epoch=5),
    )
    cells = plan({"jump": config}, SEEDS, {}, tmp_path / "sweep")
    given = [to_dict(cell.config) for cell in cells]
    found = run_cells(given)["cells"]
    assert [cell["status"] for cell in found] == ["done"] * 3
    for cell, result in zip(cells, found, strict=True):
        run = RunFolder.open(str(result["run"]))
        assert run.path.name == cell.name
        assert run.config["seed"] == cell.config.seed
        assert json.loads((run.path / "run.json").read_text())["status"] == "done"
        assert [row["epoch"] for row in read_metrics(run.path)] == [1, 2]
    assert {cell["status"] for cell in run_cells(given)["cells"]} == {"skipped"}
    assert len({cell["best_nmse"] for cell in found}) == 3
