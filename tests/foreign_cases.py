"""Envs that are not of PhysGym, made for tests: a cart without friction whose every rule is one line."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import physgym
from worldmodels.interface import Batch, Latent, Spec, WorldModel

CART = "Lab/ForeignCart-v0"
DT = 0.1


def moved(states: Any, actions: Any) -> Any:
    """Observations (N, 2) after a step under forces (N, 1) in [-3, 5]."""
    v = states[:, 1] + DT * actions[:, 0]
    columns = (states[:, 0] + DT * v, v)
    if isinstance(states, np.ndarray):
        return np.stack(columns, 1)
    import torch

    return torch.stack(columns, 1)


def reward(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of all three: none of them can be left out."""
    return -(after[:, 0] ** 2) - 0.1 * before[:, 1] ** 2 - 0.01 * actions[:, 0] ** 2


def ended(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Beyond two metres."""
    return np.abs(after[:, 0]) > 2.0


class Cart(gymnasium.Env[np.ndarray, np.ndarray]):
    """A cart on a line, pushed by a force from -3 to 5."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, reach: float = 1.0) -> None:
        self.render_mode, self.reach = render_mode, reach
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-3.0, 5.0, (1,), np.float64)
        self.state = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-self.reach, self.reach, 2)
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        before, acts = self.state[None], np.asarray(action)[None]
        after = moved(before, acts)
        self.state = after[0]
        over = bool(ended(before, acts, after)[0])
        return self.state.copy(), float(reward(before, acts, after)[0]), over, False, {}

    def render(self) -> np.ndarray:
        picture = np.zeros((20, 40, 3), np.uint8)
        picture[:, int(np.clip(20 + 8 * self.state[0], 0, 39))] = 255
        return picture


def register() -> None:
    """Make the cart known to Gymnasium."""
    if CART not in gymnasium.registry:
        gymnasium.register(CART, Cart, max_episode_steps=30)


register()


class PerfectCart(WorldModel):
    """The cart itself behind the four verbs, in float64."""

    def __init__(self) -> None:
        import torch

        super().__init__()
        self.spec = Spec(
            env_name=CART, dt=DT, state_size=2, action_kind="continuous", action_size=1,
            max_episode_steps=30, foreign=True, coordinates="0 | 1",
        )  # fmt: skip
        self.register_buffer("one", torch.ones((), dtype=torch.float64))

    def encode(self, context: Any, params: Any = None) -> Latent:
        return Latent(context[:, -1])

    def step(self, latent: Latent, action: Any, dt: Any = None) -> Latent:
        return Latent(moved(latent.z, 4.0 * action + 1.0))

    def decode(self, latent: Latent) -> Any:
        return latent.z

    def loss(self, batch: Batch) -> Any:
        raise NotImplementedError


def system() -> Any:
    """What is known of the cart."""
    return physgym.get_system(CART)


DISC = "Lab/ForeignDisc-v0"


class Disc(Cart):
    """The cart as a red disc before a pale wall: nothing in it is black."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode, reach=1.3)

    def render(self) -> np.ndarray:
        rows, columns = np.mgrid[:48, :96]
        picture = np.full((48, 96, 3), (225, 230, 240), np.uint8)
        distance = np.hypot(rows - 23.5, 0.5 * (columns - (47.5 + 18.0 * self.state[0])))
        share = np.clip(5.0 - distance, 0.0, 1.0)[..., None]
        return np.uint8((1.0 - share) * picture + share * np.array([200, 30, 20]))


BLINK = "Lab/ForeignBlink-v0"


class Blink(Disc):
    """An env whose episodes are one step long."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, True, False, info


BLIND = "Lab/ForeignBlind-v0"


class Blind(Cart):
    """An env that renders words."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def render(self) -> Any:
        return "a cart"


for _name, _kind in ((DISC, Disc), (BLINK, Blink), (BLIND, Blind)):
    if _name not in gymnasium.registry:
        gymnasium.register(_name, _kind, max_episode_steps=30)
