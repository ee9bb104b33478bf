"""One text of equations: its language, and the same numbers from floats, arrays and tensors."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from typing import Any

import numpy as np
import pytest
from system_cases import METHODS, NAMES, SMOOTH, STARTS, controls_for, row_of, rows_of, starts_for

from physgym import SYSTEMS

# -- the language of equations -----------------------------------------------------------

FORBIDDEN = (
    ast.While, ast.Try, ast.With, ast.Lambda, ast.BoolOp, ast.Not, ast.AugAssign, ast.NamedExpr,
    ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.Yield, ast.Await, ast.Delete,
    ast.Assert, ast.Match,
)  # fmt: skip
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod, ast.BitAnd, ast.BitOr)
BUILTINS = {"abs", "float", "range", "zip", "enumerate", "len", "tuple"}
HOMES = ("physgym.systems", "physgym.choreography", "physgym.gravity", "physgym.thrusters")
BASIC = {"sin", "cos", "sqrt", "minimum", "maximum", "where", "wrap"}


def functions_of_equations(system: Any) -> dict[str, Any]:
    """Methods marked *Equations*, and the module functions that they call, by name."""
    found = {
        name: method
        for name, method in inspect.getmembers(type(system), inspect.isfunction)
        if (method.__doc__ or "").startswith("Equations")
    }
    pending = list(found.values())
    while pending:
        function = pending.pop()
        for node in ast.walk(tree_of(function)):
            if not isinstance(node, ast.Call):
                continue
            called = None
            if isinstance(node.func, ast.Name):
                called = function.__globals__.get(node.func.id)
            elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self":
                called = getattr(type(system), node.func.attr, None)
            own = inspect.isfunction(called) and called.__module__.startswith(HOMES)
            if own and called.__name__ not in found:
                found[called.__name__] = called
                pending.append(called)
    return found


def tree_of(function: Any) -> ast.FunctionDef:
    """The syntax tree of one function."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree


def is_static_test(test: ast.expr) -> bool:
    """A branch on what tracing knows: a bare name, `is None`, or the residue of a count."""
    if not isinstance(test, ast.Compare):
        return isinstance(test, ast.Name)
    residue = isinstance(test.left, ast.BinOp) and isinstance(test.left.op, ast.Mod)
    return isinstance(test.ops[0], (ast.Is, ast.IsNot)) or (
        residue and isinstance(test.comparators[0], ast.Constant)
    )


