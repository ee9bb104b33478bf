"""Configs of a training run: plain frozen dataclasses, saved as JSON beside the weights.

No torch is imported here, so that a command line built from these answers ``--help`` at once.
The docstring under a field is its help text.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from worldmodels.configs.coordinates import FORM, Coordinates
from worldmodels.configs.environment import check_env, find_system
from worldmodels.configs.keypoints import KeypointConfig
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.parts import DataConfig, EnvConfig, LogConfig, OptimConfig
from worldmodels.configs.pixels import PREDICTORS, PixelConfig, Size
from worldmodels.configs.schema import (
    ConfigError,
    config_hash,
    conform,
    merge,
    require,
    require_count,
    require_name,
    require_number,
)
from worldmodels.configs.structures import (
    ADAPTIVE,
    FIXED_STEP,
    MODELS,
    SPLIT,
    STATE_OPTIONS,
    SYMMETRIC,
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
from worldmodels.configs.visual import (
    VisualConfig,
    halvings,
    visual_config,
    visual_from_dict,
)

__all__ = [
    "ADAPTIVE",
    "FIXED_STEP",
    "KINDS",
    "MODELS",
    "PREDICTORS",
    "SPLIT",
    "STATE_OPTIONS",
    "SYMMETRIC",
    "SYSTEM_OPTIONS",
    "DataConfig",
    "EnvConfig",
    "FirstOrderConfig",
    "FlowConfig",
    "JumpConfig",
    "KeypointConfig",
    "LSTMConfig",
    "LogConfig",
    "ModelConfig",
    "NewtonianConfig",
    "OptimConfig",
    "PixelConfig",
    "PortHamiltonianConfig",
    "TrainConfig",
    "VelocityConfig",
    "VisualConfig",
    "config_hash",
    "coordinates_of",
    "default_config",
    "from_dict",
    "model_from_dict",
    "scores_one",
    "to_dict",
]

KINDS: dict[str, type[ModelConfig] | type[PixelConfig]] = {**MODELS, "visual": PixelConfig}
"""Models by the name on the command line: a structure over states, or the visual model."""


@known_keywords
@dataclass(frozen=True)
class TrainConfig:
    """One training run: everything that its result depends on."""

    env_name: str = "oscillator"
    """System to learn: a name of ``physgym.SYSTEMS``, or the id of any Gymnasium env."""
    model_name: str = "jump"
    """Structure over states, or visual: a name of ``worldmodels.configs.training.KINDS``."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """Arguments of the true env."""
    model: ModelConfig | VisualConfig | KeypointConfig = field(default_factory=JumpConfig)
    """The model's own options."""
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
    """cpu, cuda, cuda:N, mps, or auto: the first of cuda, mps and cpu that is there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What a visual model's convolutions of pictures run in; auto: bfloat16 where the hardware has it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the parts of a visual model (auto: on CUDA); roll out models of states by machine code where
    there is some (extra native; auto: from 300 gradients on)."""
    out: str | None = None
    """Run folder; None: outputs/<date>/<time>/<model>."""
    pretrained: str | None = None
    """Run whose weights to start from, wherever names and shapes fit."""
    dataset: str | None = None
    """Collected buffer to train on, a name or a path; None: collect (once) as data says."""
    save_seconds: float = 10.0
    """Seconds between saves of the last state; each end of an epoch may save."""
    validation_steps: int = 100
    """Length of the validation rollouts that choose the best checkpoint."""

    def __post_init__(self) -> None:
        conform(self)
        require_name("model_name", self.model_name, KINDS)
        system = check_env(
            self.env_name, self.env.arguments(), "env_name", "env.", self.env.make_kwargs
        )
        object.__setattr__(self, "env_name", system.name)  # one name, whatever it was called
        self._check_coordinates(system)
        expected = KINDS[self.model_name]
        visual = isinstance(self.model, PixelConfig) and expected is PixelConfig
        valid = visual or type(self.model) is expected
        require(
            "model",
            type(self.model).__name__,
            valid,
            f"{expected.__name__} as model_name={self.model_name!r} says",
        )
        if isinstance(self.model, VisualConfig) and self.dataset is None:
            halvings(self.data.image_size, self.model.spatial_size)
        require_count("epochs", self.epochs, 1, 10_000_000)
        require_count("seed", self.seed, 0, 2**63 - 1)
        require_count("validation_steps", self.validation_steps, 1, 1_000_000)
        require_number("save_seconds", self.save_seconds, 0.0, 1e9)
        device = re.fullmatch(r"auto|mps|cpu(:0)?|cuda(:\d{1,3})?", self.device)
        require("device", self.device, device is not None, "auto, cpu, cuda, cuda:N or mps")

    def _check_coordinates(self, system: Any) -> None:
        """Fill in what an env that is not of PhysGym fixes; ConfigError for a structure it cannot have."""
        if "parameters" in system.knows:
            given = f"None: the states of the {system.name} are its positions and velocities"
            require("env.coordinates", self.env.coordinates, self.env.coordinates is None, given)
            return
        object.__setattr__(self, "env", replace(self.env, action_mode=system.action_mode))
        if self.model_name == "visual":
            given = "None: a model of pictures sees no observations"
            require("env.coordinates", self.env.coordinates, self.env.coordinates is None, given)
            return
        found = coordinates_of(self.env.coordinates, system)
        if found is None and self.model.structured:  # type: ignore[union-attr]
            free = [name for name, kind in MODELS.items() if not kind.structured]
            raise ConfigError(
                f"model_name={self.model_name!r} needs to know which observations of {system.env_id} are "
                f"positions and velocities, and nobody has said: give --env.coordinates ({FORM}), or learn "
                f"it with {', '.join(free)}"
            )


