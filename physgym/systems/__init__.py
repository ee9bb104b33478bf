"""The systems, one file each; importing this package registers them all."""

from physgym.systems.oscillator import Oscillator
from physgym.systems.pendulum import Pendulum
from physgym.systems.spaceship import Spaceship
from physgym.systems.three_body import ThreeBody

__all__ = ["Oscillator", "Pendulum", "Spaceship", "ThreeBody"]
