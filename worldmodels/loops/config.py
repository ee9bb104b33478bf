"""What a loop does: one frozen dataclass, saved beside what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from worldmodels.configs.environment import check_env, require_make_kwargs
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import conform, require, require_count, require_name, require_number
from worldmodels.configs.training import MODELS

CONTINUOUS = ("sac", "td3")
"""Agents that need numbers for actions."""


@known_keywords
@dataclass(frozen=True)
class LoopConfig:
    """Collect with the current agent, go on training the model, improve the agent in it; and again.

    After MBPO (Janner et al. 2019, arXiv:1906.08253): an ensemble, and short rollouts from real states. Raises
    ``ConfigError`` for a value outside its range.
    """

    env: str = "pendulum"
    """System, or id of any Gymnasium env."""
    model: str = "jump"
    """Structure of the model."""
    agent: Literal["sac", "ppo", "dqn", "td3"] = "sac"
    """Agent of Stable-Baselines3; sac and td3 need continuous actions."""
    rounds: int = 10
    """Times that everything is done."""
    first_episodes: int = 5
    """True episodes before the first round."""
    first_policy: Literal["random", "bang"] = "random"
    """Actions of these: drawn anew at every step, or extremes, held for 1 to 20 steps, which lead farther."""
    episodes: int = 2
    """True episodes that the agent collects after each round."""
    ensemble: int = 5
    """Members of the model, whose disagreement is a penalty."""
    first_epochs: int = 30
    """Epochs of the model's training in the first round."""
    epochs: int = 10
    """Epochs in each later round, from the weights of the one before."""
    imagined_steps: int = 10_000
    """Steps of the agent in the model, a round."""
    rollout_steps: int = 30
    """Steps of an imagined episode, which begins at a state of the buffer."""
    num_envs: int = 32
    """Imagined episodes stepped together."""
    uncertainty_penalty: float = 0.0
    """Reward lost per unit of the members' disagreement."""
    evaluation_episodes: int = 16
    """True episodes that a return is the mean of; nothing is learned from them."""
    model_free_steps: int = 0
    """True steps of the same agent without a model, for comparison; 0: none."""
    seed: int = 0
    """Seed of everything."""
    make_kwargs: dict[str, bool | int | float | str] | None = None
    """Arguments of gymnasium.make for an env that is not of PhysGym."""

    def __post_init__(self) -> None:
        conform(self)
        require_name("model", self.model, MODELS)
        require_make_kwargs("make_kwargs", self.make_kwargs)
        counts = {
            "rounds": (1, 10_000),
            "first_episodes": (3, 100_000),
            "episodes": (1, 100_000),
            "ensemble": (1, 64),
            "first_epochs": (1, 100_000),
            "epochs": (1, 100_000),
            "imagined_steps": (1, 10**9),
            "rollout_steps": (1, 1_000_000),
            "num_envs": (1, 100_000),
            "evaluation_episodes": (1, 100_000),
            "model_free_steps": (0, 10**9),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in counts.items():
            require_count(name, getattr(self, name), low, high)
        require_number("uncertainty_penalty", self.uncertainty_penalty, 0.0, 1e6)
        system = check_env(self.env, {}, "env", "", self.make_kwargs)
        object.__setattr__(self, "env", system.name)
        ours = "parameters" in system.knows
        discrete = self.agent not in CONTINUOUS if ours else system.discrete
        wanted = "an agent of discrete actions (ppo, dqn)" if discrete else "sac, td3 or ppo"
        fits = self.agent in (("ppo", "dqn") if discrete else ("ppo", *CONTINUOUS))
        require("agent", self.agent, fits, f"{wanted} for {system.env_id}")

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of the true env, beside its defaults."""
        if self.make_kwargs:
            return dict(self.make_kwargs)
        from physgym import SYSTEMS

        continuous = self.env in SYSTEMS and self.agent in CONTINUOUS
        return {"action_mode": "continuous"} if continuous else {}
