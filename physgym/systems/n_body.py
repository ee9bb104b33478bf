"""Two to eight gravitating bodies, one with thrusters, on a ring that turns."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from physgym.elementwise import TWO_PI, cos, maximum, sin, sqrt
from physgym.gravity import centred, energy, pulled, shortest_fall
from physgym.plain import COLORS
from physgym.primitives import Disc, Polyline, Primitive
from physgym.registration import register
from physgym.regulation import linearised, regulator
from physgym.system import System
from physgym.thrusters import EIGHT_WINDS, KEYS, NAMES, clip_to_disc, flame, nearest_wind

BODIES = (2, 3, 4, 5, 6, 7, 8)


def _params_of(count: int) -> Any:
    """The class of the parameters of `count` bodies, by a name of its own for pickles."""
    fields = [("g", float), *((f"mass_{i}", float) for i in range(count))]
    fields += [("softening", float), ("thrust", float)]
    made: Any = NamedTuple(f"NBodyParams{count}", fields)  # type: ignore[misc]
    made.__new__.__defaults__ = (1.0,) * (count + 1) + (0.1, 0.5)
    made._field_defaults = dict(zip(made._fields, made.__new__.__defaults__, strict=True))
    made.__module__ = __name__
    made.__doc__ = f"Parameters of {count} bodies."
    return made


PARAMS = {count: _params_of(count) for count in BODIES}
globals().update({made.__name__: made for made in PARAMS.values()})


def _attributes(count: int) -> dict[str, Any]:
    """What depends on how many bodies there are."""
    masses = [f"mass_{i}" for i in range(count)]
    return {
        "bodies": count,
        "Params": PARAMS[count],
        "param_units": {
            "g": "m^3/(kg s^2)",
            **dict.fromkeys(masses, "kg"),
            "softening": "m",
            "thrust": "m/s^2",
        },
        "ranges": {**dict.fromkeys(masses, (0.95, 1.05)), "thrust": (0.4, 0.6)},
        "state_names": tuple(f"{k}{c}{i}" for k in "qv" for i in range(count) for c in "xy"),
        "state_units": ("m",) * (2 * count) + ("m/s",) * (2 * count),
    }


_TWO = _attributes(2)


@register
class NBody(System):
    """Bodies in mutual, softened gravity in the plane; body 0 has thrusters.

    ## Description
    H(q, p) = sum_i |p_i|^2 / (2 m_i) - sum_(i<j) G m_i m_j / sqrt(r_ij^2 + eps^2), p_i = m_i q_i'; so q_i'' =
    sum_j G m_j (q_j - q_i) / (r_ij^2 + eps^2)^1.5 + delta_i0 u. `bodies=2..8` says how many, two by default.
    Keep all of them on the ring of radius r* = 1 m about the origin, on which equal masses can turn for
    ever, counter-clockwise. From three bodies on it is unstable.

    ## Action Space
    Discrete(9): 0 no thrust, k = 1..8 thrust on body 0 at (k-1) 45 degrees, times `thrust`;
    continuous: Box(-1, 1, (2,)), clipped to the unit disc and scaled.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0 to 2 N - 1 | positions x, y of the bodies [m] | -20 | 20 |
    | 2 N to 4 N - 1 | velocities of the bodies [m/s] | -40 | 40 |

    ## Rewards
    1 / (1 + (err / 0.15)^2) with err^2 the mean over the bodies of ((r - r*) / r*)^2 + (v_r / v*)^2 + ((v_t -
    v*) / v*)^2, v* the speed of the ring for the mean mass, eps included: in [0, 1] a step.

    ## Starting State
    A regular polygon about the origin, its radius uniform in [0.8, 1.2] m, its turning in [0.8, 1.1] times
    that of a ring of that radius, + N(0, 0.02) on every component; the centre of mass rests at 0.

    ## Episode End
    Terminated when a body is farther than 2.5 m from the origin (`info["escape"]`); truncated after 400
    steps of 0.05 s, or outside the bounds. Nothing collides: softening keeps encounters finite.

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): g 1, mass_0, mass_1, ... 1 (0.95-1.05), softening eps 0.1 m,
    thrust 0.5 (0.4-0.6); `bodies=2..8`. The common arguments: `help(physgym.PhysicsEnv)`.

    ## Version History
    * v0: first version
    """

    name, env_id = "n_body", "PhysGym/NBody-v0"
    Params: ClassVar[Any] = _TWO["Params"]
    param_units = _TWO["param_units"]
    ranges = _TWO["ranges"]
    non_negative = frozenset({"softening", "thrust"})
    state_names: ClassVar[tuple[str, ...]] = _TWO["state_names"]
    state_units: ClassVar[tuple[str, ...]] = _TWO["state_units"]
    variants = {"bodies": BODIES}
    control_size = 2
    discrete_actions = EIGHT_WINDS
    action_names = NAMES
    dt, max_episode_steps = 0.05, 400
    default_integrator, adaptive, separable = "yoshida4", True, True
    reward_threshold: ClassVar[float | None] = 300.0
    error_scale = 0.15
    view = 2.6
    keys = KEYS
    bodies = 2
    goal_radius, escape_radius = 1.0, 2.5

    @classmethod
    def shape(cls, value: Any) -> dict[str, Any]:
        """`value` bodies."""
        return {**_attributes(value), "reward_threshold": None}

    def masses(self, p: Any) -> Any:
        """Equations: of the bodies [kg]."""
        return p[1 : self.bodies + 1]

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: the pull of the other bodies, and the thrust on body 0."""
        return pulled(q, u, self.masses(p), p)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: thrust acceleration of body 0 [m/s^2]."""
        x, y = clip_to_disc(action)
        return (p.thrust * x, p.thrust * y)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: kinetic energy less that of the pairs."""
        return energy(state, self.masses(p), p)

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: m_0 u . v_0."""
        first = 2 * self.bodies
        return p.mass_0 * (u[0] * state[first] + u[1] * state[first + 1])

    def ring_rate(self, p: Any, radius: Any) -> Any:
        """Equations: the rate [rad/s] at which a ring of `radius` turns, for the mean mass.

        omega^2 = sum_k G m d_k^2 / (2 R^2 (d_k^2 + eps^2)^1.5) with the chords d_k = 2 R sin(pi k / N).
        """
        total, pull = 0.0, 0.0
        for mass in self.masses(p):
            total = total + mass
        for k in range(1, self.bodies):
            chord = 2.0 * sin(math.pi * k / self.bodies) * radius
            square = chord * chord
            soft = square + p.softening * p.softening
            pull = pull + 0.5 * square / (soft * sqrt(soft))
        return sqrt(p.g * total / self.bodies * pull) / radius

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: the mean over the bodies of the relative squared distance from the ring."""
        speed, first, square = self.ring_rate(p, self.goal_radius), 2 * self.bodies, 0.0
        for i in range(self.bodies):
            x, y = state[2 * i], state[2 * i + 1]
            vx, vy = state[first + 2 * i], state[first + 2 * i + 1]
            r = sqrt(maximum(x * x + y * y, 1e-24)) + 1e-12
            away = r - self.goal_radius
            radial = (x * vx + y * vy) / r / speed
            across = (x * vy - y * vx) / r / speed - 1.0
            square = square + away * away + radial * radial + across * across
        return square / self.bodies

    def events_of(self, state: Any, p: Any) -> dict[str, Any]:
        """Equations: escape of a body from the origin."""
        far = 0.0
        for i in range(self.bodies):
            far = maximum(state[2 * i] * state[2 * i] + state[2 * i + 1] * state[2 * i + 1], far)
        return {"escape": far > self.escape_radius * self.escape_radius}

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: 20 m and 40 m/s."""
        return (20.0,) * (2 * self.bodies) + (40.0,) * (2 * self.bodies)

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: 0.021 of the shortest free-fall time of a pair."""
        return 0.021 * shortest_fall(state, self.masses(p), p)

    def draw_start(self, rng: np.random.Generator, start: str | None) -> Any:
        """A phase, a radius, a speed, and a deviation of every component."""
        return [*rng.random(3).tolist(), *rng.standard_normal(4 * self.bodies).tolist()]

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: a disturbed ring of another radius and speed, its centre of mass at rest at 0."""
        radius, count = 0.8 + 0.4 * draws[1], self.bodies
        turning = (0.8 + 0.3 * draws[2]) * self.ring_rate(p, radius)
        q: list[Any] = []
        v: list[Any] = []
        for i in range(count):
            angle = TWO_PI * draws[0] + 2.0 * math.pi * i / count
            x, y = radius * cos(angle), radius * sin(angle)
            q, v = [*q, x, y], [*v, -turning * y, turning * x]
        moved = [a + 0.02 * z for a, z in zip((*q, *v), draws[3:], strict=True)]
        masses = self.masses(p)
        place, motion = moved[: 2 * count], moved[2 * count :]
        return (*centred(place, masses), *centred(motion, masses))

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Linear-quadratic regulator of the ring in the frame that turns with the bodies, rounded to the
        discrete action nearest to what it asks for. It knows the ring of unit masses.
        """
        ring, tangent, gain = _regulator(self.bodies)
        z = state[..., 0 : 2 * self.bodies : 2] + 1j * state[..., 1 : 2 * self.bodies : 2]
        at = np.exp(-2j * math.pi * np.arange(self.bodies) / self.bodies)
        phase = np.angle((z * at).sum(-1))
        deviation = _turned(state, -phase) - ring
        deviation = deviation - tangent * (deviation @ tangent)[..., None]
        wanted = _turned(-deviation @ gain.T, phase)
        size = np.linalg.norm(wanted, axis=-1) / np.asarray(params.thrust)
        return nearest_wind(wanted / np.maximum(size, 1.0)[..., None], params.thrust)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """A disc a body; for people also the ring, the edge and the flame of body 0."""
        count = self.bodies
        bodies = [
            Disc(state[2 * i], state[2 * i + 1], 0.18, COLORS[i % len(COLORS)])
            for i in range(count)
        ]
        if not detail:
            return [*bodies]
        angles = [TWO_PI * i / 96 for i in range(97)]
        edge, ring = (
            tuple((r * math.cos(a), r * math.sin(a)) for a in angles)
            for r in (self.escape_radius, self.goal_radius)
        )
        shapes: list[Primitive] = [Polyline(edge, 0.012, (80, 84, 96))]
        shapes += [Polyline(ring, 0.025, (0, 158, 115))]
        shapes += flame(state[0], state[1], control, ((0.4, 0.05), (0.3, 0.085), (0.18, 0.12)))
        return [*shapes, *bodies]


