"""Two pendulums in a row: the acrobot, and without torques the chaotic double pendulum."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from physgym.elementwise import cos, sin, sqrt, wrap
from physgym.energies import mechanical
from physgym.primitives import Arc, Disc, Primitive, Segment
from physgym.registration import register
from physgym.system import System

_BOTH = np.array([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])
_TURNS = ("clockwise", "nothing", "counter-clockwise")


class AcrobotParams(NamedTuple):
    """Parameters of the two pendulums."""

    mass_1: float = 1.0
    mass_2: float = 1.0
    length_1: float = 1.0
    length_2: float = 1.0
    gravity: float = 9.81
    damping: float = 0.0
    torque_limit: float = 4.0


@register
class Acrobot(System):
    """Point masses at the ends of two massless rods in a row, turned by a torque at the elbow.

    ## Description
    H(q, p) = p^T M(q)^-1 p / 2 + V(q), q = (theta_1 from hanging down, theta_2 relative to the first rod),
    p = M(q) q', M11 = (m_1 + m_2) l_1^2 + m_2 l_2^2 + 2 m_2 l_1 l_2 cos(theta_2), M12 = m_2 l_2^2 + m_2 l_1 l_2
    cos(theta_2), M22 = m_2 l_2^2, V = (m_1 + m_2) g l_1 (1 - cos(theta_1)) + m_2 g l_2 (1 - cos(theta_1 +
    theta_2)). With h = m_2 l_1 l_2 sin(theta_2) and damping c of both joints:

    M11 theta_1'' + M12 theta_2'' - h (2 theta_1' + theta_2') theta_2' + dV/dtheta_1 = tau_1 - c theta_1'
    M12 theta_1'' + M22 theta_2'' + h theta_1'^2 + dV/dtheta_2 = tau_2 - c theta_2'

    Swing the tip up above the shoulder. Unforced it is the chaotic double pendulum.

    ## Action Space
    Discrete(3): torque at the elbow -1, 0, +1 times `torque_limit`; continuous: Box(-1, 1, (1,)), scaled by
    it. With `torques="both"` (`PhysGym/AcrobotBoth-v0`) at the shoulder, then at the elbow: Discrete(9), action 3 i + j
    stands for the levels i at the shoulder and j at the elbow, 4 does nothing; Box(-1, 1, (2,)).

    ## Observation Space
    | Num | Observation | Min | Max |
    |---|---|---|---|
    | 0, 1 | theta_1, theta_2 [rad], wrapped | -pi | pi |
    | 2, 3 | omega_1, omega_2 [rad/s] | -100 | 100 |

    With `obs_mode="embedded"` each angle becomes its cosine and sine.

    ## Rewards
    1 / (1 + (err / 0.5)^2) with err = 1 - y / (l_1 + l_2), y the height of the tip above the shoulder: in
    [0, 1] a step, 1 at the top. `reward="sparse"` asks for y above three quarters of the reach, 1.5 m.

    ## Starting State
    theta_1, theta_2 uniform in [-1, 1] rad, omega_1, omega_2 in [-1, 1] rad/s. `energy=(low, high)` draws by
    energy, see `physgym.energies`: its unit is V(pi, 0), both rods upright at rest.

    ## Episode End
    Never terminated; truncated after 300 steps of 0.05 s, or outside the bounds
    (`info["out_of_bounds"]`).

    ## Arguments
    Parameters (`params=`; range of `randomize=True`): mass_1, mass_2 1 kg (0.9-1.1), length_1, length_2 1 m
    (0.9-1.1), gravity 9.81 m/s^2, damping 0 N m s (0-0.1), torque_limit 4 N m; `torques="elbow" | "both"`. The
    common arguments stand in `physgym.env.PhysicsEnv`. The acceleration depends on velocities, so that
    integrators that split do not serve; RK4 in adaptive sub-steps is the default.

    ## Version History
    * v0: first version
    """

    name, env_id = "acrobot", "PhysGym/Acrobot-v0"
    Params = AcrobotParams
    param_units = {
        **dict.fromkeys(("mass_1", "mass_2"), "kg"),
        **dict.fromkeys(("length_1", "length_2"), "m"),
        "gravity": "m/s^2",
        "damping": "N m s",
        "torque_limit": "N m",
    }
    ranges = {
        **dict.fromkeys(("mass_1", "mass_2", "length_1", "length_2"), (0.9, 1.1)),
        "damping": (0.0, 0.1),
    }
    non_negative = frozenset({"gravity", "damping", "torque_limit"})
    state_names = ("theta_1", "theta_2", "omega_1", "omega_2")
    state_units = ("rad", "rad", "rad/s", "rad/s")
    angles = (0, 1)
    variants = {"torques": ("elbow", "both")}
    control_size = 1
    discrete_actions = np.array([[-1.0], [0.0], [1.0]])
    action_names = ("turn the elbow clockwise", "nothing", "turn the elbow counter-clockwise")
    dt, max_episode_steps = 0.05, 300
    default_integrator, adaptive = "rk4", True
    uniform_draws = 4
    reward_threshold: ClassVar[float | None] = 70.0
    error_scale = 0.5
    view = 2.4
    keys = {"a": 0, "d": 2}

    @classmethod
    def shape(cls, value: Any) -> dict[str, Any]:
        """Torques at both joints."""
        return {
            "control_size": 2,
            "discrete_actions": _BOTH,
            "action_names": tuple(f"shoulder {a}, elbow {b}" for a in _TURNS for b in _TURNS),
            "keys": {"aj": 0, "a": 1, "al": 2, "j": 3, "l": 5, "dj": 6, "d": 7, "dl": 8},
            "reward_threshold": None,
        }

    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: M(q)^-1 (torques), by its determinant m_2 l_1^2 l_2^2 (m_1 + m_2 sin(theta_2)^2)."""
        one, two = wrap(q[0]), wrap(q[1])
        c, s = cos(two), sin(two)
        torques = (*((0.0,) * (2 - len(u))), *u)
        outer, cross = p.mass_2 * p.length_2 * p.length_2, p.mass_2 * p.length_1 * p.length_2
        m12 = outer + cross * c
        m11 = (p.mass_1 + p.mass_2) * p.length_1 * p.length_1 + outer + 2.0 * cross * c
        fall = p.mass_2 * p.gravity * p.length_2 * sin(one + two)
        f2 = torques[1] - p.damping * v[1] - cross * s * (v[0] * v[0]) - fall
        f1 = torques[0] - p.damping * v[0] + cross * s * v[1] * (2.0 * v[0] + v[1]) - fall
        f1 = f1 - (p.mass_1 + p.mass_2) * p.gravity * p.length_1 * sin(one)
        whole = outer * p.length_1 * p.length_1 * (p.mass_1 + p.mass_2 * (s * s))
        return ((outer * f1 - m12 * f2) / whole, (m11 * f2 - m12 * f1) / whole)

    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: torques [N m]."""
        return tuple(p.torque_limit * a for a in action)

    def kinetic(self, state: Any, p: Any) -> Any:
        """Equations: m_1 v_1^2 / 2 + m_2 v_2^2 / 2 of the two masses."""
        _, two, w1, w2 = state
        a, b = p.length_1 * w1, p.length_2 * (w1 + w2)
        return 0.5 * p.mass_1 * (a * a) + 0.5 * p.mass_2 * (a * a + b * b + 2.0 * a * b * cos(two))

    def heights(self, state: Any, p: Any) -> tuple[Any, Any]:
        """Equations: of elbow and tip above where they hang [m]."""
        elbow = p.length_1 * (1.0 - cos(state[0]))
        return elbow, elbow + p.length_2 * (1.0 - cos(state[0] + state[1]))

    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: kinetic energy, and m g (height) of the two masses above where they hang."""
        elbow, tip = self.heights(state, p)
        return self.kinetic(state, p) + p.gravity * (p.mass_1 * elbow + p.mass_2 * tip)

    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: tau . omega."""
        power = u[-1] * state[3]
        for torque in u[:-1]:
            power = power + torque * state[2]
        return power

    def dissipation_of(self, state: Any, p: Any) -> Any:
        """Equations: c (omega_1^2 + omega_2^2)."""
        return p.damping * (state[2] * state[2] + state[3] * state[3])

    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: (1 - y / (l_1 + l_2))^2."""
        missing = 2.0 - self.heights(state, p)[1] / (p.length_1 + p.length_2)
        return missing * missing

    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: angles have none; 100 rad/s is above what the torque reaches by chance."""
        return (math.pi, math.pi, 100.0, 100.0)

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: 0.03 over the fastest rate of the moment: below 1e-7 a step, and energy kept to 1e-6 for 100 s."""
        outer, turn = state[2] + state[3], p.gravity * (1.0 / p.length_1 + 1.0 / p.length_2)
        turn = turn * (1.0 + p.mass_2 / p.mass_1)
        inertia = p.mass_2 * p.length_2 * p.length_2
        push, drag = p.torque_limit / inertia, p.damping / inertia * (1.0 + p.mass_2 / p.mass_1)
        return 0.03 / (sqrt(state[2] * state[2] + outer * outer + turn + push) + drag + 1e-6)

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: uniform in [-1, 1], all four."""
        return tuple(2.0 * u - 1.0 for u in draws)

    def energy_unit(self, p: Any) -> Any:
        """V(pi, 0): both rods upright, at rest."""
        return self.energy_of((math.pi, 0.0, 0.0, 0.0), p)

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """Any two angles."""
        q = tuple(rng.uniform(-math.pi, math.pi, 2).tolist())
        return mechanical(self, rng, q, energy, p)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Energy pumping, each torque with its joint's turning, up to a little more than the top has."""
        parts = tuple(np.moveaxis(state, -1, 0))
        top = self.energy_of((math.pi, 0.0, 0.0, 0.0), params)
        missing = 1.05 - self.energy_of(parts, params) / top
        push = np.sign(missing) * (np.abs(missing) > 0.03)
        action = np.zeros(state.shape[:-1], dtype=np.int64)
        for omega in parts[4 - self.control_size :]:
            action = 3 * action + 1 + (push * np.sign(omega)).astype(np.int64)
        return action

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """Elbow and tip; for people also rods, the goal and the torques, as arcs about their joints."""
        one, both = state[0], state[0] + state[1]
        x, y = params.length_1 * sin(one), -params.length_1 * cos(one)
        tip = (x + params.length_2 * sin(both), y - params.length_2 * cos(both))
        bodies: list[Primitive] = [Disc(x, y, 0.2, (86, 180, 233)), Disc(*tip, 0.2, (230, 159, 0))]
        if not detail:
            return bodies
        shapes: list[Primitive] = [
            Disc(0.0, params.length_1 + params.length_2, 0.07, (0, 158, 115)),
            Segment(0.0, 0.0, x, y, 0.07, (150, 150, 150)),
            Segment(x, y, *tip, 0.07, (190, 190, 190)),
            Disc(0.0, 0.0, 0.09, (200, 200, 200)),
            Disc(x, y, 0.15, (86, 180, 233)),
            Disc(*tip, 0.15, (230, 159, 0)),
        ]
        joints = ((x, y, both), (0.0, 0.0, one))
        for torque, (at_x, at_y, turned) in zip((control or ())[::-1], joints, strict=False):
            if abs(torque) > 1e-9:
                sweep = 1.6 * torque / params.torque_limit
                first = turned - math.pi / 2
                arc = Arc(at_x, at_y, 0.42, first, first + sweep, 0.06, (240, 228, 66))
                shapes.append(arc)
        return shapes
