"""Config of the keypoint medium: pictures read as few numbers, which a structure steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.pixels import PREDICTORS, PixelConfig, Size
from worldmodels.configs.schema import conform as conform_fields
from worldmodels.configs.schema import require, require_count, require_name, require_number
from worldmodels.configs.structures import MODELS as STRUCTURES
from worldmodels.configs.structures import ModelConfig, PortHamiltonianConfig

COORDINATES = ("line", "circle", "plane")
"""What a point can live on."""
WELL_EXPLAINED = 0.9
"""Share of the motion in a picture that sprites should draw, for points to be all there is."""
_OF_STATES = ("objective", "rollout_steps", "rollout_growth", "relative_loss")
"""Options of a structure's config that mean nothing here."""


@known_keywords
@dataclass(frozen=True)
class KeypointConfig(PixelConfig):
    """Points read from each frame, their coordinates stepped by a structure, and sprites drawn at them."""

    predictor: str = "keypoint_hamiltonian"
    """keypoint_ and a structure: jump, lstm, ode, newtonian, velocity or hamiltonian."""
    points: int = 0
    """Bodies that move; 0: as many as are found in the pictures."""
    coordinates: str = "auto"
    """What each point lives on: line, circle or plane, one a body with commas between; auto: as is found."""
    sprite_reach: int = 0
    """Pixels from a sprite's centre to its edge; 0: as the bodies' size asks."""
    sight_frames: int = 400
    """Still frames that are looked at to find the bodies and to draw them."""
    sprite_steps: int = 300
    """Batches of 32 still frames that the sprites are fitted on."""
    context_frames: int = 8
    """Frames seen before a rollout: the structure itself filters positions and velocities from them."""
    rollout_steps: int = 24
    """Steps of the rollouts behind filtered frames."""
    short_steps: int = 16
    """Longest rollouts from smoothed states, with which the training begins."""
    short_share: float = 0.3
    """Share of the training that descends on short rollouts from smoothed states, which grow from 1 step;
    the rest, on rollouts behind filtered frames."""
    smoothing_frames: int = 9
    """Frames of a recorded episode that a velocity is smoothed over, an odd number."""
    precision_pixels: float = 0.05
    """Error of a reading in pixels: far beyond it, an error in a rollout weighs by its logarithm alone."""
    head_width: int = 128
    """Hidden units of the heads that tell reward and end of an episode."""
    head_weight: float = 1.0
    """Weight of their losses, which do not reach the motion."""
    dynamics: ModelConfig = field(default_factory=PortHamiltonianConfig)
    """The structure's own options."""

    def __post_init__(self) -> None:
        conform_fields(self, "model.")
        self.check_predictor(self.dynamics, ("keypoint",))
        self.check_dynamics(self.dynamics, _OF_STATES)
        require_count("model.points", self.points, 0, 16)
        for kind in () if self.coordinates == "auto" else self.coordinates.split(","):
            require_name("model.coordinates", kind, ("auto", *COORDINATES))
        if self.points and self.coordinates != "auto":
            many = len(self.coordinates.split(","))
            expected = f"{self.points} names with commas between, as points={self.points} says"
            require("model.coordinates", self.coordinates, many == self.points, expected)
        require_count("model.sprite_reach", self.sprite_reach, 0, 256)
        require_count("model.sight_frames", self.sight_frames, 50, 100_000)
        require_count("model.sprite_steps", self.sprite_steps, 1, 100_000)
        require_count("model.context_frames", self.context_frames, 2, 1000)
        require_count("model.rollout_steps", self.rollout_steps, 1, 1000)
        require_count("model.short_steps", self.short_steps, 1, 1000)
        require_number("model.short_share", self.short_share, 0.0, 1.0)
        odd = 5 <= self.smoothing_frames <= 99 and self.smoothing_frames % 2 == 1
        require("model.smoothing_frames", self.smoothing_frames, odd, "an odd number from 5 to 99")
        require_number("model.precision_pixels", self.precision_pixels, 1e-4, 100.0)
        require_count("model.head_width", self.head_width, 1, 4096)
        require_number("model.head_weight", self.head_weight, 0.0, 1e6)

    @property
    def encoder_frames(self) -> int:
        """Frames that one latent is read from: those that are seen before a rollout."""
        return self.context_frames

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """What each point lives on; None: it is to be found."""
        return None if self.coordinates == "auto" else tuple(self.coordinates.split(","))

    @property
    def settled(self) -> bool:
        """Whether all that can be found in pictures is there, so that a model can be built."""
        return bool(self.points and self.sprite_reach and self.kinds)


def keypoint_config(predictor: str, size: Size) -> KeypointConfig:
    """Defaults of a predictor of this medium at a size."""
    name = PREDICTORS[predictor][1]
    options: dict[str, Any] = {}
    if size == "tiny":
        options["hidden"] = 16
    elif size == "base":
        options["hidden"] = 128
    if name == "port_hamiltonian":
        options["integrator"] = "yoshida4"  # leapfrog's own error is what limits fast motion
    return KeypointConfig(
        predictor=predictor,
        size=size,
        dynamics=STRUCTURES[name](**options),
        **(_TINY if size == "tiny" else {}),
    )


_TINY: dict[str, Any] = {
    "sight_frames": 60,
    "sprite_steps": 20,
    "rollout_steps": 4,
    "short_steps": 2,
}
