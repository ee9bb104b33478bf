"""What the features of a model of states are of what an env shows: the same numbers, or coordinates read from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldmodels.configs.coordinates import Coordinates
from worldmodels.interface import Spec


class Observed:
    """Observations (..., D) to features (..., F) and back.

    A system of ours shows its state, positions then velocities: nothing changes. Of another env's
    observations, ``spec.coordinates`` says which are which, and a (cos, sin) pair becomes an angle [rad];
    where nobody has said, features are the observations, without a structure.
    """

    def __init__(self, spec: Spec) -> None:
        self.coordinates = Coordinates.parse(spec.coordinates) if spec.coordinates else None
        self.structured = not spec.foreign or self.coordinates is not None
        self.size = spec.state_size
        self.angles = () if spec.foreign else spec.angles
        self.turning: tuple[int, ...] = ()
        """Features whose differences go the shorter way round."""
        if self.coordinates is not None:
            self.size = 2 * len(self.coordinates.positions)
            self.angles = self.turning = self.coordinates.turning

    def features(self, observed: Tensor) -> Tensor:
        """(..., F) of observations (..., D); angles in (-pi, pi]."""
        if self.coordinates is None:
            return observed
        columns = [
            torch.atan2(observed[..., entry[1]], observed[..., entry[0]])
            if isinstance(entry, tuple)
            else observed[..., entry]
            for entry in self.coordinates.positions
        ]
        columns += [observed[..., index] for index in self.coordinates.velocities]
        return torch.stack(columns, -1)

    def shown(self, features: Tensor) -> Tensor:
        """(..., D) observations of features (..., F): pairs as (cos, sin), other angles in [-pi, pi)."""
        if self.coordinates is None:
            return features
        known = self.coordinates
        columns: dict[int, Tensor] = {}
        for at, entry in enumerate(known.positions):
            value = features[..., at]
            if isinstance(entry, tuple):
                columns[entry[0]], columns[entry[1]] = torch.cos(value), torch.sin(value)
            else:
                columns[entry] = _wrapped(value) if at in known.angles else value
        half = len(known.positions)
        for at, index in enumerate(known.velocities):
            columns[index] = features[..., half + at]
        return torch.stack([columns[index] for index in sorted(columns)], -1)

    def difference(self, features: Tensor, others: Tensor) -> Tensor:
        """``features`` - ``others`` (..., F); of angles that were read from observations, the shorter way."""
        gap = features - others
        if not self.turning:
            return gap
        columns = list(gap.unbind(-1))
        for index in self.turning:
            columns[index] = _wrapped(columns[index])
        return torch.stack(columns, -1)


def _wrapped(angle: Tensor) -> Tensor:
    """``angle`` [rad] in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi
