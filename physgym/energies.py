"""Starts by energy: `start="energy", energy=(low, high)`, in units of a reference of each system.

The energy is uniform in the band, and the state has it exactly. Where a system has potential and kinetic
energy, its configuration is drawn first, anew while its potential energy is too high, then the direction of
the momenta, then their size follows. Tests of a model at energies that it never saw in training begin here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from physgym import validation
from physgym.sampling import can_start

if TYPE_CHECKING:
    from physgym.system import System

MOST_DRAWS = 10_000
"""Draws of one start after which it is given up."""

Band = tuple[float, float]


def check_band(system: System, energy: Any) -> Band:
    """`energy` as (low, high) with 0 < low <= high; ValueError for anything else, or for a system that has
    no starts by energy.
    """
    if system.energy_unit(system.Params()) is None:
        having = ", ".join(name for name, s in _registered() if s.energy_unit(s.Params()))
        raise ValueError(
            f"energy={energy!r}: {system.name} has no starts by energy; those of {having} can be drawn so"
        )
    try:
        low, high = (validation.real_number(x) for x in energy)
    except (TypeError, ValueError):
        low = high = None
    if low is None or high is None or isinstance(energy, (str, bytes, set)) or not 0 < low <= high:
        raise ValueError(
            f'energy={energy!r} must be (low, high), 0 < low <= high, as start="energy" needs it: parts of the '
            f"reference energy of {system.name}"
        )
    return low, high


def _registered() -> Any:
    from physgym.system import SYSTEMS

    return SYSTEMS.items()


def draw(system: System, rng: np.random.Generator, params: Any, band: Band) -> tuple[float, ...]:
    """A start state (floats) whose energy is uniform in `band`, in units of `System.energy_unit`.

    Raises ValueError where none of many draws is a start.
    """
    low, high = band
    energy = (low + (high - low) * rng.random()) * system.energy_unit(params)
    for _ in range(MOST_DRAWS):
        state = system.energy_state(rng, energy, params)
        if state is not None and can_start(system, state, params):
            return tuple(map(float, state))
    raise ValueError(
        f"{system.name} finds no start of {energy:.4g} J in {MOST_DRAWS} draws with parameters "
        f"{validation.shown(params)}: take another band than energy={band}"
    )


def mechanical(
    system: System, rng: np.random.Generator, q: tuple[float, ...], energy: float, params: Any
) -> tuple[float, ...] | None:
    """A state at `q` with that total energy [J] and momenta p = M(q) v in a random direction; None where
    the potential energy is higher. M(q) is read off the energies of unit velocities.
    """
    half = len(q)
    potential = system.energy_of((*q, *[0.0] * half), params)
    if potential > energy:
        return None

    def kinetic(v: np.ndarray) -> float:
        return float(system.energy_of((*q, *v.tolist()), params) - potential)

    unit = np.eye(half)
    mass = np.array([[kinetic(a + b) - kinetic(a) - kinetic(b) for b in unit] for a in unit])
    v = np.linalg.solve(mass, rng.standard_normal(half))
    v = v * np.sqrt((energy - potential) / kinetic(v))
    return (*q, *v.tolist())


def quadratic(
    system: System, rng: np.random.Generator, rate: float, energy: float, params: Any
) -> tuple[float, ...]:
    """A state of a linear system with that energy [J], in a random direction of the phase space; velocities
    count in units of `rate` [1/s].
    """
    half = system.state_size // 2
    z = rng.standard_normal(2 * half) * np.repeat([1.0, rate], half)
    z = z * np.sqrt(energy / float(system.energy_of(tuple(z.tolist()), params)))
    return tuple(z.tolist())
