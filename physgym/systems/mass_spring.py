"""Undamped masses on springs in a row."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from physgym.elementwise import cos, minimum, sin, sqrt
from physgym.energies import quadratic
from physgym.plain import COLORS
from physgym.primitives import Arrow, Disc, Polyline, Primitive, Segment
from physgym.registration import register
from physgym.system import System

_SPACING = 1.5
"""Rest length of a spring in pictures [m]."""


class MassSpringParams(NamedTuple):
    """Parameters of the masses and springs, all alike."""

    mass: float = 0.5
    stiffness: float = 2.0
    force_limit: float = 0.5


def normal_modes(count: int) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """The modes of a chain of `count` equal masses that hangs from a wall: rate [sqrt(k / m)] and shape.

    Rates 2 sin(a / 2), shapes sin(a j) of unit length, a = (2 k - 1) pi / (2 count + 1) for k = 1...count.
    """
    modes = []
    for k in range(count):
        a = (2 * k + 1) * math.pi / (2 * count + 1)
        unit = math.sqrt(4.0 / (2 * count + 1))
        shape = tuple(unit * math.sin(a * (j + 1)) for j in range(count))
        modes.append((2.0 * math.sin(0.5 * a), shape))
    return tuple(modes)


@register
class MassSpring(System):
    """A mass on a spring (or a chain of them) without friction, pushed by a bounded force.

    ## Description
    H(q, p) = sum_i p_i^2 / (2 m) + k (q_i - q_(i-1))^2 / 2 with q_0 = 0 the wall and p_i = m q_i'; the force
    F pushes the last mass: m q_i'' = k (q_(i-1) - q_i) + k (q_(i+1) - q_i) + F delta_in, no spring behind
    the last. q_i is the distance from its place at rest. `bodies=1..8` says how many; one by default.
    Bring them to rest: nothing else takes energy out.

    ## Action Space
    Discrete(3): force -1, 0, +1 times `force_limit`; continuous: Box(-1, 1, (1,)), scaled by it.

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0 | q of mass 1 (then of the others) [m] | -40 | 40 |
    | 1 | v of mass 1 (then of the others) [m/s] | -80 | 80 |

    ## Rewards
    1 / (1 + (err / 0.2)^2) with err^2 = sum_i (q_i^2 + m v_i^2 / k): in [0, 1] a step.

    ## Starting State
    sqrt(sum_i q_i^2 + m v_i^2 / k) uniform in [0.1, 1] m, in any direction of the phase space.
    `energy=(low, high)` draws by energy, see `physgym.energies`: its unit is k (1 m)^2 / 2.

    ## Episode End
    Never terminated; truncated after 200 steps of 0.1 s, or outside the bounds
    (`info["out_of_bounds"]`).

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): mass 0.5 kg (0.4-0.6), stiffness 2 N/m (1.5-2.5),
    force_limit 0.5 N; `bodies=1..8`. The common arguments stand in `physgym.env.PhysicsEnv`. The default
    integrator is exact, by normal modes.

    ## Version History
    * v0: first version
    """

    name, env_id = "mass_spring", "PhysGym/MassSpring-v0"
    Params = MassSpringParams
    param_units = {"mass": "kg", "stiffness": "N/m", "force_limit": "N"}
    ranges = {"mass": (0.4, 0.6), "stiffness": (1.5, 2.5)}
    non_negative = frozenset({"force_limit"})
    state_names: ClassVar[tuple[str, ...]] = ("x", "v")
    state_units: ClassVar[tuple[str, ...]] = ("m", "m/s")
    variants = {"bodies": (1, 2, 3, 4, 5, 6, 7, 8)}
    control_size = 1
    discrete_actions = np.array([[-1.0], [0.0], [1.0]])
    action_names = ("push left", "nothing", "push right")
    dt, max_episode_steps = 0.1, 200
    default_integrator, linear, separable = "exact", True, True
    reward_threshold: ClassVar[float | None] = 160.0
    error_scale = 0.2
    view = 2.4
    keys = {"a": 0, "d": 2}
    bodies = 1
    modes = normal_modes(1)

    @classmethod
    def shape(cls, value: Any) -> dict[str, Any]:
        """A chain of `value` masses."""
        return {
            "bodies": value,
            "modes": normal_modes(value),
            "state_names": tuple(f"{c}{i + 1}" for c in ("x", "v") for i in range(value)),
            "state_units": ("m",) * value + ("m/s",) * value,
            "view": 2.4 + 0.5 * _SPACING * (value - 1),
            "reward_threshold": None,
        }

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: the pull of the springs on either side, and the force on the last mass."""
        pulls = [p.stiffness * (b - a) for a, b in zip((0.0, *q[:-1]), q, strict=True)]
        ahead = (*pulls[1:], u[0])
        return tuple((b - a) / p.mass for a, b in zip(pulls, ahead, strict=True))

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: force [N]."""
        (a,) = action
        return (p.force_limit * a,)

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: the sum of m v^2 / 2 and k (stretch)^2 / 2."""
        q, v = state[: self.bodies], state[self.bodies :]
        energy = 0.0
        for before, here, speed in zip((0.0, *q[:-1]), q, v, strict=True):
            stretch = here - before
            energy = energy + 0.5 * p.mass * (speed * speed)
            energy = energy + 0.5 * p.stiffness * (stretch * stretch)
        return energy

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: F v of the last mass."""
        return u[0] * state[-1]

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: the sum of q^2 + m v^2 / k."""
        square = 0.0
        for x, v in zip(state[: self.bodies], state[self.bodies :], strict=True):
            square = square + x * x + v * v * p.mass / p.stiffness
        return square

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: far above what a resonant force reaches within an episode."""
        return (40.0,) * self.bodies + (80.0,) * self.bodies

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: a sub-step for the integrators that are not exact, by the fastest mode."""
        rate = self.modes[-1][0] * sqrt(p.stiffness / p.mass)
        return minimum(0.0125, 0.063 / (rate + 1e-6))

    def exact_step(self, state: Any, u: Any, p: Any, h: Any) -> Any:
        """Equations: every normal mode turns by its rate, about the place that the force gives it."""
        q, v = state[: self.bodies], state[self.bodies :]
        unit, push = sqrt(p.stiffness / p.mass), u[0] / p.mass
        places = [0.0 * x for x in q]
        speeds = [0.0 * x for x in v]
        for factor, shape in self.modes:
            rate = factor * unit
            c, s, half = cos(rate * h), sin(rate * h), sin(0.5 * rate * h)
            y, w = 0.0, 0.0
            for part, a, b in zip(shape, q, v, strict=True):
                y, w = y + part * a, w + part * b
            drive = shape[-1] * push
            turned = c * y + s / rate * w + 2.0 * half * half / (rate * rate) * drive
            moved = c * w - s * rate * y + s / rate * drive
            for i, part in enumerate(shape):
                places[i] = places[i] + part * turned
                speeds[i] = speeds[i] + part * moved
        return (*places, *speeds)

    def draw_start(self, rng: np.random.Generator, start: str | None) -> Any:
        """A uniform number, and a direction of the phase space."""
        return [rng.random(), *rng.standard_normal(2 * self.bodies).tolist()]

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: radius uniform in [0.1, 1], any direction."""
        square = 0.0
        for z in draws[1:]:
            square = square + z * z
        scale = (0.1 + 0.9 * draws[0]) / sqrt(square)
        speed = scale * sqrt(p.stiffness / p.mass)
        q, v = draws[1 : self.bodies + 1], draws[self.bodies + 1 :]
        return (*(scale * z for z in q), *(speed * z for z in v))

    def energy_unit(self, p: Any) -> Any:
        """k (1 m)^2 / 2."""
        return 0.5 * p.stiffness

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """Any direction of the phase space."""
        return quadratic(self, rng, math.sqrt(p.stiffness / p.mass), energy, p)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Push against the motion of the last mass, unless that is slower than half a push makes it."""
        v = state[..., -1]
        least = 0.6 * params.force_limit * self.dt / params.mass
        return (1 - np.sign(v) * (np.abs(v) > least)).astype(np.int64)

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """A disc a mass; for people also the springs, the wall, the places at rest and the force."""
        first = -0.5 * _SPACING * (self.bodies - 1)
        rest = [first + _SPACING * i for i in range(self.bodies)]
        places = [a + x for a, x in zip(rest, state[: self.bodies], strict=True)]
        radius = 0.2 * self.view / 2.4
        bodies = [Disc(x, 0.0, radius, COLORS[i % len(COLORS)]) for i, x in enumerate(places)]
        if not detail:
            return [*bodies]
        wall, coils = 0.1 - self.view, 16
        shapes: list[Primitive] = [
            Segment(wall, -0.5, wall, 0.5, 0.06, (120, 120, 120)),
            Segment(wall, -1.2 * radius, -wall, -1.2 * radius, 0.03, (90, 90, 90)),
        ]
        for place in rest:
            shapes.append(Segment(place, -2.2 * radius, place, -1.2 * radius, 0.04, (0, 158, 115)))
        for a, b in zip([wall, *places[:-1]], places, strict=True):
            spring = tuple(
                (a + (b - a) * i / coils, (0.0, 0.1, 0.0, -0.1)[i % 4] if 0 < i < coils else 0.0)
                for i in range(coils + 1)
            )
            shapes.append(Polyline(spring, 0.035, (150, 150, 150)))
        shapes += bodies
        if control is not None and abs(control[0]) > 1e-9:
            x, y = places[-1], 2.2 * radius
            shapes.append(Arrow(x, y, x + 1.2 * control[0], y, 0.06, (86, 180, 233)))
        return shapes
