"""One control step of a learned flow: fixed-step integrators shared with physgym, or torchdiffeq's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from physgym import integrators
from worldmodels.configs.training import ADAPTIVE, FlowConfig
from worldmodels.dynamics import nonseparable
from worldmodels.interface import DivergenceError

VectorField = Callable[[Tensor], Tensor]
MAX_STEPS = 1000
"""Attempts at a step that an adaptive method has for one control step, rejected ones included."""


def time_step(dt: Tensor | float, like: Tensor) -> Tensor | float:
    """``dt`` to multiply ``like`` with: a number, or one a row (B,) shaped to broadcast."""
    if isinstance(dt, Tensor) and dt.ndim == 1:
        return dt.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
    return dt


def flow(config: FlowConfig, derivative: VectorField, z: Tensor, dt: Tensor | float) -> Tensor:
    """``z`` after ``dt`` along dz/dt = derivative(z), by a method that needs no split.

    Raises ``DivergenceError`` where an adaptive method cannot go on.
    """
    if config.method in ADAPTIVE:
        return _adaptive(config, derivative, z, dt)
    h = time_step(dt, z) / config.substeps
    for _ in range(config.substeps):
        if config.method in nonseparable.METHODS:
            z = nonseparable.METHODS[config.method](derivative, z, h)
        else:
            (z,) = integrators.FLOWS[config.method](lambda s: (derivative(s[0]),), (z,), h)
    return z


def split_flow(
    config: FlowConfig,
    force: VectorField,
    velocity: VectorField,
    z: Tensor,
    dt: Tensor | float,
    damping: Tensor | None,
) -> Tensor:
    """``z`` after ``dt`` along dq/dt = velocity(p), dp/dt = force(q) - damping p, by a splitting."""
    h = time_step(dt, z) / config.substeps
    q, p = z.chunk(2, 1)
    remembered = _remember_last(force)
    rates = None if damping is None else (damping,)
    method = integrators.SPLITTINGS[config.method]
    position, momentum = (q,), (p,)
    for _ in range(config.substeps):
        position, momentum = method(
            remembered, lambda s: (velocity(s[0]),), position, momentum, h, rates
        )
    return torch.cat((position[0], momentum[0]), 1)


def _remember_last(force: VectorField) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A force that is not computed again where one kick ends and the next begins."""
    last: list[tuple[Tensor, Tensor]] = []

    def remembered(q: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not last or last[0][0] is not q[0]:
            last[:] = [(q[0], force(q[0]))]
        return (last[0][1],)

    return remembered


def _adaptive(config: FlowConfig, derivative: VectorField, z: Tensor, dt: Tensor | float) -> Tensor:
    with torch.inference_mode(False):  # its tables, made on import, must serve gradients later
        from torchdiffeq import odeint

    scale = time_step(dt, z)  # time runs from 0 to 1, so that rows may differ in dt
    times = torch.tensor([0.0, 1.0], dtype=z.dtype, device=z.device)
    try:
        states = odeint(
            _Watched(config.method, lambda state: scale * derivative(state)),
            z,
            times,
            method=config.method,
            rtol=config.rtol,
            atol=config.atol,
        )
    except AssertionError as error:
        raise DivergenceError(f"{config.method} could not go on: {error}") from error
    return states[-1]


class _Watched:
    """dz/dt for torchdiffeq, which stops it by ``assert``: not at all under ``python -O``.

    torchdiffeq calls ``callback_step`` before each attempt at a step.
    """

    def __init__(self, integrator: str, derivative: VectorField) -> None:
        self.integrator, self.derivative, self.steps = integrator, derivative, 0

    def __call__(self, time: Tensor, state: Tensor) -> Tensor:
        return self.derivative(state)

    def callback_step(self, time: Tensor, state: Tensor, step: Tensor) -> None:
        """Raise ``DivergenceError`` where there is no use in another step."""
        if self.steps >= MAX_STEPS:
            self._give_up(f"{MAX_STEPS} steps were not enough")
        self.steps += 1
        if not bool(time + step > time):
            self._give_up("its steps became too short to move")
        if not bool(torch.isfinite(state).all()):
            self._give_up("the state is not finite")

    def _give_up(self, reason: str) -> None:
        raise DivergenceError(f"{self.integrator} could not go on: {reason}")
