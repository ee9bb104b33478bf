"""What each verb answers by itself: its kind, its shape, and finite numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodels.checking.examples import like
from worldmodels.checking.failures import advise
from worldmodels.checking.subject import ROWS, Subject, apart, described, finite, parts_of
from worldmodels.interface import Latent


def encode(subject: Subject) -> None:
    """A ``Latent`` whose every tensor has the batch on axis 0; states also of a single one."""
    latent = subject.encode()
    subject.require(
        isinstance(latent, Latent), "encode", f"it returned a {type(latent).__name__}",
        "a worldmodels.interface.Latent", "Return Latent(z), with memory and condition where there are any.",
    )  # fmt: skip
    _batched(subject, "encode", latent)
    subject.require(
        latent.z.is_floating_point() and latent.z.ndim > 1, "encode", f"z is {described(latent.z)}",
        "floats (B, F) or (B, C, H, W)", "Give every row its own features on axis 1.",
    )  # fmt: skip
    _finite(subject, "encode", latent)
    if not subject.model.spec.image_size:
        alone = subject.encode(length=1)
        same = {k: v.shape for k, v in parts_of(alone).items()} == {
            k: v.shape for k, v in parts_of(latent).items()
        }
        subject.require(
            same, "encode", f"one state gives {described(alone)}, two states {described(latent)}",
            "the same shapes for a context of any length", "Read the last state; earlier ones may only inform it.",
        )  # fmt: skip


def step(subject: Subject) -> None:
    """A latent made as the one before, in which what the model was told stands unchanged."""
    latent = subject.encode()
    for count in range(2):
        after = subject.step(latent, count)
        subject.require(
            isinstance(after, Latent), "step", f"it returned a {type(after).__name__}", "a Latent",
            "Return latent._replace(z=..., memory=...).",
        )  # fmt: skip
        subject.require(
            len(after.memory) == len(latent.memory), "step",
            f"{len(latent.memory)} tensors of memory went in and {len(after.memory)} came out",
            "as many as before", "Return latent._replace(z=...), with memory=(...) where it changes.",
        )  # fmt: skip
        subject.require(
            (after.condition is None) == (latent.condition is None), "step",
            "the condition is lost" if after.condition is None else "a condition has appeared",
            "that of the latent before", "Return latent._replace(z=...), not a new Latent.",
        )  # fmt: skip
        _batched(subject, "step", after)
        for name, before in parts_of(latent).items():
            now = parts_of(after)[name]
            subject.require(
                (now.shape, now.dtype) == (before.shape, before.dtype), "step",
                f"{name} was {described(before)} and is {described(now)}", "the same shape and type",
                "A step leads to a latent that can be stepped again.",
            )  # fmt: skip
        changed = "" if after.condition is None else apart(after.condition, latent.condition)
        subject.require(
            not changed, "step", "the condition has changed", "the parameters that encode was told",
            "Carry latent.condition on as it is: it is constant over a rollout.",
        )  # fmt: skip
        _finite(subject, "step", after)
        latent = after


def decode(subject: Subject) -> None:
    """States (B, D), or pictures (B, S, S, 3) in [0, 1]."""
    spec = subject.model.spec
    size, latent = spec.image_size, subject.encode()
    wanted = (ROWS, size, size, 3) if size else (ROWS, spec.state_size)
    fix = "Pictures have their channels last." if size else "Give back states in physical units."
    decoded = subject.call("decode", latent)
    _shaped(subject, "decode", decoded, wanted, fix)
    _finite(subject, "decode", decoded)
    _finite(subject, "decode", subject.call("decode", subject.step(latent)))
    if size:
        low, high = float(decoded.min()), float(decoded.max())
        subject.require(
            low >= 0.0 and high <= 1.0, "decode", f"values from {low:.3g} to {high:.3g}",
            "pictures in [0, 1]", "End it with .clamp(0.0, 1.0).",
        )  # fmt: skip
        return
    off = apart(decoded, subject.given.context[:, -1], 1e-3)
    if off:
        advise(
            subject.check, f"{subject.kind}.decode", f"an encoded state does not come back ({off})",
            "Unless the encoder is still to be trained, let decode undo what encode does.",
        )  # fmt: skip


def largest(subject: Subject) -> None:
    """(B,) finite, and never negative: learned envs tell by it what has diverged."""
    value = subject.call("largest", subject.encode())
    fix = "Return the largest magnitude in each row, as WorldModel.largest does."
    _shaped(subject, "largest", value, (ROWS,), fix)
    _finite(subject, "largest", value)
    low = float(value.min())
    subject.require(low >= 0.0, "largest", f"it is {low:.3g}", "magnitudes, 0 or more", fix)


def energy(subject: Subject) -> None:
    """(B,) and finite where the model says that it has one."""
    if not getattr(subject.model, "has_energy", False):
        return
    value = subject.call("energy", subject.encode())
    _shaped(subject, "energy", value, (ROWS,), "Sum over the features of each row.")
    _finite(subject, "energy", value)


def outcomes(subject: Subject) -> None:
    """Of a model of pixels, or of a foreign env: reward and logit of an end (B,).

    And of one of pixels a ``reach`` to tell divergence by.
    """
    spec = subject.model.spec
    if not (spec.image_size or spec.foreign):
        return
    if spec.image_size:
        latent = subject.step(subject.encode())
        answer = subject.call("judge", latent, subject.given.actions[:, 0])
    else:
        seen = subject.given.batch.states
        answer = subject.call("judge", seen[:, 0], subject.given.actions[:, 0], seen[:, 1])
    subject.require(
        isinstance(answer, tuple) and len(answer) == 2, "judge", f"it returned {described(answer)}",
        "reward (B,) and logit of termination (B,)", "Return the two of them.",
    )  # fmt: skip
    for value in answer:
        _shaped(subject, "judge", value, (ROWS,), "Return one number a row for each.")
        _finite(subject, "judge", value)
    if not spec.image_size:
        return
    reach = getattr(subject.model, "reach", None)
    subject.require(
        isinstance(reach, Tensor) and reach.numel() == 1, "reach", f"it is {described(reach)}",
        "a buffer of one number: the largest latent of training, 0 where nothing is recorded",
        'self.register_buffer("reach", torch.zeros(())).',
    )  # fmt: skip


def loss(subject: Subject) -> None:
    """A finite scalar with a graph behind it, and detached scalars to log."""
    model = subject.model
    if not subject.trains:
        advise(
            subject.check, f"{subject.kind}.loss", "this model has nothing to train",
            "It can be used, but `train` cannot make it better.",
        )  # fmt: skip
        return
    model.train()
    value, logs = losses(subject)
    _shaped(subject, "loss", value, (), "Average over the batch.")
    _finite(subject, "loss", value)
    subject.require(
        value.requires_grad, "loss", "no gradient leads from it to a parameter", "a scalar to descend",
        "Return the loss with its graph: without .detach(), .item() or torch.no_grad().",
    )  # fmt: skip
    subject.require(
        isinstance(logs, dict), "loss", f"the second is {described(logs)}", "a dict", ""
    )
    for name, number in logs.items():
        good = isinstance(number, Tensor) and number.shape == () and not number.requires_grad
        subject.require(
            good, "loss", f"logs[{name!r}] is {described(number)}"
            + (" with a graph" if getattr(number, "requires_grad", False) else ""),
            "detached scalars", f"logs[{name!r}] = value.detach().",
        )  # fmt: skip
        _finite(subject, "loss", number)


def losses(subject: Subject) -> tuple[Tensor, Any]:
    """``loss`` of the example, with its graph. Raises ``CheckError`` for what is no pair."""
    try:
        answer = subject.model.loss(subject.given.batch)
    except Exception as error:
        reason = " ".join(str(error).split()) or "(it says nothing)"
        raise subject.fail(
            "loss", f"it raised {type(error).__name__}: {reason}", "a scalar, and scalars to log",
            "The exception behind this one has the line.",
        ) from error  # fmt: skip
    subject.require(
        isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], Tensor), "loss",
        f"it returned {described(answer)}", "(scalar, dict of detached scalars)", "Return both.",
    )  # fmt: skip
    return answer


def gradients(subject: Subject) -> None:
    """Every parameter that is to be trained gets a finite gradient from ``loss``."""
    model = subject.model
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained or not subject.trains:
        return
    model.train()
    model.zero_grad(set_to_none=True)
    for draw in range(6):  # a loss may draw which parts of the model learn from a batch
        torch.manual_seed(subject.seed + draw)
        value, _ = losses(subject)
        subject.require(
            value.requires_grad, "loss", "no gradient leads from it to a parameter",
            "a scalar to descend", "Return the loss with its graph.",
        )  # fmt: skip
        value.backward()
        missing = [name for name, p in trained.items() if p.grad is None]
        if not missing:
            break
    subject.require(
        not missing, "loss", f"no gradient for {_some(missing)}", "one for every parameter",
        "Use them in what loss computes, take them out, or say .requires_grad_(False).",
    )  # fmt: skip
    bad = [name for name, p in trained.items() if not bool(torch.isfinite(p.grad).all())]
    subject.require(
        not bad, "loss", f"gradients of {_some(bad)} are NaN or infinite", "finite gradients",
        "Look for sqrt, norm, log or a division at 0.",
    )  # fmt: skip
    idle = [name for name, p in trained.items() if not bool(p.grad.any())]
    if idle:
        advise(
            subject.check, f"{subject.kind}.loss", f"the gradient of {_some(idle)} is 0 throughout",
            "They learn nothing from such a batch.",
        )  # fmt: skip


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _batched(subject: Subject, verb: str, latent: Latent) -> None:
    for name, part in parts_of(latent).items():
        subject.require(
            isinstance(part, Tensor) and part.ndim > 0 and len(part) == ROWS, verb,
            f"{name} is {described(part)} of {ROWS} rows", "a tensor with the batch on axis 0",
            "Rows of a latent are chosen by row: each of its tensors has them on axis 0.",
        )  # fmt: skip


def _shaped(subject: Subject, verb: str, value: Any, wanted: tuple[int, ...], fix: str) -> None:
    fits = isinstance(value, Tensor) and tuple(value.shape) == wanted and value.is_floating_point()
    subject.require(fits, verb, f"it returned {described(value)}", f"floats {wanted}", fix)


def _finite(subject: Subject, verb: str, answer: Any) -> None:
    bad = finite(answer)
    kind = described(like(subject.model)[0])
    subject.require(
        not bad, verb, bad, f"finite numbers (in {kind}, for inputs in the range of training)",
        "Look for sqrt, log or a division at 0, and at the scale of what comes in.",
    )  # fmt: skip
