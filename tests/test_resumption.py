"""Going on with a run: bit for bit, or one error that names what is in the way."""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoint_cases import forge
from data_cases import Log
from test_runs import WRONG, leaves, with_leaf
from test_training import DATA, assert_equal, folder, outcome, small

from worldmodels.configs.training import TrainConfig
from worldmodels.interface import Spec
from worldmodels.storage import checkpoint as checkpoints
from worldmodels.storage import tensors as tensor_files
from worldmodels.storage.checkpoint import (
    CheckpointError,
    load,
    resume_checkpoint,
    save_checkpoint,
)
from worldmodels.training import experiment, resumption, specs
from worldmodels.training import fit as training
from worldmodels.training import trainer as trainers
from worldmodels.training.pretrained import load_fitting
from worldmodels.training.resumption import MAY_CHANGE, saved_config

OPTIMISERS = ("soap", "adam")


def config_of(name: str) -> TrainConfig:
    """A training of six steps."""
    config = small(epochs=2)
    return replace(config, optim=replace(config.optim, name=name, steps_per_epoch=3))


@pytest.fixture(scope="module", params=OPTIMISERS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a run was ended after its first epoch of two, and its configuration."""
    path, config = tmp_path_factory.mktemp(request.param), config_of(request.param)
    training.fit(replace(config, epochs=1), DATA, folder(path), Log())
    return SimpleNamespace(path=path, config=config)


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Any:
    """A copy of it to spoil."""
    shutil.copytree(trained.path, tmp_path / "run")
    return SimpleNamespace(path=tmp_path / "run", config=trained.config)


def go_on(run: Any, **changes: Any) -> dict[str, Any]:
    """Resume a run."""
    config = replace(run.config, **changes)
    return training.fit(config, DATA, folder(run.path), Log(), resume=True)


def spoil(run: Any, state: Any = None, tensors: dict[str, torch.Tensor] | None = None) -> None:
    """Rewrite the last checkpoint with other contents, every hash right, as our own code would."""
    files: dict[str, bytes] = {}
    if state is not None:
        files["train_state"] = tensor_files.state_to_bytes(state)
    if tensors is not None:
        files["model"] = tensor_files.tensors_to_bytes(tensors)
    forge(run.path / "checkpoints" / "last", lambda document: None, **files)


# -- before the first checkpoint ------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMISERS)
def test_ended_before_its_first_checkpoint_it_begins_at_step_0(name: str, tmp_path: Path) -> None:
    config, said = config_of(name), []
    training.fit(config, DATA, folder(tmp_path / "whole"), Log())
    (tmp_path / "late" / "checkpoints" / ".tmp-1").mkdir(parents=True)
    late, log = folder(tmp_path / "late"), Log()
    log.rows = [(7, {"of": "nothing that was saved"})]
    training.fit(config, DATA, late, log, resume=True, announce=said.append)
    assert_equal(outcome(tmp_path / "whole"), outcome(tmp_path / "late"))
    assert [step for step, _ in log.rows] == [1, 2]
    assert "begins at step 0" in said[0]


def test_a_run_whose_last_checkpoint_was_taken_away_is_not_begun_again(run: Any) -> None:
    for kept in (run.path / "checkpoints").glob("last*"):
        shutil.rmtree(kept)
    with pytest.raises(CheckpointError, match="last"):
        go_on(run)


# -- an earlier version -----------------------------------------------------------------------------


def test_a_run_from_before_idle_actions_were_told_goes_on_and_steps_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its action that does nothing has a push of its own, and keeps it."""
    config, whole, run = small("port_hamiltonian", epochs=2), tmp_path / "whole", tmp_path / "run"
    with monkeypatch.context() as earlier:
        earlier.setattr(specs, "idle_action", lambda spec: None)
        training.fit(replace(config, epochs=1), DATA, folder(run), Log())
        shutil.copytree(run, whole)
        training.fit(config, DATA, folder(whole), Log(), resume=True)
    for name in ("best", "last"):
        forge(run / "checkpoints" / name, lambda document: document["spec"].pop("idle"))
    old = load(run, "last")
    assert old.spec.idle is None and old.dynamics.action.idle is None
    training.fit(config, DATA, folder(run), Log(), resume=True)
    assert_equal(outcome(whole), outcome(run))
    training.fit(config, DATA, folder(tmp_path / "new"), Log())
    new = load(tmp_path / "new", "last")
    assert new.spec.idle == new.dynamics.action.idle == 1


# -- another configuration ------------------------------------------------------------------------


def edits(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every number and flag of a configuration that decides a run's results."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from edits(value, (*path, name))
        elif isinstance(value, (bool, int, float)):
            yield (*path, name)


@pytest.mark.parametrize("path", list(edits(saved_config(small()))), ids=".".join)
def test_an_edited_configuration_is_named(
    path: tuple[str, ...], trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = saved_config(trained.config)
    before = old
    for name in path:
        before = before[name]
    after = not before if isinstance(before, bool) else 2 * before + 1
    if path == ("optim", "lr"):
        after = before / 2
    try:
        edited = experiment.from_dict({**asdict(trained.config), **with_leaf(old, path, after)})
    except ValueError:
        return  # no configuration at all: refused long before
    record = SimpleNamespace(
        config=asdict(edited), checkpoints=trained.path / "checkpoints", path=trained.path
    )
    with pytest.raises(CheckpointError, match=rf"{path[-1]}.* was .*, is now .*--config"):
        experiment.reopen(record)
    with pytest.raises(CheckpointError, match=path[-1]):
        training.fit(edited, DATA, folder(trained.path), Log(), resume=True)


def test_what_decides_no_number_may_change(run: Any) -> None:
    assert {"epochs", "device", "log", "save_seconds", "dataset"} <= set(MAY_CHANGE)
    assert go_on(run, epochs=3, save_seconds=7.0, dataset="elsewhere")["epochs"] == 3


def test_a_checkpoint_of_before_it_held_a_configuration_still_knows_its_model(run: Any) -> None:
    checkpoint = resume_checkpoint(run.path / "checkpoints" / "last")
    meta = {k: v for k, v in checkpoint.meta.items() if k != "training"}
    save_checkpoint(
        run.path / "checkpoints" / "last",
        checkpoint.config,
        checkpoint.tensors,
        checkpoint.train_state,
        meta,
    )
    wider = replace(run.config, model=replace(run.config.model, hidden=9))
    with pytest.raises(CheckpointError, match="hidden was 8, is now 9"):
        training.fit(wider, DATA, folder(run.path), Log(), resume=True)
    assert go_on(run)["epochs"] == 2


# -- numbers that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_is_named_wherever_it_is_read(run: Any, bad: float) -> None:
    last = run.path / "checkpoints" / "last"
    whole = resume_checkpoint(last).tensors
    for name, tensor in whole.items():
        if not tensor.numel() or (name == "reach" and not math.isnan(bad)):
            continue  # a model that saw no data reaches infinitely far
        spoilt = {**whole, name: tensor.clone()}
        spoilt[name].view(-1)[-1] = bad
        spoil(run, tensors=spoilt)
        reads: tuple[Callable[[], Any], ...] = (
            lambda: go_on(run),
            lambda: load(last),
            lambda: load_fitting(trainers.seeded_model(run.config, DATA), last),
        )
        for read in reads:
            with pytest.raises(CheckpointError, match=rf"{name} holds NaN or infinite"):
                read()


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descend = training.Trainer.descend

    def diverge(trainer: training.Trainer) -> None:
        descend(trainer)
        if trainer.progress.step == 5:
            next(iter(trainer.model.parameters())).data.fill_(math.inf)

    monkeypatch.setattr(training.Trainer, "descend", diverge)
    config = config_of("soap")
    with pytest.raises(training.TrainingError, match=r"NaN or infinite.*--optim\.lr"):
        training.fit(config, DATA, folder(tmp_path), Log())
    monkeypatch.undo()
    assert training.fit(config, DATA, folder(tmp_path), Log(), resume=True)["epochs"] == 2


# -- values of another kind -----------------------------------------------------------------------


def replaced(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    """A copy of nested dicts, lists and tuples with another value at one place."""
    if not path:
        return leaf
    first, *rest = path
    if isinstance(value, dict):
        return {k: replaced(v, tuple(rest), leaf) if k == first else v for k, v in value.items()}
    copy = [replaced(v, tuple(rest), leaf) if i == first else v for i, v in enumerate(value)]
    return tuple(copy) if isinstance(value, tuple) else copy


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a train state stands, containers included."""
    if path:
        yield path
    if isinstance(value, dict):
        inner: Any = value.items()
    else:
        inner = enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, below in inner:
        yield from places(below, (*path, key))


def test_any_value_in_a_train_state_is_taken_or_named(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored, it must also make a step; what would fail there is refused before."""
    last = trained.path / "checkpoints" / "last"
    whole = resume_checkpoint(last)
    trainer = training.Trainer(replace(trained.config, epochs=2), DATA, folder(trained.path), Log())
    odd = (None, "text", -1.5, 10**40, ["a"], {}, math.nan, torch.zeros(3), torch.tensor(math.nan))
    monkeypatch.setattr(resumption, "_moments", functools.cache(resumption._moments))
    refused = taken = 0
    for path in places(whole.train_state):
        for wrong in odd:
            spoilt = whole._replace(train_state=replaced(whole.train_state, path, wrong))
            refused += 1
            with suppress(CheckpointError):
                progress = resumption.progress_of(spoilt, trained.config, last)
                state = spoilt.train_state["optimiser"]
                resumption.restore_optimiser(trainer.optimiser, state, progress.step, last)
                trainer.progress = progress
                trainer.descend()
                refused, taken = refused - 1, taken + 1
    assert refused > 500
    assert taken < 0.2 * refused


def test_any_value_in_a_checkpoints_config_is_taken_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("soap")
    training.fit(replace(config, epochs=1), DATA, folder(tmp_path), Log())
    last = tmp_path / "checkpoints" / "last"
    whole = resume_checkpoint(last)
    document = {**whole.config, **whole.meta}
    spec = Spec.from_dict(whole.config["spec"])
    refused = 0
    for path in leaves(document):
        for wrong in (None, "text", ["a", 1], {"a": 1}, 10**40, -1.5):
            spoilt = json.loads(json.dumps(with_leaf(document, path, wrong)))
            refused += 1
            with suppress(CheckpointError):
                resumption.check_config(spoilt, config, last)
                resumption.check_spec(spoilt, spec, last)
                resumption.progress_of(whole._replace(meta=spoilt), config, last)
                refused -= 1
            if path[0] in whole.config and len(path) > 1:  # reading looks at the others itself
                kept = {name: spoilt[name] for name in whole.config}
                monkeypatch.setattr(
                    checkpoints, "load_checkpoint", lambda _, c=kept: (c, whole.tensors, {})
                )
                with suppress(CheckpointError):
                    load(last)
    assert refused > 200


SPEC = asdict(Spec("pendulum", angles=(0,), param_names=("mass", "length"), idle=1))


@pytest.mark.parametrize("path", list(leaves(json.loads(json.dumps(SPEC)))), ids=str)
def test_any_value_in_a_spec_is_taken_or_named(path: tuple[Any, ...]) -> None:
    for wrong in (*WRONG, math.nan, math.inf, 0, -1, 1e300, "a" * 10**5):
        values = with_leaf(SPEC, path, wrong)
        try:
            made = Spec.from_dict(values)
        except ValueError:
            continue
        assert Spec.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "values", [None, [], "x", {}, {"env_name": None}, {**SPEC, "more": 1}], ids=str
)
def test_what_is_no_spec_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="spec"):
        Spec.from_dict(values)
