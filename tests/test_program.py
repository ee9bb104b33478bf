"""The compiled step is the equations to the bit: as generated Python and as machine code."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np
import pytest
from system_cases import METHODS, NAMES, row_of, rows_of

from physgym import SYSTEMS, integrators
from physgym.compile.program import MAX_SUBSTEPS
from physgym.task import Task

# -- the generated program ---------------------------------------------------------------


def direct_step(
    system: Any, state: Any, control: Any, params: Any, dt: float, integrator: str
) -> Any:
    """A control step by the integrators on the system's equations, sub-steps ruled by hand."""
    half = system.state_size // 2
    rate = system.damping_rate(params)
    rate = None if isinstance(rate, float) and rate == 0.0 else rate

    def one(s: Any, h: float) -> Any:
        if integrator == "exact":
            return system.exact_step(s, control, params, h)
        if integrator in integrators.FLOWS:
            flow = integrators.FLOWS[integrator]
            return flow(lambda x: system.derivative(x, control, params), s, h)
        q, v = integrators.SPLITTINGS[integrator](
            lambda q: system.acceleration(q, None, control, params),
            lambda v: v,
            s[:half],
            s[half:],
            h,
            rate,
        )
        return (*q, *v)

    if not system.adaptive:
        count = 1 if integrator == "exact" else math.ceil(dt / system.max_step(None, params) - 1e-9)
        for _ in range(count):
            state = one(state, dt / count)
        return state
    remaining = dt
    while remaining > 0.0 and not system.collision(state, params):
        h = remaining / math.ceil(remaining / system.max_step(state, params))
        state, remaining = one(state, h), remaining - h
    return state


@pytest.mark.parametrize(("name", "integrator"), METHODS)
def test_program_is_the_equations_to_the_bit(name: str, integrator: str) -> None:
    system, states, controls, params = rows_of(name, SYSTEMS[name].starts[0], 4)
    for i, (s, u) in enumerate(zip(states.tolist(), controls.tolist(), strict=True)):
        mine, row = row_of(params, i), tuple(s)
        for dt in (system.dt, 0.17):
            program = system.step(row, tuple(u), mine, dt, integrator)
            assert program == direct_step(system, row, tuple(u), mine, dt, integrator)


@pytest.mark.parametrize("name", NAMES)
def test_generated_text_has_no_branch_but_the_sub_steps(name: str) -> None:
    system = SYSTEMS[name]
    program, _ = system.program(system.default_integrator, None, "dense")
    tree = ast.parse(program.source("arrays"))
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.If, ast.IfExp, ast.BoolOp))]


@pytest.mark.parametrize("kind", ["floats", "arrays"])
@pytest.mark.parametrize(("name", "integrator"), METHODS)
def test_native_code_is_python_to_the_bit(
    name: str, integrator: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llvmlite")
    from physgym.compile import native

    monkeypatch.delenv("PHYSGYM_NATIVE", raising=False)
    task = Task(name, integrator=integrator)
    assert task.program is not None
    assert native.available()
    compiled = (native.NativeStep if kind == "floats" else native.NativeRows)(task.program)
    monkeypatch.setenv("PHYSGYM_NATIVE", "0")
    assert not native.available()
    python = task.transition(kind)
    _, states, controls, params = rows_of(name, task.system.starts[0], 40)
    states = np.concatenate([states, 1e3 * states[:2], 0.05 * states[:2]])
    controls = np.concatenate([controls, controls[:4]])
    params = params._make(np.concatenate([x, x[:4]]) for x in params)
    if kind == "arrays":
        batches = [(states.T, tuple(controls.T), params)]
    else:
        rows = zip(states.tolist(), controls.tolist(), strict=True)
        batches = [(tuple(s), tuple(u), row_of(params, i)) for i, (s, u) in enumerate(rows)]
    for state, control, mine in batches:
        constants = task.constants(mine)
        fast = compiled(state, control, constants, task.dt, task.count)
        slow = python(state, control, constants, task.dt, task.count)
        for a, b in zip(fast, slow, strict=True):
            assert np.array_equal(np.broadcast_to(a, np.shape(b)), b, equal_nan=True)


def test_native_code_on_many_threads_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    from physgym.compile import native

    task = Task("pendulum")
    assert task.program is not None
    rng = np.random.default_rng(0)
    state, control = rng.uniform(-3.0, 3.0, (2, 9000)), (rng.uniform(-3.0, 3.0, 9000),)
    constants, step = task.constants(task.base), native.NativeRows(task.program)
    monkeypatch.setattr(native, "_cores", lambda: 1)
    alone = step(state, control, constants, task.dt, task.count)
    monkeypatch.setattr(native, "_cores", lambda: 3)
    monkeypatch.setattr(native, "ROWS_PER_THREAD", 1000)
    together = step(state, control, constants, task.dt, task.count)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_rows_step_at_their_own_pace() -> None:
    """A row's result does not depend on the rows beside it, near a collision or far from one."""
    system = SYSTEMS["spaceship"]
    states = np.array([[3.0, 0.0, 0.0, 1.8], [0.6, 0.0, 0.0, 2.0], [0.52, 0.0, -1.0, 0.0]])
    together = system.step(states, np.zeros((3, 2)), system.Params())
    for state, row in zip(states, together, strict=True):
        assert np.array_equal(system.step(state, np.zeros(2), system.Params()), row)


def test_unresolved_step_is_flagged() -> None:
    """A fall into an unguarded centre needs ever more sub-steps: flagged, never silently wrong."""
    params = {"crash_radius": 1e-9}
    task = Task("spaceship", params=params)
    assert task.program is not None
    fall = ((1e-4, 0.0, 0.0, 0.0), (0.0, 0.0))
    constants = task.constants(task.base)
    for kind in ("floats", "arrays"):
        state, control = fall
        if kind == "arrays":
            state, control = np.array(state)[:, None], (np.zeros(1), np.zeros(1))
        result = task.program.function(kind)(state, control, constants, 0.1, 1)
        assert bool(np.all(result[task.system.state_size + 2]))
        assert np.isfinite(np.asarray(result[:4], dtype=float)).all()
    assert MAX_SUBSTEPS >= 1000
