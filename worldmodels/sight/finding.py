"""What moves in a buffer of pictures: the background, how many bodies, and of which colour and size.

Found from the pictures alone. Bodies are told apart by colour; two of one colour are noticed and refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from physgym.rendering import opencv
from worldmodels.sight.reader import Reader

COLOUR_TOLERANCE = 0.12
"""Distance of a pixel from the mixtures of a colour and the background up to which it is of that colour."""
LEAST_SHARE = 0.03
"""Share of what differs from the background below which a colour is no body of its own."""
LEAST_PRESENCE = 0.2
"""Share of the frames in which a body is seen at least."""
MOST_MOVING = 0.4
"""Share of the pixels that may differ from the background: beyond it there is no background to speak of."""

LEAST_THRESHOLD = 0.03
"""Difference, of full brightness, below which nothing is told from the background."""
TRIED = 400
"""Frames at most by which a body that rests is taken out of the background."""
STEADIER = 0.8
"""Of the unsteadiness of what moves: what a background must bring it down to, to be taken for the median."""


class SightError(ValueError):
    """Pictures that cannot be read as points; the message says why and what to do."""


class Bodies(NamedTuple):
    """What was found."""

    background: Tensor
    """(3, S, S) in [0, 1]."""
    colours: Tensor
    """(K, 3)."""
    radius: Tensor
    """(K,) of a disc of the same area, pixels."""
    counts: list[int]
    """Bodies of each colour in a typical frame."""
    threshold: float
    """Difference from the background above which a pixel is not noise."""


def find_bodies(frames: Tensor) -> Bodies:
    """Look for moving bodies in ``frames`` (N, 3, S, S) in [0, 1], drawn from many episodes.

    Raises ``SightError`` where nothing moves, or everything does.
    """
    background = _background(frames)
    difference = frames - background
    threshold = _threshold(difference)
    size = difference.norm(dim=1)
    salient = size > threshold
    share = 1.0 if threshold > 1.0 else float(salient.float().mean())
    if share < 1.0 and float(salient.flatten(1).any(1).float().mean()) < LEAST_PRESENCE:
        raise SightError(
            "nothing moves in these pictures: no pixel differs from the median picture by more than "
            f"{threshold:.2f} of full brightness in {1 - LEAST_PRESENCE:.0%} of the frames; collect a "
            "buffer in which bodies move"
        )
    if share > MOST_MOVING:
        raise SightError(
            f"everything moves in these pictures: {share:.0%} of the pixels differ from the median "
            "picture, so there is no background to read bodies against; use a spatial_ predictor"
        )
    colours = _colours(frames, background, size, salient)
    reader = Reader(len(colours), frames.shape[-1])
    reader.begin(background, colours, threshold)
    radius, counts = _sizes(reader.shares(frames))
    return Bodies(background, colours, radius, counts, threshold)


def _background(frames: Tensor) -> Tensor:
    """(3, S, S): the median picture, with bodies taken out of it that cover a place in half of the frames.

    Bodies keep their size. Where one is part of the median, what differs from it does not: nothing where the body
    rests, twice as much where it is away. So each colour of what differs is tried as that of a body.
    """
    background = frames.median(0).values
    few = frames[:: -(-len(frames) // TRIED)]
    unsteady, colours = _judged(few, background)
    while colours:
        tried = [_without(few, background, colour) for colour in colours]
        judged = [_judged(few, candidate) for candidate in tried]
        best = min(range(len(tried)), key=lambda index: judged[index][0])
        if judged[best][0] > STEADIER * unsteady:
            break
        background, (unsteady, colours) = tried[best], judged[best]
    return background


def _judged(frames: Tensor, background: Tensor) -> tuple[float, list[Tensor]]:
    """How unsteady the size of what differs from ``background`` is (and, less, how large), and its colours."""
    difference = frames - background
    size = difference.norm(dim=1)
    salient = size > _threshold(difference)
    share = salient.float().mean((1, 2))
    colours = list(_colours(frames, background, size, salient)) if salient.any() else []
    return float(share.std(correction=0) + 0.25 * share.mean()), colours


def _without(frames: Tensor, background: Tensor, colour: Tensor) -> Tensor:
    """``background`` where no body of ``colour`` is: the median of the frames that differ most from it, each pixel."""
    far = (frames - colour[:, None, None]).norm(dim=1)
    most = far.topk(-(-len(frames) // 20), 0).values[-1]
    away = (far >= most - 0.05).unsqueeze(1)
    shown = torch.where(away, frames, torch.nan).nanmedian(0).values
    noticed = (shown - background).norm(dim=0) > _threshold(frames - background)
    return torch.where(noticed, shown, background)


def _threshold(difference: Tensor) -> float:
    """Difference from the background above which a pixel is not noise."""
    return max(LEAST_THRESHOLD, 7.0 * _noise(difference))


def _noise(difference: Tensor) -> float:
    """Standard deviation of the noise in what differs from the background.

    By quantiles on the wider side: on a black or a white background half of it is cut off, and the median of
    its size would be zero.
    """
    values = difference.flatten()[:: max(1, difference.numel() // 1_000_000)]
    ends = torch.quantile(values, torch.tensor([0.3, 0.7]))
    return float(ends.abs().max()) / 0.5244  # of a Gaussian, 70 % lie below 0.5244 of its deviation


def _colours(frames: Tensor, background: Tensor, size: Tensor, salient: Tensor) -> Tensor:
    """(K, 3): colours such that mixtures of one with the background explain what differs from it."""
    # Pixels that differ most among their neighbours are covered whole, or nearly so.
    peak = torch.nn.functional.max_pool2d(size.unsqueeze(1), 3, 1, 1).squeeze(1)
    where = salient & (size >= 0.98 * peak)
    frame, row, column = torch.nonzero(where, as_tuple=True)
    if len(frame) > 20_000:
        kept = torch.linspace(0, len(frame) - 1, 20_000).long()
        frame, row, column = frame[kept], row[kept], column[kept]
    shown, behind = frames[frame, :, row, column], background[:, row, column].T
    contrast, found = (shown - behind).norm(dim=1), []
    left = torch.ones(len(frame), dtype=torch.bool)
    frames_seen = len(frame.unique())
    while float(left.float().mean()) > LEAST_SHARE:
        strong = contrast[left].quantile(0.95)
        near = shown[left][(contrast[left] - strong).abs().argmin()]
        alike = left & ((shown - near).norm(dim=1) < COLOUR_TOLERANCE)
        colour = shown[alike].median(0).values
        towards = colour - behind
        alpha = ((shown - behind) * towards).sum(1) / (towards**2).sum(1).clamp(min=1e-4)
        rest = (shown - behind - alpha.unsqueeze(1) * towards).norm(dim=1)
        own = left & (((rest < COLOUR_TOLERANCE) & (alpha > 0.0) & (alpha < 1.25)) | alike)
        presence = len(frame[own].unique()) / frames_seen
        if float(own.float().mean()) > LEAST_SHARE and presence > LEAST_PRESENCE:
            found.append((int(own.sum()), colour))
        left &= ~own
    found.sort(key=lambda pair: -pair[0])
    return torch.stack([colour for _, colour in found]) if found else shown[:0]


def _sizes(shares: Tensor) -> tuple[Tensor, list[int]]:
    """Radius (K,) in pixels of the largest piece of each colour, and how many such pieces there are."""
    cv2, radius, counts = opencv(), [], []
    for body in range(shares.shape[1]):
        areas, pieces = [], []
        for picture in (shares[:200, body] > 0.5).numpy().astype(np.uint8):
            count, _, table, _ = cv2.connectedComponentsWithStats(picture, connectivity=8)
            if count > 1:
                sizes = table[1:, cv2.CC_STAT_AREA]
                areas.append(sizes.max())
                pieces.append(int((sizes > 0.4 * sizes.max()).sum()))
        radius.append(float(np.sqrt(np.median(areas) / np.pi)) if areas else 1.0)
        counts.append(int(np.median(pieces)) if pieces else 0)
    return torch.tensor(radius), counts
