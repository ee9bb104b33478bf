"""What holds between calls: the same again, rows for themselves, nothing changed behind the caller's back."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from worldmodels.checking.failures import advise
from worldmodels.checking.subject import ROWS, Subject, apart
from worldmodels.checking.verbs import losses
from worldmodels.imagination import imagine, map_tensors

CLOSE = 1e-3
"""Share of the largest number by which rows may differ: kernels sum in another order, adaptive solvers choose
steps for all rows together."""
SAME = 1e-5
"""The same where one network does the same once more."""


def deterministic(subject: Subject) -> None:
    """Under a seed, a call that is repeated gives the same bits, in eval mode and in training mode."""
    model = subject.model
    for training in (False, True):
        model.train(training)
        first, second = (_seeded(subject, subject.seed) for _ in range(2))
        for (verb, one), (_, other) in zip(first, second, strict=True):
            off = apart(one, other)
            mode = "training" if training else "eval"
            subject.require(
                not off, verb, f"called twice in {mode} mode under one seed, {off}", "the same bits",
                "Keep what a rollout remembers in latent.memory, not in self, and draw from torch's "
                "global generator alone.",
            )  # fmt: skip
        if not training and any(
            apart(a[1], b[1])
            for a, b in zip(first, _seeded(subject, subject.seed + 1), strict=True)
        ):
            advise(
                subject.check, f"{subject.kind}.step", "in eval mode its answers depend on the seed",
                "Draw in training mode only: a learned env reproduces its episodes by its own seed.",
            )  # fmt: skip
    values = []
    for _ in range(2):
        if subject.trains:
            torch.manual_seed(subject.seed)
            values.append(losses(subject)[0].detach())
    off = apart(values[0], values[1]) if values else ""
    subject.require(
        not off, "loss", f"called twice under one seed, {off}", "the same bits",
        "Draw from torch's global generator alone, and keep nothing between calls.",
    )  # fmt: skip


def _seeded(subject: Subject, seed: int) -> list[tuple[str, Any]]:
    torch.manual_seed(seed)
    return subject.rollout()


def inference(subject: Subject) -> None:
    """Without gradients the verbs give what they give with them: learned envs run so."""
    expected = subject.rollout()
    for name, mode in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
        try:
            with mode():
                found = subject.rollout()
        except Exception as error:
            raise subject.fail(
                "step", f"under torch.{name}(), {error}", "what it gives with gradients",
                "Where a verb differentiates (the force of an energy), write the gradient out, or work on "
                "a detached clone under torch.inference_mode(False) and torch.enable_grad().",
            ) from error  # fmt: skip
        for (verb, one), (_, other) in zip(found, expected, strict=True):
            off = apart(one, other, SAME)
            subject.require(
                not off, verb, f"under torch.{name}(), {off}", "what it gives with gradients",
                "Let nothing depend on torch.is_grad_enabled().",
            )  # fmt: skip


def inputs(subject: Subject) -> None:
    """No verb changes what it was given, not even whether that asks for gradients."""
    model, given = subject.model, subject.given
    latent = subject.encode()
    told: Any = (given.context, given.params)
    if model.spec.image_size:
        told = (*told, given.past)
    action = given.actions[:, 0]
    cases: list[tuple[str, Any]] = [
        ("encode", told),
        ("step", (latent, action)),
        ("decode", (latent,)),
        ("largest", (latent,)),
    ]
    if getattr(model, "has_energy", False):
        cases.append(("energy", (latent,)))
    if model.spec.image_size:
        cases.append(("judge", (latent, action)))
    if subject.trains:
        cases.append(("loss", (given.batch._replace(observed=None),)))  # type: ignore[arg-type]
    for verb, arguments in cases:
        before = map_tensors(Tensor.clone, arguments)
        if verb == "loss":
            losses(subject)
        else:
            subject.call(verb, *arguments)
        for one, other in zip(_leaves(arguments), _leaves(before), strict=True):
            subject.require(
                torch.equal(one, other) and not one.requires_grad, verb,
                "it changed a tensor of its caller", "inputs left as they are",
                "Work on a copy: no `x += ...`, `x[...] = ...` or x.requires_grad_() on what comes in.",
            )  # fmt: skip


def _leaves(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor), tree)
    return found


def rows(subject: Subject) -> None:
    """A batch is its rows one by one, whatever the other rows are."""
    together = subject.rollout()
    for row in range(ROWS):
        at = slice(row, row + 1)
        _same_row(subject, together, at, subject.rollout(rows=at), slice(0, 1), "alone")
    others = torch.tensor([0, ROWS - 1, ROWS - 1])
    one = slice(0, 1)
    _same_row(subject, together, one, subject.rollout(rows=others), one, "beside other rows")


def _same_row(
    subject: Subject, together: Any, at: slice, other: Any, place: slice, how: str
) -> None:
    for (verb, batch), (_, answer) in zip(together, other, strict=True):
        mine, its = (map_tensors(lambda t, i=i: t[i], a) for a, i in ((answer, place), (batch, at)))
        off = apart(mine, its, CLOSE)
        subject.require(
            not off, verb, f"row {at.start} {how}: {off}", "what it is in the batch",
            "Let no row see another: no mean, sort or normalisation (BatchNorm) over axis 0.",
        )  # fmt: skip


def dt(subject: Subject) -> None:
    """None is the spec's; where any step length means something, it is heeded, as a number and by row."""
    model, spec, latent = subject.model, subject.model.spec, subject.encode()
    usual = subject.step(latent, dt=spec.dt)
    off = apart(subject.step(latent), usual, SAME)
    subject.require(
        not off, "step", f"dt=None and dt={spec.dt}: {off}", "the same", "None means spec.dt."
    )
    shares = torch.linspace(0.5, 0.9, ROWS, device=latent.z.device, dtype=latent.z.dtype)
    seconds = shares * spec.dt
    by_row = subject.step(latent, dt=seconds)
    subject.require(
        torch.equal(seconds, shares * spec.dt), "step", "it changed the dt of its caller",
        "inputs left as they are", "Work on a copy.",
    )  # fmt: skip
    half = subject.step(latent, dt=0.5 * spec.dt)
    if not model.any_dt:
        if apart(half, usual, SAME):
            advise(
                subject.check, f"{subject.kind}.step", "its answers depend on dt, but any_dt is False",
                "Say any_dt = True where other step lengths mean something, or ignore dt.",
            )  # fmt: skip
        return
    ignored = not apart(half, usual)
    subject.require(
        not ignored, "step", "any_dt is True, but half of dt leads to the same", "shorter steps",
        "Use dt in step, or say any_dt = False.",
    )  # fmt: skip
    for row, share in enumerate(shares.tolist()):
        alone = subject.step(latent, dt=share * spec.dt)
        mine, its = (map_tensors(lambda t, i=row: t[i], answer) for answer in (by_row, alone))
        off = apart(mine, its, CLOSE)
        subject.require(
            not off, "step", f"dt (B,), row {row}: {off}", "what its own dt as a number gives",
            "Shape a dt of (B,) to broadcast: dt.reshape(-1, *[1] * (z.ndim - 1)).",
        )  # fmt: skip


