"""What the configs of all models of pixels share: their names, and what every one of them has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worldmodels.configs.schema import ConfigError, require, require_name
from worldmodels.configs.structures import MODELS as STRUCTURES
from worldmodels.configs.structures import ModelConfig

Size = Literal["tiny", "small", "base"]
SIZES: tuple[Size, ...] = ("tiny", "small", "base")
SHORT_NAMES = {"first_order": "ode", "port_hamiltonian": "hamiltonian"}
"""Structures whose name after the medium is shorter than their own."""
MEDIA = ("spatial", "flat", "keypoint")
"""Latents of a model of pixels: maps or vectors of a beta-VAE, or the coordinates of points that are read."""


def predictor_name(medium: str, structure: str) -> str:
    """Name on the command line of a structure that steps latents of ``medium``."""
    return f"{medium}_{SHORT_NAMES.get(structure, structure)}"


PREDICTORS = {predictor_name(m, name): (m, name) for m in MEDIA for name in STRUCTURES}
"""Names on the command line: the medium of the latent, and the structure that steps it."""


@dataclass(frozen=True)
class PixelConfig:
    """What every model of pixels has; a medium of the latent adds its own below."""

    predictor: str = "spatial_jump"
    """Medium of the latent (spatial_, flat_ or keypoint_) and structure that steps it: jump, lstm, ode,
    newtonian, velocity or hamiltonian."""
    size: Size = "small"
    """Dial that the defaults below follow: tiny for tests, small for 2 CPU cores, base for a GPU."""

    @property
    def medium(self) -> str:
        """What such a model sees of the env."""
        return "pixels"

    @property
    def name(self) -> str:
        """Name in ``KINDS``."""
        return "visual"

    @property
    def latent(self) -> str:
        """The medium of the latent: a name of ``MEDIA``."""
        return PREDICTORS[self.predictor][0]

    @property
    def structure(self) -> str:
        """Name of the predictor's structure."""
        return PREDICTORS[self.predictor][1]

    def check_predictor(self, dynamics: ModelConfig, latents: tuple[str, ...]) -> None:
        """Raise ``ConfigError`` for another medium than ``latents``, or options of another structure."""
        allowed = [name for name, (medium, _) in PREDICTORS.items() if medium in latents]
        require_name("model.predictor", self.predictor, allowed)
        structure = STRUCTURES[self.structure]
        require(
            "model.dynamics",
            type(dynamics).__name__,
            type(dynamics) is structure,
            f"{structure.__name__} as predictor={self.predictor!r} says",
        )

    def check_dynamics(self, dynamics: ModelConfig, names: tuple[str, ...]) -> None:
        """Options of a model over states, ``names``, that mean nothing here stay as they are."""
        default = type(dynamics)()
        for name in names:
            value = getattr(dynamics, name)
            if value != getattr(default, name):
                raise ConfigError(
                    f"model.dynamics.{name}={value!r} is an option of models over states; leave it "
                    f"at {getattr(default, name)!r}"
                    + (f" and use model.{name}" if hasattr(self, name) else "")
                )
