"""What to collect: one frozen dataclass, saved in the dataset and hashed into its name."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from worldmodels.configs.environment import (
    check_env,
    require_make_kwargs,
    require_step_length,
)
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.policies import require_policy
from worldmodels.configs.schema import conform, require, require_count

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_HIGHEST = {
    "episodes": 10_000_000,
    "steps": 1_000_000,
    "image_size": 4096,
    "shard_episodes": 1_000_000,
}
_ENV_ARGUMENTS = (
    "action_mode", "dt", "integrator", "params", "randomize", "reward", "start", "energy",
)  # fmt: skip


@known_keywords
@dataclass(frozen=True)
class CollectConfig:
    """A buffer of episodes; with the seed it decides every number in them.

    Raises ValueError for a value outside its range.
    """

    env: str = "oscillator"
    """System to collect from: pendulum, three_body or another of `physgym list`, or the id of any Gymnasium env
    (CartPole-v1, module:Id-v0 where a module registers it)."""
    name: str = "default"
    """Name of the dataset: it lies in datasets/<env>/<name>/."""
    episodes: int = 1000
    """Episodes to collect."""
    steps: int | None = None
    """Steps of an episode at most; None: the env's own time limit."""
    policy: str = "random"
    """random: uniform, anew at every step; zero: none; bang: extremes, held for 1 to 20 steps; ou: an
    Ornstein-Uhlenbeck process; mixed: each episode random, zero, bang or the system's hand-written
    controller with noise. Or one's own: the .zip of a Stable-Baselines3 agent, or module:function, which
    turns observations (N, F) into actions (N,) or (N, A)."""
    seed: int = 0
    """Seed of everything: episode i is a function of (seed, i) alone."""
    randomize: bool = False
    """Draw the physical parameters anew in every episode."""
    params: dict[str, float] | None = None
    """Overrides of physical parameters, such as: damping 0.2 mass 1."""
    action_mode: Literal["discrete", "continuous"] = "discrete"
    """Actions: one of the env's levels, or numbers in [-1, 1]."""
    dt: float | None = None
    """Seconds a step; None: the env's own."""
    integrator: str | None = None
    """Integrator of the truth; None: the env's own."""
    start: str | None = None
    """Start distribution, where the env has several."""
    energy: tuple[float, float] | None = None
    """Starts by energy: the lowest and the highest, as parts of the system's reference."""
    reward: Literal["dense", "sparse", "quadratic", "none"] = "dense"
    """Reward to record."""
    make_kwargs: dict[str, bool | int | float | str] | None = None
    """Arguments of gymnasium.make for an env that is not of PhysGym, such as: continuous True."""
    pixels: bool = False
    """Store pictures too."""
    image_size: int = 64
    """Width and height of the pictures."""
    shard_episodes: int | None = None
    """Episodes in a file; None: 500, or 32 with pixels."""
    val_fraction: float = 0.1
    """Share of the episodes in the validation split."""
    test_fraction: float = 0.1
    """Share of the episodes in the test split."""

    def __post_init__(self) -> None:
        conform(self)
        for option in ("params", "make_kwargs"):
            if not getattr(self, option):  # an empty table says no more than none
                object.__setattr__(self, option, None)
        require_make_kwargs("make_kwargs", self.make_kwargs)
        valid = _NAME.fullmatch(self.name) is not None
        require("name", self.name, valid, "letters, digits, '_', '-' and '.', not first a '.'")
        for name, high in _HIGHEST.items():
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), 1, high)
        require_count("seed", self.seed, 0, 2**63 - 1)
        require_step_length("dt", self.dt)
        for name in ("val_fraction", "test_fraction"):
            share = getattr(self, name)
            require(name, share, 0.0 <= share < 0.5, "a share from 0 to below 0.5")
        arguments = {name: getattr(self, name) for name in _ENV_ARGUMENTS}
        require_policy("policy", self.policy)
        system = check_env(self.env, arguments, "env", "", self.make_kwargs)
        object.__setattr__(self, "env", system.name)  # one name a system, whatever it was called
        if self.energy is not None:  # which says what start="energy" would
            object.__setattr__(self, "start", None)
        if "parameters" not in system.knows:
            object.__setattr__(self, "action_mode", system.action_mode)

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of `gymnasium.make` that differ from the env's own defaults."""
        if self.is_foreign:
            return dict(self.make_kwargs or {})
        defaults = CollectConfig()
        values = {name: getattr(self, name) for name in _ENV_ARGUMENTS}
        values["energy"] = self.energy and list(self.energy)  # as JSON reads it back
        return {key: value for key, value in values.items() if value != getattr(defaults, key)}

    @property
    def is_foreign(self) -> bool:
        """Whether the env is none of PhysGym's."""
        from physgym import SYSTEMS

        return self.env not in SYSTEMS

    @property
    def episodes_per_shard(self) -> int:
        """Episodes in every shard but the last."""
        return self.shard_episodes or (32 if self.pixels else 500)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return json.loads(json.dumps(asdict(self), allow_nan=False))

    def content_hash(self) -> str:
        """8 hexadecimal digits that depend on every field but the name."""
        values = {key: value for key, value in self.to_dict().items() if key != "name"}
        for later in ("make_kwargs", "energy"):  # buffers from before these fields keep their name
            if not values[later]:
                del values[later]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]
