"""Which observations are positions, velocities, angles: what a structure must know that no space says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from worldmodels.configs.schema import ConfigError, shown

FORM = (
    'positions | velocities, as "0 2~ | 1 3": the indices of observations, one velocity for each position in '
    'their order; "0+1" is the (cos, sin) of an angle, "2~" an angle itself'
)
"""How coordinates are written."""
_ENTRY = re.compile(r"(\d{1,5})(?:\+(\d{1,5})|(~))?")


@dataclass(frozen=True)
class Coordinates:
    """Positions and velocities among the components of an observation.

    >>> Coordinates.parse("0+1 | 2")  # (cos theta, sin theta, theta_dot), as Gymnasium's Pendulum-v1

    Raises ``ConfigError`` where their numbers differ, or an observation stands twice.
    """

    positions: tuple[int | tuple[int, int], ...]
    """Indices of observations, or (cos, sin) pairs of them."""
    velocities: tuple[int, ...]
    """Index of the rate of each position, of an angle's in rad/s."""
    angles: tuple[int, ...] = ()
    """Places in ``positions`` (from 0) of observations that are angles [rad], wrapped or not."""

    def __post_init__(self) -> None:
        if not self.positions or len(self.positions) != len(self.velocities):
            raise ConfigError(
                f"coordinates {self.text!r} have {len(self.positions)} positions and {len(self.velocities)} "
                f"velocities: expected one velocity for each position; {FORM}"
            )
        used = self.observations
        twice = sorted({index for index in used if used.count(index) > 1})
        if twice:
            raise ConfigError(
                f"coordinates {self.text!r} have observation {twice[0]} twice: {FORM}"
            )

    @classmethod
    def parse(cls, text: str) -> Coordinates:
        """Coordinates of a text such as ``"0 2~ | 1 3"``. Raises ``ConfigError`` that tells the form."""
        parts = text.split("|") if isinstance(text, str) else []
        places = [part.split() for part in parts]
        entries = [[_ENTRY.fullmatch(word) for word in part] for part in places]
        plain = len(places) == 2 and all(word.isdecimal() for word in places[1])
        if not plain or not all(all(found) for found in entries):
            raise ConfigError(f"coordinates {shown(text)} are not valid: expected {FORM}")
        positions: list[int | tuple[int, int]] = []
        angles = []
        for at, found in enumerate(entries[0]):
            first, second, mark = found.groups()  # type: ignore[union-attr]
            positions.append(int(first) if second is None else (int(first), int(second)))
            angles += [at] if mark else []
        return cls(tuple(positions), tuple(map(int, places[1])), tuple(angles))

    @property
    def text(self) -> str:
        """What ``parse`` reads."""
        words = [
            f"{entry[0]}+{entry[1]}"
            if isinstance(entry, tuple)
            else f"{entry}{'~' if at in self.angles else ''}"
            for at, entry in enumerate(self.positions)
        ]
        return f"{' '.join(words)} | {' '.join(map(str, self.velocities))}"

    @property
    def observations(self) -> list[int]:
        """Every index that is used."""
        pairs = [entry if isinstance(entry, tuple) else (entry,) for entry in self.positions]
        return [index for pair in pairs for index in pair] + list(self.velocities)

    @property
    def angle_observations(self) -> tuple[int, ...]:
        """Observations that are angles themselves."""
        return tuple(self.positions[at] for at in self.angles)  # type: ignore[misc]

    @property
    def turning(self) -> tuple[int, ...]:
        """Places in ``positions`` of all angles, those of pairs included."""
        pairs = {at for at, entry in enumerate(self.positions) if isinstance(entry, tuple)}
        return tuple(sorted(pairs | set(self.angles)))

    def check_size(self, size: int, where: str) -> None:
        """Raise ``ConfigError`` unless they say what each of ``size`` observations is."""
        used = set(self.observations)
        beyond, missing = sorted(used - set(range(size))), sorted(set(range(size)) - used)
        if beyond:
            raise ConfigError(
                f"coordinates {self.text!r} name observation {beyond[0]}, but {where} has 0 to {size - 1}"
            )
        if missing:
            raise ConfigError(
                f"coordinates {self.text!r} do not say what observation {', '.join(map(str, missing))} of "
                f"{where} is: every one must be a position, a velocity or half of a (cos, sin) pair, or none "
                "can be known (coordinates none, and the model jump, lstm or first_order)"
            )
