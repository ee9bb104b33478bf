"""A spaceship with nine thruster settings around a heavy body."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from physgym.elementwise import TWO_PI, cos, maximum, minimum, sin, sqrt
from physgym.primitives import Disc, Polyline, Primitive
from physgym.registration import register
from physgym.system import System
from physgym.thrusters import EIGHT_WINDS, KEYS, NAMES, clip_to_disc, flame, nearest_wind


class SpaceshipParams(NamedTuple):
    """Parameters of the spaceship."""

    gm: float = 10.0
    softening: float = 0.0
    thrust: float = 0.5
    crash_radius: float = 0.5
    escape_radius: float = 8.0


@register
class Spaceship(System):
    """A ship of unit mass in the gravity of a fixed body, steered by thrusters.

    ## Description
    q'' = -GM q / (r^2 + eps^2)^1.5 + u. Reach and hold the circular orbit of radius r* = 3 m, in
    either sense.

    ## Action Space
    Discrete(9): 0 no thrust, k = 1..8 thrust at (k-1) 45 degrees, times `thrust`; continuous:
    Box(-1, 1, (2,)), clipped to the unit disc and scaled.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0, 1 | qx, qy [m] | -16 | 16 |
    | 2, 3 | vx, vy [m/s] | -40 | 40 |

    (twice `escape_radius`; 40 m/s.)

    ## Rewards
    1 / (1 + (err / 0.15)^2), err^2 = ((r - r*) / r*)^2 + (v_r / v*)^2 + ((abs(v_t) - v*) / v*)^2,
    v* = sqrt(GM / r*): in [0, 1] a step.

    ## Starting State
    Kepler ellipses of semi-major axis a in [2, 4] m and eccentricity in [0, 0.4], any anomaly,
    orientation and sense.

    ## Episode End
    Terminated at r < `crash_radius` (`info["collision"]`; the motion stops at the surface) or r >
    `escape_radius` (`info["escape"]`); truncated after 300 steps of 0.1 s, or outside the bounds.

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): gm 10 m^3/s^2 (9-11), softening 0 m, thrust
    0.5 m/s^2 (0.4-0.6), crash_radius 0.5 m, escape_radius 8 m. The common arguments stand in
    `physgym.env.PhysicsEnv`.

    ## Version History
    * v0: first version
    """

    name, env_id = "spaceship", "PhysGym/Spaceship-v0"
    Params = SpaceshipParams
    param_units = {
        "gm": "m^3/s^2",
        "softening": "m",
        "thrust": "m/s^2",
        "crash_radius": "m",
        "escape_radius": "m",
    }
    ranges = {"gm": (9.0, 11.0), "thrust": (0.4, 0.6)}
    non_negative = frozenset({"softening", "thrust"})
    state_names, state_units = ("qx", "qy", "vx", "vy"), ("m", "m", "m/s", "m/s")
    control_size = 2
    discrete_actions = EIGHT_WINDS
    action_names = NAMES
    dt, max_episode_steps = 0.1, 300
    default_integrator, adaptive, separable = "rk4", True, True
    uniform_draws, coin_draws = 4, 1
    reward_threshold = 265.0
    error_scale = 0.15
    view = 8.4
    keys = KEYS
    goal_radius = 3.0
    """r* [m]."""

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: -GM q / (r^2 + eps^2)^1.5 + u."""
        x, y = q
        square = x * x + y * y + p.softening * p.softening
        pull = p.gm / (square * sqrt(square))
        return (u[0] - pull * x, u[1] - pull * y)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: thrust acceleration [m/s^2]."""
        x, y = clip_to_disc(action)
        return (p.thrust * x, p.thrust * y)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: v^2 / 2 - GM / sqrt(r^2 + eps^2), of a unit mass."""
        x, y, vx, vy = state
        return 0.5 * (vx * vx + vy * vy) - p.gm / sqrt(x * x + y * y + p.softening * p.softening)

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: u . v."""
        return u[0] * state[2] + u[1] * state[3]

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: relative distance from the circular orbit of radius r*, in position and
        velocity.
        """
        x, y, vx, vy = state
        r = sqrt(maximum(x * x + y * y, 1e-24)) + 1e-12
        speed = sqrt(p.gm / self.goal_radius)
        radial, across = (x * vx + y * vy) / r, abs(x * vy - y * vx) / r
        a = (r - self.goal_radius) / self.goal_radius
        b, c = radial / speed, (across - speed) / speed
        return a * a + b * b + c * c

    def collision(self, state: Any, p: Any) -> Any:
        """Equations: r < crash_radius."""
        x, y = state[0], state[1]
        return x * x + y * y < p.crash_radius * p.crash_radius

    def events_of(self, state: Any, p: Any) -> dict[str, Any]:
        """Equations: collision and escape."""
        x, y = state[0], state[1]
        return {
            "collision": self.collision(state, p),
            "escape": x * x + y * y > p.escape_radius * p.escape_radius,
        }

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: twice the escape radius; 40 m/s."""
        return (2.0 * p.escape_radius, 2.0 * p.escape_radius, 40.0, 40.0)

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: 0.02 of the shorter of the free-fall time sqrt(r^3 / GM) and r / v."""
        x, y, vx, vy = state
        square = x * x + y * y + p.softening * p.softening
        fall = square * sqrt(square) / p.gm
        return 0.02 * sqrt(minimum(fall, square / (vx * vx + vy * vy + 1e-12)))

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: a point of a random Kepler ellipse."""
        a, e, anomaly = 2.0 + 2.0 * draws[0], 0.4 * draws[1], TWO_PI * draws[2]
        turn, sense = TWO_PI * draws[3], 2.0 * draws[4] - 1.0
        return self._on_ellipse(a, e, anomaly, turn, sense, p)

    def _on_ellipse(self, a: Any, e: Any, anomaly: Any, turn: Any, sense: Any, p: Any) -> Any:
        c, s, root = cos(anomaly), sin(anomaly), sqrt(1.0 - e * e)
        rate = sqrt(p.gm / (a * a * a)) / (1.0 - e * c)
        q = (a * (c - e), sense * a * root * s)
        v = (-a * s * rate, sense * a * root * c * rate)
        ct, st = cos(turn), sin(turn)
        return tuple(z for x, y in (q, v) for z in (ct * x - st * y, st * x + ct * y))

    def energy_unit(self, p: Any) -> Any:
        """-GM / (2 r*), that of the goal orbit: `energy=(low, high)` are ellipses of a = r* / energy."""
        return -0.5 * p.gm / self.goal_radius

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """A point of an ellipse of eccentricity in [0, 0.3]; softening, which shifts it, is left aside."""
        a, draws = -0.5 * p.gm / energy, rng.random(3)
        sense = 2.0 * rng.integers(2) - 1.0
        turns = (TWO_PI * draws[1], TWO_PI * draws[2])
        return self._on_ellipse(a, 0.3 * draws[0], *turns, sense, p)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Velocity guidance: thrust towards the tangential orbit speed, corrected for the
        radius.
        """
        q, v = state[..., :2], state[..., 2:]
        r = np.linalg.norm(q, axis=-1, keepdims=True)
        out = q / r
        across = np.stack([-out[..., 1], out[..., 0]], axis=-1)
        sense = np.where((v * across).sum(-1, keepdims=True) >= 0.0, 1.0, -1.0)
        speed = np.sqrt(np.asarray(params.gm) / self.goal_radius)[..., None]
        inward = np.clip(0.8 * (r - self.goal_radius), -0.6, 0.6)
        tangential = speed * (self.goal_radius / r) ** 0.5
        wanted = (sense * tangential * across - inward * out - v) / 0.3
        limit = np.asarray(params.thrust)[..., None]
        size = np.maximum(np.linalg.norm(wanted, axis=-1, keepdims=True) / limit, 1.0)
        return nearest_wind(wanted / size, params.thrust)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """The heavy body and the ship; for people also the goal orbit, the edge and the flame."""
        x, y = state[0], state[1]
        planet = Disc(0.0, 0.0, params.crash_radius, (86, 180, 233))
        ship = Disc(x, y, 0.6, (230, 159, 0))
        if not detail:
            return [planet, ship]
        angles = [2.0 * math.pi * i / 96 for i in range(97)]
        orbit = tuple(
            (self.goal_radius * math.cos(a), self.goal_radius * math.sin(a)) for a in angles
        )
        edge = tuple(
            (params.escape_radius * math.cos(a), params.escape_radius * math.sin(a)) for a in angles
        )
        shapes: list[Primitive] = [
            Polyline(edge, 0.03, (80, 84, 96)),
            Polyline(orbit, 0.08, (0, 158, 115)),
            planet,
        ]
        shapes += flame(x, y, control, ((1.35, 0.16), (1.0, 0.28), (0.6, 0.4)))
        return [*shapes, ship]
