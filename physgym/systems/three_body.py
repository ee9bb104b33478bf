"""Three gravitating bodies, one with thrusters, on the figure-eight choreography."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from physgym.choreography import (
    PERIOD,
    THIRD,
    figure_eight,
    regulator,
    squared_distance_to_figure_eight,
    track,
)
from physgym.elementwise import TWO_PI, cos, minimum, sin, sqrt
from physgym.gravity import centred, energy, pairs, pulled, shortest_fall, squares
from physgym.primitives import Disc, Polyline, Primitive
from physgym.registration import register
from physgym.system import System
from physgym.thrusters import EIGHT_WINDS, KEYS, NAMES, clip_to_disc, flame

__all__ = ["PERIOD", "ThreeBody", "figure_eight", "squared_distance_to_figure_eight"]
_PAIRS = pairs(3)


class ThreeBodyParams(NamedTuple):
    """Parameters of the three bodies."""

    g: float = 1.0
    mass_0: float = 1.0
    mass_1: float = 1.0
    mass_2: float = 1.0
    softening: float = 0.0
    thrust: float = 0.5


@register
class ThreeBody(System):
    """Three bodies in mutual gravity in the plane; body 0 has thrusters.

    ## Description
    q_i'' = sum_j G m_j (q_j - q_i) / (r_ij^2 + eps^2)^1.5 + delta_i0 u. Stay on the figure-eight
    choreography (Chenciner and Montgomery 2000, doi:10.2307/2661357), from which perturbations
    drive the bodies.

    ## Action Space
    Discrete(9): 0 no thrust, k = 1..8 thrust on body 0 at (k-1) 45 degrees, times `thrust`;
    continuous: Box(-1, 1, (2,)), clipped to the unit disc and scaled.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0-5 | positions x, y of bodies 0, 1, 2 [m] | -20 | 20 |
    | 6-11 | velocities of bodies 0, 1, 2 [m/s] | -20 | 20 |

    ## Rewards
    1 / (1 + (err / 0.3)^2) with err the least 12-D distance to the choreography over its phase: in
    [0, 1] a step. With `start="triangle"` or `"random"`, which have no such goal: 1 while bound.

    ## Starting State
    `start="figure_eight"` (default): a random phase + N(0, 0.02) on all 12 components.
    `"triangle"`: Lagrange's rotating triangle, likewise disturbed. `"random"`: pairs at least 0.5
    apart, virialised. In all, the centre of mass rests at 0.

    ## Episode End
    Terminated when a pair is closer than 0.1 m (`info["collision"]`; the motion stops there) or a
    body farther than 2.5 m from the centre of mass (`info["escape"]`); truncated after 400 steps of
    0.05 s, or outside the bounds.

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): g 1, mass_0, mass_1, mass_2 1 (0.95-1.05),
    softening 0, thrust 0.5 (0.4-0.6). The common arguments: `help(physgym.PhysicsEnv)`.

    ## Version History
    * v0: first version
    """

    name, env_id = "three_body", "PhysGym/ThreeBody-v0"
    Params = ThreeBodyParams
    param_units = {
        "g": "m^3/(kg s^2)",
        **dict.fromkeys(("mass_0", "mass_1", "mass_2"), "kg"),
        "softening": "m",
        "thrust": "m/s^2",
    }
    ranges = {
        "mass_0": (0.95, 1.05),
        "mass_1": (0.95, 1.05),
        "mass_2": (0.95, 1.05),
        "thrust": (0.4, 0.6),
    }
    non_negative = frozenset({"softening", "thrust"})
    state_names = tuple(
        f"{c}{i}" for kind in ("q", "v") for i in range(3) for c in (f"{kind}x", f"{kind}y")
    )
    state_units = ("m",) * 6 + ("m/s",) * 6
    control_size = 2
    discrete_actions = EIGHT_WINDS
    action_names = NAMES
    dt, max_episode_steps = 0.05, 400
    default_integrator, adaptive, separable = "yoshida4", True, True
    starts = ("figure_eight", "triangle", "random")
    reward_threshold = 330.0
    error_scale = 0.3
    view = 2.0
    keys = KEYS
    crash_distance, escape_distance = 0.1, 2.5

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: the pull of the other two bodies, and the thrust on body 0."""
        return pulled(q, u, self.masses(p), p)

    def masses(self, p: Any) -> Any:
        """Equations: of the three bodies [kg]."""
        return (p.mass_0, p.mass_1, p.mass_2)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: thrust acceleration of body 0 [m/s^2]."""
        x, y = clip_to_disc(action)
        return (p.thrust * x, p.thrust * y)

    def _squares(self, state: Any) -> list[Any]:
        return squares(state, 3)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: kinetic energy of the three less G m_i m_j / sqrt(r_ij^2 + eps^2) of the
        pairs.
        """
        return energy(state, self.masses(p), p)

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: m_0 u . v_0."""
        return p.mass_0 * (u[0] * state[6] + u[1] * state[7])

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: squared distance to the choreography."""
        return squared_distance_to_figure_eight(state)

    def collision(self, state: Any, p: Any) -> Any:
        """Equations: a pair closer than 0.1 m."""
        a, b, c = self._squares(state)
        return minimum(minimum(a, b), c) < self.crash_distance * self.crash_distance

    def events_of(self, state: Any, p: Any) -> dict[str, Any]:
        """Equations: collision, and escape of a body from the centre of mass."""
        masses = (p.mass_0, p.mass_1, p.mass_2)
        total = masses[0] + masses[1] + masses[2]
        cx = (masses[0] * state[0] + masses[1] * state[2] + masses[2] * state[4]) / total
        cy = (masses[0] * state[1] + masses[1] * state[3] + masses[2] * state[5]) / total
        far = self.escape_distance * self.escape_distance
        away = [(state[2 * i] - cx, state[2 * i + 1] - cy) for i in range(3)]
        a, b, c = (x * x + y * y > far for x, y in away)
        return {"collision": self.collision(state, p), "escape": a | b | c}

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: 20 m and 20 m/s; thrust moves the centre of mass."""
        return (20.0,) * 12

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: 0.021 of the shortest free-fall time of a pair."""
        return 0.021 * shortest_fall(state, self.masses(p), p)

    def draw_start(self, rng: np.random.Generator, start: str | None) -> Any:
        """A phase and twelve deviations; for "random" three separate points, and velocities."""
        if start == "random":
            return [*_separate_points(rng), *rng.standard_normal(6).tolist()]
        return [rng.random(), *rng.standard_normal(12).tolist()]

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """A start of the given kind, its centre of mass at rest at 0."""
        if start == "random":
            state = _virialised(draws[:6], draws[6:], p)
        else:
            orbit = _triangle if start == "triangle" else _figure_eight
            state = tuple(
                x + 0.02 * z for x, z in zip(orbit(TWO_PI * draws[0], p), draws[1:], strict=True)
            )
        return _at_rest(state, p)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Linear-quadratic regulator of the orbit, rounded to the discrete action of least cost.

        The gain is that of the nearest phase; a deviation along the orbit is left alone. It knows
        the orbit of unit masses, so that unequal ones disturb it.
        """
        orbit, tangents, gains, weights = regulator()
        nearest = np.argmin(((state[..., None, :] - orbit) ** 2).sum(-1), axis=-1)
        deviation, tangent = state - orbit[nearest], tangents[nearest]
        deviation = deviation - tangent * (tangent * deviation).sum(-1, keepdims=True)
        wanted = -np.einsum("...ud,...d->...u", gains[nearest], deviation)
        miss = EIGHT_WINDS * np.asarray(params.thrust)[..., None, None] - wanted[..., None, :]
        cost = np.einsum("...ku,...uv,...kv->...k", miss, weights[nearest], miss)
        return np.argmin(cost, axis=-1).astype(np.int64)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """Three discs; for people also the figure eight and the flame of body 0."""
        colors = ((230, 159, 0), (86, 180, 233), (204, 121, 167))
        bodies: list[Primitive] = [
            Disc(state[2 * i], state[2 * i + 1], 0.15, colors[i]) for i in range(3)
        ]
        if not detail:
            return bodies
        shapes: list[Primitive] = [Polyline(track(), 0.02, (0, 158, 115))]
        shapes += flame(state[0], state[1], control, ((0.34, 0.04), (0.25, 0.07), (0.15, 0.1)))
        return [*shapes, *bodies]


def _figure_eight(phase: Any, p: Any) -> tuple[Any, ...]:
    return tuple(np.moveaxis(figure_eight(phase), -1, 0))


def _triangle(turn: Any, p: Any) -> tuple[Any, ...]:
    """Lagrange's rotating triangle of unit circumradius, turned by `turn` [rad]."""
    rate = sqrt(p.g * (p.mass_0 + p.mass_1 + p.mass_2) / math.sqrt(3.0) ** 3)
    q = [f(turn + i * THIRD) for i in range(3) for f in (cos, sin)]
    v = [x for i in range(3) for x in (-rate * q[2 * i + 1], rate * q[2 * i])]
    return (*q, *v)