def zero_dt(subject: Subject) -> None:
    """Where any step length means something, none leaves z as it is, and a short one moves it little."""
    if not subject.model.any_dt:
        return
    spec, latent = subject.model.spec, subject.encode()
    off = apart(subject.step(latent, dt=0.0).z, latent.z, 10 * SAME)
    subject.require(
        not off, "step", f"after dt=0, {off.replace('the answer', 'z')}", "the latent as it was",
        "Whatever moves z is to be multiplied by dt.",
    )  # fmt: skip
    moved = [
        float((subject.step(latent, dt=share * spec.dt).z - latent.z).abs().max())
        for share in (1.0, 1e-3)
    ]
    allowed = 0.1 * moved[0] + 10 * SAME * float(latent.z.abs().max())
    subject.require(
        moved[1] <= allowed, "step", f"z moves by {moved[0]:.2g} in dt, and by {moved[1]:.2g} in dt / 1000",
        "a motion that goes to 0 with dt", "Whatever moves z is to be multiplied by dt.",
    )  # fmt: skip


def reversible(subject: Subject) -> None:
    """Where the model says so, a step back leads to where a step came from."""
    if not getattr(subject.model, "reversible", False):
        return
    latent, seconds = subject.encode(), subject.model.spec.dt
    there = subject.step(latent, dt=seconds)
    back = subject.step(there, dt=-seconds)
    off = apart(back.z, latent.z, 10 * SAME)
    subject.require(
        not off, "step", f"a step and one with -dt: {off.replace('the answer', 'z')}",
        "where it began, as `reversible` says",
        "Let the step be symmetric in time (leapfrog without damping), or say reversible = False.",
    )  # fmt: skip


def memory(subject: Subject) -> None:
    """What comes out of a step depends on the memory that went in."""
    latent = subject.step(subject.encode())
    if not latent.memory:
        return
    other = latent._replace(memory=tuple(map(_disturbed, latent.memory)))
    one, two = (subject.step(each, 1)._replace(z=latent.z) for each in (latent, other))
    same = not apart(one, two)
    subject.require(
        not same, "step", "whatever memory goes in, the same comes out", "a memory that is carried on",
        "Begin with latent.memory, not with initial_memory, in every step.",
    )  # fmt: skip


def _disturbed(part: Tensor) -> Tensor:
    if part.is_floating_point():
        return 1.1 * part + 0.1
    return ~part if part.dtype == torch.bool else part + 1


def imagination(subject: Subject) -> None:
    """``imagine`` is stepping and decoding, one action after the other."""
    latent, model = subject.encode(), subject.model
    with torch.no_grad() if not _needs_gradients(subject) else nullcontext():
        states = imagine(model, latent, subject.given.actions[:, :3]).detach()
        for count in range(3):
            latent = subject.step(latent, count)
            off = apart(states[:, count], subject.call("decode", latent), SAME)
            subject.require(
                not off, "step", f"step {count + 1} of imagine: {off}", "what stepping and decoding give",
                "Keep what a rollout remembers in the latent alone.",
            )  # fmt: skip


def _needs_gradients(subject: Subject) -> bool:
    """Whether the model cannot be stepped without them; ``inference`` says so, unless it is skipped."""
    try:
        with torch.no_grad():
            subject.step(subject.encode())
    except AssertionError:
        return True
    return False
