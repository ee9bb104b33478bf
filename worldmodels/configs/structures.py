"""Configs of the structures: one frozen dataclass each, and where its defaults differ by system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import (
    ConfigError,
    conform,
    require,
    require_count,
    require_name,
    require_number,
)

Activation = Literal["tanh", "softplus", "silu", "sin"]
Objective = Literal["matching", "shooting"]
Condition = Literal["none", "params"]
SPLIT = ("semi_implicit_euler", "leapfrog", "yoshida4", "suzuki4")
SYMMETRIC = ("leapfrog", "yoshida4", "suzuki4", "implicit_midpoint", "gauss4")
FIXED_STEP = ("euler", "rk4", *SPLIT)
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")


@known_keywords
@dataclass(frozen=True)
class ModelConfig:
    """What every structure has. Each structure adds its own below."""

    structured: ClassVar[bool] = True
    """Whether the structure must know which features are positions, and which their velocities."""

    hidden: int = 64
    """Width of the hidden layers (channels of the hidden maps)."""
    layers: int = 2
    """Hidden layers of each network."""
    activation: Activation = "tanh"
    """Nonlinearity. Energies need a smooth one: their gradient is the force."""
    objective: Objective = "matching"
    """matching: each true state one step ahead; shooting: a rollout from the true state at 0."""
    rollout_steps: int = 8
    """Length of the rollouts of the shooting objective (windows of the LSTM in both)."""
    rollout_growth: bool = False
    """Let the rollout grow from 1 to rollout_steps over the first half of the training."""
    relative_loss: bool = True
    """Let a step weigh less the more changes in it, so that rare fast moments do not rule the fit."""
    condition: Condition = "none"
    """params: the episode's physical parameters are an extra input."""
    action_embedding: int = 4
    """Features an action is turned into."""
    ensemble: int = 1
    """Members trained together, whose disagreement estimates the model's uncertainty."""

    def __post_init__(self) -> None:
        conform(self, "model.")
        require_count("model.hidden", self.hidden, 1, 4096)
        require_count("model.layers", self.layers, 1, 32)
        require_count("model.rollout_steps", self.rollout_steps, 1, 1000)
        require_count("model.action_embedding", self.action_embedding, 1, 1024)
        require_count("model.ensemble", self.ensemble, 1, 64)

    @property
    def medium(self) -> str:
        """What such a model sees of the env."""
        return "states"

    @property
    def name(self) -> str:
        """Name of the structure in ``MODELS``."""
        return next(name for name, kind in MODELS.items() if kind is type(self))


@known_keywords
@dataclass(frozen=True)
class JumpConfig(ModelConfig):
    """z' = z + f(z, a): the discrete baseline."""

    structured: ClassVar[bool] = False
    """It takes any features."""

    activation: Activation = "silu"
    """Nonlinearity."""
    hidden: int = 128
    """Width of the hidden layers (channels of the hidden maps)."""
    dt_input: bool = False
    """Give the network the step length, so that one model can serve several."""


@known_keywords
@dataclass(frozen=True)
class LSTMConfig(ModelConfig):
    """(h, c)' = cell(z, a); z' = z + g(h), with the memory carried in the latent."""

    structured: ClassVar[bool] = False
    """It takes any features."""

    hidden: int = 64
    """Size of the memory, and width of the readout."""
    layers: int = 1
    """Hidden layers of the readout g."""
    objective: Objective = "shooting"
    """matching: true states are fed in at every step; shooting: its own predictions are."""


