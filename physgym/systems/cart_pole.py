"""A pole that hangs from a cart, to be swung up by pushing the cart."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from physgym.elementwise import TWO_PI, cos, sin, sqrt, wrap
from physgym.energies import mechanical
from physgym.primitives import Arrow, Disc, Primitive, Segment
from physgym.registration import register
from physgym.system import System


class CartPoleParams(NamedTuple):
    """Parameters of the cart and its pole."""

    mass_cart: float = 1.0
    mass_pole: float = 0.1
    length: float = 0.5
    gravity: float = 9.81
    damping: float = 0.0
    force_limit: float = 10.0
    track: float = 3.0


@register
class CartPole(System):
    """A point mass on a massless pole that hangs from a cart on a track; a force pushes the cart.

    ## Description
    H(q, p) = p^T M(q)^-1 p / 2 + m_p g l (1 - cos(theta)) with q = (x, theta), theta = 0 hanging down,
    M = [[m_c + m_p, m_p l cos(theta)], [m_p l cos(theta), m_p l^2]] and p = M(q) q'. With the force F
    and damping c of the cart:

    (m_c + m_p) x'' + m_p l cos(theta) theta'' - m_p l sin(theta) theta'^2 = F - c x'
    l theta'' + cos(theta) x'' + g sin(theta) = 0

    Swing the pole up and hold it over the middle of the track.

    ## Action Space
    Discrete(3): force -1, 0, +1 times `force_limit`; continuous: Box(-1, 1, (1,)), scaled by it.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0 | x of the cart [m] | -6 | 6 |
    | 1 | theta [rad], wrapped | -pi | pi |
    | 2 | v of the cart [m/s] | -60 | 60 |
    | 3 | omega [rad/s] | -100 | 100 |

    (x: twice `track`.) With `obs_mode="embedded"` theta becomes cos(theta), sin(theta).

    ## Rewards
    1 / (1 + (err / 0.5)^2) with err^2 = 2 (1 + cos(theta)) + l omega^2 / g + (x / 1 m)^2: in [0, 1] a
    step, 1 for a pole at rest upright over the middle.

    ## Starting State
    x uniform in [-1, 1] m, theta in [-pi, pi], v in [-0.5, 0.5] m/s, omega in [-1, 1] rad/s.
    `energy=(low, high)` draws by energy, see `physgym.energies`: its unit is 2 m_p g l, the pole upright at
    rest; x uniform in [-0.5, 0.5] m, at most 20 % of the kinetic energy in the cart.

    ## Episode End
    Terminated at |x| > `track` (`info["off_track"]`); truncated after 200 steps of 0.05 s, or
    outside the bounds (`info["out_of_bounds"]`).

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): mass_cart 1 kg (0.8-1.2), mass_pole 0.1 kg (0.08-0.12),
    length 0.5 m (0.4-0.6), gravity 9.81 m/s^2, damping 0 N s/m (0-0.2), force_limit 10 N, track 3 m. The
    common arguments stand in `physgym.env.PhysicsEnv`. The acceleration depends on velocities, so that
    integrators that split do not serve; RK4 in adaptive sub-steps is the default.

    ## Version History
    * v0: first version
    """

    name, env_id = "cart_pole", "PhysGym/CartPole-v0"
    Params = CartPoleParams
    param_units = {
        "mass_cart": "kg",
        "mass_pole": "kg",
        "length": "m",
        "gravity": "m/s^2",
        "damping": "N s/m",
        "force_limit": "N",
        "track": "m",
    }
    ranges = {
        "mass_cart": (0.8, 1.2),
        "mass_pole": (0.08, 0.12),
        "length": (0.4, 0.6),
        "damping": (0.0, 0.2),
    }
    non_negative = frozenset({"gravity", "damping", "force_limit"})
    state_names, state_units = ("x", "theta", "v", "omega"), ("m", "rad", "m/s", "rad/s")
    angles = (1,)
    control_size = 1
    discrete_actions = np.array([[-1.0], [0.0], [1.0]])
    action_names = ("push left", "nothing", "push right")
    dt, max_episode_steps = 0.05, 200
    default_integrator, adaptive = "rk4", True
    uniform_draws = 4
    reward_threshold = 135.0
    error_scale = 0.5
    view = 3.4
    keys = {"a": 0, "d": 2}

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: M(q)^-1 (forces), solved for x'' and theta''."""
        theta = wrap(q[1])
        c, s = cos(theta), sin(theta)
        spin = p.length * (v[1] * v[1])
        push = u[0] - p.damping * v[0] + p.mass_pole * s * (spin + p.gravity * c)
        cart = push / (p.mass_cart + p.mass_pole * (s * s))
        return (cart, -(c * cart + p.gravity * s) / p.length)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: force [N]."""
        (a,) = action
        return (p.force_limit * a,)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: m_c v^2 / 2 + m_p (velocity of the tip)^2 / 2 + m_p g l (1 - cos(theta))."""
        _, theta, v, omega = state
        c, tip = cos(theta), p.length * omega
        kinetic = 0.5 * p.mass_cart * (v * v) + 0.5 * p.mass_pole * (
            v * v + 2.0 * v * tip * c + tip * tip
        )
        return kinetic + p.mass_pole * p.gravity * p.length * (1.0 - c)

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: F v."""
        return u[0] * state[2]

    def dissipation_of(self, state: Any, p: Any) -> Any:
        """Equations: c v^2."""
        return p.damping * (state[2] * state[2])

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: 2 (1 + cos(theta)) + l omega^2 / g + x^2."""
        x, theta, _, omega = state
        return 2.0 * (1.0 + cos(theta)) + p.length * (omega * omega) / (p.gravity + 1e-12) + x * x

    def events_of(self, state: Any, p: Any) -> dict[str, Any]:
        """Equations: the cart beyond an end of the track."""
        return {"off_track": abs(state[0]) > p.track}

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: twice the track; an angle has none; speeds above what the force reaches on it."""
        return (2.0 * p.track, math.pi, 60.0, 100.0)

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: 0.06 over the fastest rate of the moment, which leaves below 1e-7 a step."""
        spin, swing = state[3] * state[3], p.gravity / p.length * (1.0 + p.mass_pole / p.mass_cart)
        push = p.force_limit / (p.mass_cart * p.length)
        return 0.06 / (sqrt(spin + swing + push) + p.damping / p.mass_cart + 1e-6)

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: uniform about the middle of the track, at any angle."""
        x, turn, v, omega = draws
        return (2.0 * x - 1.0, TWO_PI * turn - math.pi, v - 0.5, 2.0 * omega - 1.0)

    def energy_unit(self, p: Any) -> Any:
        """2 m_p g l: the pole upright, at rest."""
        return 2.0 * p.mass_pole * p.gravity * p.length

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """Any angle, x in [-0.5, 0.5] m; at most 20 % of the kinetic energy in the cart."""
        q = (rng.uniform(-0.5, 0.5), rng.uniform(-math.pi, math.pi))
        state = mechanical(self, rng, q, energy, p)
        if state is None:
            return None
        kinetic = energy - self.energy_of((*q, 0.0, 0.0), p)
        return state if 0.5 * p.mass_cart * state[2] ** 2 <= 0.2 * kinetic else None

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Energy pumping until the top is near, then pole placement by the flat output x - l phi,
        whose fourth derivative the force decides; the wanted force is dithered over the three levels.
        """
        x, theta, v, omega = np.moveaxis(state, -1, 0)
        mass, g, length = params.mass_cart + params.mass_pole, params.gravity, params.length
        phi = wrap(theta - math.pi)
        flat, slope, rate = x - length * phi, v - length * omega, 3.2
        turn = -4.0 * rate * omega - 6.0 * rate**2 * phi
        turn = turn + (4.0 * rate**3 * slope + rate**4 * flat) / g
        hold = length * params.mass_cart * turn - mass * g * phi
        missing = 2.0 * g / length * (1.0 + np.cos(theta)) - omega**2
        pump = -np.sign(omega * np.cos(theta)) * np.clip(missing, -6.0, 6.0)
        pump = mass * (pump - 4.0 * x - v)
        near = np.abs(phi) + 0.2 * np.abs(omega) < 0.9
        duty = np.clip(np.where(near, hold, pump) / params.force_limit, -1.0, 1.0)
        threshold = (0.5 + 0.6180339887498949 * step) % 1.0
        return (1 + np.sign(duty) * (np.abs(duty) > threshold)).astype(np.int64)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """The cart and the bob; for people also the track, the pole and the force."""
        x, theta = state[0], state[1]
        tip = (x + params.length * sin(theta), -params.length * cos(theta))
        cart, bob = Disc(x, 0.0, 0.2, (86, 180, 233)), Disc(*tip, 0.2, (230, 159, 0))
        if not detail:
            return [cart, bob]
        end = params.track + 0.2
        shapes: list[Primitive] = [
            Segment(-end, 0.0, end, 0.0, 0.04, (90, 90, 90)),
            *(Segment(s * end, -0.2, s * end, 0.2, 0.06, (120, 120, 120)) for s in (-1.0, 1.0)),
            Disc(0.0, params.length, 0.07, (0, 158, 115)),
            Segment(x - 0.26, 0.0, x + 0.26, 0.0, 0.26, (86, 180, 233)),
            Segment(x, 0.0, *tip, 0.06, (190, 190, 190)),
            Disc(x, 0.0, 0.06, (40, 60, 80)),
            Disc(*tip, 0.13, (230, 159, 0)),
        ]
        if control is not None and abs(control[0]) > 1e-9:
            reach = 0.9 * control[0] / params.force_limit if params.force_limit > 0.0 else 0.0
            shapes.append(Arrow(x, -0.75, x + reach, -0.75, 0.07, (240, 228, 66)))
        return shapes
