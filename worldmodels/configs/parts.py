"""Parts of the config of a training run: env, optimiser, buffer, logging."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from worldmodels.configs.coordinates import Coordinates
from worldmodels.configs.environment import require_make_kwargs, require_step_length
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.policies import require_policy
from worldmodels.configs.schema import (
    conform,
    require_count,
    require_number,
)


@known_keywords
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
    energy: tuple[float, float] | None = None
    """Starts by energy: the lowest and the highest, as parts of the system's reference."""
    make_kwargs: dict[str, bool | int | float | str] | None = None
    """Arguments of gymnasium.make for an env that is not of PhysGym, such as: continuous True."""
    coordinates: str | None = None
    """Positions and velocities among the observations of such an env, as "0+1 | 2": see
    worldmodels.Coordinates; none: nobody says; None: what is known of it."""

    def __post_init__(self) -> None:
        conform(self, "env.")
        for name in ("params", "make_kwargs"):
            if not getattr(self, name):  # an empty table says no more than none
                object.__setattr__(self, name, None)
        require_make_kwargs("env.make_kwargs", self.make_kwargs)
        require_step_length("env.dt", self.dt)
        if self.energy is not None and self.start == "energy":
            object.__setattr__(self, "start", None)  # the band says it
        if self.coordinates not in (None, "none"):
            Coordinates.parse(self.coordinates)

    def arguments(self) -> dict[str, Any]:
        """Arguments of the env by name, defaults included."""
        others = ("make_kwargs", "coordinates")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}


@known_keywords
@dataclass(frozen=True)
class OptimConfig:
    """How the weights are fitted."""

    name: Literal["soap", "adam"] = "soap"
    """soap: second order, far more exact on small networks (arXiv:2409.11321); or adam."""
    lr: float = 3e-3
    """Highest learning rate."""
    batch_size: int = 256
    """Windows in a batch, of all processes together where torchrun starts several."""
    steps_per_epoch: int = 120
    """Batches in an epoch; 0: one pass over the training split."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    accumulate: int = 1
    """Batches whose gradients make one step: larger batches in the same memory."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    """Learning rate over the run: warm-up and cosine to 0, cosine to 0, or constant."""
    max_bad_steps: int = 20
    """Non-finite losses in a row (each skipped) after which the training stops with an error."""

    def __post_init__(self) -> None:
        conform(self, "optim.")
        require_number("optim.lr", self.lr, 1e-12, 10.0)
        require_count("optim.batch_size", self.batch_size, 1, 1_000_000)
        require_count("optim.steps_per_epoch", self.steps_per_epoch, 0, 10_000_000)
        require_count("optim.accumulate", self.accumulate, 1, 10_000)
        require_number("optim.weight_decay", self.weight_decay, 0.0, 10.0)
        require_number("optim.grad_clip", self.grad_clip, 0.0, 1e12)
        require_count("optim.max_bad_steps", self.max_bad_steps, 1, 1_000_000)


@known_keywords
@dataclass(frozen=True)
class DataConfig:
    """The buffer that is collected where no dataset is named."""

    episodes: int = 1000
    """Episodes in the buffer."""
    policy: str = "random"
    """What acts in the true env: random, zero, bang, ou, mixed, agent.zip or module:function, as
    `physgym collect --help` says."""
    seed: int = 0
    """Seed of the buffer: episodes, actions and split."""
    image_size: int = 64
    """Width and height of the pictures that a visual model learns from."""

    def __post_init__(self) -> None:
        conform(self, "data.")
        require_policy("data.policy", self.policy)
        require_count("data.episodes", self.episodes, 1, 10_000_000)
        require_count("data.seed", self.seed, 0, 2**63 - 1)
        require_count("data.image_size", self.image_size, 1, 4096)


@known_keywords
@dataclass(frozen=True)
class LogConfig:
    """Where metrics go beside the run folder's own metrics.jsonl."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases: never needed."""
    project: str = "physgym"
    """Project at Weights & Biases."""
    group: str | None = None
    """Group of runs there."""

    def __post_init__(self) -> None:
        conform(self, "log.")
