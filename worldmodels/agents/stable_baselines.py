"""Stock agents (Stable-Baselines3, extra `agents`) on any Gymnasium vector env, true or learned.

Stable-Baselines3 takes no Gymnasium `VectorEnv`; `to_sb3_vecenv` makes one into what it takes, so
that a batch of envs costs one batched step. Nothing of it is imported before the first call.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import VectorEnv

from physgym.backends import checked_device
from worldmodels.agents.returns import Restarter, numpy_of

_COMMON = {"policy_kwargs": {"net_arch": [64, 64]}, "learning_rate": 1e-3, "gamma": 0.98}
_REPLAY = {"batch_size": 256, "buffer_size": 200_000, "train_freq": 1}
AGENTS: dict[str, dict[str, Any]] = {
    "dqn": {
        **_COMMON,
        **_REPLAY,
        "learning_starts": 5_000,
        "gradient_steps": 2,
        "target_update_interval": 1_000,
        "exploration_fraction": 0.3,
        "exploration_final_eps": 0.05,
    },
    "ppo": {
        **_COMMON,
        "n_steps": 64,
        "batch_size": 1024,
        "n_epochs": 8,
        "gae_lambda": 0.95,
        "ent_coef": 0.001,
    },
    "sac": {**_COMMON, **_REPLAY, "learning_starts": 2_000, "gradient_steps": 3},
    "td3": {**_COMMON, **_REPLAY, "learning_starts": 2_000, "gradient_steps": 3},
}
"""Settings of each agent, found on the oscillator and the pendulum with 32 envs."""
_PIXEL_REPLAY = {"learning_rate": 3e-4, "batch_size": 64, "buffer_size": 20_000}
PIXEL_SETTINGS: dict[str, dict[str, Any]] = {
    "dqn": {**_PIXEL_REPLAY, "gradient_steps": 1},
    "ppo": {"learning_rate": 3e-4, "batch_size": 256, "n_epochs": 4},
    "sac": {**_PIXEL_REPLAY, "gradient_steps": 1},
    "td3": {**_PIXEL_REPLAY, "gradient_steps": 1},
}
"""What differs where observations are pictures: a replay of 20,000 64 x 64 ones takes 0.5 GB."""

EXPLORATION = 0.1
"""Standard deviation of the noise that TD3 explores with, in half widths of the action space (Fujimoto et al. 2018)."""

SMALLEST_PICTURE = 36
"""Width and height [px] below which the network that Stable-Baselines3 sees pictures with has no output."""


def to_sb3_vecenv(vector_env: VectorEnv) -> Any:
    """A Stable-Baselines3 `VecEnv` over a Gymnasium vector env, in any of its autoreset modes.

    Episodes restart in the same step, as Stable-Baselines3 wants: an info of a finished row holds
    `terminal_observation` and that row's final info, and every info `TimeLimit.truncated`.

    Raises:
        gymnasium.error.DependencyNotInstalled: Stable-Baselines3 is not installed.
        TypeError: `vector_env` is no Gymnasium vector env.
    """
    if not isinstance(vector_env, (VectorEnv, gymnasium.vector.VectorWrapper)):
        raise TypeError(f"expected a gymnasium.vector.VectorEnv, got {type(vector_env).__name__}")
    return _adapter()(vector_env)


def train_agent(
    vector_env: VectorEnv,
    agent: str = "ppo",
    steps: int = 200_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    stack: int = 1,
    device: str = "auto",
    ended: Callable[[int, float, int], object] | None = None,
    **settings: Any,
) -> Any:
    """Train a Stable-Baselines3 agent on a vector env and return it; `.predict` acts.

    Args:
        vector_env: the envs to train in, in any autoreset mode.
        agent: "dqn", "ppo", "sac" or "td3".
        steps: env steps, over all envs together.
        seed: of the agent's weights and draws, and of the envs.
        progress: called now and then with the number of env steps taken so far.
        stack: pictures that the agent sees as one, the newest last, so that motion is visible; its
            policy wants them as `greedy(agent, stack)` gives them.
        device: where the agent's networks run; see `device_of`.
        ended: told of every training episode that ends: the env steps so far, its return and its length.
        settings: override those of `AGENTS[agent]`, and `PIXEL_SETTINGS` where pictures are seen.

    Raises:
        ValueError: an unknown agent, one that cannot serve the env's action space, pictures that are
            too small for its network, a stack of anything but pictures, or a device that is not there.
        gymnasium.error.DependencyNotInstalled: Stable-Baselines3 is not installed.
    """
    learner = start_agent(vector_env, agent, seed, stack, device, **settings)
    first = getattr(learner, "learning_starts", 0)
    if steps <= first:
        warnings.warn(
            f"{agent} learns from step {first} on, and steps={steps} end before it: it stays as it was drawn",
            stacklevel=2,
        )
    return learner.learn(total_timesteps=steps, callback=_callback(progress, ended))


def start_agent(
    vector_env: VectorEnv,
    agent: str = "ppo",
    seed: int = 0,
    stack: int = 1,
    device: str = "auto",
    **settings: Any,
) -> Any:
    """An agent of Stable-Baselines3 as it is drawn, on a vector env. Arguments and errors as of `train_agent`."""
    check_actions(agent, isinstance(vector_env.single_action_space, gymnasium.spaces.Discrete))
    sb3 = library()
    space = vector_env.single_observation_space
    both, pixels = isinstance(space, gymnasium.spaces.Dict), len(space.shape or ()) == 3
    policy = "MultiInputPolicy" if both else "CnnPolicy" if pixels else "MlpPolicy"
    if stack != 1:
        check_stack(stack, pixels)
    seen = PIXEL_SETTINGS[agent] if both or pixels else {}
    chosen = copy.deepcopy({**AGENTS[agent], **seen, **settings})  # sac writes into policy_kwargs
    if agent == "ppo" and "batch_size" not in settings:
        rollout = chosen["n_steps"] * vector_env.num_envs
        chosen["batch_size"] = _even_share(rollout, chosen["batch_size"])
    if agent == "td3":
        chosen.setdefault("action_noise", _exploration(sb3, vector_env))
    if "features_extractor_class" not in chosen["policy_kwargs"]:
        check_pictures(space)
    where = device_of(device, both or pixels)
    kind = getattr(sb3, agent.upper())
    return kind(policy, watched(vector_env, stack), seed=seed, device=where, verbose=0, **chosen)


def _exploration(sb3: ModuleType, vector_env: VectorEnv) -> Any:
    """Normal noise for a policy that has none of its own; Stable-Baselines3 scales actions to [-1, 1] before it."""
    shape = vector_env.single_action_space.shape or ()
    return sb3.common.noise.NormalActionNoise(np.zeros(shape), EXPLORATION * np.ones(shape))


def watched(vector_env: VectorEnv, stack: int = 1) -> Any:
    """A vector env as agents learn in it: its episodes are counted, and ``stack`` pictures are seen as one."""
    sb3 = library()
    venv = sb3.common.vec_env.VecMonitor(to_sb3_vecenv(vector_env))
    return (
        venv if stack == 1 else sb3.common.vec_env.VecFrameStack(venv, stack, channels_order="last")
    )


def device_of(name: str, pixels: bool) -> str:
    """Where an agent's networks run: `name`, or for "auto" CUDA where pictures are seen and it is there, else the CPU.

    Networks of states are two layers of 64: a GPU would mostly wait for the envs, and Stable-Baselines3 itself
    advises against one. Raises ValueError for a device that torch cannot use here.
    """
    import torch

    if name == "auto":
        return "cuda" if pixels and torch.cuda.is_available() else "cpu"
    return str(checked_device(torch, name))


def check_actions(agent: str, discrete: bool) -> None:
    """Raise ValueError unless `agent` exists and can choose such actions; imports nothing."""
    if agent not in AGENTS:
        raise ValueError(f"agent={agent!r} is none of {', '.join(AGENTS)}.")
    if agent == "dqn" and not discrete:
        raise ValueError(
            "dqn needs discrete actions, this env has continuous ones: use ppo, sac or td3."
        )
    if agent in ("sac", "td3") and discrete:
        raise ValueError(
            f"{agent} needs continuous actions, this env has discrete ones: use ppo or dqn."
        )


def check_stack(stack: int, pixels: bool) -> None:
    """Raise ValueError unless `stack` observations can be seen as one."""
    if stack < 1 or (stack > 1 and not pixels):
        expected = "a number of pictures, 1 or more" if pixels else "1, as states show motion"
        raise ValueError(f"stack={stack} is not valid: expected {expected}")


def check_pictures(space: gymnasium.Space) -> None:
    """Raise ValueError for pictures too small for Stable-Baselines3's network (Nature's, of three layers)."""
    parts = space.values() if isinstance(space, gymnasium.spaces.Dict) else [space]
    for part in parts:
        shape = part.shape or ()
        if len(shape) == 3 and min(shape[:2]) < SMALLEST_PICTURE:
            raise ValueError(
                f"pictures of {shape[0]} x {shape[1]} pixels are too small for the network of "
                f"Stable-Baselines3, which needs {SMALLEST_PICTURE} x {SMALLEST_PICTURE}: use larger ones "
                "(image_size=64; of a world model, those it was trained on), or give "
                'policy_kwargs={"features_extractor_class": ...}'
            )


def _even_share(total: int, most: int) -> int:
    """The largest divisor of `total` up to `most`; `total` itself where that would be tiny."""
    share = max(size for size in range(1, min(total, most) + 1) if total % size == 0)
    return share if 16 * share >= min(total, most) else total


class _Adapter:
    """The methods of a `VecEnv` over a Gymnasium vector env; `_adapter` gives it its base class."""

    _seeds: list[int | None]
    _options: list[dict[str, Any]]
    _reset_seeds: Callable[[], None]
    _reset_options: Callable[[], None]
    _get_indices: Callable[[Any], Iterable[int]]

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self._restarter = Restarter(env)
        self._actions: Any = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)  # type: ignore[call-arg]

    def reset(self) -> Any:
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        if any(options != self._options[0] for options in self._options):
            raise ValueError("set_options: all envs of a Gymnasium vector env share their options.")
        observations, info = self.env.reset(seed=seeds, options=self._options[0] or None)  # type: ignore[arg-type]
        info = numpy_of(info)
        self.reset_infos = [_row(info, row) for row in range(self.env.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return numpy_of(observations)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, terminated, truncated, final = self._restarter.step(self._actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [
            {"TimeLimit.truncated": flag} for flag in (truncated & ~terminated).tolist()
        ]
        for row in np.flatnonzero(done).tolist():
            last = final.observations
            infos[row].update(_row(final.infos, row))
            infos[row]["terminal_observation"] = (
                {key: value[row].copy() for key, value in last.items()}
                if isinstance(last, Mapping)
                else last[row]
            )
        return observations, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> list[Any]:
        return list(self.env.render() or ())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        if len(list(self._get_indices(indices))) != self.env.num_envs:
            raise ValueError(f"set_attr({attr_name!r}): a vector env has one value for all rows.")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"env_method({method_name!r}): rows of a vector env are no envs; call `.env` itself."
        )

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


def _row(info: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The info of one row, as its single env would give it."""
    return {
        key: _row(value, row) if isinstance(value, Mapping) else value[row]
        for key, value in info.items()
        if not key.startswith("_") and info.get(f"_{key}", np.ones(row + 1, dtype=bool))[row]
    }


@cache
def _adapter() -> type:
    base = library().common.vec_env.VecEnv
    return type("VectorEnvAdapter", (_Adapter, base), {})


def _callback(
    progress: Callable[[int], None] | None, ended: Callable[[int, float, int], object] | None
) -> Any:
    """What Stable-Baselines3 calls after every step of all envs, with its local variables."""

    def report(values: dict[str, Any], _: dict[str, Any]) -> bool:
        steps = values["self"].num_timesteps
        if progress is not None:
            progress(steps)
        for info in values["infos"]:
            if ended is not None and "episode" in info:  # VecMonitor's
                ended(steps, float(info["episode"]["r"]), int(info["episode"]["l"]))
        return True

    return report


def library() -> ModuleType:
    """Stable-Baselines3, imported when it is asked for. Raises DependencyNotInstalled where it is not there."""
    try:
        import stable_baselines3
        import stable_baselines3.common.noise
        import stable_baselines3.common.vec_env
    except ImportError as error:
        raise DependencyNotInstalled(
            "Stable-Baselines3 is not installed: pip install 'physgym[agents]'."
        ) from error
    return stable_baselines3
