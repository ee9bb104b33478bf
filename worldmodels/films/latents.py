"""Pictures of what the latent of a world model of pixels holds: channels, samples of the prior, traversals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.evaluation.plots import STYLE
from worldmodels.evaluation.problems import idle_actions
from worldmodels.films.mosaics import (
    LEGEND,
    Scale,
    colored,
    draw_grid,
    enlarged,
    figure_at,
    quantised,
)
from worldmodels.films.scenes import Scenes
from worldmodels.films.video import difference
from worldmodels.imagination import (
    device_of,
    evaluating,
    imagine,
    read,
)
from worldmodels.interface import Latent

CHANNELS, DIRECTIONS = 4, 3
"""Rows of a traversal: single channels, and directions of all channels together."""
DEVIATIONS = (-3, -2, -1, 0, 1, 2, 3)
"""Columns of a traversal, in standard deviations."""
PRIOR_SAMPLES = 8
PRIOR_STEPS = (0, 2, 5, 10, 15, 20, 30, 40)
MAPS_IN_A_ROW = 8


def latent_channels(model: Any, scenes: Scenes, path: str | Path, factor: int = 2) -> Path:
    """Draw positions q and momenta p of one scene's latent: a map a channel, or bars of a flat one."""
    context = scenes.frames[:1, : model.context_frames]
    actions = scenes.problems.actions[:1, : model.context_frames - 1]
    with evaluating(model):
        latent = read(model, context, actions, scenes.told(model)[:1])
        drawn = quantised(model.decode(latent).float().cpu())[0]
        q, p = latent.z[0].float().cpu().numpy().reshape(2, -1, *latent.z.shape[2:])
    title = (
        f"{scenes.problems.system.name}, {model.config.predictor}: positions q, which alone are drawn, "
        "and momenta p"
    )
    pair = context[0, -1], drawn
    if q.ndim == 1:
        return _bars((q, p), pair, path, title)
    return _maps((q, p), pair, path, title, factor)


def _maps(
    halves: tuple[np.ndarray, np.ndarray], pair: Any, path: str | Path, title: str, factor: int
) -> Path:
    """Maps (C, H, W) of q and of p on one scale, beside the true picture and the decoded one."""
    count, size = len(halves[0]), len(pair[0])
    per_row = min(MAPS_IN_A_ROW, count)
    lines = -(-count // per_row)
    limit = float(max(np.abs(half).max() for half in halves))
    cells = np.full((2 * lines, 1 + per_row, size, size, 3), 255, np.uint8)
    cells[:2, 0] = pair
    for part, half in enumerate(halves):
        maps = enlarged(colored(half, limit), size // half.shape[1])
        for index, picture in enumerate(maps):
            line, column = divmod(index, per_row)
            cells[part * lines + line, 1 + column] = picture
    starts = [line * per_row for line in range(lines)]
    rows = [
        f"{name} {start} to {min(start + per_row, count) - 1}" for name in "qp" for start in starts
    ]
    columns = ["true, and\ndecoded below", *[""] * per_row]
    bar = Scale(limit, "value (no unit)")
    cells = enlarged(cells, factor)
    return draw_grid(cells, path, title, rows, columns, (), (), (lines,), (1,), bar)


def _bars(halves: tuple[np.ndarray, np.ndarray], pair: Any, path: str | Path, title: str) -> Path:
    """Bars of flat q and p (F,) on one scale, beside the true picture and the decoded one."""
    limit = 1.05 * float(max(np.abs(half).max() for half in halves))
    with figure_at(path, figsize=(10.0, 4.6), layout="constrained") as figure:
        axes = figure.subplots(2, 2, width_ratios=(1, 3))
        for line, (name, half) in enumerate(zip("qp", halves, strict=True)):
            axes[line, 0].imshow(pair[line], interpolation="nearest")
            axes[line, 0].set_title(("true", "decoded")[line])
            axes[line, 0].set_axis_off()
            colors = np.where(half < 0, "#0072B2", "#D55E00")
            axes[line, 1].bar(np.arange(len(half)), half, color=colors)
            axes[line, 1].xaxis.get_major_locator().set_params(integer=True)
            axes[line, 1].set_ylim(-limit, limit)
            axes[line, 1].set_ylabel(f"{name} (no unit)")
        axes[1, 1].set_xlabel("feature")
        figure.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])
    return Path(path)


