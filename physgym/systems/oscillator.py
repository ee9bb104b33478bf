"""The forced, damped harmonic oscillator."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from physgym.elementwise import minimum, sqrt
from physgym.energies import quadratic
from physgym.primitives import Arrow, Disc, Polyline, Primitive, Segment
from physgym.registration import register
from physgym.system import System

_TAYLOR_TERMS = 14
_SQUARINGS = 10


class OscillatorParams(NamedTuple):
    """Parameters of the oscillator."""

    mass: float = 0.5
    stiffness: float = 2.0
    damping: float = 0.1
    force_limit: float = 1.0


@register
class Oscillator(System):
    """A mass on a spring, pushed by a bounded force.

    ## Description
    m x'' = F - k x - c x'. Hold the mass at the set point x* = 0.3 m, which none of the three force
    levels does by
    itself: the spring needs 0.6 N there, so the force must be switched (pulse-width control).

    ## Action Space
    Discrete(3): force -1, 0, +1 times `force_limit`; continuous: Box(-1, 1, (1,)), scaled by it.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0 | x [m] | -20 | 20 |
    | 1 | v [m/s] | -40 | 40 |

    ## Rewards
    1 / (1 + (err / 0.2)^2) with err^2 = (x - x*)^2 + (v / w0)^2 and w0^2 = k / m: in [0, 1] a step.

    ## Starting State
    x and v uniform in [-1.8, 1.8].

    ## Episode End
    Never terminated; truncated after 200 steps of 0.1 s, or outside the bounds
    (`info["out_of_bounds"]`).

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): mass 0.5 kg (0.4-0.6), stiffness 2 N/m
    (1.5-2.5), damping 0.1 N s/m (0.1-1), force_limit 1 N. The common arguments stand in
    `physgym.env.PhysicsEnv`.

    ## Version History
    * v0: first version
    """

    name, env_id = "oscillator", "PhysGym/Oscillator-v0"
    Params = OscillatorParams
    param_units = {"mass": "kg", "stiffness": "N/m", "damping": "N s/m", "force_limit": "N"}
    ranges = {"mass": (0.4, 0.6), "stiffness": (1.5, 2.5), "damping": (0.1, 1.0)}
    non_negative = frozenset({"stiffness", "damping", "force_limit"})
    state_names, state_units = ("x", "v"), ("m", "m/s")
    control_size = 1
    discrete_actions = np.array([[-1.0], [0.0], [1.0]])
    action_names = ("push left", "nothing", "push right")
    dt, max_episode_steps = 0.1, 200
    default_integrator, linear, separable = "exact", True, True
    uniform_draws = 2
    reward_threshold = 175.0
    error_scale = 0.2
    view = 2.4
    keys = {"a": 0, "d": 2}
    set_point = 0.3
    """x* [m]."""

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: (F - k x) / m."""
        (x,), (force,) = q, u
        return ((force - p.stiffness * x) / p.mass,)

    def damping_rate(self, p: Any) -> Any:
        """Equations: c / m."""
        return p.damping / p.mass

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: force [N]."""
        (a,) = action
        return (p.force_limit * a,)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: m v^2 / 2 + k x^2 / 2."""
        x, v = state
        return 0.5 * p.mass * (v * v) + 0.5 * p.stiffness * (x * x)

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: F v."""
        return u[0] * state[1]

    def dissipation_of(self, state: Any, p: Any) -> Any:
        """Equations: c v^2."""
        return p.damping * (state[1] * state[1])

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: (x - x*)^2 + (v / w0)^2."""
        x, v = state
        off = x - self.set_point
        return off * off + v * v * p.mass / (p.stiffness + 1e-12)

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: far above the largest amplitude that a resonant force reaches within an
        episode.
        """
        return (20.0, 40.0)

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: a sub-step for the integrators that are not exact."""
        rate = sqrt(p.stiffness / p.mass) + p.damping / p.mass
        return minimum(0.0125, 0.063 / (rate + 1e-6))

    def max_exact_step(self, p: Any) -> Any:
        """Equations: where the series of `exact_step` still leaves 1e-11."""
        return 500.0 / (sqrt(p.stiffness / p.mass) + p.damping / p.mass + 1e-6)

    def exact_step(self, state: Any, u: Any, p: Any, h: Any) -> Any:
        """Equations: the flow exp(A h) of the forced system, A = [[0, 1], [-k/m, -c/m]].

        The exponential is a Taylor series at h / 2^10, squared 10 times: only sums and products, so
        floats and arrays agree to the bit, and it holds for weak, critical and strong damping
        alike, to 1e-11 as long as h is at most `max_exact_step`.
        """
        x, v = state
        k, c = -p.stiffness / p.mass, -p.damping / p.mass
        s = h / 2.0**_SQUARINGS
        ta, tb, te, td = 1.0, 0.0, 0.0, 1.0  # the term (A s)^n / n! of the series
        a, b, e, d = ta, tb, te, td  # their sum, exp(A s)
        f, g = 0.0, s  # the integral of exp(A t) (0, 1) from 0 to s
        for n in range(1, _TAYLOR_TERMS):
            r = s / float(n)
            ta, tb, te, td = r * te, r * td, r * (k * ta + c * te), r * (k * tb + c * td)
            a, b, e, d = a + ta, b + tb, e + te, d + td
            f, g = f + tb * s / (n + 1.0), g + td * s / (n + 1.0)
        for _ in range(_SQUARINGS):
            f, g = f + a * f + b * g, g + e * f + d * g
            a, b, e, d = a * a + b * e, b * (a + d), e * (a + d), e * b + d * d
        push = u[0] / p.mass
        return (a * x + b * v + f * push, e * x + d * v + g * push)

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: uniform in [-1.8, 1.8] x [-1.8, 1.8]."""
        return tuple(3.6 * u - 1.8 for u in draws)

    def energy_unit(self, p: Any) -> Any:
        """k (1 m)^2 / 2."""
        return 0.5 * p.stiffness

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """Any phase."""
        return quadratic(self, rng, math.sqrt(p.stiffness / p.mass), energy, p)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Pulse-width PD: the wanted force is dithered over the three levels."""
        x, v = state[..., 0], state[..., 1]
        wanted = params.stiffness * self.set_point - 2.0 * (x - self.set_point) - 1.5 * v
        duty = np.clip(wanted / params.force_limit, -1.0, 1.0)
        threshold = (0.5 + 0.6180339887498949 * step) % 1.0
        return (1 + np.sign(duty) * (np.abs(duty) > threshold)).astype(np.int64)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """A disc on a spring between it and the left wall."""
        x = state[0]
        body = Disc(x, 0.0, 0.2, (230, 159, 0))
        if not detail:
            return [body]
        coils = 16
        spring = tuple(
            (-2.3 + (x + 2.1) * i / coils, (0.0, 0.12, 0.0, -0.12)[i % 4] if 0 < i < coils else 0.0)
            for i in range(coils + 1)
        )
        shapes: list[Primitive] = [
            Segment(-2.3, -0.5, -2.3, 0.5, 0.06, (120, 120, 120)),
            Segment(-2.3, -0.24, 2.3, -0.24, 0.03, (90, 90, 90)),
            Segment(self.set_point, -0.45, self.set_point, 0.45, 0.03, (0, 158, 115)),
            Polyline(spring, 0.035, (150, 150, 150)),
            body,
        ]
        if control is not None and abs(control[0]) > 1e-9:
            shapes.append(Arrow(x, 0.5, x + 0.6 * control[0], 0.5, 0.06, (86, 180, 233)))
        return shapes
