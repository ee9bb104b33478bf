"""Going on with a run: what its checkpoint must hold before anything of it is believed.

A resumed run ends bit-equal to one that was never stopped, or it does not begin: another
configuration, a tensor that is not finite and a train state of other types or shapes are named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodels.configs.schema import require
from worldmodels.configs.training import (
    KeypointConfig,
    TrainConfig,
    from_dict,
    model_from_dict,
    to_dict,
)
from worldmodels.interface import Spec
from worldmodels.storage.checkpoint import CONFIG, STATE, Checkpoint, CheckpointError
from worldmodels.storage.files import StorageError, previous_of, read_sealed
from worldmodels.training.optimisers import Optimisers

MAY_CHANGE = ("epochs", "device", "log", "save_seconds", "out", "dataset")
"""Fields of a `TrainConfig` that a resumed run may change; all others decide its numbers. (A dataset
is known by its hash: its name may be another.)"""


@dataclass
class Progress:
    """Where a run is: everything a step depends on beside weights and optimiser."""

    step: int = 0
    best: float = math.inf
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    loss_count: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0


def saved_config(config: TrainConfig) -> dict[str, Any]:
    """What of `config` decides a run's numbers, to be kept in its checkpoints."""
    values = to_dict(config)
    return {name: values[name] for name in values if name not in MAY_CHANGE}


def newest_document(checkpoints: Path) -> dict[str, Any]:
    """The sealed `config.json` of the last checkpoint in a run's folder of them, weights unread.

    {} where there is none, or none that can be trusted: loading it says what is wrong.
    """
    last = checkpoints / "last"
    for folder in (last, previous_of(last)):
        try:
            return read_sealed(folder / CONFIG)
        except StorageError:
            continue
    return {}


def has_none(checkpoints: Path) -> bool:
    """Whether a run was ended before its first checkpoint, so that it is to go on from step 0."""
    names = ("last", "best")
    kept = [checkpoints / name for name in names]
    return not any(folder.exists() or previous_of(folder).exists() for folder in kept)


def check_config(document: Mapping[str, Any], config: TrainConfig, where: Path) -> None:
    """Raise CheckpointError where the checkpoint's `document` was trained with another `config`.

    `where`: the checkpoint's folder. One of an earlier version knows the config of its model alone.
    """
    try:
        name = document["model_name"]
        model = {"model_name": name, "model": to_dict(model_from_dict(name, document["model"]))}
        trained = dict(document.get("training", {}))
        if isinstance(config.model, KeypointConfig) and "model" in trained:
            model["model"] = trained["model"]  # as it was asked for, before anything was found
        before = from_dict({**to_dict(config), **trained, **model})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where / CONFIG} describes no training: {error}") from error
    if changed := first_change(before, config):
        name, then, now = changed
        raise CheckpointError(
            f"the run's config.json is not the one that {where} was trained with: {name} "
            f"{difference(then, now, 'is now')}. Put it back to go on, or begin a new run with "
            "--config"
        )


def first_change(before: TrainConfig, after: TrainConfig) -> tuple[str, Any, Any] | None:
    """Name and both values of the first field that differs and that a resumed run may not change."""
    for name in saved_config(before):
        then, now = getattr(before, name), getattr(after, name)
        if then != now:
            return name, then, now
    return None


def difference(before: Any, after: Any, verb: str) -> str:
    """The first differing leaf of two configurations, as text."""
    if type(before) is type(after) and hasattr(before, "__dataclass_fields__"):
        for name in before.__dataclass_fields__:
            if getattr(before, name) != getattr(after, name):
                return f"{name} {difference(getattr(before, name), getattr(after, name), verb)}"
    return f"was {before!r}, {verb} {after!r}"


def check_spec(document: Mapping[str, Any], spec: Spec, where: Path) -> None:
    """Raise CheckpointError unless the checkpoint's `document` speaks of the env and buffer of `spec`."""
    try:
        before = Spec.from_dict(document["spec"])
    except ValueError as error:
        raise CheckpointError(f"{where / CONFIG} describes no env: {error}") from error
    now = Spec.from_dict(json.loads(json.dumps(spec.to_dict())))
    if before != now:
        raise CheckpointError(f"{where} learned another env: {difference(before, now, 'is now')}")


def progress_of(checkpoint: Checkpoint, config: TrainConfig, where: Path) -> Progress:
    """How far the run of a checkpoint was. Raises CheckpointError naming a value that cannot be."""
    state = checkpoint.train_state
    try:
        for name in ("optimiser", "progress"):
            require(name, state.get(name), isinstance(state.get(name), dict), "a table")
        made = _checked_progress(state["progress"])
        require(
            "progress.step", made.step, made.step == checkpoint.meta.get("step"), "the config's"
        )
        drawn = {"seed": config.seed, "step": made.step}
        found = state.get("sampler", drawn)
        require("sampler", found, repr(found) == repr(drawn), str(drawn))
    except ValueError as error:
        raise CheckpointError(f"{where / STATE}: {error}") from error
    return made


