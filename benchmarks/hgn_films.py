"""The systems of Hamiltonian Generative Networks (arXiv:1909.13789) as their re-implementation films them.

github.com/CampusAI/Hamiltonian-Generative-Networks draws discs of 4 pixels (mass on a spring, pendulum), 2 (two
bodies) and 1 (three bodies) on 32 x 32, blurs them, and puts them on grey. Ours are sharp to a part of a pixel and on
black; their radii are those that give a disc the same sum of squares over its background, but of three bodies, whose
single pixels no reader can weigh: they are as large as two, so that what is drawn wrongly costs three times as much.
The parameters, the view and the starts are theirs, with the centre of mass at rest. Where `noise` says so, every
picture shows places of its own, a normal deviation away.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, ClassVar

import numpy as np

import physgym
from physgym.elementwise import cos, sin
from physgym.gravity import centred
from physgym.primitives import Disc, Primitive
from physgym.systems.mass_spring import MassSpring
from physgym.systems.n_body import NBody
from physgym.systems.pendulum import Pendulum

PIXELS = 32
YELLOW, RED, GREEN, BLUE = (173, 146, 0), (173, 0, 0), (0, 146, 0), (0, 0, 226)
"""Theirs, but blue, which stands for the yellow of three bodies: it is as bright, and no mixture of the other two."""


def shaken(state: Any, count: int, deviation: float) -> tuple[float, ...]:
    """The first ``count`` components, each a normal ``deviation`` away that is a function of the whole state: the same
    picture whenever it is drawn, and independent ones of different moments.
    """
    places = tuple(map(float, state[:count]))
    if not deviation:
        return places
    rng = np.random.default_rng(zlib.crc32(np.asarray(state, np.float64).tobytes()))
    return tuple(x + deviation * z for x, z in zip(places, rng.standard_normal(count), strict=True))


class FilmedSpring(MassSpring):
    """A disc that moves from side to side."""

    name, env_id = "hgn_spring", "HGN/Spring-v0"
    variants: ClassVar[dict[str, Any]] = {}
    view, noise = 2.0, 0.0

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """One disc."""
        (x,) = shaken(state, 1, self.noise)
        return [Disc(x, 0.0, _radius(3.65, self.view), YELLOW)]


class FilmedPendulum(Pendulum):
    """A disc on a circle."""

    name, env_id = "hgn_pendulum", "HGN/Pendulum-v0"
    view, noise = 2.0, 0.0

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """One disc."""
        (theta,) = shaken(state, 1, self.noise)
        x, y = params.length * sin(theta), -params.length * cos(theta)
        return [Disc(x, y, _radius(3.65, self.view), YELLOW)]


class FilmedPair(NBody):
    """Two discs about their middle, nearly on circles."""

    name, env_id = "hgn_pair", "HGN/Pair-v0"
    variants: ClassVar[dict[str, Any]] = {}
    view, noise, escape_radius, max_episode_steps = 3.0, 0.0, 6.0, 100
    radii, pixels, colours = (0.5, 1.5), 1.72, (RED, YELLOW)

    def draw_start(self, rng: np.random.Generator, start: str | None) -> Any:
        """A phase, a radius, a sense, and a deviation of every velocity."""
        return rng.random(3 + 2 * self.bodies).tolist()

    def start_of(self, draws: tuple[Any, ...], p: Any, start: str | None) -> tuple[Any, ...]:
        """Equations: a ring of any radius and sense that turns as it should, each velocity times 1 + 0.1 U(-1, 1)."""
        low, high = self.radii
        radius = low + (high - low) * draws[1]
        speed = radius * self.ring_rate(p, radius) * (1.0 - 2.0 * np.round(draws[2]))
        q: list[Any] = []
        v: list[Any] = []
        for i in range(self.bodies):
            angle = 2.0 * math.pi * (draws[0] + i / self.bodies)
            q += [radius * cos(angle), radius * sin(angle)]
            v += [-speed * sin(angle), speed * cos(angle)]
        v = [a * (0.9 + 0.2 * z) for a, z in zip(v, draws[3:], strict=True)]
        return (*q, *centred(v, self.masses(p)))

    def scene(self, state: Any, control: Any, params: Any, detail: bool) -> list[Primitive]:
        """A disc a body."""
        q, radius = shaken(state, 2 * self.bodies, self.noise), _radius(self.pixels, self.view)
        places = zip(q[0::2], q[1::2], self.colours, strict=True)
        return [Disc(x, y, radius, colour) for x, y, colour in places]


class FilmedThree(FilmedPair):
    """Three discs that turn, which they do not for long."""

    name, env_id = "hgn_three", "HGN/Three-v0"
    radii, colours = (0.9, 1.2), (RED, GREEN, BLUE)


for _attribute, _value in NBody.shape(3).items():
    setattr(FilmedThree, _attribute, _value)

FILMED: tuple[Any, ...] = (FilmedSpring, FilmedPendulum, FilmedPair, FilmedThree)
NOISE = (0.1, 0.1, 0.05, 0.2)
"""Deviations [rad or m] of each, as published."""


def register() -> None:
    """Make them known to this process, each with and without noise."""
    for system, deviation in zip(FILMED, NOISE, strict=True):
        physgym.register(system)
        physgym.register(noisy(system, deviation))


def noisy(system: Any, deviation: float) -> Any:
    """``system`` with noise on every picture."""
    names = {
        "name": f"{system.name}_noise",
        "env_id": system.env_id.replace("-", "Noise-"),
        "noise": deviation,
        "__module__": __name__,
        "__doc__": system.__doc__,
    }
    return type(f"{system.__name__}Noise", (system,), names)


def _radius(pixels: float, view: float) -> float:
    """In metres."""
    return pixels * 2.0 * view / PIXELS