def offences(function: Any, known: set[str]) -> list[str]:
    """What in `function` the language of equations does not have."""
    tree = tree_of(function)
    lists = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.List, ast.ListComp))
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(tree):
        bad = isinstance(node, FORBIDDEN)
        bad |= isinstance(node, ast.BinOp) and not isinstance(node.op, OPERATORS)
        bad |= isinstance(node, (ast.If, ast.IfExp)) and not is_static_test(node.test)
        if isinstance(node, ast.Compare):
            ordered = isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
            bad |= len(node.ops) != 1 or not (ordered or is_static_test(node))
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allowed = name in BUILTINS | BASIC | known or name.removeprefix("self.") in known
            allowed |= name.rpartition(".")[2] in ("append", "items")
            bad |= not allowed
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            bad |= not (isinstance(node.value, ast.Name) and node.value.id in lists | {"powers"})
        if bad and isinstance(node, (ast.expr, ast.stmt)):
            found.append(f"{function.__qualname__}: {ast.unparse(node)[:60]}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_equations_keep_to_their_language(name: str) -> None:
    """Arithmetic, abs, comparisons joined by & and |, elementwise functions: no more."""
    functions = functions_of_equations(SYSTEMS[name])
    assert {"acceleration", "energy_of", "power_of", "squared_error", "bounds"} <= set(functions)
    broken = [o for f in functions.values() for o in offences(f, set(functions) - BUILTINS)]
    # A base-class method that only says which integrators exist raises before any tracing.
    broken = [o for o in broken if not o.startswith("Equations.exact_step")]
    assert not broken, "\n".join(broken)


def test_language_law_can_fail() -> None:
    def branching(x: Any) -> Any:
        if x > 0.0:
            return math.exp(x)
        return 0.0 < x < 1.0

    def mutating(x: Any) -> Any:
        x[0] += 1.0
        x[1] = 2.0
        return x[0] and not x[1]

    assert len(offences(branching, set())) == 3
    assert len(offences(mutating, set())) == 4


# -- floats, arrays, tensors -------------------------------------------------------------


PUBLIC = {
    "derivative": lambda m, s, u, p: m.derivative(s, u, p),
    "energy": lambda m, s, u, p: m.energy(s, p),
    "power": lambda m, s, u, p: m.power(s, u, p),
    "dissipation": lambda m, s, u, p: m.dissipation(s, p),
    "dense": lambda m, s, u, p: m.reward(s, u, s, p),
    "sparse": lambda m, s, u, p: m.reward(s, u, s, p, kind="sparse"),
    "quadratic": lambda m, s, u, p: m.reward(s, u, s, p, kind="quadratic"),
    "none": lambda m, s, u, p: m.reward(s, u, s, p, kind="none"),
    "alive": lambda m, s, u, p: m.reward(s, u, s, p, kind="alive"),
    "terminated": lambda m, s, u, p: m.terminated(s, p),
    "step": lambda m, s, u, p: m.step(s, u, p),
}


@pytest.mark.parametrize("what", PUBLIC)
@pytest.mark.parametrize(("name", "start"), STARTS)
def test_floats_equal_arrays_equal_tensors(name: str, start: str, what: str) -> None:
    torch = pytest.importorskip("torch")
    system, states, controls, params = rows_of(name, start)
    function = PUBLIC[what]
    rows = np.asarray(function(system, states, controls, params))
    for i, (s, u) in enumerate(zip(states.tolist(), controls.tolist(), strict=True)):
        single = function(system, tuple(s), tuple(u), row_of(params, i))
        kept = type(single) in (tuple, float, bool)
        assert kept, type(single)
        assert np.array_equal(
            np.asarray(single), np.broadcast_to(rows, (len(states), *rows.shape[1:]))[i]
        )
    tensors = function(
        system,
        torch.tensor(states),
        torch.tensor(controls),
        system.Params(*map(torch.tensor, params)),
    )
    tensors = np.broadcast_to(np.asarray(tensors), rows.shape)
    assert np.abs(tensors * 1.0 - rows * 1.0).max() <= 1e-12 * max(1.0, np.abs(rows * 1.0).max())


CRASHES = {
    "spaceship": [(0.6, 0.0, -4.0, 0.1), (0.0, 0.52, 0.3, -1.0), (3.0, 0.0, 0.0, 1.8)],
    "three_body": [
        (0.15, 0.0, -0.1, 0.0, 1.0, 1.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        SMOOTH["three_body"],
    ],
}


@pytest.mark.parametrize("name", CRASHES)
def test_motion_stops_at_a_collision_in_every_kind(name: str) -> None:
    torch = pytest.importorskip("torch")
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    states = np.array(CRASHES[name])
    rows = states
    for _ in range(4):
        rows = system.step(rows, np.zeros((len(rows), 2)), params)
    hit = system.events(rows, params)["collision"]
    assert hit[:-1].all()
    assert not hit[-1]
    tensors = torch.tensor(states)
    for _ in range(4):
        tensors = system.step(tensors, torch.zeros(len(states), 2, dtype=torch.float64), params)
    assert np.abs(tensors.numpy() - rows).max() <= 1e-12 * np.abs(rows).max()
    for state, row in zip(states.tolist(), rows, strict=True):
        single = tuple(state)
        for _ in range(4):
            single = system.step(single, (0.0, 0.0), params)
        assert single == tuple(row.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_actions_become_controls_within_limits(name: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(12)
    params = system.Params()
    limit = getattr(
        params, next(f for f in params._fields if f in ("force_limit", "torque_limit", "thrust"))
    )
    actions = rng.uniform(-1.0, 1.0, (200, system.action_size))
    controls = np.asarray(system.control(actions, params))
    assert controls.shape == (200, system.control_size)
    assert np.linalg.norm(controls, axis=-1).max() <= limit * (1.0 + 1e-15)
    inside = np.linalg.norm(actions, axis=-1) <= 1.0
    assert controls[inside] == pytest.approx(limit * actions[inside], abs=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_state_may_be_float32_tensors(name: str) -> None:
    torch = pytest.importorskip("torch")
    system = SYSTEMS[name]
    state = torch.tensor(SMOOTH[name], dtype=torch.float32).repeat(3, 1)
    control = torch.zeros(3, system.control_size)
    after = system.step(state, control, system.Params())
    assert after.dtype == torch.float32
    assert after.shape == state.shape
    truth = system.step(state.double(), control.double(), system.Params())
    assert (after - truth).abs().max() <= 1e-4


# -- gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "integrator"), METHODS)
def test_gradients_match_finite_differences(name: str, integrator: str) -> None:
    """Of the next state by the state, the control and every parameter."""
    torch = pytest.importorskip("torch")
    system = SYSTEMS[name]
    control = controls_for(system, np.random.default_rng(13), ())
    params = system.Params()
    if "softening" in params._fields:
        params = params._replace(softening=0.1)
    inputs = [
        torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True)
        for x in (SMOOTH[name], control, tuple(params))
    ]

    def step(state: Any, u: Any, values: Any) -> Any:
        return system.step(state, u, system.Params(*values.unbind()), 0.1, integrator, substeps=2)

    assert torch.autograd.gradcheck(step, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_default_steps(name: str) -> None:
    """With the system's own sub-steps, batched, over several control steps."""
    torch = pytest.importorskip("torch")
    system, params = SYSTEMS[name], SYSTEMS[name].Params()
    states = torch.tensor(starts_for(system, np.random.default_rng(14), 2, system.starts[0]))
    controls = torch.tensor(
        controls_for(system, np.random.default_rng(15), (3, 2)), requires_grad=True
    )

    def last(controls: Any) -> Any:
        s = states
        for u in controls:
            s = system.step(s, u, params)
        return s.sin().sum()

    (gradient,) = torch.autograd.grad(last(controls), controls)
    with torch.no_grad():
        for where in itertools.product(range(3), range(2), range(system.control_size)):
            shift = torch.zeros_like(controls)
            shift[where] = 1e-3
            slope = float(last(controls + shift) - last(controls - shift)) / 2e-3
            assert float(gradient[where]) == pytest.approx(slope, abs=2e-6)
