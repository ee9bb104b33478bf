"""Configs of a training run: plain frozen dataclasses, saved as JSON beside the weights.

No torch is imported here, so that a command line built from these answers ``--help`` at once.
The docstring under a field is its help text.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from worldmodels.schema import (
    config_hash,
    merge,
    require,
    require_count,
    require_number,
    suggestion,
)

__all__ = [
    "ADAPTIVE",
    "FIXED_STEP",
    "MODELS",
    "SPLIT",
    "SYMPLECTIC",
    "DataConfig",
    "EnvConfig",
    "FirstOrderConfig",
    "JumpConfig",
    "LSTMConfig",
    "LogConfig",
    "ModelConfig",
    "NewtonianConfig",
    "OptimConfig",
    "PortHamiltonianConfig",
    "TrainConfig",
    "VelocityConfig",
    "config_hash",
    "default_config",
    "from_dict",
    "model_from_dict",
    "to_dict",
]

Activation = Literal["tanh", "softplus", "silu", "sin"]
Objective = Literal["matching", "shooting"]
Condition = Literal["none", "params"]
SPLIT = ("semi_implicit_euler", "leapfrog", "yoshida4")
SYMPLECTIC = (*SPLIT, "suzuki4")
FIXED_STEP = ("euler", "rk4", *SPLIT)
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")


@dataclass(frozen=True)
class EnvConfig:
    """Arguments of the true env that the buffer comes from (its name stands beside this)."""

    action_mode: Literal["discrete", "continuous"] = "discrete"
    """Actions of the env and of the model: a choice of levels, or numbers in [-1, 1]."""
    dt: float | None = None
    """Seconds a step; None: the system's own."""
    integrator: str | None = None
    """Integrator of the truth; None: the system's own."""
    randomize: bool = False
    """Draw the physical parameters anew in every episode."""
    params: dict[str, float] | None = None
    """Overrides of physical parameters, such as damping."""
    start: str | None = None
    """Start distribution, where the system has several."""

    def __post_init__(self) -> None:
        if self.dt is not None:
            require("env.dt", self.dt, math.isfinite(self.dt) and self.dt > 0, "seconds above 0")

    def kwargs(self) -> dict[str, Any]:
        """Arguments for ``gymnasium.make``: those that differ from the env's own defaults."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) not in (None, False, f.default)
        }


@dataclass(frozen=True)
class ModelConfig:
    """What every structure has. Each structure adds its own below."""

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
        require_count("model.hidden", self.hidden, 1, 4096)
        require_count("model.layers", self.layers, 1, 32)
        require_count("model.rollout_steps", self.rollout_steps, 1, 1000)
        require_count("model.action_embedding", self.action_embedding, 1, 1024)
        require_count("model.ensemble", self.ensemble, 1, 64)

    @property
    def name(self) -> str:
        """Name of the structure in ``MODELS``."""
        return next(name for name, kind in MODELS.items() if kind is type(self))

    def build(self, spec: Any) -> Any:
        """World model over states with this structure; ``spec`` is an ``interface.Spec``."""
        from worldmodels.state import build

        return build(spec, self.name, self)


@dataclass(frozen=True)
class JumpConfig(ModelConfig):
    """z' = z + f(z, a): the discrete baseline."""

    activation: Activation = "silu"
    """Nonlinearity."""
    hidden: int = 128
    """Width of the hidden layers (channels of the hidden maps)."""
    dt_input: bool = False
    """Give the network the step length, so that one model can serve several."""


@dataclass(frozen=True)
class LSTMConfig(ModelConfig):
    """(h, c)' = cell(z, a); z' = z + g(h), with the memory carried in the latent."""

    hidden: int = 128
    """Size of the memory, and width of the readout."""
    layers: int = 1
    """Hidden layers of the readout g."""
    objective: Objective = "shooting"
    """matching: true states are fed in at every step; shooting: its own predictions are."""


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
        allowed = self.integrators()
        valid = self.integrator in allowed
        require("model.integrator", self.integrator, valid, "one of " + ", ".join(allowed))

    def integrators(self) -> tuple[str, ...]:
        """Methods that this structure can be integrated with: here those that need no split."""
        return ("euler", "rk4", *ADAPTIVE)


