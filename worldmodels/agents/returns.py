"""What an agent earns: mean returns over whole episodes, in any vector env."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv


class Returns(NamedTuple):
    """Returns of whole episodes, one for each env."""

    mean: float
    """Mean return."""
    standard_error: float
    """Standard error of the mean; NaN for one episode, which has none."""
    returns: np.ndarray
    """(episodes,) float64."""
    diverged: int
    """Episodes that a learned model ended because it diverged."""

    def __str__(self) -> str:
        count = len(self.returns)
        spread = f"{self.standard_error:.1f}" if count > 1 else "n/a"
        text = f"{self.mean:.1f} +- {spread} ({count} episode{'s' if count > 1 else ''}"
        return text + (f", {self.diverged} diverged)" if self.diverged else ")")


def evaluate_agent(
    act: Callable[[Any], Any], vector_env: VectorEnv, seed: int | None = 0
) -> Returns:
    """Play one whole episode in every env of `vector_env`, in any autoreset mode.

    Args:
        act: batched observations to batched actions; see `greedy`. One that remembers and has a `reset()`,
            such as `worldmodels.Planner`, is reset first.
        vector_env: as many envs as episodes are wanted.
        seed: env i starts from seed + i.
    """
    forget = getattr(act, "reset", None)
    if forget is not None:
        forget()
    playing = np.ones(vector_env.num_envs, dtype=np.bool_)
    returns, diverged = np.zeros(vector_env.num_envs), 0
    restarter = Restarter(vector_env)
    observations = numpy_of(vector_env.reset(seed=seed)[0])
    while playing.any():
        observations, rewards, terminated, truncated, final = restarter.step(act(observations))
        returns[playing] += rewards[playing]
        ended = playing & (terminated | truncated)
        if ended.any():
            flags = final.infos.get("diverged", np.zeros(vector_env.num_envs, dtype=np.bool_))
            diverged += int((flags & ended).sum())
        playing &= ~ended
    spread = returns.std(ddof=1) if len(returns) > 1 else np.nan
    return Returns(float(returns.mean()), float(spread / np.sqrt(len(returns))), returns, diverged)


def greedy(model: Any, stack: int = 1) -> Callable[[Any], Any]:
    """The deterministic policy of a trained agent, for `evaluate_agent`.

    One that was trained on `stack` pictures at a time gets the last of them, black ones before the first;
    such a policy remembers, and serves one evaluation.
    """
    seen: deque[Any] = deque(maxlen=stack)

    def act(observations: Any) -> Any:
        if stack > 1:
            while len(seen) < stack:
                seen.append(np.zeros_like(observations))
            seen.append(observations)
            observations = np.concatenate(seen, axis=-1)
        return model.predict(observations, deterministic=True)[0]

    return act


class _Final(NamedTuple):
    """What finished rows ended with."""

    observations: Any
    infos: Mapping[str, Any]


class Restarter:
    """Steps a vector env so that finished rows restart at once, whatever its autoreset mode."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.same_step = env.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, _Final]:
        """Observations after any restart, rewards, terminated, truncated, and the ends."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        done = terminated | truncated
        if self.same_step:
            final = _Final(info.get("final_obs"), info.get("final_info", {}))
        else:
            final = _Final(observations, info)
            if done.any():
                observations, _ = self.env.reset(options={"reset_mask": done})
        if done.any():
            final = _Final(*map(numpy_of, final))
        return (*map(numpy_of, (observations, rewards, terminated, truncated)), final)


def numpy_of(values: Any) -> Any:
    """Tensors (of envs on torch) as NumPy arrays, through dicts and object arrays."""
    if isinstance(values, Mapping):
        return {key: numpy_of(value) for key, value in values.items()}
    if isinstance(values, np.ndarray) and values.dtype == object:
        converted = np.full(len(values), None, dtype=object)
        for row, value in enumerate(values):
            converted[row] = numpy_of(value)
        return converted
    return values.cpu().numpy() if hasattr(values, "cpu") else values
