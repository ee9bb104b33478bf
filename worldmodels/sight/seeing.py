"""Learning to see: what moves is found, sprites are fitted to it, and every frame of a buffer is read once.

Still frames alone are looked at, one at a time and each by the same rule: nothing here knows of motion, and
nothing of the true system.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.sight.chart import Chart, Residuals, fit_chart
from worldmodels.sight.finding import Bodies, SightError, find_bodies
from worldmodels.sight.reader import Reader
from worldmodels.sight.sprites import Sprites

TRUSTED = (0.9, 1.1)
"""Share of its usual mass in which a body's reading can be trusted: less is hidden, more is not it alone."""
BATCH = 32
"""Frames in a batch of the sprites' training."""


class Sight(nn.Module):
    """Reader, chart and sprites of one kind of picture; in single precision at least, as places need it."""

    def __init__(self, kinds: Sequence[str], image_size: int, reach: int) -> None:
        super().__init__()
        self.reader = Reader(len(kinds), image_size)
        self.chart = Chart(kinds)
        self.sprites = Sprites(len(kinds), image_size, reach)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As of every module, but for half precision, which has no room for a tenth of a pixel."""
        tensors = [*self.parameters(), *self.buffers()]
        before = [tensor.data for tensor in tensors]
        super()._apply(fn, recurse)
        for tensor, old in zip([*self.parameters(), *self.buffers()], before, strict=True):
            if tensor.dtype in (torch.float16, torch.bfloat16):
                tensor.data = old.to(tensor.device)
        return self


class Seen(NamedTuple):
    """What came of learning to see."""

    sight: Sight
    residuals: list[Residuals]
    """Of each body."""
    explained: float
    """Share of what differs from the background, squared, that the sprites draw, on frames not learned from."""


def learn_to_see(
    frames: Tensor,
    episodes: Sequence[Tensor],
    bodies: int = 0,
    kinds: Sequence[str] | None = None,
    steps: int = 300,
    seed: int = 0,
    reach: int = 0,
    advance: Callable[[float], object] = lambda share: None,
) -> Seen:
    """Find what moves in still ``frames`` (N, 3, S, S), draw it, and find what each point lives on.

    Args:
        frames: from many episodes, in [0, 1]; the last fifth is kept for ``explained``.
        episodes: whole ones (T, 3, S, S), for the charts.
        bodies: how many there are; 0: as many as are found.
        kinds: of ``configs.keypoints.COORDINATES`` for each body; None: as the residuals say.
        steps: batches of the sprites' training; ``seed`` draws them.
        reach: pixels from a sprite's centre to its edge; 0: as the bodies' size asks.
        advance: told shares of the work.

    Raises:
        SightError: nothing moves, everything does, other bodies than asked for, or never all of them whole.
    """
    found = find_bodies(frames)
    _check(found, bodies, kinds)
    reader = Reader(len(found.colours), frames.shape[-1])
    reader.begin(found.background, found.colours, found.threshold, found.radius)
    reader.mass.copy_(_usual(reader(frames).seen))
    advance(0.2)
    readings = [reader(episode) for episode in episodes]
    places = [reading.points[trusted(reading.seen).all(1)].double().numpy() for reading in readings]
    whole = [place for place in places if len(place) > 2]
    if not whole:
        raise SightError(
            f"in no episode are {_listed(found.colours)} seen whole at once in 3 frames: they hide one another, or "
            "are no points but change their shape; collect other episodes, or use a spatial_ predictor"
        )
    chart, residuals = fit_chart(whole, frames.shape[-1], kinds)
    advance(0.2)
    reach = reach or int(np.ceil(1.5 * float(found.radius.max()))) + 3
    sight = Sight(chart.kinds, frames.shape[-1], reach)
    sight.reader, sight.chart = reader, chart
    sight.sprites.begin(found.background, found.colours, found.radius)
    kept = len(frames) - len(frames) // 5
    fit_sprites(sight, frames[:kept], steps, seed, lambda share: advance(0.5 * share))
    order_sprites(sight, frames[:kept])
    explained = float(explained_share(sight, frames[kept:]))
    advance(0.1)
    return Seen(sight.requires_grad_(False).eval(), residuals, explained)


def trusted(seen: Tensor) -> Tensor:
    """Which readings can be trusted, by how much of each body is ``seen``; any shape."""
    return (seen >= TRUSTED[0]) & (seen <= TRUSTED[1])


def _usual(seen: Tensor) -> Tensor:
    """The usual mass (K,) of masses (N, K): the median over frames in which a body is seen at all."""
    masses = [column[column > 0.2 * column.max()].median() for column in seen.unbind(1)]
    return torch.stack(masses).clamp(min=1e-3)


def _check(found: Bodies, bodies: int, kinds: Sequence[str] | None) -> None:
    many = len(found.colours)
    if crowded := [index for index, count in enumerate(found.counts) if count > 1]:
        colours = ", ".join(
            f"{found.counts[k]} of colour {_shown(found.colours[k])}" for k in crowded
        )
        raise SightError(
            f"there are bodies of one colour ({colours}): the reader tells bodies apart by colour; "
            "give them colours of their own, or use a spatial_ predictor"
        )
    if bodies and bodies != many:
        colours = ", ".join(_shown(colour) for colour in found.colours)
        raise SightError(
            f"model.points={bodies}, but {many} {'body moves' if many == 1 else 'bodies move'} in these "
            f"pictures (of colour {colours}): leave model.points at 0, or collect others"
        )
    if kinds is not None and len(kinds) != many:
        raise SightError(
            f"model.coordinates names {len(kinds)} kinds, but {many} bodies move in these pictures: "
            "give one for each, or auto"
        )


def _listed(colours: Tensor) -> str:
    many = len(colours)
    shown = ", ".join(_shown(colour) for colour in colours)
    return f"the {many} {'body' if many == 1 else 'bodies'} that are found (of colour {shown})"


def _shown(colour: Tensor) -> str:
    return "#" + "".join(f"{round(255 * float(c)):02x}" for c in colour.clamp(0.0, 1.0))


def fit_sprites(
    sight: Sight, frames: Tensor, steps: int, seed: int, advance: Callable[[float], object]
) -> None:
    """Fit patches and background to ``frames`` where they are read: summed squared error alone, by Adam."""
    reading = sight.reader(frames)
    frames = frames[trusted(reading.seen).all(1)]
    points = reading.points[trusted(reading.seen).all(1)]
    if not len(frames):
        raise SightError("in no frame are all bodies seen whole: collect other episodes")
    generator = torch.Generator().manual_seed(seed)
    sprites = sight.sprites
    optimiser = torch.optim.Adam(
        [
            {"params": [sprites.mask], "lr": 0.1},
            {"params": [sprites.colour, sprites.background], "lr": 0.01},
        ]
    )
    for step in range(steps):
        for group, rate in zip(optimiser.param_groups, (0.1, 0.01), strict=True):
            group["lr"] = rate * (1.0 - step / steps)
        chosen = torch.randint(len(frames), (BATCH,), generator=generator)
        optimiser.zero_grad()
        error = ((sprites(points[chosen]) - frames[chosen]) ** 2).flatten(1).sum(1).mean()
        error.backward()
        optimiser.step()
        advance(1.0 / steps)


@torch.no_grad()
def order_sprites(sight: Sight, frames: Tensor) -> None:
    """Find which body is in front, from the frames in which two of them overlap."""
    reading, sprites = sight.reader(frames), sight.sprites
    many = len(sprites.order)
    wins = torch.zeros(many)
    for a in range(many):
        for b in range(a + 1, many):
            pixels = (
                (reading.points[:, a] - reading.points[:, b]).norm(dim=1) * 0.5 * frames.shape[-1]
            )
            near = torch.nonzero(pixels < 1.8 * sight.reader.radius[[a, b]].sum()).flatten()[:64]
            others = [k for k in range(many) if k not in (a, b)]
            errors = []
            for order in ([*others, a, b], [*others, b, a]):
                sprites.order.copy_(torch.tensor(order))
                drawn = sprites(reading.points[near])
                errors.append(float(((drawn - frames[near]) ** 2).sum()))
            wins[b if errors[0] <= errors[1] else a] += 1
    sprites.order.copy_(wins.argsort(stable=True))


@torch.no_grad()
def explained_share(sight: Sight, frames: Tensor) -> Tensor:
    """Share of what differs from the background, squared, that drawing the read points explains."""
    drawn = sight.sprites(sight.reader(frames).points)
    missed = ((drawn - frames) ** 2).sum()
    return 1.0 - missed / ((frames - sight.reader.background) ** 2).sum().clamp(min=1e-9)