@dataclass(frozen=True)
class FirstOrderConfig(FlowConfig):
    """dz/dt = f(z, a): a neural ODE."""


@dataclass(frozen=True)
class NewtonianConfig(FlowConfig):
    """dq/dt = v, dv/dt = f(q, v, a) - gamma v with a learned gamma >= 0."""

    velocity_input: bool = True
    """Let f see velocities; splittings (leapfrog, yoshida4) need it not to."""

    def integrators(self) -> tuple[str, ...]:
        """Splittings only where forces do not see velocities."""
        return (*(() if self.velocity_input else SYMPLECTIC), "euler", "rk4", *ADAPTIVE)


@dataclass(frozen=True)
class VelocityConfig(FlowConfig):
    """dq/dt = g(q, v, a), dv/dt = f(q, v, a): the kinematic map is learned too."""


@dataclass(frozen=True)
class PortHamiltonianConfig(FlowConfig):
    """dz/dt = (J - R) grad H(z) + G(z) u(a) with a network H, R >= 0 and G learned."""

    integrator: str = "suzuki4"
    """Separable: suzuki4, leapfrog, yoshida4 or any other; not separable: rk4, implicit_midpoint, euler, ..."""
    separable: bool = True
    """H = T(p) + V(q), so that leapfrog and yoshida4 are explicit; otherwise one H(q, p)."""
    kinetic: Literal["quadratic", "network"] = "quadratic"
    """T(p) when separable: p^T M^-1 p / 2 with a learned M, or a network."""
    mass: Literal["identity", "diagonal", "full"] = "identity"
    """Momenta are p = M v: the velocities themselves, or a learned diagonal or full M > 0."""
    damping: bool = True
    """Learn R >= 0 (diagonal, on the momenta); otherwise R = 0."""
    input_map: Literal["constant", "state"] = "constant"
    """G: a learned matrix, or a network of the positions."""

    def integrators(self) -> tuple[str, ...]:
        """Methods of this Hamiltonian: explicit splittings need it separable, and damping linear."""
        linear = self.kinetic == "quadratic" and self.mass != "full"
        split = SYMPLECTIC if self.separable and (linear or not self.damping) else ()
        return (*split, "euler", "rk4", "implicit_midpoint", *ADAPTIVE)


