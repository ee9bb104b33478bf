"""Compiles a system and an integrator into one straight-line function of a whole environment step.

`Program.prepare` evaluates what depends on parameters alone (once an episode); `Program.transition`
takes a state over one control step in sub-steps and adds what follows from it: reward, energy,
whether it left its bounds, and the system's events. The text is generated from the equations by
`physgym.compile.tracing` and executed on floats, NumPy rows or torch rows; `physgym.compile.native` compiles the
same graph to machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from physgym import elementwise
from physgym.compile.pacing import MAX_SUBSTEPS, advance_rows, advance_tensors
from physgym.compile.tracing import FIXED, HELD, MOVING, Expression, Graph, Printer, needed
from physgym.integrators import FLOWS, SPLITTINGS

if TYPE_CHECKING:
    from physgym.system import System


class Program:
    """The traced step of `system` with `integrator`; `adaptive` takes each sub-step's size from the
    system's rule.
    """

    def __init__(self, system: System, integrator: str, adaptive: bool, reward: str) -> None:
        self.system, self.integrator, self.adaptive = system, integrator, adaptive
        graph = Graph()
        size, self.state_size = system.state_size, system.state_size
        level = MOVING if adaptive else FIXED
        names = system.Params._fields
        self.params = tuple(graph.symbol(f"p_{name}", FIXED) for name in names)
        self.step_size = graph.symbol("h", level)
        self.state = tuple(graph.symbol(f"s{i}", MOVING) for i in range(size))
        self.control = tuple(graph.symbol(f"u{i}", HELD) for i in range(system.control_size))
        self.final = tuple(graph.symbol(f"e{i}", MOVING) for i in range(size))
        params = system.Params(*self.params)
        self.advanced = substep(
            system, integrator, self.state, self.control, params, self.step_size
        )
        self.rule: tuple[Any, ...] = ()
        if adaptive:
            halted = _any(system.collision(self.state, params))
            self.rule = (system.max_step(self.state, params), halted)
        self.outcome = outcome(system, self.final, self.control, params, reward)
        outputs = (*self.advanced, *self.rule, *self.outcome)
        nodes = [x for x in needed(outputs) if x.op != "symbol" or x.level == FIXED]
        used = {
            a.order for x in nodes if x.level > FIXED for a in x.args if isinstance(a, Expression)
        }
        used |= {x.order for x in outputs if isinstance(x, Expression)}
        self.constants = tuple(x for x in nodes if x.level == FIXED and x.order in used)
        self._functions: dict[str, dict[str, Callable[..., Any]]] = {}

    def prepare(self, params: Sequence[Any], h: Any) -> tuple[Any, ...]:
        """Evaluate the program's constants for `params` (floats or rows) and sub-step `h` [s]."""
        kind = _kind(*params, h)
        try:
            return self._compiled(kind)["prepare"](tuple(params), h)
        except ArithmeticError:  # floats raise where rows read infinity or not a number
            with np.errstate(all="ignore"):
                rows = self._compiled("arrays")["prepare"](tuple(map(np.float64, params)), h)
            return tuple(map(float, rows))

    def transition(
        self,
        state: Sequence[Any],
        control: Sequence[Any],
        constants: Sequence[Any],
        dt: float,
        substeps: int,
    ) -> tuple[Any, ...]:
        """Take `state` over `dt`; return the next state's components, reward, energy, out_of_bounds
        and the events.
        """
        kind = _kind(*state, *control, *constants)
        functions = self._compiled(kind)
        if not self.adaptive or kind == "floats":
            return functions["transition"](state, control, constants, dt, substeps)
        advance = advance_rows if kind == "arrays" else advance_tensors
        state, unresolved = advance(functions, state, control, constants, dt)
        outcome = list(functions["outcome"](state, control, constants))
        outcome[2] = outcome[2] | unresolved
        return (*state, *outcome)

    def _lost(
        self, state: Any, control: Any, constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        """The step of a motion that floats cannot follow (they raise where arrays overflow): one
        row of arrays, so that a single env says of it what a batch says.
        """
        rows = (np.array([[x] for x in part], dtype=np.float64) for part in (state, control))
        with np.errstate(all="ignore"):
            result = self.function("arrays")(*rows, constants, dt, substeps)
        return tuple(np.asarray(x).reshape(-1)[0].item() for x in result)

    def function(self, kind: str) -> Callable[..., tuple[Any, ...]]:
        """`transition` for operands known to be of `kind`: "floats", "arrays" or "tensors"."""
        if self.adaptive and kind != "floats":
            return self.transition
        return self._compiled(kind)["transition"]

    def source(self, kind: str) -> str:
        """The generated Python text for `kind` "floats" or "arrays" (tensors use the latter)."""
        floats = kind == "floats"
        printer = Printer((*self.constants, *self.advanced, *self.rule, *self.outcome), floats)
        parts = [self._prepare_source(printer)]
        for i, c in enumerate(self.constants):
            printer.bind(c, f"c{i}")
        if self.adaptive and not floats:
            parts += self._piece_sources()
        else:
            parts.append(self._transition_source(printer, floats))
        return "\n".join(parts)

    def _prepare_source(self, printer: Printer) -> str:
        lines = [
            "def prepare(params, h):",
            f"    {_tuple(p.args[0] for p in self.params)} = params",
        ]
        lines += ["    " + line for line in printer.lines(self.constants, FIXED)]
        return "\n".join(
            [*lines, f"    return {_tuple(printer.text(c) for c in self.constants)}", ""]
        )

    def _unpack(self, state: str = "s", of: str = "state") -> list[str]:
        rows = [(f"{state}{i}" for i in range(self.state_size)), (u.args[0] for u in self.control)]
        lines = [
            f"    {_tuple(row)} = {name}" for row, name in zip(rows, (of, "control"), strict=True)
        ]
        if self.constants:
            lines.append(f"    {_tuple(f'c{i}' for i in range(len(self.constants)))} = constants")
        return lines

    def _transition_source(self, printer: Printer, floats: bool) -> str:
        lines = self._unpack()
        lines += ["    " + x for x in printer.lines((*self.advanced, *self.outcome), HELD)]
        states = _tuple(s.args[0] for s in self.state)
        if self.adaptive:
            lines += ["    remaining, count = dt, 0", "    while remaining > 0.0:"]
            lines += ["        " + x for x in printer.lines(self.rule, MOVING)]
            if self.rule[1] is not False:
                lines += [
                    f"        if {printer.text(self.rule[1])}:",
                    "            remaining = 0.0",
                    "            break",
                ]
            lines += [
                f"        if count == {MAX_SUBSTEPS}:",
                "            break",
                f"        h = remaining / ceil(remaining / {printer.text(self.rule[0])})",
                "        remaining, count = remaining - h, count + 1",
            ]
            printer.bind(self.step_size, "h")
        else:
            lines.append("    for _ in range(substeps):")
        lines += ["        " + x for x in printer.lines(self.advanced, MOVING)]
        lines.append(f"        {states} = {_tuple(printer.text(x) for x in self.advanced)}")
        for e, s in zip(self.final, self.state, strict=True):
            printer.bind(e, s.args[0])
        lines += ["    " + x for x in printer.lines(self.outcome, MOVING)]
        outcome = [printer.text(x) for x in self.outcome]
        if self.adaptive:
            outcome[2] = f"({outcome[2]} | (remaining > 0.0))"
        lines.append(f"    return {_tuple([*(s.args[0] for s in self.state), *outcome])}")
        head = "def transition(state, control, constants, dt, substeps):"
        if floats:  # arrays overflow, floats raise
            lines = ["    try:", *("    " + x for x in lines)]
            lines.append("    except (ArithmeticError, ValueError):")
            lines.append("        return lost(state, control, constants, dt, substeps)")
        return "\n".join([head, *lines, ""])

    def _piece_sources(self) -> list[str]:
        """Rule, sub-step and outcome as functions of their own, for drivers that step rows at their
        own pace.
        """
        pieces = []
        for name, outputs, state in (
            ("rule", self.rule, "s"),
            ("substep", self.advanced, "s"),
            ("outcome", self.outcome, "e"),
        ):
            printer = Printer(outputs, floats=False)
            for i, c in enumerate(self.constants):
                printer.bind(c, f"c{i}")
            arguments = "state, control, constants" + (", h" if name == "substep" else "")
            lines = [f"def {name}({arguments}):", *self._unpack(state)]
            lines += ["    " + x for x in printer.lines(outputs, MOVING)]
            pieces.append(
                "\n".join([*lines, f"    return {_tuple(printer.text(x) for x in outputs)}", ""])
            )
        return pieces

    def _compiled(self, kind: str) -> dict[str, Callable[..., Any]]:
        if kind not in self._functions:
            functions: Any = {"floats": elementwise._Floats, "arrays": np}.get(
                kind
            ) or _torch_functions()
            scope = {
                n: getattr(functions, n)
                for n in ("sin", "cos", "sqrt", "ceil", "rint", "minimum", "maximum", "where")
            }
            label = f"<physgym {self.system.name} {self.integrator} {kind}>"
            scope["lost"] = self._lost
            exec(compile(self.source(kind), label, "exec"), scope)
            self._functions[kind] = scope
        return self._functions[kind]


def substep(
    system: System,
    integrator: str,
    state: tuple[Any, ...],
    control: tuple[Any, ...],
    params: Any,
    h: Any,
) -> tuple[Any, ...]:
    """One step of size `h` of `integrator` on the equations of `system` (components in, components
    out).
    """
    if integrator == "exact":
        return system.exact_step(state, control, params, h)
    if integrator in FLOWS:
        return FLOWS[integrator](lambda s: system.derivative(s, control, params), state, h)
    half = system.state_size // 2
    before = state[half:]
    rate = system.damping_rate(params)
    q, v = SPLITTINGS[integrator](
        lambda q: system.acceleration(q, before, control, params),  # separable: blind to velocities
        lambda v: v,
        state[:half],
        before,
        h,
        None if isinstance(rate, float) and rate == 0.0 else rate,
    )
    return (*q, *v)


def outcome(
    system: System, state: tuple[Any, ...], control: tuple[Any, ...], params: Any, reward: str
) -> tuple[Any, ...]:
    """Equations: reward, energy, whether out of bounds, and the events at `state`."""
    inside = system.within_bounds(state, params)
    # Not one comparison the other way round: a state that is not a number must count as outside.
    outside = False if inside is True else elementwise.where(inside, 0.0, 1.0) > 0.5
    events = tuple(system.events(state, params).values())
    value = system.reward(state, control, state, params, kind=reward)
    return (value, system.energy(state, params), outside, *events)


def _any(conditions: Any) -> Any:
    conditions = conditions if isinstance(conditions, tuple) else (conditions,)
    found: Any = False
    for c in conditions:
        found = c if found is False else found if c is False else found | c
    return found


def _tuple(names: Any) -> str:
    return "(" + "".join(f"{name}, " for name in names) + ")"


def _kind(*operands: Any) -> str:
    functions = elementwise.library(*operands)
    return (
        "floats" if functions is elementwise._Floats else "arrays" if functions is np else "tensors"
    )


def _torch_functions() -> Any:
    import torch

    return elementwise.library(torch.zeros(()))


def substeps_for(dt: float, limit: float) -> int:
    """How many equal sub-steps of at most `limit` [s] make up `dt` [s] (at least 1)."""
    return max(1, math.ceil(abs(dt) / limit - 1e-9))
