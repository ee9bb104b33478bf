"""`Equations`: what a system's own file writes down, its class attributes and its equations.

Methods marked *equations* are written component by component with `+ - * /`, `abs`, comparisons
joined by `& |`, and the names of `physgym.elementwise`, because they run on floats, arrays and
tensors and are traced by `physgym.compile.program`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from physgym import plain
from physgym.primitives import Primitive
from physgym.validation import MAX_STEP_SIZE


class Equations(ABC):
    """A controlled physical system: state (q, v), positions first, then velocities, in SI-like
    units.
    """

    name: ClassVar[str]
    env_id: ClassVar[str]
    Params: ClassVar[Any]
    """NamedTuple class of the parameters, with defaults."""
    param_units: ClassVar[Mapping[str, str]]
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Where each parameter is drawn from, uniformly, when randomised."""
    non_negative: ClassVar[frozenset[str]] = frozenset()
    """Parameters that may be zero; all others must be positive."""
    state_names: ClassVar[tuple[str, ...]]
    state_units: ClassVar[tuple[str, ...]]
    angles: ClassVar[tuple[int, ...]] = ()
    """Indices of state components that are angles [rad]."""
    variants: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """An argument of the env that gives the system another shape, and its values, the default first:
    {"bodies": (2, 3, 4)}. See `physgym.variants`."""
    control_size: ClassVar[int]
    discrete_actions: ClassVar[np.ndarray]
    """(n, A): the continuous action that each discrete action stands for."""
    action_names: ClassVar[tuple[str, ...]]
    dt: ClassVar[float]
    max_episode_steps: ClassVar[int]
    default_integrator: ClassVar[str] = "rk4"
    linear: ClassVar[bool] = False
    """Whether the equation of motion is linear, so that integrator="exact" exists."""
    separable: ClassVar[bool] = False
    """Whether `acceleration` depends on positions and controls alone, so that the splitting integrators
    serve (linear damping they take from `damping_rate`). `register` holds the equations to it."""
    adaptive: ClassVar[bool] = False
    """Whether the sub-step depends on the state (see `max_step`)."""
    starts: ClassVar[tuple[str, ...]] = ("default",)
    uniform_draws: ClassVar[int] = 0
    """Where a start is made of uniform numbers and coins and nothing else (see `draw_start`): how many
    uniform ones, in [0, 1)."""
    coin_draws: ClassVar[int] = 0
    """And how many coins, 0 or 1, which are drawn after them."""
    reward_threshold: ClassVar[float | None] = None
    """Return of an episode that counts as solved; None: nobody has said."""
    error_scale: ClassVar[float] = 1.0
    """Distance from the goal at which `dense_reward` is 1/2."""
    view: ClassVar[float]
    """Half the width of the picture [world units]."""
    keys: ClassVar[Mapping[str, int]] = {}
    """Keyboard keys and the discrete actions they stand for."""

    @classmethod
    def shape(cls, value: Any) -> dict[str, Any]:
        """Class attributes that the variant for a `value` of the argument in `variants` has of its own."""
        raise NotImplementedError(f"{cls.__name__} names variants, and so needs shape(value)")

    @property
    def state_size(self) -> int:
        """D, the number of state components (even)."""
        return len(self.state_names)

    @property
    def action_size(self) -> int:
        """A, the size of a continuous action."""
        return int(self.discrete_actions.shape[1])

    # -- equations, written by each system ---------------------------------------------------------

    @abstractmethod
    def acceleration(self, q: Any, v: Any, u: Any, p: Any) -> Any:
        """Equations: dv/dt at positions `q` and velocities `v` under control `u`, without the
        linear damping of `damping_rate`.
        """

    def damping_rate(self, p: Any) -> Any:
        """Equations: the rate gamma [1/s] of linear damping, dv/dt = acceleration - gamma v."""
        return 0.0

    @abstractmethod
    def control_of(self, action: Any, p: Any) -> Any:
        """Equations: the physical control that an action in [-1, 1]^A stands for."""

    @abstractmethod
    def energy_of(self, state: Any, p: Any) -> Any:
        """Equations: total energy [J], potential energy zero at rest or at infinity."""

    @abstractmethod
    def power_of(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: power that the control puts in [W]."""

    def dissipation_of(self, state: Any, p: Any) -> Any:
        """Equations: power that damping takes out [W], >= 0."""
        return 0.0 * state[0]

    @abstractmethod
    def squared_error(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: squared distance from the goal."""

    def dense_reward(self, state: Any, u: Any, p: Any) -> Any:
        """Equations: reward in [0, 1] of the state reached."""
        return 1.0 / (1.0 + self.squared_error(state, u, p) / (self.error_scale * self.error_scale))

    def collision(self, state: Any, p: Any) -> Any:
        """Equations: whether bodies have hit each other; the motion stops there. False where
        nothing can.
        """
        return False

    def events_of(self, state: Any, p: Any) -> dict[str, Any]:
        """Equations: what ends an episode, by name (each becomes a key of `info`)."""
        return {}

    @abstractmethod
    def bounds(self, p: Any) -> tuple[Any, ...]:
        """Equations: the largest |component| of an observation; a state beyond it is truncated with
        a flag.
        """

    def max_step(self, state: Any, p: Any) -> Any:
        """Equations: longest accurate sub-step [s]; of the parameters alone unless `adaptive`."""
        return MAX_STEP_SIZE

    def max_exact_step(self, p: Any) -> Any:
        """Equations: longest step [s] over which `exact_step` is exact to rounding."""
        return MAX_STEP_SIZE

    def exact_step(self, state: Any, u: Any, p: Any, h: Any) -> Any:
        """Equations: the exact flow of a linear system over `h` [s]."""
        raise ValueError(
            f'integrator="exact" needs a linear equation of motion, which {self.name} has not'
        )

    # -- what each system draws, samples and does by hand ------------------------------------------

    def draw_start(self, rng: np.random.Generator, start: str | None) -> Any:
        """Draw the random numbers (K,) of one start; parameters play no part in it. By default the
        uniform numbers, and then the coins, which a vector env draws for all its rows at once.
        """
        uniform = rng.random(self.uniform_draws)
        if not self.coin_draws:
            return uniform
        return [*uniform.tolist(), *rng.integers(2, size=self.coin_draws).tolist()]

    @property
    def drawn_together(self) -> bool:
        """Whether `draw_start` is the default one, of at least one number."""
        default = type(self).draw_start is Equations.draw_start
        return default and self.uniform_draws + self.coin_draws > 0

    @abstractmethod
    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """The start state that `draws` (K components) stand for: written as equations are, for
        floats and rows, though it may branch on `start`.
        """

    def energy_unit(self, p: Any) -> Any:
        """What `energy=(low, high)` counts in [J]; None where starts by energy make no sense."""
        return None

    def energy_state(self, rng: np.random.Generator, energy: float, p: Any) -> Any:
        """A random state (floats) of that total energy [J]; None where the draw is to be made anew. See
        `physgym.energies`.
        """
        raise NotImplementedError(f"{self.name} has an energy_unit, and so needs energy_state")

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """The picture of a state (floats; without `detail` also rows of tensors, as equations are
        written); `detail` adds what helps people: goal, tracks, flame or torque arrow. By default a
        point for each pair of positions, see `physgym.plain`.
        """
        return plain.scene(state[: self.state_size // 2], self.angles, self.view, detail)

    def controller(self, state: np.ndarray, params: Any, step: int) -> np.ndarray:
        """Hand-written baseline: discrete actions (B,) for states (B, D) at time step `step`. By
        default the weakest action, which does nothing where one does.
        """
        weakest = int(np.abs(self.discrete_actions).sum(axis=1).argmin())
        return np.full(np.shape(state)[:-1], weakest, dtype=np.int64)