MODELS: dict[str, type[ModelConfig]] = {
    "jump": JumpConfig,
    "lstm": LSTMConfig,
    "first_order": FirstOrderConfig,
    "newtonian": NewtonianConfig,
    "velocity": VelocityConfig,
    "port_hamiltonian": PortHamiltonianConfig,
}
"""Structures by name; a new one is a config here and a file in ``worldmodels/dynamics``."""


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are fitted."""

    name: Literal["soap", "adam"] = "soap"
    """soap: second order, far more exact on small networks (arXiv:2409.11321); or adam."""
    lr: float = 3e-3
    """Highest learning rate."""
    batch_size: int = 256
    """Windows in a batch."""
    steps_per_epoch: int = 120
    """Batches in an epoch; 0: one pass over the training split."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    """Learning rate over the run: warm-up and cosine to 0, cosine to 0, or constant."""
    max_bad_steps: int = 20
    """Non-finite losses in a row (each skipped) after which the training stops with an error."""

    def __post_init__(self) -> None:
        require_number("optim.lr", self.lr, 1e-12, 10.0)
        require_count("optim.batch_size", self.batch_size, 1, 1_000_000)
        require_count("optim.steps_per_epoch", self.steps_per_epoch, 0, 10_000_000)
        require_number("optim.weight_decay", self.weight_decay, 0.0, 10.0)
        require_number("optim.grad_clip", self.grad_clip, 0.0)
        require_count("optim.max_bad_steps", self.max_bad_steps, 1, 1_000_000)


@dataclass(frozen=True)
class DataConfig:
    """The buffer that is collected where no dataset is named."""

    episodes: int = 1000
    """Episodes in the buffer."""
    policy: Literal["random", "zero", "bang", "mixed"] = "random"
    """What acts in the true env."""
    seed: int = 0
    """Seed of the buffer: episodes, actions and split."""

    def __post_init__(self) -> None:
        require_count("data.episodes", self.episodes, 1, 10_000_000)
        require_count("data.seed", self.seed, 0, 2**63 - 1)


@dataclass(frozen=True)
class LogConfig:
    """Where metrics go beside the run folder's own metrics.jsonl."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases: never needed."""
    project: str = "physgym"
    """Project at Weights & Biases."""
    group: str | None = None
    """Group of runs there."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run: everything that its result depends on."""

    env_name: str = "oscillator"
    """System to learn: a name of ``physgym.SYSTEMS`` or an env id."""
    model_name: str = "jump"
    """Structure: a name of ``worldmodels.config.MODELS``."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """Arguments of the true env."""
    model: ModelConfig = field(default_factory=JumpConfig)
    """The structure's own options."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    data: DataConfig = field(default_factory=DataConfig)
    """Buffer."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    epochs: int = 60
    """Passes of ``optim.steps_per_epoch`` batches, each followed by a validation."""
    seed: int = 0
    """Seed of weights and batches."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: str | None = None
    """Run folder; None: outputs/<date>/<time>/<model>."""
    dataset: str | None = None
    """Collected buffer to train on, a name or a path; None: collect (once) as data says."""
    save_seconds: float = 10.0
    """Seconds between saves of the last state; each end of an epoch may save."""
    validation_steps: int = 100
    """Length of the validation rollouts that choose the best checkpoint."""

    def __post_init__(self) -> None:
        allowed = ", ".join(MODELS)
        require("model_name", self.model_name, self.model_name in MODELS, f"one of {allowed}")
        expected = MODELS[self.model_name]
        valid = isinstance(self.model, expected)
        require(
            "model", type(self.model).__name__, valid, f"{expected.__name__} as model_name says"
        )
        require_count("epochs", self.epochs, 1, 10_000_000)
        require_count("seed", self.seed, 0, 2**63 - 1)
        require_count("validation_steps", self.validation_steps, 1, 1_000_000)
        require_number("save_seconds", self.save_seconds, 0.0)


_NARROW = {"hidden": 32}
_WIDE = {"hidden": 128}
_GRAVITY = {
    "newtonian": {**_WIDE, "velocity_input": False, "integrator": "leapfrog"},
    "port_hamiltonian": {**_WIDE, "integrator": "leapfrog"},
    "first_order": _WIDE,
    "velocity": _WIDE,
}
SYSTEM_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "oscillator": {"port_hamiltonian": _NARROW},
    "pendulum": {"port_hamiltonian": _NARROW},
    "spaceship": _GRAVITY,
    "three_body": _GRAVITY,
}
"""Where a structure's defaults differ by system. A potential of one coordinate needs a narrow network
and shows a coarse integrator; gravity in many coordinates needs a wide network, and two forces a step."""


def default_config(env_name: str = "oscillator", model_name: str = "jump") -> TrainConfig:
    """What ``scripts/train.py`` starts from for this system and structure.

    Raises ``ValueError`` for an unknown structure; names of systems are checked by physgym.
    """
    if model_name not in MODELS:
        raise ValueError(
            f"model {model_name!r} is not known: expected one of {', '.join(MODELS)}"
            + suggestion(model_name, MODELS)
        )
    options = SYSTEM_OPTIONS.get(env_name, {}).get(model_name, {})
    model = MODELS[model_name](**options)
    return TrainConfig(env_name=env_name, model_name=model_name, model=model)


def to_dict(config: Any) -> dict[str, Any]:
    """Any config as plain JSON types; ``from_dict`` reverses it for a ``TrainConfig``."""
    return asdict(config)


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """TrainConfig of a saved one. Raises ``ValueError`` naming an unknown key or a bad value."""
    model_name = values.get("model_name", "jump")
    if not isinstance(model_name, str):
        raise ValueError(f"model_name={model_name!r} is not valid: expected a name")
    base = default_config(str(values.get("env_name", "oscillator")), model_name)
    return merge(base, values, "config")


def model_from_dict(model_name: str, values: dict[str, Any]) -> ModelConfig:
    """Config of a structure from plain values. Raises ``ValueError`` as ``from_dict`` does."""
    return merge(default_config(model_name=model_name).model, values, "model")
