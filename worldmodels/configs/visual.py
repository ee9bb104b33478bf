"""Configs of models of pixels: what stands between pictures and one of the structures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from worldmodels.configs.keypoints import KeypointConfig, keypoint_config
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.pixels import PREDICTORS, SIZES, PixelConfig, Size
from worldmodels.configs.schema import (
    ConfigError,
    conform,
    merge,
    require,
    require_count,
    require_name,
    require_number,
)
from worldmodels.configs.structures import MODELS as STRUCTURES
from worldmodels.configs.structures import JumpConfig, ModelConfig

_OF_STATES = ("objective", "rollout_steps", "rollout_growth", "relative_loss", "ensemble")
_HIDDEN = {"tiny": 8, "small": 32, "base": 64}


@known_keywords
@dataclass(frozen=True)
class VisualConfig(PixelConfig):
    """A beta-VAE around a structure: pixels in, pixels out, physics in between."""

    encoder_frames: int = 2
    """Frames stacked into the encoder; at least 2, so that motion is visible."""
    encoder_actions: bool = True
    """Tell the encoder the actions between its frames: what they did to the motion is not seen yet."""
    context_frames: int = 2
    """Frames seen before a rollout; more than encoder_frames warm up a memory (lstm)."""
    latent_channels: int = 32
    """Channels of the latent map: half are positions, which alone are decoded, half momenta."""
    spatial_size: int = 8
    """Height and width of the latent map; the image is this times a power of 2."""
    flat_size: int = 64
    """Features of a flat latent: half positions, half momenta."""
    width: int = 32
    """Channels of the encoder, and of the decoder at the size of the latent map."""
    depth: int = 5
    """Convolutions of the encoder at the size of the latent map."""
    transform_width: int = 32
    """Channels inside the map from the VAE's sample to positions and momenta."""
    training_mode: Literal["hgn", "detached"] = "hgn"
    """hgn: one ELBO over a decoded rollout; detached: predictor on detached latents, its own optimiser."""
    beta: float = 0.001
    """Weight of the KL divergence, summed over the latent, against a picture's summed squared error."""
    free_bits: float = 0.0
    """Nats of KL that each element of the latent has for free."""
    predictor_weight: float = 1.0
    """Weight of the predictor's loss in the latent (detached mode)."""
    head_weight: float = 1.0
    """Weight of the losses of the reward and termination heads."""
    head_gradient: bool = False
    """Let the heads' losses reach the latent; otherwise they only read it."""
    rollout_steps: int = 24
    """Steps of the rollouts in training."""
    rollout_growth: bool = True
    """Let the rollout grow from 2 to rollout_steps over the first half of the training."""
    pushforward_steps: int = 0
    """Most steps imagined without gradients before a rollout that is trained, so that longer ones stay
    sound (arXiv:2202.03376; hgn mode, in half of the batches, once rollouts have grown); 0: none."""
    consistency_weight: float = 0.0
    """Weight of a rollout's squared distance from what the encoder reads in the later frames, over the spread
    of such readings, which do not feel it (hgn mode); 0: not asked."""
    decoded_frames: int = 4
    """Random frames of a rollout that are decoded, and compared, in a step of training; 0: all of them."""
    refresh_steps: int | None = None
    """Steps after which a rollout reads its own last two pictures again, and goes on from what it reads:
    the latent then cannot leave those that the encoder makes, but energy and time's arrow are not kept; 0:
    never; None: as many as rollout_steps where the encoder reads two frames, else never."""
    train_encoder: bool = True
    """Train encoder and state transform; otherwise they stay as loaded."""
    train_decoder: bool = True
    """Train the decoder."""
    train_predictor: bool = True
    """Train the predictor."""
    time_step: float = 0.25
    """Length of one step of the buffer in the latent's own time."""
    dynamics: ModelConfig = field(default_factory=JumpConfig)
    """The structure's own options."""

    def __post_init__(self) -> None:
        conform(self, "model.")
        self.check_predictor(self.dynamics, ("spatial", "flat"))
        require_count("model.encoder_frames", self.encoder_frames, 2, 64)
        require_count("model.context_frames", self.context_frames, self.encoder_frames, 1000)
        for name, low, high in (("latent_channels", 2, 1024), ("flat_size", 2, 65536)):
            value = getattr(self, name)
            even = low <= value <= high and value % 2 == 0
            require(f"model.{name}", value, even, f"an even number from {low} to {high}")
        require_count("model.spatial_size", self.spatial_size, 1, 256)
        require_count("model.width", self.width, 1, 4096)
        require_count("model.depth", self.depth, 1, 64)
        require_count("model.transform_width", self.transform_width, 1, 4096)
        weights = ("beta", "free_bits", "predictor_weight", "head_weight", "consistency_weight")
        for name in weights:
            require_number(f"model.{name}", getattr(self, name), 0.0, 1e6)
        ignored = self.consistency_weight > 0.0 and self.training_mode == "detached"
        expected = "0 in detached mode, whose predictor follows the readings anyway"
        require("model.consistency_weight", self.consistency_weight, not ignored, expected)
        require_count("model.rollout_steps", self.rollout_steps, 1, 1000)
        require_count("model.pushforward_steps", self.pushforward_steps, 0, 1000)
        require_count("model.decoded_frames", self.decoded_frames, 0, 1000)
        require_number("model.time_step", self.time_step, 1e-6, 1e3)
        if self.refresh_steps is not None:
            require_count("model.refresh_steps", self.refresh_steps, 0, 1000)
        expected = "0: pictures are read again by an encoder of encoder_frames=2 only"
        pairs = self.encoder_frames == 2 or not self.refresh_steps
        require("model.refresh_steps", self.refresh_steps, pairs, expected)
        self.check_dynamics(self.dynamics, _OF_STATES)

    @property
    def rereads(self) -> int:
        """Steps after which a rollout reads its own pictures again; 0: never."""
        if self.refresh_steps is None:
            return self.rollout_steps if self.encoder_frames == 2 else 0
        return self.refresh_steps

    @property
    def spatial(self) -> bool:
        """Whether the latent is a map."""
        return self.latent == "spatial"


