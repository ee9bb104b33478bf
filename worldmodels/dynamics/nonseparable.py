"""Steps of flows that cannot be split into forces and velocities, and that keep their structure.

Implicit ones (implicit_midpoint, gauss4) are symplectic and symmetric in time, and each row is solved until it
stands still, whatever the others do; extended4 is explicit.

Measured with one set of weights, a cart-pole's M(q) learned at dt = 0.05 s (one core; milliseconds of an update and
of a step of 256 rows; error of the learned flow after 20 steps, in latent units; drift of the true energy in 2,000
passive steps over the reference energy):

    rk4                34   14   4.0e-6   1.1e-3
    implicit_midpoint  56   29   8.5e-4   8.3e-4
    gauss4             79   38   6.0e-7   6.0e-4
    extended4         117   47   6.9e-6   5.9e-4

So gauss4 is the default: of those that keep what the flow keeps it is the most exact, and it costs less than the
explicit one, whose sixteen evaluations are all recorded for gradients. rk4 keeps nothing, and is the cheap choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VectorField = Callable[[Tensor], Tensor]
TOLERANCE = 10.0
"""A solution stands still where an iteration moves a row by less than this many units of the last place
(``torch.finfo(dtype).eps``) of its largest number, or of 1."""
GRADIENT_TOLERANCE = 1e-4
"""The same for gradients, as a share of the largest number of a row: a training needs no more."""
MOST = 60
"""Iterations after which a row has no solution: it is not finite then."""
UNROLLED = 12
"""Iterations where members of an ensemble go together, and none can be asked whether it stands still."""

_A = 3.0**0.5 / 6.0
_SUZUKI = 1.0 / (4.0 - 4.0 ** (1.0 / 3.0))
COUPLING = 1.0
"""Strength of the spring between the two copies of ``extended4``, per unit of the latent's own time."""


def implicit_midpoint(derivative: VectorField, z: Tensor, h: Tensor | float) -> Tensor:
    """z' = z + h f((z + z') / 2): order 2, symplectic, symmetric (Hairer, Lubich and Wanner 2006, II.1.4)."""
    return z + solved(lambda d: h * derivative(z + 0.5 * d), h * derivative(z))


def gauss4(derivative: VectorField, z: Tensor, h: Tensor | float) -> Tensor:
    """Two-stage Gauss-Legendre collocation: order 4, symplectic, symmetric (Hairer, Lubich and Wanner 2006,
    II.1.3, table 1.1). Solved for what each stage adds, so that rounding is that of the addition.
    """

    def stages(both: Tensor) -> Tensor:
        a, b = both.chunk(2, 1)
        one = derivative(z + 0.25 * a + (0.25 - _A) * b)
        two = derivative(z + (0.25 + _A) * a + 0.25 * b)
        return h * torch.cat((one, two), 1)

    rate = h * derivative(z)
    a, b = solved(stages, torch.cat((rate, rate), 1)).chunk(2, 1)
    return z + 0.5 * (a + b)


def solved(step: VectorField, guess: Tensor) -> Tensor:
    """x = step(x) by iteration from ``guess``, to ``TOLERANCE`` row by row.

    Gradients are those of the solution (implicit function theorem), from one recorded iteration: the
    incoming one is multiplied by (1 - d step/dx)^-T, by iteration to ``GRADIENT_TOLERANCE``.
    Rows that do not come to stand are NaN. Inside ``vmap``: ``UNROLLED`` plain iterations.
    """
    if torch._C._functorch.is_batchedtensor(guess):
        for _ in range(UNROLLED):
            guess = step(guess)
        return guess
    exact = TOLERANCE * torch.finfo(guess.dtype).eps
    with torch.no_grad():
        x = _stand_still(step, guess.detach(), exact, 1.0)
    if not (torch.is_grad_enabled() and guess.requires_grad):
        return step(x)
    x.requires_grad_()
    found = step(x)
    solution = found.clone()  # a hook on what it calls would keep the graph alive

    def through(gradient: Tensor) -> Tensor:
        def again(g: Tensor) -> Tensor:
            (back,) = torch.autograd.grad(found, x, g, retain_graph=True)
            return gradient + back

        return _stand_still(again, gradient, GRADIENT_TOLERANCE, 0.0)

    solution.register_hook(through)
    return solution


def _stand_still(step: VectorField, x: Tensor, tolerance: float, least: float) -> Tensor:
    """``x`` after as many iterations as each row needs; a row is at least of size ``least``."""
    moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(MOST):
        after = step(x)
        change = (after - x).abs().flatten(1).amax(1)
        size = after.abs().flatten(1).amax(1).clamp(min=least)
        x = torch.where(_by_row(moving, x), after, x)
        moving = moving & (change > tolerance * size)  # a row that is not finite is done with
        if not bool(moving.any()):
            return x
    return torch.where(_by_row(moving, x), torch.full_like(x, torch.nan), x)


def _by_row(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.ndim - 1))


def extended4(derivative: VectorField, z: Tensor, h: Tensor | float) -> Tensor:
    """Explicit splitting in two copies (q, p) and (x, y) of the phase space (Tao 2016, arXiv:1609.02212):
    H(q, y) moves x and p, H(x, p) moves q and y, and a spring binds the copies.

    Order 4 by five symmetric steps (Suzuki 1990). Both copies begin at ``z``, and their mean is taken at
    the end: explicit, but neither exactly symplectic nor exactly symmetric, as the extended step is.
    """
    q, p = z.chunk(2, 1)
    x, y = q, p
    last: list[Any] = []

    def rates(position: Tensor, momentum: Tensor, s: Any) -> tuple[Tensor, Tensor]:
        if not (last and last[0] is position and last[1] is momentum):
            last[:] = [position, momentum, derivative(torch.cat((position, momentum), 1))]
        by_q, by_p = (s * last[2]).chunk(2, 1)
        return by_q, by_p

    for weight in (_SUZUKI, _SUZUKI, 1.0 - 4.0 * _SUZUKI, _SUZUKI, _SUZUKI):
        s = weight * h
        moved, pushed = rates(q, y, 0.5 * s)
        x, p = x + moved, p + pushed
        moved, pushed = rates(x, p, 0.5 * s)
        q, y = q + moved, y + pushed
        q, p, x, y = _bound(q, p, x, y, s)
        moved, pushed = rates(x, p, 0.5 * s)
        q, y = q + moved, y + pushed
        moved, pushed = rates(q, y, 0.5 * s)
        x, p = x + moved, p + pushed
    return 0.5 * torch.cat((q + x, p + y), 1)


def _bound(q: Tensor, p: Tensor, x: Tensor, y: Tensor, s: Any) -> tuple[Tensor, ...]:
    """Both copies after ``s`` of the spring: their mean stays, their difference turns."""
    angle = torch.as_tensor(2.0 * COUPLING * s, dtype=q.dtype, device=q.device)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    u, v = 0.5 * (q - x), 0.5 * (p - y)
    turned, other = cosine * u + sine * v, cosine * v - sine * u
    q_mean, p_mean = 0.5 * (q + x), 0.5 * (p + y)
    return q_mean + turned, p_mean + other, q_mean - turned, p_mean - other


METHODS: dict[str, Callable[..., Tensor]] = {
    "implicit_midpoint": implicit_midpoint,
    "gauss4": gauss4,
    "extended4": extended4,
}
"""Methods of flows that cannot be split: (derivative, z, h) -> z."""
