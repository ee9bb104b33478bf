"""`check_world_model`: all checks of a world model, in an order in which the first failure explains the later ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import torch

from worldmodels.checking import laws, saving, verbs
from worldmodels.checking.failures import CheckError
from worldmodels.checking.subject import Check, Subject, undisturbed
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import require_count
from worldmodels.interface import Spec, WorldModel

__all__ = ["CHECKS", "CheckError", "check_world_model"]

CHECKS: dict[str, Check] = {
    "encode": verbs.encode,
    "step": verbs.step,
    "decode": verbs.decode,
    "largest": verbs.largest,
    "energy": verbs.energy,
    "outcomes": verbs.outcomes,
    "loss": verbs.loss,
    "inputs": laws.inputs,
    "deterministic": laws.deterministic,
    "dt": laws.dt,
    "inference": laws.inference,
    "rows": laws.rows,
    "zero_dt": laws.zero_dt,
    "reversible": laws.reversible,
    "memory": laws.memory,
    "imagine": laws.imagination,
    "gradients": verbs.gradients,
    "saving": saving.saving,
}
"""Checks by name, in their order."""


@known_keywords
def check_world_model(model: WorldModel, skip: Iterable[str] = (), seed: int = 0) -> None:
    """Check that a world model keeps what its interface promises, as Gymnasium's `check_env` does of an env.

    Made for structures and models of your own. Inputs are made of `model.spec`: states within what training has
    seen (`model.reach`), or pictures of the true system; a model of keypoints must have learned to see, and is
    shown its own sprites. The model is left as it was: weights, gradients, modes, and torch's random numbers.

    The checks, by name: what each verb answers (`encode`, `step`, `decode`, `largest`, `energy`; `outcomes`: reward
    and end of a model of pixels; `loss`); `inputs` left alone; `deterministic` under a seed; `dt` heeded where
    `any_dt`; `inference` without gradients; `rows` for themselves; `zero_dt` the identity; `reversible` where the
    model says so; `memory` carried; `imagine` equals stepping; `gradients` of the loss; `saving`.

    Args:
        model: a `WorldModel` of states or pixels, an ensemble included; trained or not, on any device.
        skip: names of checks to leave out.
        seed: of the inputs.

    Raises:
        CheckError: (an `AssertionError`) a promise is broken; the message names the verb, what was found, what was
            expected, and the fix. The first one is raised.
        ValueError: a name in `skip` that is no check.

    Warns (`UserWarning`) of what is allowed, but unwise.
    """
    left_out = _skipped(skip)
    require_count("seed", seed, 0, 2**31)
    _check_kind(model)
    with undisturbed(model):
        model.eval()
        torch.manual_seed(seed)
        with torch.enable_grad():
            subject = Subject(model, seed, "loss" not in left_out)
            for name, check in CHECKS.items():
                if name in left_out:
                    continue
                subject.check = name
                model.eval()
                check(subject)


def _skipped(skip: Any) -> set[str]:
    names = [skip] if isinstance(skip, str) else list(skip)
    for name in names:
        if name not in CHECKS:
            close = difflib.get_close_matches(str(name), CHECKS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"skip={name!r} is no check: expected of {', '.join(CHECKS)}{hint}")
    return set(names)


def _check_kind(model: Any) -> None:
    if not isinstance(model, WorldModel):
        raise CheckError(
            "encode", type(model).__name__, "it is no WorldModel", "a subclass of worldmodels.WorldModel",
            "Of a structure, build a model: worldmodels.models.building.build(spec, name, config).",
        )  # fmt: skip
    if not isinstance(getattr(model, "spec", None), Spec):
        raise CheckError(
            "encode", f"{type(model).__name__}.spec", f"it is {getattr(model, 'spec', None)!r}",
            "a worldmodels.interface.Spec", "Set self.spec in __init__: it says what the model imitates.",
        )  # fmt: skip
