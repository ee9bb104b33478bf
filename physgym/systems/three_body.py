"""Three gravitating bodies, one with thrusters, on the figure-eight choreography."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from physgym.elementwise import minimum, sqrt
from physgym.primitives import Disc, Polyline, Primitive
from physgym.system import System, register
from physgym.systems.spaceship import EIGHT_WINDS, clip_to_disc

PERIOD = 6.3259139799991715
"""Period of the figure eight for m = G = 1 [s]."""
RATE = 2.0 * math.pi / PERIOD
_X_AMPLITUDES = {
    1: -1.100841230542,
    5: 0.025392011251,
    7: 0.005876143102,
    11: -0.000423109328,
    13: -0.000122950096,
    17: 1.1474698e-05,
    19: 3.617025e-06,
}
_Y_AMPLITUDES = {
    2: -0.338809988483,
    4: -0.055964052094,
    8: 0.003004342146,
    10: 0.000805870152,
    14: -6.7923198e-05,
    16: -2.0735596e-05,
    20: 2.059349e-06,
}
# Sine series of body 2 (at the origin at t = 0), from our own integration of the initial values of
# Chenciner and Montgomery (2000, doi:10.2307/2661357) with DOP853 at 1e-13; bodies 0 and 1 run a
# third of a period behind and ahead.
_THIRD = 2.0 * math.pi / 3.0
_PAIRS = ((0, 1), (0, 2), (1, 2))
_ROOT3_HALF = math.sqrt(3.0) / 2.0


class ThreeBodyParams(NamedTuple):
    """Parameters of the three bodies."""

    g: float = 1.0
    mass_0: float = 1.0
    mass_1: float = 1.0
    mass_2: float = 1.0
    softening: float = 0.0
    thrust: float = 0.5


def figure_eight(phase: Any) -> np.ndarray:
    """States (..., 12) of the choreography at `phase` [rad] (array or number), for unit masses and
    G = 1.
    """
    phase = np.asarray(phase, dtype=np.float64)
    positions, velocities = [], []
    for shift in (-_THIRD, _THIRD, 0.0):
        for series in (_X_AMPLITUDES, _Y_AMPLITUDES):
            angle = phase + shift
            positions.append(sum(a * np.sin(k * angle) for k, a in series.items()))
            velocities.append(sum(a * k * RATE * np.cos(k * angle) for k, a in series.items()))
    return np.stack(positions + velocities, axis=-1)


def _times(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def _curve(z: tuple[Any, Any]) -> list[tuple[Any, Any, Any, Any]]:
    """Per coordinate (x, y, vx, vy): the body-Fourier amplitude of the choreography at phase z =
    e^(i phase).

    Each is (re, im, d re/d phase, d im/d phase). Harmonics k = 1 mod 3 enter as z^k, k = 2 mod 3 as
    -z^-k.
    """
    powers = {1: z, 2: _times(z, z)}
    cube = _times(powers[2], z)
    for k in (4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20):
        powers[k] = _times(powers[k - 3], cube)
    sums = []
    for series in (_X_AMPLITUDES, _Y_AMPLITUDES):
        re, im, dre, dim, d2re, d2im = ([] for _ in range(6))
        for k, a in series.items():
            sign = 1.0 if k % 3 == 1 else -1.0
            c, s = powers[k]
            re.append((sign * a, c))
            im.append((a, s))
            dre.append((-sign * k * a, s))
            dim.append((k * a, c))
            d2re.append((-sign * k * k * a, c))
            d2im.append((-k * k * a, s))
        terms = [_dot(part) for part in (re, im, dre, dim, d2re, d2im)]
        sums.append(terms)
    x, y = sums
    position = [(t[0], t[1], t[2], t[3]) for t in (x, y)]
    velocity = [(RATE * t[2], RATE * t[3], RATE * t[4], RATE * t[5]) for t in (x, y)]
    return position + velocity


def _dot(terms: list[tuple[float, Any]]) -> Any:
    total = terms[0][0] * terms[0][1]
    for weight, value in terms[1:]:
        total = total + weight * value
    return total


def squared_distance_to_figure_eight(state: Any) -> Any:
    """Equations: the least squared 12-D distance of a state to the choreography, over its phase.

    The discrete Fourier transform over the three bodies keeps distances and turns the choreography
    into one closed curve in four complex amplitudes; its first harmonic gives the phase, two
    Gauss-Newton steps refine it.
    """
    amplitudes, rest = [], 0.0
    for i in (0, 1, 6, 7):
        b0, b1, b2 = state[i], state[i + 2], state[i + 4]
        total = b0 + b1 + b2
        rest = rest + total * total / 3.0
        amplitudes.append(
            (-2.0 / 3.0 * _ROOT3_HALF * (b0 - b1), 2.0 / 3.0 * (b2 - 0.5 * (b0 + b1)))
        )
    x = amplitudes[0]
    size = sqrt(x[0] * x[0] + x[1] * x[1] + 1e-24) * -1.0
    z = (x[0] / size, x[1] / size)
    for last in (False, False, True):
        square, along, speed = 0.0, 0.0, 0.0
        for (re, im), (cre, cim, dre, dim) in zip(amplitudes, _curve(z), strict=True):
            a, b = re - cre, im - cim
            square = square + (a * a + b * b)
            along = along + (a * dre + b * dim)
            speed = speed + (dre * dre + dim * dim)
        if last:
            return rest + 1.5 * (square - along * along / speed)
        turn = along / speed
        length = sqrt(1.0 + turn * turn)
        z = _times(z, (1.0 / length, turn / length))
    return rest


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
    action_names = ("nothing", *(f"thrust at {45 * k} degrees" for k in range(8)))
    dt, max_episode_steps = 0.05, 400
    default_integrator, adaptive = "yoshida4", True
    starts = ("figure_eight", "triangle", "random")
    reward_threshold = 330.0
    error_scale = 0.3
    view = 2.0
    keys = {"d": 1, "wd": 2, "w": 3, "aw": 4, "a": 5, "as": 6, "s": 7, "ds": 8}
    crash_distance, escape_distance = 0.1, 2.5

    def acceleration(self, q: Any, u: Any, p: Any) -> Any:
        """Equations: the pull of the other two bodies, and the thrust on body 0."""
        masses = (p.mass_0, p.mass_1, p.mass_2)
        a = [u[0], u[1], 0.0, 0.0, 0.0, 0.0]
        for i, j in _PAIRS:
            dx, dy = q[2 * j] - q[2 * i], q[2 * j + 1] - q[2 * i + 1]
            square = dx * dx + dy * dy + p.softening * p.softening
            pull = p.g / (square * sqrt(square))
            wi, wj = masses[j] * pull, masses[i] * pull
            a[2 * i], a[2 * i + 1] = a[2 * i] + wi * dx, a[2 * i + 1] + wi * dy
            a[2 * j], a[2 * j + 1] = a[2 * j] - wj * dx, a[2 * j + 1] - wj * dy
        return tuple(a)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: thrust acceleration of body 0 [m/s^2]."""
        x, y = clip_to_disc(action)
        return (p.thrust * x, p.thrust * y)

    def _squares(self, state: Any) -> list[Any]:
        squares = []
        for i, j in _PAIRS:
            dx, dy = state[2 * j] - state[2 * i], state[2 * j + 1] - state[2 * i + 1]
            squares.append(dx * dx + dy * dy)
        return squares

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: kinetic energy of the three less G m_i m_j / sqrt(r_ij^2 + eps^2) of the
        pairs.
        """
        masses = (p.mass_0, p.mass_1, p.mass_2)
        energy = 0.0
        for i in range(3):
            vx, vy = state[6 + 2 * i], state[7 + 2 * i]
            energy = energy + 0.5 * masses[i] * (vx * vx + vy * vy)
        for (i, j), square in zip(_PAIRS, self._squares(state), strict=True):
            energy = energy - p.g * masses[i] * masses[j] / sqrt(square + p.softening * p.softening)
        return energy

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
        masses = (p.mass_0, p.mass_1, p.mass_2)
        fastest: Any = None
        for (i, j), r2 in zip(_PAIRS, self._squares(state), strict=True):
            square = r2 + p.softening * p.softening
            time2 = square * sqrt(square) / (p.g * (masses[i] + masses[j]))
            fastest = time2 if fastest is None else minimum(fastest, time2)
        return 0.021 * sqrt(fastest)

    def sample_state(
        self, rng: np.random.Generator, params: Any, start: str | None = None
    ) -> tuple[float, ...]:
        """A start of the given kind, its centre of mass at rest at 0."""
        masses = np.array([params.mass_0, params.mass_1, params.mass_2])
        if start == "random":
            q, v = _virialised(rng, params, masses)
        elif start == "triangle":
            angles = rng.uniform(0.0, 2.0 * math.pi) + np.arange(3) * _THIRD
            q = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
            rate = math.sqrt(params.g * masses.sum() / math.sqrt(3.0) ** 3)
            v = rate * np.stack([-q[:, 1], q[:, 0]], axis=-1)
            q, v = q + rng.normal(0.0, 0.02, (3, 2)), v + rng.normal(0.0, 0.02, (3, 2))
        else:
            state = figure_eight(rng.uniform(0.0, 2.0 * math.pi)) + rng.normal(0.0, 0.02, 12)
            q, v = state[:6].reshape(3, 2), state[6:].reshape(3, 2)
        weights = masses / masses.sum()
        return tuple(
            np.concatenate([(q - weights @ q).ravel(), (v - weights @ v).ravel()]).tolist()
        )

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Linear-quadratic regulator of the orbit, rounded to the discrete action of least cost.

        The gain is that of the nearest phase; a deviation along the orbit is left alone. It knows
        the orbit of unit masses, so that unequal ones disturb it.
        """
        orbit, tangents, gains, weights = _regulator()
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
        shapes: list[Primitive] = [Polyline(_track(), 0.02, (0, 158, 115))]
        if control is not None and math.hypot(control[0], control[1]) > 1e-9:
            back = 1.0 / math.hypot(control[0], control[1])
            for reach, radius, color in (
                (0.34, 0.04, (240, 228, 66)),
                (0.25, 0.07, (240, 190, 40)),
                (0.15, 0.1, (213, 94, 0)),
            ):
                x, y = state[0] - reach * back * control[0], state[1] - reach * back * control[1]
                shapes.append(Disc(x, y, radius, color))
        return [*shapes, *bodies]


