"""What a program says of a state that was reached by other means: its outcome and its features, without the step.

Learned envs reach states by a model; reward, energy, bounds and events are the true system's still.
"""

from __future__ import annotations

from typing import Any

from physgym.compile.program import Program
from physgym.observations import features


class Verdict:
    """The last part of ``program``, in the form that `physgym.compile.emitter.Emitter` prints: a step of no sub-steps.

    Its results are the state itself, those of the program (reward, energy, out_of_bounds, events), and the features of
    the state as it is observed.

    Args:
        program: its constants and controls are those of this.
        embedded: whether angles are observed as (cos, sin).
    """

    adaptive, rule = False, ()

    def __init__(self, program: Program, embedded: bool) -> None:
        self.state_size, self.control = program.state_size, program.control
        self.state, self.final, self.constants = program.state, program.final, program.constants
        self.advanced = program.state
        self.features: tuple[Any, ...] = tuple(features(program.system, program.final, embedded))
        self.outcome = (*program.outcome, *self.features)
