"""Laws over the registry: one text of equations for floats, arrays, tensors and machine code."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from typing import Any

import numpy as np
import pytest
from system_cases import NAMES, SMOOTH, STARTS, controls_for, starts_for

import physgym
from physgym import SYSTEMS, elementwise, get_system, integrators
from physgym.program import MAX_SUBSTEPS
from physgym.systems import three_body
from physgym.task import Task

METHODS = [(name, i) for name in NAMES for i in SYSTEMS[name].integrators if i != "dop853"]


# -- the registry ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_registry_entry_is_complete(name: str) -> None:
    system = get_system(name)
    assert system is get_system(system.env_id) is SYSTEMS[system.name]
    params = system.Params()
    assert set(system.param_units) == set(params._fields)
    assert set(system.ranges) | system.non_negative <= set(params._fields)
    for field, (low, high) in system.ranges.items():
        assert low <= getattr(params, field) <= high
    assert system.state_size == len(system.state_units) == 2 * (system.state_size // 2)
    assert len(system.action_names) == len(system.discrete_actions)
    assert np.abs(system.discrete_actions).max() <= 1.0
    assert system.default_integrator in system.integrators
    assert 0.0 < system.reward_threshold < system.max_episode_steps
    assert set(system.keys.values()) < set(range(len(system.discrete_actions)))
    sections = ("Description", "Action Space", "Observation Space", "Rewards", "Starting State")
    for heading in (*sections, "Episode End", "Arguments", "Version History"):
        assert f"## {heading}" in (type(system).__doc__ or ""), heading


def test_discrete_thrusts_are_unit_winds() -> None:
    winds = SYSTEMS["spaceship"].discrete_actions
    assert winds[0].tolist() == [0.0, 0.0]
    angles = np.arange(8) * math.pi / 4
    assert winds[1:] == pytest.approx(np.stack([np.cos(angles), np.sin(angles)], -1), abs=1e-15)


# -- the language of equations -----------------------------------------------------------

FORBIDDEN = (
    ast.While, ast.Try, ast.With, ast.Lambda, ast.BoolOp, ast.Not, ast.AugAssign, ast.NamedExpr,
    ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.Yield, ast.Await, ast.Delete,
    ast.Assert, ast.Match,
)  # fmt: skip
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod, ast.BitAnd, ast.BitOr)
BUILTINS = {"abs", "float", "range", "zip", "enumerate", "len", "tuple"}
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
            own = inspect.isfunction(called) and called.__module__.startswith("physgym.systems")
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
    broken = [o for o in broken if not o.startswith("System.exact_step")]
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


def rows_of(name: str, start: str, count: int = 12) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    """A system, states (count, D), controls (count, U) and parameters (rows) from their ranges."""
    system, rng = SYSTEMS[name], np.random.default_rng(11)
    drawn = [system.sample_params(rng, True) for _ in range(count)]
    states = np.array([system.sample_state(rng, p, start) for p in drawn])
    return system, states, controls_for(system, rng, (count,)), system.Params(*np.array(drawn).T)


def row_of(params: Any, i: int) -> Any:
    """Parameters of row `i`, as floats."""
    return params._make(float(x[i]) for x in params)


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
            lambda q: system.acceleration(q, control, params),
            lambda v: v,
            s[:half],
            s[half:],
            h,
            rate,
        )
        return (*q, *v)

    if not system.adaptive:
        count = 1 if integrator == "exact" else math.ceil(dt / system.max_step(None, None) - 1e-9)
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
    from physgym import native

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
    from physgym import native

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


# -- the goal of the three bodies --------------------------------------------------------


def brute_force_distance(states: np.ndarray) -> np.ndarray:
    """Least squared distance to the choreography over a grid of phases, refined by a parabola."""
    phases = np.linspace(0.0, 2.0 * math.pi, 4000, endpoint=False)
    orbit = three_body.figure_eight(phases)
    squares = ((states[:, None, :] - orbit) ** 2).sum(-1)
    least = squares.argmin(-1)
    step, best = phases[1], []
    for square, state, i in zip(squares, states, least, strict=True):
        left, mid, right = square[i - 1], square[i], square[(i + 1) % len(phases)]
        shift = 0.5 * (left - right) / (left - 2.0 * mid + right)
        fine = three_body.figure_eight(phases[i] + shift * step)
        best.append(((state - fine) ** 2).sum())
    return np.array(best)


@pytest.mark.parametrize(("noise", "bar"), [(1e-3, 1e-9), (0.02, 1e-5), (0.1, 1e-2)])
def test_distance_to_figure_eight(noise: float, bar: float) -> None:
    rng = np.random.default_rng(16)
    states = three_body.figure_eight(rng.uniform(0.0, 2.0 * math.pi, 64)) + rng.normal(
        0.0, noise, (64, 12)
    )
    formula = three_body.squared_distance_to_figure_eight(tuple(states.T))
    truth = brute_force_distance(states)
    scale = SYSTEMS["three_body"].error_scale ** 2
    reward, honest = 1.0 / (1.0 + formula / scale), 1.0 / (1.0 + truth / scale)
    assert np.abs(reward - honest).max() <= bar
    assert (formula >= 0.0).all()


# -- tasks, as the page of the systems states them ------------------------------------------


def task_error(name: str, y: np.ndarray, u: np.ndarray, p: Any) -> float:
    """Squared error of one state, written a second time."""
    if name == "oscillator":
        return (y[0] - 0.3) ** 2 + y[1] ** 2 / (p.stiffness / p.mass)
    if name == "pendulum":
        upright = math.remainder(y[0] - math.pi, 2.0 * math.pi)
        return upright**2 + 0.1 * min(y[1] ** 2, 64.0) + 0.001 * u[0] ** 2
    if name == "spaceship":
        r, speed = np.hypot(y[0], y[1]), math.sqrt(p.gm / 3.0)
        radial = (y[:2] @ y[2:]) / r
        across = abs(y[0] * y[3] - y[1] * y[2]) / r
        return (r / 3.0 - 1.0) ** 2 + (radial / speed) ** 2 + (across / speed - 1.0) ** 2
    return float(brute_force_distance(y[None])[0])


SCALES = {"oscillator": 0.2, "spaceship": 0.15, "three_body": 0.3}


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_those_stated(name: str) -> None:
    system, states, controls, params = rows_of(name, SYSTEMS[name].starts[0], 40)
    dense = system.reward(states, controls, states, params)
    sparse = system.reward(states, controls, states, params, kind="sparse")
    quadratic = system.reward(states, controls, states, params, kind="quadratic")
    for i, (y, u) in enumerate(zip(states, controls, strict=True)):
        error = task_error(name, y, u, row_of(params, i))
        if name == "pendulum":
            wanted, scale = 1.0 - error / 16.2736, 0.5
        else:
            scale = SCALES[name]
            wanted = 1.0 / (1.0 + error / scale**2)
        tolerance = 1e-4 if name == "three_body" else 1e-10
        assert dense[i] == pytest.approx(wanted, abs=tolerance)
        assert sparse[i] == float(math.sqrt(error) < scale / 2.0)
        assert quadratic[i] == pytest.approx(-error / scale**2, rel=1e-3, abs=1e-9)
    assert not system.reward(states, controls, states, params, kind="none").any()
    with pytest.raises(ValueError, match="dense, sparse, quadratic"):
        system.reward(states, controls, states, params, kind="huge")


@pytest.mark.parametrize(
    ("name", "control", "state"),
    [
        ("oscillator", [0.0], [0.3, 0.0]),
        ("pendulum", [0.0], [math.pi, 0.0]),
        ("pendulum", [0.0], [-math.pi, 0.0]),
        ("spaceship", [0.0, 0.0], [0.0, 3.0, math.sqrt(10.0 / 3.0), 0.0]),
        ("spaceship", [0.0, 0.0], [0.0, 3.0, -math.sqrt(10.0 / 3.0), 0.0]),
        ("three_body", [0.0, 0.0], three_body.figure_eight(1.0).tolist()),
    ],
)
def test_goal_earns_one(name: str, control: list[float], state: list[float]) -> None:
    system = SYSTEMS[name]
    for kind in ("dense", "sparse"):
        reward = system.reward(None, tuple(control), tuple(state), system.Params(), kind=kind)
        assert reward == pytest.approx(1.0, abs=1e-6)


def test_ends_are_those_stated() -> None:
    ship, bodies = SYSTEMS["spaceship"], SYSTEMS["three_body"]
    for r, collision, escape in ((0.499, True, False), (0.501, False, False), (8.01, False, True)):
        state = (r * math.cos(2.0), r * math.sin(2.0), 0.0, 0.0)
        assert ship.events(state, ship.Params()) == {"collision": collision, "escape": escape}
    masses = bodies.Params(mass_0=1.0, mass_1=2.0, mass_2=3.0)
    for gap, collision in ((0.099, True), (0.101, False)):
        state = (1.0, 1.0, 1.0, 1.0 + gap, -1.0, -1.0, *[0.0] * 6)
        assert bodies.events(state, masses) == {"collision": collision, "escape": False}
    # Body 0 at x, the others half a metre off the origin: the centre of mass lies at x / 6.
    for x, escape in ((2.99, False), (3.01, True)):
        state = (x, 0.0, 0.6, 0.0, -0.4, 0.0, *[0.0] * 6)
        assert bodies.events(state, masses)["escape"] is escape
    for name in ("oscillator", "pendulum"):
        assert SYSTEMS[name].events(SMOOTH[name], SYSTEMS[name].Params()) == {}


def test_starts_are_those_stated() -> None:
    """Ranges of the starts: an upper and a lower bound that a few hundred draws come close to."""
    rng = np.random.default_rng(30)
    for name, highest in (("oscillator", (1.8, 1.8)), ("pendulum", (math.pi, 1.0))):
        states = starts_for(SYSTEMS[name], rng, 400, "default")
        assert (np.abs(states) <= highest).all()
        assert (states.max(0) > 0.95 * np.array(highest)).all()
        assert (states.min(0) < -0.95 * np.array(highest)).all()
    states = starts_for(SYSTEMS["spaceship"], rng, 400, "default")
    q, v = states[:, :2], states[:, 2:]
    axis = 1.0 / (2.0 / np.linalg.norm(q, axis=1) - (v**2).sum(1) / 10.0)
    spin = q[:, 0] * v[:, 1] - q[:, 1] * v[:, 0]
    eccentricity = np.sqrt(np.maximum(1.0 - spin**2 / (10.0 * axis), 0.0))
    assert 2.0 - 1e-9 <= axis.min() < 2.1 < 3.9 < axis.max() <= 4.0 + 1e-9
    assert eccentricity.min() < 0.02 < 0.38 < eccentricity.max() <= 0.4 + 1e-9
    assert 0.4 < (spin > 0.0).mean() < 0.6
    states = starts_for(SYSTEMS["three_body"], rng, 64, "figure_eight")
    distance = brute_force_distance(states)
    assert 0.02**2 * 4 < distance.mean() < 0.02**2 * 12


# -- observations, parameters, small functions -------------------------------------------


def test_wrapping_keeps_the_angle() -> None:
    angles = np.concatenate([np.linspace(-50.0, 50.0, 2001), [math.pi, -math.pi, 1e6, -1e6]])
    wrapped = elementwise.wrap(angles)
    assert np.abs(wrapped).max() <= math.pi + 1e-12
    gap = np.arctan2(np.sin(wrapped - angles), np.cos(wrapped - angles))
    assert np.abs(gap).max() <= 1e-9
    inside = np.linspace(-3.14159, 3.14159, 101)
    assert np.array_equal(elementwise.wrap(inside), inside)
    assert all(elementwise.wrap(float(a)) == w for a, w in zip(angles, wrapped, strict=True))


def test_elementwise_refuses_unknown_operands() -> None:
    with pytest.raises(TypeError, match="floats, NumPy arrays and torch tensors, not str"):
        elementwise.sin("0.1")


@pytest.mark.parametrize("name", NAMES)
def test_embedding_is_cos_and_sin(name: str) -> None:
    system = SYSTEMS[name]
    states = starts_for(system, np.random.default_rng(17), 5, system.starts[0])
    plain, embedded = system.observe(states), system.observe(states, "embedded")
    assert plain.dtype == embedded.dtype == np.float32
    assert plain.shape == (5, system.state_size)
    assert embedded.shape == (5, system.state_size + len(system.angles))
    assert len(system.observation_high("embedded")) == embedded.shape[1]
    if name == "pendulum":
        assert embedded[:, :2] == pytest.approx(
            np.stack([np.cos(states[:, 0]), np.sin(states[:, 0])], -1), abs=1e-7
        )
    else:
        assert np.array_equal(plain, embedded)


@pytest.mark.parametrize("name", NAMES)
def test_random_parameters_stay_in_their_ranges(name: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(18)
    drawn = [system.sample_params(rng, True) for _ in range(50)]
    for field, default in zip(system.Params._fields, system.Params(), strict=True):
        values = np.array([getattr(p, field) for p in drawn])
        low, high = system.ranges.get(field, (default, default))
        assert ((low <= values) & (values <= high)).all()
        assert len(np.unique(values)) == (50 if field in system.ranges else 1)
    only = system.sample_params(
        rng, {next(iter(system.ranges)): system.ranges[next(iter(system.ranges))]}
    )
    assert sum(a != b for a, b in zip(only, system.Params(), strict=True)) == 1


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_starts_are_valid_and_at_rest_where_promised(name: str, start: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(19)
    for _ in range(50):
        params = system.sample_params(rng, True)
        state = system.sample_state(rng, params, start)
        assert system.check_state(state, params) == state
        if name == "three_body":
            masses = np.array([params.mass_0, params.mass_1, params.mass_2])
            assert np.abs(masses @ np.array(state).reshape(2, 3, 2)).max() <= 1e-14
        if start == "random":
            gaps = np.sqrt(system._squares(state))
            assert gaps.min() >= 0.5
            potential = system.energy((*state[:6], *[0.0] * 6), params)
            assert system.energy(state, params) == pytest.approx(potential / 2.0)


@pytest.mark.parametrize("name", NAMES)
def test_hand_written_controller_beats_nothing_and_chance(name: str) -> None:
    system, rng = SYSTEMS[name], np.random.default_rng(20)
    params, count, steps = system.Params(), 48, system.max_episode_steps // 2
    returns = {}
    for policy in ("nothing", "random", "controller"):
        states = starts_for(system, np.random.default_rng(21), count, system.starts[0])
        alive, total = np.ones(count, dtype=bool), np.zeros(count)
        task = Task(system.name)
        step, constants = task.transition("arrays"), task.constants(params)
        nothing = int(np.abs(system.discrete_actions).sum(-1).argmin())
        for t in range(steps):
            actions = np.full(count, nothing)
            if policy == "random":
                actions = rng.integers(0, len(system.discrete_actions), count)
            elif policy == "controller":
                actions = system.controller(states, params, t)
            control = system.control(system.discrete_actions[actions], params)
            result = step(states.T, tuple(control.T), constants, task.dt, task.count)
            states = np.stack(result[: system.state_size], -1)
            total += alive * result[system.state_size]
            for event in result[system.state_size + 3 :]:
                alive &= ~event
        returns[policy] = total.mean()
    assert returns["controller"] > 1.2 * max(returns["nothing"], returns["random"]), returns


def test_public_names_are_there() -> None:
    for name in physgym.__all__:
        assert hasattr(physgym, name)
