"""The stages of a model of keypoints before it moves: see (still frames), then read (the whole buffer, once).

Both are functions of the buffer, a few options and the seed, whatever structure is trained; so they are kept
beside the buffer, and runs that differ in the rest share them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.configs.keypoints import WELL_EXPLAINED, KeypointConfig
from worldmodels.configs.schema import config_hash
from worldmodels.data.batches import TrainingError
from worldmodels.data.frames import check_pictures
from worldmodels.data.readings import Readings, read_states, trusted_steps
from worldmodels.sight.finding import SightError
from worldmodels.sight.reader import channels
from worldmodels.sight.seeing import Sight, learn_to_see, trusted
from worldmodels.storage.files import StorageError, atomic_write, make_folder
from worldmodels.storage.reading import AccessError
from worldmodels.storage.tensors import tensors_from_bytes, tensors_to_bytes

VERSION = 2
"""Of how pictures are read: what another version kept is read anew."""
CHART_EPISODES = 40
"""Whole episodes that the charts are fitted to."""
OPTIONS = ("points", "coordinates", "sprite_reach", "sight_frames", "sprite_steps")
"""Options that decide how pictures are read."""

Advance = Callable[[float, str], object]


@dataclass(frozen=True)
class Sighted:
    """What the first stages leave to the rest."""

    config: KeypointConfig
    """With all that was found."""
    sight: Sight
    points: np.ndarray
    """(N, T+1, K, 2) float32 of every frame of the buffer; zero behind an episode's end."""
    seen: np.ndarray
    """(N, T+1, K) float32."""
    lines: tuple[str, ...]
    """What was found, in words."""
    dataset: Any
    """The buffer."""

    @cached_property
    def readings(self) -> Readings:
        """The buffer in coordinates and velocities. Raises ``TrainingError`` where too little can be trusted."""
        chart, window = self.sight.chart, self.config.smoothing_frames
        points = torch.from_numpy(self.points)
        seen = trusted(torch.from_numpy(self.seen)).numpy()
        good = trusted_steps(self.points, seen, np.asarray(self.dataset.lengths))
        coordinates, radii = chart.coordinates(points).numpy(), chart.radii(points).numpy()
        found = read_states(self.dataset, coordinates, radii, good, chart.angles, window)
        if not len(found.splits.get("train", ())):
            raise TrainingError(
                f"{self.dataset.path}: no train episode has {window} frames in a row in which every body "
                f"({len(self.sight.chart.kinds)} are found) is seen whole: collect longer episodes, or use a "
                "spatial_ predictor, where what moves is more than points"
            )
        return found


def sighted(model: KeypointConfig, seed: int, dataset: Any, advance: Advance) -> Sighted:
    """Learn to see the pictures of ``dataset`` and read them all, or take what another run kept of it.

    ``seed`` chooses what is looked at; ``advance`` is told shares of the work and its stage. Raises
    ``TrainingError`` for pictures that cannot be read as points.
    """
    size = check_pictures(dataset)
    options = {name: getattr(model, name) for name in OPTIONS}
    key = config_hash({"version": VERSION, "data": dataset.hash, "seed": seed, **options})
    place = Path(f"{dataset.path}.readings") / f"{key}.safetensors"
    kept = _kept(place, model, size, dataset)
    if kept is not None:
        return kept
    try:
        sight, lines = _see(model, dataset, size, seed, advance)
    except SightError as error:
        raise TrainingError(f"{dataset.path}: {error}") from error
    points, seen = read_all(sight, dataset, advance)
    made = Sighted(_settled(model, sight), sight, points, seen, lines, dataset)
    _keep(place, made)
    return made


def _see(
    model: KeypointConfig, dataset: Any, size: int, seed: int, advance: Advance
) -> tuple[Sight, tuple[str, ...]]:
    train = dataset.subset("train")
    rng = np.random.default_rng(seed)
    lengths = np.asarray(train.lengths)
    chosen = np.sort(rng.integers(0, len(train), model.sight_frames))
    rows = [
        pictures[rng.integers(0, lengths[episode] + 1, count)]
        for episode, count in zip(*np.unique(chosen, return_counts=True), strict=True)
        for pictures in (train.pixels[int(episode)],)
    ]
    stills = channels(torch.from_numpy(np.concatenate(rows)))
    order = torch.as_tensor(rng.permutation(len(stills)))
    whole = [
        channels(torch.from_numpy(train.pixels[int(episode)][: lengths[episode] + 1]))
        for episode in rng.permutation(len(train))[:CHART_EPISODES]
    ]
    seen = learn_to_see(
        stills[order],
        whole,
        model.points,
        model.kinds,
        model.sprite_steps,
        seed,
        model.sprite_reach,
        lambda share: advance(share, "seeing"),
    )
    return seen.sight, tuple(_told(seen))


