"""The model under a check, with its examples: verbs whose own errors say which verb it was, and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from worldmodels.checking.examples import ROWS, Examples, examples
from worldmodels.checking.failures import CheckError
from worldmodels.imagination import map_tensors
from worldmodels.interface import Latent

EVERY = slice(None)


class Subject:
    """A model, its examples, and the name of the check that is going on.

    Results are cut from their graph, but are computed with gradients, as a structure may need them.
    """

    def __init__(self, model: Any, seed: int, trains: bool = True) -> None:
        self.model, self.seed, self.check = model, seed, "encode"
        self.trains = trains and any(True for _ in model.parameters())
        """Whether ``loss`` is to be called."""
        self.kind = type(model).__name__
        self.given: Examples = examples(model, seed)

    def fail(self, verb: str, found: str, expected: str, fix: str) -> CheckError:
        """The error of a broken promise, to be raised."""
        return CheckError(self.check, f"{self.kind}.{verb}", found, expected, fix)

    def require(self, holds: bool, verb: str, found: str, expected: str, fix: str) -> None:
        """Raise ``CheckError`` unless the promise ``holds``."""
        if not holds:
            raise self.fail(verb, found, expected, fix)

    def call(self, verb: str, *arguments: Any) -> Any:
        """What a verb answers; its own exception becomes a ``CheckError`` that shows what it was given."""
        try:
            answer = getattr(self.model, verb)(*arguments)
        except Exception as error:
            given = ", ".join(map(described, arguments))
            reason = " ".join(str(error).split()) or "(it says nothing)"
            raise self.fail(
                verb, f"it raised {type(error).__name__}: {reason}", f"an answer to ({given})",
                "The exception behind this one has the line.",
            ) from error  # fmt: skip
        return map_tensors(Tensor.detach, answer) if _is_tree(answer) else answer

    def encode(self, rows: Any = EVERY, length: int | None = None) -> Any:
        """Latent of some rows of the context, of its last ``length`` elements."""
        first = 0 if length is None else self.given.context.shape[1] - length
        context, told = self.given.context[rows, first:], self.given.params[rows]
        if self.model.spec.image_size:
            return self.call("encode", context, told, self.given.past[rows, first:])
        return self.call("encode", context, told)

    def step(self, latent: Any, count: int = 0, rows: Any = EVERY, dt: Any = None) -> Any:
        """Latent after action number ``count``."""
        action = self.given.actions[rows, count]
        if dt is None:
            return self.call("step", latent, action)
        return self.call("step", latent, action, dt)

    def rollout(self, steps: int = 2, rows: Any = EVERY) -> list[tuple[str, Any]]:
        """What encode, step and decode answer in turn, each with a name for messages."""
        latent = self.encode(rows)
        answers: list[tuple[str, Any]] = [
            ("encode", latent),
            ("decode", self.call("decode", latent)),
        ]
        for count in range(steps):
            latent = self.step(latent, count, rows)
            answers += [("step", latent), ("decode", self.call("decode", latent))]
        return answers


def parts_of(answer: Any) -> dict[str, Any]:
    """What an answer holds, by the names that messages use."""
    if not isinstance(answer, Latent):
        return {"the answer": answer}
    named: dict[str, Any] = {"z": answer.z}
    named |= {f"memory[{index}]": part for index, part in enumerate(answer.memory)}
    return named if answer.condition is None else {**named, "condition": answer.condition}


def apart(one: Any, other: Any, tolerance: float = 0.0) -> str:
    """Which part of two answers differs by more than ``tolerance`` times its largest, and by how much; or ""."""
    left, right = parts_of(one), parts_of(other)
    if left.keys() != right.keys():
        return f"{', '.join(left)} against {', '.join(right)}"
    for name, a in left.items():
        b = right[name]
        if a.shape != b.shape:
            return f"{name} has shape {tuple(a.shape)} against {tuple(b.shape)}"
        off = (a.double() - b.double()).abs()
        largest = float(b.double().abs().max()) if b.numel() else 0.0
        worst = float(off.max()) if off.numel() else 0.0
        if not worst <= tolerance * largest + (1e-12 if tolerance else 0.0):
            return f"{name} differs by {worst:.2g}, where it is up to {largest:.2g}"
    return ""


def described(value: Any) -> str:
    """A value in a message: shape and type of tensors."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Latent):
        return f"Latent(z {described(value.z)}, {len(value.memory)} of memory)"
    if hasattr(value, "_fields"):
        return type(value).__name__
    return repr(value)


def finite(answer: Any) -> str:
    """Which part of an answer is not finite; or ""."""
    for name, part in parts_of(answer).items():
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            bad = int((~torch.isfinite(part)).sum())
            return f"{bad} of {part.numel()} numbers of {name} are NaN or infinite"
    return ""


def _is_tree(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_tree(part) for part in value)
    if isinstance(value, dict):
        return all(_is_tree(part) for part in value.values())
    return value is None or isinstance(value, Tensor)


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Afterwards weights, buffers, gradients, modes and torch's random numbers are as they were."""
    modes = {name: module.training for name, module in model.named_modules()}
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    gradients = {name: tensor.grad for name, tensor in model.named_parameters()}
    with torch.random.fork_rng():
        try:
            for parameter in model.parameters():
                parameter.grad = None
            yield
        finally:
            for name, module in model.named_modules():
                module.training = modes[name]
            with torch.no_grad():
                for name, tensor in tensors.items():
                    if not torch.equal(tensor, values[name]):
                        tensor.copy_(values[name])
            for name, parameter in model.named_parameters():
                parameter.grad = gradients[name]


Check = Callable[[Subject], None]
"""One check: raises ``CheckError``, or warns, or says nothing."""

__all__ = ["ROWS", "Check", "Subject", "apart", "described", "finite", "parts_of", "undisturbed"]