def _separate_points(rng: np.random.Generator) -> list[float]:
    """Three points (x, y), uniform in the unit disc, at least 0.5 apart."""
    while True:
        q = [2.0 * u - 1.0 for u in rng.random(6).tolist()]
        apart = all(math.dist(q[2 * i : 2 * i + 2], q[2 * j : 2 * j + 2]) >= 0.5 for i, j in _PAIRS)
        if apart and all(math.hypot(*q[k : k + 2]) <= 1.0 for k in (0, 2, 4)):
            return q


def _virialised(q: tuple[Any, ...], v: tuple[Any, ...], p: Any) -> tuple[Any, ...]:
    """Velocities along `v` with twice the kinetic energy equal to -potential, beside `q`."""
    masses = (p.mass_0, p.mass_1, p.mass_2)
    v = centred(v, masses)
    potential, kinetic = 0.0, 0.0
    for i, j in _PAIRS:
        dx, dy = q[2 * j] - q[2 * i], q[2 * j + 1] - q[2 * i + 1]
        distance = sqrt(dx * dx + dy * dy + p.softening * p.softening)
        potential = potential + p.g * masses[i] * masses[j] / distance
    for i, mass in enumerate(masses):
        kinetic = kinetic + mass * (v[2 * i] * v[2 * i] + v[2 * i + 1] * v[2 * i + 1])
    scale = sqrt(potential / kinetic)
    return (*q, *(scale * x for x in v))


def _at_rest(state: tuple[Any, ...], p: Any) -> tuple[Any, ...]:
    masses = (p.mass_0, p.mass_1, p.mass_2)
    return (*centred(state[:6], masses), *centred(state[6:], masses))