def _turned(x: np.ndarray, angle: Any) -> np.ndarray:
    """Vectors (..., 2 K) of the plane, one after another, turned by `angle` (...) [rad]."""
    c, s = np.cos(angle)[..., None], np.sin(angle)[..., None]
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([c * a - s * b, s * a + c * b], axis=-1).reshape(x.shape)


@functools.lru_cache(maxsize=len(BODIES))
def _regulator(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ring (4 N,) at phase 0, its unit tangent, and the gain (2, 4 N) in the frame that turns."""
    from physgym.system import get_system

    system = get_system(f"n_body_{count}" if count > BODIES[0] else "n_body")
    params, dt = system.Params(), system.dt
    rate = float(system.ring_rate(params, 1.0))
    angles = 2.0 * math.pi * np.arange(count) / count
    q = np.stack([np.cos(angles), np.sin(angles)], axis=-1).ravel()
    across = np.stack([-np.sin(angles), np.cos(angles)], axis=-1).ravel()
    ring, tangent = np.concatenate([q, rate * across]), np.concatenate([across, -rate * q])

    def step(states: np.ndarray, controls: np.ndarray) -> np.ndarray:
        return _turned(system.step(states, controls, params, dt), np.full(len(states), -rate * dt))

    a, b = linearised(step, ring, 2)
    effort = (
        0.02 if count == 2 else 0.5
    )  # the unstable rings are lost to a harsh one, which saturates
    weights = np.concatenate([np.ones(2 * count), np.full(2 * count, 1.0 / rate**2)])
    return ring, tangent / np.linalg.norm(tangent), regulator(a, b, weights, effort)[0]