def _told(seen: Any) -> list[str]:
    """What was found, for people."""
    kinds, many = seen.sight.chart.kinds, len(seen.residuals)
    lines = [f"seen: {many} {'body moves' if many == 1 else 'bodies move'}"]
    for index, (kind, off) in enumerate(zip(kinds, seen.residuals, strict=True)):
        circle = f"{off.circle:.2g}" + ("" if off.shared else " (its radius differs by episode)")
        lines.append(
            f"  body {index + 1} lives on a {kind}: 90 % of its readings are within {off.line:.2g} px "
            f"of a line, {circle} px of a circle"
            if kind != "plane"
            else f"  body {index + 1} lives in the plane: a line is off by {off.line:.2g} px, a circle "
            f"by {circle} px (90th percentiles)"
        )
    share = seen.explained
    lines.append(f"  sprites draw {100 * share:.1f} % of what differs from the background")
    if share < WELL_EXPLAINED:
        lines.append(
            "  warning: the rest is not points with a look of their own; a spatial_ predictor may draw it"
        )
    return lines


def read_all(sight: Sight, dataset: Any, advance: Advance) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, T+1, K, 2) and how much is seen (N, T+1, K), of every frame of ``dataset``."""
    lengths = np.asarray(dataset.lengths)
    many, frames = dataset.states.shape[0], dataset.actions.shape[1] + 1
    bodies = sight.reader.bodies
    points = np.zeros((many, frames, bodies, 2), np.float32)
    seen = np.zeros((many, frames, bodies), np.float32)
    for row in range(many):
        stop = int(lengths[row]) + 1
        reading = sight.reader(channels(torch.from_numpy(dataset.pixels[row][:stop])))
        points[row, :stop], seen[row, :stop] = reading.points, reading.seen
        advance(1.0 / many, "reading")
    return points, seen


def _settled(model: KeypointConfig, sight: Sight) -> KeypointConfig:
    """``model`` with what was found filled in, so that it can be built."""
    kinds = sight.chart.kinds
    reach = sight.sprites.reach
    return replace(model, points=len(kinds), coordinates=",".join(kinds), sprite_reach=reach)


def _keep(place: Path, made: Sighted) -> None:
    """Write what was read beside the dataset; where that cannot be, say so and go on."""
    words = "\n".join((made.config.coordinates, *made.lines)).encode()
    tensors = {f"sight.{name}": value for name, value in made.sight.state_dict().items()}
    tensors |= {"points": torch.from_numpy(made.points), "seen": torch.from_numpy(made.seen)}
    tensors["found"] = torch.tensor([made.config.points, made.config.sprite_reach])
    tensors["words"] = torch.frombuffer(bytearray(words), dtype=torch.uint8)
    try:
        make_folder(place.parent)
        atomic_write(place, tensors_to_bytes(tensors))
    except (OSError, StorageError) as error:
        warnings.warn(
            f"what was read of the pictures is not kept for other runs: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


def _kept(place: Path, model: KeypointConfig, size: int, dataset: Any) -> Sighted | None:
    """What a run kept at ``place``; None where there is none, or none that can be trusted."""
    if not place.is_file() or os.path.islink(place):
        return None
    try:
        tensors = tensors_from_bytes(place.read_bytes(), place.name)
        words = bytes(tensors["words"].tolist()).decode().split("\n")
        points, reach = (int(value) for value in tensors["found"])
        config = replace(model, points=points, sprite_reach=reach, coordinates=words[0])
        sight = Sight(config.kinds or (), size, reach)
        own = {k.removeprefix("sight."): v for k, v in tensors.items() if k.startswith("sight.")}
        sight.load_state_dict(own)
        places, seen = tensors["points"].numpy(), tensors["seen"].numpy()
    except (OSError, StorageError, AccessError, KeyError, ValueError, RuntimeError) as error:
        warnings.warn(
            f"{place} cannot be used ({error}): the pictures are read again",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    sight = sight.requires_grad_(False).eval()
    return Sighted(config, sight, places, seen, tuple(words[1:]), dataset)