@known_keywords
@dataclass(frozen=True)
class FlowConfig(ModelConfig):
    """What the structures in continuous time share: how they are integrated."""

    integrator: str = "rk4"
    """rk4, leapfrog, yoshida4, suzuki4, euler, semi_implicit_euler, or a torchdiffeq method (dopri5, ...)."""
    substeps: int = 1
    """Integrator steps in one step of the env."""
    rtol: float = 1e-5
    """Relative tolerance of an adaptive method."""
    atol: float = 1e-6
    """Absolute tolerance of an adaptive method."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("model.substeps", self.substeps, 1, 10_000)
        require_number("model.rtol", self.rtol, 1e-15, 1.0)
        require_number("model.atol", self.atol, 1e-15, 1.0)
        require_name("model.integrator", self.integrator, self.integrators())

    def integrators(self) -> tuple[str, ...]:
        """Methods that this structure can be integrated with: here those that need no split."""
        return ("euler", "rk4", *ADAPTIVE)

    @property
    def method(self) -> str:
        """The integrator by name, also where it is chosen by the other options."""
        return self.integrator


@known_keywords
@dataclass(frozen=True)
class FirstOrderConfig(FlowConfig):
    """dz/dt = f(z, a): a neural ODE."""

    structured: ClassVar[bool] = False
    """It takes any features."""


@known_keywords
@dataclass(frozen=True)
class NewtonianConfig(FlowConfig):
    """dq/dt = v, dv/dt = f(q, v, a) - gamma v with a learned gamma >= 0."""

    velocity_input: bool = True
    """Let f see velocities; splittings (leapfrog, yoshida4) need it not to."""

    def integrators(self) -> tuple[str, ...]:
        """Splittings only where forces do not see velocities."""
        return (*(() if self.velocity_input else SPLIT), "euler", "rk4", *ADAPTIVE)


@known_keywords
@dataclass(frozen=True)
class VelocityConfig(FlowConfig):
    """dq/dt = g(q, v, a), dv/dt = f(q, v, a): the kinematic map is learned too."""


@known_keywords
@dataclass(frozen=True)
class PortHamiltonianConfig(FlowConfig):
    """dz/dt = (J - R) grad H(z) + G(z) u(a) with a network H, R >= 0 and G learned."""

    integrator: str = "auto"
    """auto: suzuki4 where H can be split, gauss4 where not. Split: leapfrog, yoshida4, suzuki4, ...; not:
    gauss4, implicit_midpoint, extended4; either: rk4, euler, dopri5, ..."""
    separable: bool = True
    """H = T(p) + V(q) (T(q, p) with mass=network); otherwise one network H(q, p)."""
    kinetic: Literal["quadratic", "network"] = "quadratic"
    """T(p) when separable: p^T M^-1 p / 2 with a learned M, or a network."""
    mass: Literal["identity", "diagonal", "full", "network"] = "identity"
    """Momenta are p = M v: the velocities themselves, or a learned diagonal or full M > 0, or M(q) > 0, a
    network of the positions, for mechanisms such as a cart-pole: H = p^T M(q)^-1 p / 2 + V(q)."""
    damping: bool = True
    """Learn R >= 0 (diagonal, on the momenta); otherwise R = 0."""
    input_map: Literal["constant", "state"] = "constant"
    """G: a learned matrix, or a network of the positions."""
    cyclic: tuple[int, ...] = ()
    """Indices of positions that H does not depend on, as of a cart along a level track: then their momenta change by
    input and damping alone, also where no episode ever was."""

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct = len(set(self.cyclic)) == len(self.cyclic) and min(self.cyclic, default=0) >= 0
        require("model.cyclic", self.cyclic, distinct, "different indices of positions, from 0 on")
        if self.mass == "network" and not self.separable:
            raise ConfigError(
                "model.mass='network' is not valid beside model.separable=False, whose one network H(q, p) "
                "learns the kinetic energy too: leave one of them out"
            )

    @property
    def splits(self) -> bool:
        """Whether explicit splittings serve: they need T(p) + V(q), and damping linear in p."""
        linear = self.kinetic == "quadratic" and self.mass != "full"
        return self.separable and self.mass != "network" and (linear or not self.damping)

    @property
    def method(self) -> str:
        """The integrator by name, also where it is chosen by the other options."""
        if self.integrator != "auto":
            return self.integrator
        return "suzuki4" if self.splits else "gauss4"

    def integrators(self) -> tuple[str, ...]:
        """Methods of this Hamiltonian: explicit splittings where it splits, extended4 where not."""
        own = SPLIT if self.splits else ("extended4",)
        return ("auto", *own, "euler", "rk4", "implicit_midpoint", "gauss4", *ADAPTIVE)


MODELS: dict[str, type[ModelConfig]] = {
    "jump": JumpConfig,
    "lstm": LSTMConfig,
    "first_order": FirstOrderConfig,
    "newtonian": NewtonianConfig,
    "velocity": VelocityConfig,
    "port_hamiltonian": PortHamiltonianConfig,
}
"""Structures by name; a new one is a config here and a file in ``worldmodels/dynamics``."""

_WIDE = {"hidden": 128}
_POSITIONS_ONLY = {"velocity_input": False}
SYSTEM_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "spaceship": {
        "newtonian": {**_POSITIONS_ONLY, "integrator": "yoshida4"},
        "port_hamiltonian": {"integrator": "yoshida4"},
    },
    "three_body": {
        "newtonian": {**_WIDE, **_POSITIONS_ONLY, "integrator": "leapfrog"},
        "port_hamiltonian": {**_WIDE, "integrator": "leapfrog"},
        "first_order": _WIDE,
        "velocity": _WIDE,
    },
}
"""Where a structure's defaults differ by system, over states and over keypoints.

Gravity in many coordinates needs a wide network, and gains more from cheap steps than from exact ones.
Between bodies without drag, accelerations are shown positions only, so that the flow can be split.
"""

_MOVING_INERTIA = {"port_hamiltonian": {"mass": "network", "integrator": "rk4"}}
STATE_OPTIONS = {"cart_pole": _MOVING_INERTIA, "acrobot": _MOVING_INERTIA}
"""The same over states alone: where the inertia depends on the place, velocities are not momenta.

`rk4` costs half of `gauss4` and keeps the energy for some thousand steps.
"""
