"""What every world model is: four verbs, and the records they speak in.

Legend, for this package: B batch, T time, D state size, F feature, A action, P parameters,
K context frames, C channels, H x W latent map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from physgym import threads
from worldmodels.configs.coordinates import Coordinates
from worldmodels.configs.schema import require

threads.use_torch()

MEDIA = ("states", "pixels")
"""What a model can see of an env; the folders of ``evaluation`` and the viewers of ``films`` have these names."""
LARGEST_SIZE = 10_000_000
"""No count of a spec is larger: what a damaged file asks for is refused before it is allocated."""


@dataclass(frozen=True)
class Spec:
    """What a model must know of the env it imitates; plain JSON beside the weights."""

    env_name: str
    """Name in ``physgym.SYSTEMS``, or the id of another Gymnasium env."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of ``gymnasium.make`` that the buffer was collected with."""
    dt: float = 0.1
    """Seconds a step in the buffer."""
    state_size: int = 2
    """D: D/2 positions, then their D/2 velocities. Of an env that is not of PhysGym: what it observes."""
    angles: tuple[int, ...] = ()
    """Indices of the coordinates of the state that are angles."""
    action_kind: str = "discrete"
    """discrete (integers below action_size) or continuous (action_size numbers in [-1, 1])."""
    action_size: int = 3
    """Number of discrete actions, or size of a continuous one."""
    param_names: tuple[str, ...] = ()
    """Physical parameters, in the order of a batch's ``params``."""
    max_episode_steps: int = 200
    """Time limit of the env."""
    image_size: int = 0
    """Height and width of the pictures that a model of pixels sees; 0: it sees states."""
    foreign: bool = False
    """The env is not of PhysGym: states are its observations, rewards and ends are learned."""
    coordinates: str = ""
    """Positions and velocities among a foreign env's observations, in the form of
    ``worldmodels.Coordinates``; "": nobody has said."""
    idle: int | None = None
    """The discrete action that does nothing (0: continuous zeros do); None where nobody says: older checkpoints."""

    def __post_init__(self) -> None:
        least, even = (1, "") if self.foreign else (2, "even ")
        if not least <= self.state_size <= LARGEST_SIZE or (even and self.state_size % 2):
            raise ValueError(
                f"state_size={self.state_size} is not valid: expected an {even}number from {least} on"
            )
        if self.action_kind not in ("discrete", "continuous"):
            raise ValueError(
                f"action_kind={self.action_kind!r} is not valid: expected discrete or continuous"
            )
        positions = self.state_size if self.foreign else self.state_size // 2
        if any(not 0 <= index < positions for index in self.angles):
            raise ValueError(f"angles={self.angles} are not all positions of the state")
        if not 0.0 < self.dt < math.inf:
            raise ValueError(f"dt={self.dt} is not valid: expected seconds above 0")
        if self.coordinates:
            require("spec.coordinates", self.coordinates, self.foreign, 'none (""): states say it')
            Coordinates.parse(self.coordinates).check_size(self.state_size, self.env_name)
        last = self.action_size - 1 if self.action_kind == "discrete" else 0
        if self.idle is not None and not 0 <= self.idle <= last:
            raise ValueError(f"idle={self.idle} is not valid: expected None or 0 to {last}")
        counts = {"action_size": 1, "max_episode_steps": 1, "image_size": 0}
        for name, least in counts.items():
            if not least <= getattr(self, name) <= LARGEST_SIZE:
                raise ValueError(
                    f"{name}={getattr(self, name)} is not valid: expected an integer from {least} to "
                    f"{LARGEST_SIZE}"
                )

    @property
    def medium(self) -> str:
        """What the model sees of the env: a name of ``MEDIA``."""
        return "pixels" if self.image_size else "states"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` reverses it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """Spec of saved values. Raises ``ValueError`` for a key that is missing or unknown, and for a
        value of another type than its field's or outside its range."""
        from worldmodels.configs.schema import merge, require

        require("spec", values, isinstance(values, dict), "a table")
        name, kwargs = values.get("env_name"), values.get("env_kwargs", {})
        require("spec.env_name", name, isinstance(name, str), "a name")
        named = isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)
        require("spec.env_kwargs", kwargs, named, "a table of arguments")
        others = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key != "env_kwargs"
        }
        return replace(merge(cls(str(name)), others, "spec"), env_kwargs=dict(kwargs))


class Batch(NamedTuple):
    """Windows of episodes, states and parameters in physical units."""

    states: Tensor
    """(B, T+1, D) float32; angles unwrapped."""
    actions: Tensor
    """(B, T) int64, or (B, T, A) float32."""
    params: Tensor
    """(B, P) float32."""
    mask: Tensor
    """(B, T) bool: transition t is of the episode."""
    frames: Tensor | None = None
    """(B, T+1, S, S, 3) uint8, where the model sees pixels."""
    rewards: Tensor | None = None
    """(B, T) float32, with the frames."""
    terminated: Tensor | None = None
    """(B, T) bool, with the frames."""
    observed: int = 0
    """Moments that are seen before a rollout begins, where a loss asks for that."""


def shortened(batch: Batch, steps: int) -> Batch:
    """The first ``steps`` transitions of every window."""
    cut: dict[str, Any] = {}
    for name, value in batch._asdict().items():
        if isinstance(value, Tensor) and name != "params":
            cut[name] = value[:, : steps + (name in ("states", "frames"))]
    return batch._replace(**cut)


class Latent(NamedTuple):
    """What a model carries from step to step; every tensor has the batch on axis 0."""

    z: Tensor
    """(B, F) or (B, C, H, W): half positions, half velocities or momenta, on axis 1."""
    memory: tuple[Tensor, ...] = ()
    """Hidden state of a model that has one (LSTM: h, c)."""
    condition: Tensor | None = None
    """(B, P) parameters the model is told, constant over a rollout."""


def select(latent: Latent, mask: Tensor, other: Latent) -> Latent:
    """Rows of ``latent`` where ``mask`` (B,) holds, of ``other`` elsewhere: a reset by row."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    memory = tuple(choose(a, b) for a, b in zip(latent.memory, other.memory, strict=True))
    if latent.condition is None or other.condition is None:
        return Latent(choose(latent.z, other.z), memory, None)
    return Latent(choose(latent.z, other.z), memory, choose(latent.condition, other.condition))


class DivergenceError(RuntimeError):
    """A learned rollout could not be integrated further; a caller ends it as diverged."""


@dataclass(frozen=True)
class Medium:
    """The kind of latent a structure works on."""

    features: int
    """Size of axis 1: features of a vector, channels of a map."""
    spatial: bool = False
    """Whether the latent is a map (B, C, H, W)."""
    angles: tuple[int, ...] = ()
    """Features that are angles, shown to networks as (cos, sin); vectors only."""
    action_kind: str = "discrete"
    """discrete or continuous."""
    action_size: int = 3
    """Number of discrete actions, or size of a continuous one."""
    condition_size: int = 0
    """Extra inputs a model is told: physical parameters."""
    idle: int | None = None
    """The discrete action that does nothing (0 for continuous ones), where a structure may rely on it."""

    structured: bool = True
    """Whether the first half of the features are positions, the second their rates."""

    def __post_init__(self) -> None:
        if self.structured and (self.features < 2 or self.features % 2):
            raise ValueError(f"features={self.features} is not valid: expected 2, 4, 6, ...")
        if self.features < 1:
            raise ValueError(f"features={self.features} is not valid: expected 1 or more")
        if self.spatial and self.angles:
            raise ValueError("angles are features of vectors: a map has none")


class Dynamics(nn.Module, ABC):
    """A structure: one rule for z' over features on axis 1, of vectors and maps alike.

    Built from a config and a ``Medium``; the first half of axis 1 are positions, the second
    velocities or momenta. The batch stays on axis 0 and rows never mix.
    """

    has_energy: ClassVar[bool] = False
    """Whether ``energy`` is there."""
    any_dt: bool = False
    """Whether a step length other than the buffer's means something to this structure."""
    reversible: bool = False
    """Whether a step of -dt undoes one of dt under the same action; ``check_world_model`` holds it to that."""
    recordable: ClassVar[bool] = False
    """Whether ``step`` is a function of its tensors and weights alone, the same operations whatever their values,
    with the gradients of those operations: learned envs of few rows and trainings may then run it as machine code.
    Not inherited; each class says so of itself."""
    unit_step: Tensor

    def __init__(self, medium: Medium) -> None:
        super().__init__()
        self.medium = medium
        self.register_buffer("unit_step", torch.ones(()))

    def calibrate(self, step: float) -> None:
        """Say how long a step of the buffer is in the latent's own time: the scale of discrete jumps."""
        self.unit_step.fill_(step)

    @abstractmethod
    def step(self, latent: Latent, action: Tensor, dt: Tensor | float) -> Latent:
        """Latent one control step of ``dt`` later; ``action`` (B,) int64 or (B, A)."""

    def initial_memory(self, z: Tensor) -> tuple[Tensor, ...]:
        """Memory at the start of an episode: () for a structure without one."""
        return ()

    def energy(self, latent: Latent) -> Tensor:
        """(B,) learned energy, up to scale and offset. Raises where the structure has none."""
        raise NotImplementedError(f"{type(self).__name__} has no energy; port_hamiltonian has")


class WorldModel(nn.Module, ABC):
    """Four verbs; everything downstream speaks these and never asks which model it holds."""

    spec: Spec
    any_dt: bool = False
    """Whether a step length other than the buffer's means something to this model."""
    reversible: bool = False
    """Whether a step of -dt undoes one of dt under the same action."""

    @property
    def told_params(self) -> tuple[str, ...]:
        """Physical parameters that the model's predictions depend on."""
        return self.spec.param_names

    @abstractmethod
    def encode(self, context: Tensor, params: Tensor | None = None) -> Latent:
        """Latent at the end of ``context`` (B, K, D); ``params`` (B, P) where conditioned."""

    @abstractmethod
    def step(self, latent: Latent, action: Tensor, dt: Tensor | float | None = None) -> Latent:
        """Latent ``dt`` seconds (default: those of the buffer) later, under ``action``."""

    @abstractmethod
    def decode(self, latent: Latent) -> Tensor:
        """(B, D) physical state of a latent."""

    def largest(self, latent: Latent) -> Tensor:
        """(B,) largest magnitude in a latent, which tells one that has diverged."""
        return latent.z.abs().flatten(1).amax(1)

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar to descend, and detached scalars to log."""


STRUCTURES: dict[str, type[Dynamics]] = {}
"""Structures by name, filled by ``register`` as the files of ``worldmodels.dynamics`` load."""


def register(name: str) -> Any:
    """Class decorator that puts a ``Dynamics`` into ``STRUCTURES``."""

    def add(kind: type[Dynamics]) -> type[Dynamics]:
        if name in STRUCTURES:
            raise ValueError(f"structure {name!r} is registered twice")
        STRUCTURES[name] = kind
        return kind

    return add


def check_dynamics(kind: Any, name: str) -> None:
    """Raise ``TypeError`` unless ``kind`` is a ``Dynamics`` that can be built."""
    if not (isinstance(kind, type) and issubclass(kind, Dynamics)):
        raise TypeError(f"structure {name!r}: {kind!r} is no subclass of worldmodels.Dynamics")
    if missing := sorted(kind.__abstractmethods__):
        raise TypeError(f"structure {name!r}: {kind.__qualname__} lacks {', '.join(missing)}")