def _checked_progress(values: dict[Any, Any]) -> Progress:
    known = Progress()
    require("progress", list(values), set(values) == set(vars(known)), f"{list(vars(known))}")
    step = values["step"]
    for name in ("step", "loss_count", "skipped", "bad_in_a_row"):
        most = math.inf if name == "step" else step
        _require_integer(f"progress.{name}", values[name], 0, most)
    _require_integer("progress.best_epoch", values["best_epoch"], -1, step)
    best, sums = values["best"], values["sums"]
    valid = _is_number(best) and not math.isnan(best) and best >= 0
    require("progress.best", best, valid, "an error of at least 0")
    valid = isinstance(sums, dict) and all(
        isinstance(name, str) and _is_number(value) for name, value in sums.items()
    )
    require("progress.sums", sums, valid, "a table of numbers")
    return Progress(**values)


def _require_integer(name: str, value: Any, low: float, high: float) -> None:
    valid = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(name, value, valid, f"an integer from {low} to {high}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def restore_optimiser(
    optimiser: torch.optim.Optimizer | Optimisers, state: dict[str, Any], steps: int, where: Path
) -> None:
    """Load `state` into an optimiser just made, if it is of its kind, shapes and settings.

    `steps`: how many the run has made; an optimiser has made no more.

    Raises CheckpointError naming the first entry that is not.
    """
    parts = optimiser.parts if isinstance(optimiser, Optimisers) else {"": optimiser}
    found = state if isinstance(optimiser, Optimisers) else {"": state}
    try:
        require("optimiser", list(found), set(found) == set(parts), f"the parts {list(parts)}")
        for name, part in parts.items():
            label = f"optimiser.{name}" if name else "optimiser"
            _check_part(part, found[name], steps, label)
    except ValueError as error:
        raise CheckpointError(f"{where / STATE}: {error}") from error
    optimiser.load_state_dict(state)


def _check_part(part: torch.optim.Optimizer, found: Any, steps: int, label: str) -> None:
    own = part.state_dict()
    valid = isinstance(found, dict) and set(found) == set(own)
    require(label, found if not isinstance(found, dict) else list(found), valid, f"{list(own)}")
    _check_groups(own["param_groups"], found["param_groups"], f"{label}.param_groups")
    moments = found["state"]
    require(f"{label}.state", type(moments).__name__, isinstance(moments, dict), "a table")
    pattern = _moments(part)
    for key, value in moments.items():
        require(
            f"{label}.state", key, key in pattern, f"numbers of parameters, {len(pattern)} in all"
        )
        _check_like(pattern[key], value, steps, f"{label}.state.{key}")


def _check_groups(own: list[dict[str, Any]], found: Any, label: str) -> None:
    """The settings of an optimiser are the config's; its learning rate is set anew at every step."""
    valid = isinstance(found, list) and len(found) == len(own)
    require(label, type(found).__name__, valid, f"a list of {len(own)}")
    for index, (mine, theirs) in enumerate(zip(own, found, strict=True)):
        name = f"{label}[{index}]"
        require(name, type(theirs).__name__, isinstance(theirs, dict), "a table")
        same = repr(theirs.get("params")) == repr(mine["params"])
        require(f"{name}.params", theirs.get("params"), same, f"{mine['params']}")
        rate = theirs.get("lr")
        valid = _is_number(rate) and math.isfinite(rate) and rate >= 0
        require(f"{name}.lr", rate, valid, "a learning rate")
        # Another version of torch may know more settings, or fewer; those that both know agree.
        for key in sorted(set(theirs) & set(mine) - {"lr", "params"}, key=str):
            same = repr(theirs[key]) == repr(mine[key])
            require(f"{name}.{key}", theirs[key], same, repr(mine[key]))


def _moments(part: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """What an optimiser of this kind keeps of each parameter: that of a twin after one step."""
    groups = []
    for group in part.param_groups:
        twins = [torch.zeros_like(p).requires_grad_() for p in group["params"]]
        for each in twins:
            each.grad = torch.zeros_like(each)
        groups.append({**group, "params": twins})
    kind: Any = type(part)
    twin = kind(groups)
    twin.step()
    return twin.state_dict()["state"]


def _check_like(pattern: Any, value: Any, steps: int, label: str) -> None:
    if isinstance(pattern, dict):
        valid = isinstance(value, dict) and set(value) == set(pattern)
        require(label, type(value).__name__, valid, f"a table of {list(pattern)}")
        for key, inner in pattern.items():
            _check_like(inner, value[key], steps, f"{label}.{key}")
    elif isinstance(pattern, Tensor):
        valid = isinstance(value, Tensor) and (value.shape, value.dtype) == (
            pattern.shape,
            pattern.dtype,
        )
        require(label, _described(value), valid, _described(pattern))
        require(label, "NaN or infinite", bool(value.isfinite().all()), "finite numbers")
    else:
        _require_integer(label, value, 0, steps)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"[:100]