def coordinates_of(text: str | None, system: Any) -> Coordinates | None:
    """Those that ``text`` says of an env that is not of PhysGym, or what is known of it; None: nobody knows.

    Raises ``ConfigError`` where they are not of its observations.
    """
    told = system.coordinates if text is None else text
    if told in ("", "none"):
        return None
    found = Coordinates.parse(told)
    found.check_size(system.state_size, system.env_id)
    return found


@known_keywords
def default_config(
    env_name: str = "oscillator",
    model_name: str = "jump",
    predictor: str = "spatial_jump",
    size: Size = "small",
) -> TrainConfig:
    """What `physgym train` starts from for this system and model.

    ``predictor`` and ``size`` are those of a visual model. Raises ``ValueError`` for an unknown model,
    predictor or system, with the closest match.
    """
    require_name("model_name", model_name, KINDS)
    system = find_system(env_name)
    if model_name == "visual":
        visual = visual_config(predictor, size)
        if isinstance(visual, KeypointConfig):
            return _of_keypoints(env_name, visual)
        return TrainConfig(
            env_name=env_name,
            model_name=model_name,
            model=visual,
            optim=VISUAL_OPTIM[size],
            epochs=VISUAL_EPOCHS[size] // (1 if visual.structure in ("jump", "lstm") else 2),
            validation_steps=visual.rollout_steps,  # beyond it, luck would choose the best
            device="auto",
        )
    for name, given, default in (("predictor", predictor, "spatial_jump"), ("size", size, "small")):
        expected = f"the default: only model_name='visual' has a {name}"
        require(name, given, given == default, expected)
    by_structure = (SYSTEM_OPTIONS | STATE_OPTIONS).get(system.name, {})
    options = by_structure.get(model_name, {})
    model = MODELS[model_name](**options)
    epochs = 30 if model_name == "lstm" else 60  # its windows cost several steps each
    return TrainConfig(env_name=env_name, model_name=model_name, model=model, epochs=epochs)


def _of_keypoints(env_name: str, model: KeypointConfig) -> TrainConfig:
    """What a model of keypoints starts from: the options by system are those of models over states."""
    by_structure = SYSTEM_OPTIONS.get(find_system(env_name).name, {})
    options = by_structure.get(model.structure, {})
    dynamics = replace(model.dynamics, **options) if model.size == "small" else model.dynamics
    tiny, gravity = model.size == "tiny", bool(by_structure)
    share = 0.5 if gravity else model.short_share  # among close encounters, short rollouts first
    return TrainConfig(
        env_name=env_name,
        model_name="visual",
        model=replace(model, dynamics=dynamics, short_share=share),
        optim=OptimConfig(batch_size=16 if tiny else 256, steps_per_epoch=10 if tiny else 100),
        epochs=2 if tiny else 16 if gravity else 7,
    )


VISUAL_OPTIM: dict[Size, OptimConfig] = {
    "tiny": OptimConfig(lr=4e-3, batch_size=8, steps_per_epoch=5, grad_clip=10.0),
    "small": OptimConfig(lr=4e-3, batch_size=32, steps_per_epoch=200, grad_clip=10.0),
    "base": OptimConfig(lr=2e-3, batch_size=64, steps_per_epoch=500, grad_clip=10.0),
}
"""Optimiser of visual models by size."""
VISUAL_EPOCHS: dict[Size, int] = {"tiny": 2, "small": 30, "base": 60}
"""Epochs of visual models by size; half as many where a step of the structure costs several passes."""


def scores_one(config: TrainConfig) -> str:
    """What has a validation error of 1: the unit in which a model's is told."""
    if not isinstance(config.model, VisualConfig):
        return "the mean"
    own = "pictures" in find_system(config.env_name, kwargs=config.env.make_kwargs).knows
    return "a black picture" if own else "the mean picture"


def to_dict(config: Any) -> dict[str, Any]:
    """Any config as plain JSON types; ``from_dict`` reverses it for a ``TrainConfig``."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """TrainConfig of a saved one. Raises ``ValueError`` naming an unknown key or a bad value."""
    require("config", values, isinstance(values, dict), "a table of options")
    model_name, env_name = values.get("model_name", "jump"), values.get("env_name", "oscillator")
    model = values.get("model", {})
    if model_name == "visual" and isinstance(model, dict):
        visual = visual_from_dict(model)
        base = replace(
            default_config(env_name, "visual", visual.predictor, visual.size), model=visual
        )
    else:
        base = default_config(env_name, model_name)
    return merge(base, values, "config")


def model_from_dict(model_name: str, values: dict[str, Any]) -> Any:
    """Config of a model from plain values. Raises ``ValueError`` as ``from_dict`` does."""
    if model_name == "visual":
        return visual_from_dict(values)
    return merge(default_config(model_name=model_name).model, values, "model")