def _virialised(
    rng: np.random.Generator, params: Any, masses: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions at least 0.5 apart in the unit disc and velocities with twice the kinetic energy
    equal to -potential.
    """
    while True:
        q = rng.uniform(-1.0, 1.0, (3, 2))
        gaps = np.array([np.linalg.norm(q[i] - q[j]) for i, j in _PAIRS])
        if gaps.min() >= 0.5 and (q * q).sum(-1).max() <= 1.0:
            break
    v = rng.normal(size=(3, 2))
    v -= masses @ v / masses.sum()
    products = np.array([masses[i] * masses[j] for i, j in _PAIRS])
    potential = (params.g * products / np.sqrt(gaps**2 + params.softening**2)).sum()
    return q, v * math.sqrt(potential / (masses[:, None] * v * v).sum())


@functools.lru_cache(maxsize=1)
def _track() -> tuple[tuple[float, float], ...]:
    return tuple(map(tuple, figure_eight(np.linspace(0.0, 2.0 * math.pi, 121))[:, 4:6].tolist()))


@functools.lru_cache(maxsize=1)
def _regulator() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Orbit (P, 12), its unit tangents, gains (P, 2, 12) and control weights (P, 2, 2) of the
    periodic regulator.
    """
    from physgym.system import get_system

    system = get_system("three_body")
    count, eps, effort = 128, 1e-6, 0.5
    h, phases = PERIOD / count, 2.0 * math.pi * np.arange(count) / count
    orbit, tangents = figure_eight(phases), figure_eight(phases + eps) - figure_eight(phases - eps)
    moved = np.concatenate([np.eye(12), -np.eye(12), np.zeros((4, 12))]) * eps
    push = np.concatenate([np.zeros((24, 2)), np.eye(2), -np.eye(2)]) * eps
    starts = orbit[:, None, :] + moved
    ends = system.step(starts, np.broadcast_to(push, (count, 28, 2)), system.Params(), h)
    a = np.swapaxes(ends[:, :12] - ends[:, 12:24], 1, 2) / (2.0 * eps)
    b = np.swapaxes(ends[:, 24:26] - ends[:, 26:28], 1, 2) / (2.0 * eps)
    cost, gains, weights = np.eye(12), np.zeros((count, 2, 12)), np.zeros((count, 2, 2))
    for i in list(range(count))[::-1] * 8:
        weights[i] = np.eye(2) * effort * h + b[i].T @ cost @ b[i]
        gains[i] = np.linalg.solve(weights[i], b[i].T @ cost @ a[i])
        cost = np.eye(12) * h + a[i].T @ cost @ (a[i] - b[i] @ gains[i])
        cost = 0.5 * (cost + cost.T)
    return orbit, tangents / np.linalg.norm(tangents, axis=1, keepdims=True), gains, weights
