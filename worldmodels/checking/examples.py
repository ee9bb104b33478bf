"""Inputs for a model's verbs, made of its spec: states in its range, or pictures that it can read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import physgym
from physgym.rendering import render_batch
from worldmodels.checking.failures import CheckError
from worldmodels.interface import Batch, Spec
from worldmodels.sight.seeing import trusted

ROWS = 3
"""B: rows of every example."""
STEPS = 4
"""Actions behind the context."""
TRIES = 200
"""Draws of a picture in which bodies may hide one another."""


class Examples(NamedTuple):
    """What the verbs of a model are called with, on its device and in its floating type."""

    context: Tensor
    """(B, K, D) states or (B, K, S, S, 3) uint8 frames."""
    past: Tensor
    """(B, K-1[, A]) actions between the elements of the context."""
    actions: Tensor
    """(B, STEPS[, A]) actions behind it."""
    params: Tensor
    """(B, P)."""
    batch: Batch
    """Windows that begin with the context, for ``loss``."""


def examples(model: Any, seed: int) -> Examples:
    """Examples for ``model``, the same for the same seed.

    States lie within half of ``model.reach`` where it is recorded (else they are of order one), and move by their
    velocities. Frames are those of the true system; of a model that has a ``sight``, its own sprites.
    Raises ``CheckError`` for a model of pixels whose ``context_frames`` is no count, and for one that does not
    see its own sprites.
    """
    spec, rng = model.spec, np.random.default_rng(seed)
    length = _context_length(model)
    count = length - 1 + STEPS
    frames = None
    if spec.image_size and getattr(model, "sight", None) is not None:
        states, frames = _sprites(model, count, rng)
    elif spec.image_size:
        states, frames = _true_pictures(spec, count, rng)
    else:
        states = _states(spec.state_size, _reach(model, spec.state_size), spec.dt, count, rng)
    kind, device = like(model)
    actions = torch.as_tensor(_actions(spec, count, rng), device=device)
    actions = actions.to(kind) if actions.is_floating_point() else actions

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=device).to(kind)

    told = tensor(_params(spec, rng))
    known = torch.ones(ROWS, count, dtype=torch.bool, device=device)
    batch = Batch(tensor(states), actions, told, known)
    if frames is not None or spec.foreign:  # whose rewards and ends are learned
        rewards = tensor(rng.random((ROWS, count)))
        batch = batch._replace(rewards=rewards, terminated=rewards > 0.9)
    if frames is not None:
        batch = batch._replace(frames=torch.as_tensor(frames, device=device))
    seen: Any = batch.states if frames is None else batch.frames
    return Examples(
        seen[:, :length], actions[:, : length - 1], actions[:, length - 1 :], told, batch
    )


def like(model: Any) -> tuple[torch.dtype, torch.device]:
    """Floating type and device of a model's tensors."""
    tensors = (*model.parameters(), *model.buffers(), torch.zeros(1))
    first = next(tensor for tensor in tensors if tensor.is_floating_point())
    return first.dtype, first.device


def _context_length(model: Any) -> int:
    if not model.spec.image_size:
        return 2
    length = getattr(model, "context_frames", None)
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise CheckError(
            "encode", "context_frames", f"it is {length!r}", "a count of frames, 1 or more",
            "Say how many frames `encode` is meant to see: learned envs ask for it.",
        )  # fmt: skip
    return length


def _reach(model: Any, size: int) -> np.ndarray:
    """(size,) largest values to draw: half of what training has seen, 1 where nothing is recorded."""
    reach = getattr(model, "reach", None)
    known = np.full(size, np.nan)
    if isinstance(reach, Tensor) and reach.shape == (size,):
        known = reach.detach().double().cpu().numpy()
    return np.where(np.isfinite(known) & (known > 0.0), 0.5 * known, 1.0)


def _states(
    size: int, reach: np.ndarray, dt: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """(B, count+1, size): positions drift by their velocities, which change a little."""
    states = np.empty((ROWS, count + 1, size))
    states[:, 0] = rng.uniform(-1.0, 1.0, (ROWS, size)) * reach
    half = size // 2
    for step in range(count):
        before = states[:, step]
        states[:, step + 1, :half] = before[:, :half] + dt * before[:, half:]
        pushes = rng.uniform(-0.1, 0.1, (ROWS, size - half)) * reach[half:]
        states[:, step + 1, half:] = before[:, half:] + pushes
    return states.clip(-reach, reach)


def _actions(spec: Spec, count: int, rng: np.random.Generator) -> np.ndarray:
    if spec.action_kind == "discrete":
        return rng.integers(0, spec.action_size, (ROWS, count))
    return rng.uniform(-1.0, 1.0, (ROWS, count, spec.action_size)).astype(np.float32)


def _params(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    """(B, P): the system's defaults give or take a tenth; about 1 where it is not known here."""
    system = physgym.SYSTEMS.get(spec.env_name)
    usual = {} if system is None else system.Params()._asdict()
    values = np.array([float(usual.get(name, 1.0)) for name in spec.param_names])
    return values * rng.uniform(0.9, 1.1, (ROWS, len(values)))


def _true_pictures(
    spec: Spec, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """True states (B, count+1, D) with no control, and their frames; noise where the system is not known."""
    size, system = spec.image_size, physgym.SYSTEMS.get(spec.env_name)
    if system is None:
        shape = (ROWS, count + 1, size, size, 3)
        states = np.zeros((ROWS, count + 1, spec.state_size))
        return states, rng.integers(0, 256, shape, dtype=np.uint8)
    params, idle = system.Params(), (0.0,) * system.control_size
    past: list[Any] = []
    scenes = []
    for _ in range(ROWS):
        state = system.sample_state(rng, params)
        for _ in range(count + 1):
            past.append(state)
            scenes.append(system.scene(state, None, params, False))
            state = system.step(state, idle, params, spec.dt)
    frames = render_batch(scenes, system.view, size).reshape(ROWS, count + 1, size, size, 3)
    return np.array(past).reshape(ROWS, count + 1, -1), frames


def _sprites(model: Any, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and rates (B, count+1, 2n), and the model's own sprites there, all of them seen whole."""
    chart, size = model.sight.chart, model.spec.image_size
    kind, device = model.sight.reader.background.dtype, model.sight.reader.background.device
    reach = np.full(2 * chart.size, 0.6)
    reach[list(chart.angles)] = np.pi
    moved, drawn = [], []
    with torch.no_grad():
        for _ in range(TRIES):
            states = _states(len(reach), reach, model.spec.dt, count, rng)
            places = torch.as_tensor(states[..., : chart.size], device=device).to(kind)
            radii = torch.full(
                (*places.shape[:2], len(chart.kinds)), 0.5, dtype=kind, device=device
            )
            pictures = model.sight.sprites(chart.points(places, radii).flatten(0, 1))
            pictures = (255.0 * pictures.clamp(0.0, 1.0)).round().permute(0, 2, 3, 1)
            pictures = pictures.to(torch.uint8).unflatten(0, places.shape[:2])
            whole = trusted(model.look(pictures).seen).flatten(1).all(1).cpu().numpy()
            moved += list(states[whole])
            drawn += list(pictures.cpu().numpy()[whole])
            if len(drawn) >= ROWS:
                return np.stack(moved[:ROWS]), np.stack(drawn[:ROWS]).reshape(
                    ROWS, count + 1, size, size, 3
                )
    raise CheckError(
        "encode", "encode", "not all bodies are seen in pictures of the model's own sprites",
        "sprites that its reader finds whole",
        "A model of keypoints is checked when it has learned to see: worldmodels.train does that.",
    )  # fmt: skip