_SIZED: dict[Size, dict[str, Any]] = {
    "tiny": {
        "latent_channels": 8,
        "flat_size": 8,
        "width": 8,
        "depth": 1,
        "transform_width": 8,
        "rollout_steps": 4,
        "decoded_frames": 2,
    },
    "small": {},
    "base": {
        "width": 64,
        "transform_width": 64,
        "rollout_steps": 30,
        "decoded_frames": 0,
    },
}


def halvings(image_size: int, spatial_size: int) -> int:
    """How often ``image_size`` is halved to become ``spatial_size``. Raises ``ValueError``."""
    count = round(math.log2(max(image_size, 1) / spatial_size))
    if count < 1 or spatial_size * 2**count != image_size:
        allowed = ", ".join(str(spatial_size * 2**k) for k in range(1, 6))
        raise ConfigError(
            f"image_size={image_size} is not valid for spatial_size={spatial_size}: expected "
            f"{spatial_size} times a power of 2 ({allowed}, ...); choose another "
            "--data.image-size (of physgym collect: --image-size)"
        )
    return count


def visual_config(
    predictor: str = "spatial_jump", size: Size = "small"
) -> VisualConfig | KeypointConfig:
    """Defaults of a predictor at a size. Raises ``ValueError`` for an unknown one of either."""
    require_name("predictor", predictor, PREDICTORS)
    require_name("size", size, SIZES)
    latent, name = PREDICTORS[predictor]
    if latent == "keypoint":
        return keypoint_config(predictor, size)
    options: dict[str, Any] = {"hidden": _HIDDEN[size]}
    if name == "port_hamiltonian":  # in a learned latent, what a control does depends on the place
        options |= {"integrator": "leapfrog", "activation": "softplus", "input_map": "state"}
    dynamics = STRUCTURES[name](**options)
    return VisualConfig(predictor=predictor, size=size, dynamics=dynamics, **_SIZED[size])


def visual_from_dict(values: dict[str, Any]) -> VisualConfig | KeypointConfig:
    """Config of plain values. Raises ``ValueError`` naming an unknown key or a bad value."""
    predictor, size = values.get("predictor", "spatial_jump"), values.get("size", "small")
    return merge(visual_config(predictor, size), values, "model")