def prior_samples(model: Any, path: str | Path, seed: int = 0, factor: int = 2) -> Path:
    """Draw samples of the prior, z from the standard normal, and what they become under no action: of a foreign
    env, whose idle action nobody knows, under the first, or the middle of continuous ones.

    A model that is told parameters is told their mean.
    """
    spec, device = model.spec, device_of(model)
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model):
        s = model.transform(
            torch.randn((PRIOR_SAMPLES, *latent_shape(model)), generator=generator).to(device)
        )
        told = model.param_shift.numel()
        condition = torch.zeros(PRIOR_SAMPLES, told, device=device) if told else None
        latent = Latent(s, model.dynamics.initial_memory(s), condition)
        actions = torch.as_tensor(
            idle_actions(spec, PRIOR_SAMPLES, max(PRIOR_STEPS)), device=device
        )
        pictures = torch.cat(
            [model.decode(latent).unsqueeze(1), imagine(model, latent, actions)], 1
        )
    cells = quantised(pictures[:, list(PRIOR_STEPS)].float().cpu())
    acted = (
        ("under action 0" if spec.action_kind == "discrete" else "under 0") if spec.foreign else ""
    )
    title = (
        f"{spec.env_name}, {model.config.predictor}: samples of the prior, and what follows "
        f"{acted or 'without action'}"
    )
    rows = [f"sample {index + 1}" for index in range(PRIOR_SAMPLES)]
    columns = [f"{step * spec.dt:g} s" for step in PRIOR_STEPS]
    return draw_grid(enlarged(cells, factor), path, title, rows, columns)


def traversal(model: Any, windows: Scenes, path: str | Path, factor: int = 2) -> Path:
    """Draw what becomes of one frame when parts of its latent z move, and what that changes.

    First the ``CHANNELS`` channels (elements of a flat latent) that tell most, by their mean KL over
    ``windows``; then the ``DIRECTIONS`` in which the windows' own z differ most, all channels together.
    """
    many = model.config.encoder_frames
    start, end, device = model.context_frames - many, model.context_frames, device_of(model)
    frames = torch.as_tensor(windows.frames[:, start:end], device=device)
    actions = torch.as_tensor(windows.problems.actions[:, start : end - 1], device=device)
    with evaluating(model):
        mean, log_variance = model.posterior(frames, actions)
        moves = {**channel_moves(mean, log_variance), **joint_moves(mean)}
        steps = torch.tensor(DEVIATIONS, dtype=mean.dtype, device=mean.device)
        pictures = np.stack(
            [quantised(moved_along(model, mean[0], move, steps)) for move in moves.values()]
        )
    centre = pictures[:, DEVIATIONS.index(0)][:, None]
    change = difference(np.broadcast_to(centre, pictures.shape), pictures)
    cells = np.stack([pictures, change], 1).reshape(-1, *pictures.shape[1:])
    rows = [text for name in moves for text in (name, "change")]
    columns = [
        "as encoded" if step == 0 else f"{step:+d} σ".replace("-", "−") for step in DEVIATIONS
    ]
    notes = (("change:", "#000000"), ("gone", LEGEND[1][1]), ("new", LEGEND[2][1]))
    title = (
        f"{windows.problems.system.name}, {model.config.predictor}: parts of one frame's z moved, decoded\n"
        f"(σ of the posteriors of {len(mean)} frames together)"
    )
    groups = range(2, len(rows), 2)
    return draw_grid(enlarged(cells, factor), path, title, rows, columns, notes, (), groups)


def moved_along(model: Any, z: Tensor, move: Tensor, steps: Tensor) -> Tensor:
    """Pictures (N, S, S, 3) of z + n ``move`` for each of ``steps`` (N,), on the CPU."""
    moved = z + steps.reshape(-1, *[1] * z.ndim) * move
    return model.decode(Latent(model.transform(moved))).float().cpu()


def channel_moves(mean: Tensor, log_variance: Tensor, count: int = CHANNELS) -> dict[str, Tensor]:
    """One standard deviation of each of the channels that tell most; elsewhere zero.

    The deviation is that of the aggregated posterior, of each element of the channel.
    """
    variance = log_variance.exp()
    kl = 0.5 * (mean**2 + variance - 1.0 - log_variance).mean(0)
    total = kl.reshape(len(kl), -1).sum(1)
    deviation = (mean.var(0, unbiased=False) + variance.mean(0)).sqrt()
    kind = "channel" if mean.ndim > 2 else "feature"
    moves = {}
    for index in total.argsort(descending=True)[:count].tolist():
        move = torch.zeros_like(deviation)
        move[index] = deviation[index]
        moves[f"{kind} {index}\n{float(total[index]):.1f} nats"] = move
    return moves


def joint_moves(mean: Tensor, count: int = DIRECTIONS) -> dict[str, Tensor]:
    """One standard deviation along each of the principal directions of the means (N, ...)."""
    spread = (mean - mean.mean(0)).flatten(1).cpu()  # not every device decomposes matrices
    _, size, directions = torch.linalg.svd(spread, full_matrices=False)
    share = size**2 / (size**2).sum().clamp(min=1e-12)
    return {
        f"direction {index + 1}\n{100 * float(share[index]):.0f} % of variance": (
            size[index] / len(mean) ** 0.5 * directions[index]
        )
        .reshape(mean.shape[1:])
        .to(mean.device)
        for index in range(min(count, len(size)))
    }


def latent_shape(model: Any) -> tuple[int, ...]:
    """Shape of one latent: (C, H, W), or (F,) where it is flat."""
    config = model.config
    if config.spatial:
        return config.latent_channels, config.spatial_size, config.spatial_size
    return (config.flat_size,)
