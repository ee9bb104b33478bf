"""The forced, damped pendulum."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from physgym.elementwise import TWO_PI, cos, maximum, minimum, sin, sqrt, wrap
from physgym.energies import mechanical
from physgym.primitives import Arc, Disc, Primitive, Segment
from physgym.registration import register
from physgym.system import System

_MOST_COST = 16.2736


class PendulumParams(NamedTuple):
    """Parameters of the pendulum."""

    mass: float = 1.0
    length: float = 1.0
    gravity: float = 9.81
    damping: float = 0.1
    torque_limit: float = 3.0


@register
class Pendulum(System):
    """A point mass on a massless rod, turned by a torque too weak to lift it directly.

    ## Description
    m L^2 theta'' = tau - m g L sin(theta) - c theta', theta = 0 hanging down. Swing up and hold
    upright.

    ## Action Space
    Discrete(3): torque -1, 0, +1 times `torque_limit`; continuous: Box(-1, 1, (1,)), scaled by it.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0 | theta [rad], wrapped | -pi | pi |
    | 1 | omega [rad/s] | -50 | 50 |

    With `obs_mode="embedded"` theta becomes cos(theta), sin(theta).

    ## Rewards
    1 - (phi^2 + 0.1 min(omega^2, 64) + 0.001 tau^2) / 16.2736 with phi the angle from upright, at
    least 0: affine in the cost of Gymnasium's Pendulum-v1. In [0, 1] a step.

    ## Starting State
    theta uniform in [-pi, pi], omega uniform in [-1, 1].

    ## Episode End
    Never terminated; truncated after 200 steps of 0.05 s, or outside the bounds
    (`info["out_of_bounds"]`).

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): mass 1 kg (0.8-1.2), length 1 m (0.8-1.2),
    gravity 9.81 m/s^2, damping 0.1 N m s (0.05-0.5), torque_limit 3 N m. The common arguments stand
    in `physgym.env.PhysicsEnv`.

    ## Version History
    * v0: first version
    """

    name, env_id = "pendulum", "PhysGym/Pendulum-v0"
    Params = PendulumParams
    param_units = {
        "mass": "kg",
        "length": "m",
        "gravity": "m/s^2",
        "damping": "N m s",
        "torque_limit": "N m",
    }
    ranges = {"mass": (0.8, 1.2), "length": (0.8, 1.2), "damping": (0.05, 0.5)}
    non_negative = frozenset({"gravity", "damping", "torque_limit"})
    state_names, state_units = ("theta", "omega"), ("rad", "rad/s")
    angles = (0,)
    control_size = 1
    discrete_actions = np.array([[-1.0], [0.0], [1.0]])
    action_names = ("turn clockwise", "nothing", "turn counter-clockwise")
    dt, max_episode_steps = 0.05, 200
    default_integrator, separable = "rk4", True
    uniform_draws = 2
    reward_threshold = 180.0
    error_scale = 0.5
    view = 1.45
    keys = {"a": 0, "d": 2}

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: (tau - m g L sin(theta)) / (m L^2); sines are quickest of a wrapped angle."""
        (theta,), (tau,) = q, u
        inertia = p.mass * p.length * p.length
        return (tau / inertia - p.mass * p.gravity * p.length / inertia * sin(wrap(theta)),)

    def damping_rate(self, p: Any) -> Any:
        """Equations: c / (m L^2)."""
        return p.damping / (p.mass * p.length * p.length)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: torque [N m]."""
        (a,) = action
        return (p.torque_limit * a,)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: m L^2 omega^2 / 2 + m g L (1 - cos(theta))."""
        theta, omega = state
        inertia = p.mass * p.length * p.length
        return 0.5 * inertia * (omega * omega) + p.mass * p.gravity * p.length * (1.0 - cos(theta))

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: tau omega."""
        return u[0] * state[1]

    def dissipation_of(self, state: Any, p: Any) -> Any:
        """Equations: c omega^2."""
        return p.damping * (state[1] * state[1])

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: phi^2 + 0.1 min(omega^2, 64) + 0.001 tau^2."""
        theta, omega = state
        (tau,) = u
        phi = wrap(theta - math.pi)
        return phi * phi + 0.1 * minimum(omega * omega, 64.0) + 0.001 * (tau * tau)

    def dense_reward(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: 1 - squared_error / 16.2736, at least 0."""
        return maximum(1.0 - self.squared_error(state, u, p) / _MOST_COST, 0.0)

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: an angle has none; 50 rad/s is above what the torque reaches within an
        episode.
        """
        return (math.pi, 50.0)

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: 3 sub-steps of RK4 in 0.05 s, which leave 7e-8 a step; more than that for
        parameters beyond the default ranges that swing, turn or slow down faster.
        """
        inertia = p.mass * p.length * p.length
        rate = sqrt(p.gravity / p.length + p.torque_limit / inertia) + 0.5 * p.damping / inertia
        return minimum(0.05 / 3.0, 0.0795 / (rate + 1e-6))

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: theta uniform in [-pi, pi], omega uniform in [-1, 1]."""
        turn, push = draws
        return (TWO_PI * turn - math.pi, 2.0 * push - 1.0)

    def energy_unit(self, p: Any) -> Any:
        """2 m g l: upright, at rest."""
        return 2.0 * p.mass * p.gravity * p.length

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """Any angle."""
        return mechanical(self, rng, (rng.uniform(-math.pi, math.pi),), energy, p)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Energy pumping until the top is near, then PD."""
        theta, omega = state[..., 0], state[..., 1]
        phi = wrap(theta - math.pi)
        top = 2.0 * params.mass * params.gravity * params.length
        missing = top - self.energy_of((theta, omega), params)
        pump = np.where(omega >= 0.0, 1.0, -1.0) * np.where(
            np.abs(missing) > 0.3, np.sign(missing), 0.0
        )
        inertia = params.mass * params.length * params.length
        rate = np.sqrt(params.gravity / params.length)
        hold = -np.clip(
            inertia * rate * (3.0 * rate * phi + 2.5 * omega) / params.torque_limit, -1.0, 1.0
        )
        level = np.where(np.abs(phi) + 0.3 * np.abs(omega) < 0.6, hold, pump)
        return (1 + np.round(level)).astype(np.int64)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """The bob (with its rod); for people also the torque, as an arc about the pivot."""
        x, y = params.length * sin(state[0]), -params.length * cos(state[0])
        rod = Segment(0.0, 0.0, x, y, 0.05, (150, 150, 150))
        bob = Disc(x, y, 0.16, (230, 159, 0))
        if not detail:
            return [bob]
        shapes: list[Primitive] = [
            Disc(0.0, params.length, 0.05, (0, 158, 115)),
            rod,
            Disc(0.0, 0.0, 0.06, (200, 200, 200)),
            bob,
        ]
        if control is not None and abs(control[0]) > 1e-9:
            sweep = control[0] / 3.0 * 1.6
            shapes.append(
                Arc(0.0, 0.0, 0.42, -math.pi / 2, -math.pi / 2 + sweep, 0.045, (86, 180, 233))
            )
        return shapes
