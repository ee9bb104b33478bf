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
from worldmodels.structures import (
    ADAPTIVE,
    FIXED_STEP,
    MODELS,
    SPLIT,
    SYSTEM_OPTIONS,
    FirstOrderConfig,
    FlowConfig,
    JumpConfig,
    LSTMConfig,
    ModelConfig,
    NewtonianConfig,
    PortHamiltonianConfig,
    VelocityConfig,
)

__all__ = [
    "ADAPTIVE",
    "FIXED_STEP",
    "MODELS",
    "SPLIT",
    "SYSTEM_OPTIONS",
    "DataConfig",
    "EnvConfig",
    "FirstOrderConfig",
    "FlowConfig",
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


def default_config(env_name: str = "oscillator", model_name: str = "jump") -> TrainConfig:
    """What ``scripts/train.py`` starts from for this system and structure.

    Raises ``ValueError`` for an unknown structure or system, with the closest match.
    """
    from physgym import get_system

    if model_name not in MODELS:
        raise ValueError(
            f"model {model_name!r} is not known: expected one of {', '.join(MODELS)}"
            + suggestion(model_name, MODELS)
        )
    try:
        system = get_system(env_name)
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    options = SYSTEM_OPTIONS.get(system.name, {}).get(model_name, {})
    model = MODELS[model_name](**options)
    epochs = 30 if model_name == "lstm" else 60  # its windows cost several steps each
    return TrainConfig(env_name=env_name, model_name=model_name, model=model, epochs=epochs)


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
