"""The classic Hamiltonian systems: canonical equations, references apart, shapes, starts by energy."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from system_cases import SMOOTH, controls_for, rollout_errors, starts_for

import physgym
from benchmarks.truth import reference_step, scaled_error
from physgym import SYSTEMS, PhysicsEnv, PhysicsVectorEnv, get_system
from physgym.systems.mass_spring import normal_modes

SHAPES = ("acrobot_both", "mass_spring_4", "n_body_5")
BY_ENERGY = [name for name, s in SYSTEMS.items() if s.energy_unit(s.Params()) is not None]

# -- Hamilton's equations ------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SYSTEMS, *SHAPES])
def test_motion_is_hamiltons(name: str) -> None:
    """q' = dH/dp and p' = -dH/dq + forces, with p = dE/dv and H(q, p) = E, by automatic differentiation."""
    torch = pytest.importorskip("torch")
    system, rng = get_system(name), np.random.default_rng(31)
    params, half = system.sample_params(rng, True), system.state_size // 2
    state = torch.tensor(system.sample_state(rng, params), dtype=torch.float64)
    control = torch.tensor(np.asarray(controls_for(system, rng, ())), dtype=torch.float64)
    q, v = state[:half], state[half:]

    def momenta(x: Any) -> Any:
        def energy(w: Any) -> Any:
            return system.energy(torch.cat([x[:half], w]), params)

        return torch.autograd.functional.jacobian(energy, x[half:], create_graph=True)

    def hamiltonian(place: Any, p: Any) -> Any:
        mass = torch.autograd.functional.jacobian(
            lambda w: momenta(torch.cat([place, w])), torch.zeros_like(v), create_graph=True
        )
        return system.energy(torch.cat([place, torch.linalg.solve(mass, p)]), params)

    p = momenta(state).detach()
    dq, dp = torch.autograd.functional.jacobian(hamiltonian, (q, p))
    rate = system.derivative(state, control, params)
    _, moved = torch.autograd.functional.jvp(momenta, state, rate)

    def force_of(w: Any) -> Any:
        whole = torch.cat([q, w])
        return system.power(whole, control, params) - 0.5 * system.dissipation(whole, params)

    force = torch.autograd.functional.jacobian(force_of, v)  # Rayleigh: half of what is dissipated
    scale = 1.0 + float(moved.abs().max())
    assert (dp - rate[:half]).abs().max() <= 1e-11 * (1.0 + float(v.abs().max()))
    assert (moved - (force - dq)).abs().max() <= 1e-10 * scale
    assert force.abs().max() > 0.0


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_against_dop853(name: str) -> None:
    """As the systems of the registry, `test_default_mode_against_dop853`."""
    bar = 1e-11 if get_system(name).default_integrator == "exact" else 1e-5
    assert rollout_errors(name, "default", count=3, steps=10, seed=0, tolerance=1e-13) <= bar


def test_acrobot_against_34_digits() -> None:
    """Hamilton's equations of H = p^T M^-1 p / 2 + V in mpmath, M inverted by hand."""
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.dps = 34
    g, tau, start = mp.mpf("9.81"), mp.mpf(4), SMOOTH["acrobot"]

    def right(_: Any, y: Any) -> list[Any]:
        one, two, p1, p2 = y
        c, s, whole = mp.cos(two), mp.sin(two), 1 + mp.sin(two) ** 2
        w1 = (p1 - (1 + c) * p2) / whole
        w2 = ((3 + 2 * c) * p2 - (1 + c) * p1) / whole
        # dK/dtheta_2 at fixed p is -w^T (dM/dtheta_2) w / 2, dM/dtheta_2 = -sin [[2, 1], [1, 0]].
        kinetic = s * (w1 * w1 + w1 * w2)
        fall = g * mp.sin(one + two)
        return [w1, w2, -2 * g * mp.sin(one) - fall, -kinetic - fall + tau]

    one, two, w1, w2 = map(mp.mpf, start)
    c = mp.cos(two)
    p = [(3 + 2 * c) * w1 + (1 + c) * w2, (1 + c) * w1 + w2]
    end = mp.odefun(right, 0, [one, two, *p])(mp.mpf("0.05"))
    c, whole = mp.cos(end[1]), 1 + mp.sin(end[1]) ** 2
    p1, p2 = end[2:]
    truth = [*end[:2], (p1 - (1 + c) * p2) / whole, ((3 + 2 * c) * p2 - (1 + c) * p1) / whole]
    truth = np.array([float(x) for x in truth])
    system = SYSTEMS["acrobot"]
    assert scaled_error(system.step(start, (4.0,), system.Params()), truth) <= 1e-7
    accurate = system.step(start, (4.0,), system.Params(), None, "dop853")
    assert scaled_error(accurate, truth) <= 1e-11
    reference = reference_step("acrobot", start, [4.0], system.Params(), system.dt, 1e-13)
    assert scaled_error(reference, truth) <= 1e-12


@pytest.mark.parametrize(
    "start", [(2.0, 0.5, 0.0, 0.0), (3.0, 0.1, 0.0, 0.0), (1.0, 1.0, 1.0, -1.0)]
)
def test_a_free_double_pendulum_keeps_its_energy_for_100_s(start: tuple[float, ...]) -> None:
    """By the default integrator, at every step; semi-explicit Euler would fail within a second."""
    task = physgym.get_system("acrobot").task()
    step, constants = task.transition("floats"), task.constants(task.base)
    state, energy, drift = start, task.system.energy(start, task.base), 0.0
    for _ in range(2000):
        result = step(state, (0.0,), constants, task.dt, task.count)
        state, drift = result[:4], max(drift, abs(result[5] / energy - 1.0))
    assert drift < 1e-6
    assert np.abs(np.array(state) - start).max() > 0.1


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_normal_modes_are_those_of_the_chain(count: int) -> None:
    stretch = np.eye(count) - np.eye(count, k=-1)
    modes = normal_modes(count)
    shapes = np.array([shape for _, shape in modes])
    assert shapes @ shapes.T == pytest.approx(np.eye(count), abs=1e-14)
    squares = np.diag([rate * rate for rate, _ in modes])
    assert shapes @ (stretch.T @ stretch) @ shapes.T == pytest.approx(squares, abs=1e-14)


def test_two_bodies_and_three_are_the_systems_that_are_known() -> None:
    three, bodies = SYSTEMS["three_body"], get_system("n_body_3")
    state, control = SMOOTH["three_body"], (0.3, -0.2)
    p = three.Params(mass_0=0.9, mass_1=1.1, mass_2=1.3, softening=0.1)
    same = bodies.Params(mass_0=0.9, mass_1=1.1, mass_2=1.3)
    assert bodies.step(state, control, same) == three.step(state, control, p)
    assert bodies.energy(state, same) == three.energy(state, p)
    for count in (2, 3, 6):  # the ring turns for ever
        ring = get_system(f"n_body_{count}")
        angles = 2.0 * math.pi * np.arange(count) / count
        rate = ring.ring_rate(ring.Params(), 1.0)
        q = np.stack([np.cos(angles), np.sin(angles)], -1)
        v = rate * np.stack([-np.sin(angles), np.cos(angles)], -1)
        after = ring.step(np.concatenate([q.ravel(), v.ravel()]), np.zeros(2), None, 0.5)
        turned = np.stack([np.cos(angles + 0.5 * rate), np.sin(angles + 0.5 * rate)], -1)
        assert after[: 2 * count] == pytest.approx(turned.ravel(), abs=1e-7)


# -- shapes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "given", "name"),
    [
        ("PhysGym/NBody-v0", {"bodies": 5}, "n_body_5"),
        ("PhysGym/NBody-v0", {"bodies": np.int64(8)}, "n_body_8"),
        ("PhysGym/MassSpring-v0", {"bodies": 4}, "mass_spring_4"),
        ("PhysGym/Acrobot-v0", {"torques": "both"}, "acrobot_both"),
    ],
)
def test_a_shape_is_one_system_however_it_is_asked_for(
    env_id: str, given: dict[str, Any], name: str
) -> None:
    system = get_system(name)
    assert system is get_system(system.env_id) is SYSTEMS[name] is SYSTEMS.get(name)
    assert name in SYSTEMS and name not in list(SYSTEMS)
    assert pickle.loads(pickle.dumps(system)) is system
    for env in (gym.make(env_id, **given), gym.make(system.env_id)):
        assert env.unwrapped.system is system
        env.reset(seed=0)
        twin = pickle.loads(pickle.dumps(env))
        assert np.array_equal(twin.step(1)[0], env.step(1)[0])
        assert env.unwrapped.task.replaced(dt=0.01).system is system
    envs = gym.make_vec(env_id, 3, vectorization_mode="vector_entry_point", **given)
    assert envs.reset(seed=0)[1]["state"].shape == (3, system.state_size)
    assert copy.deepcopy(envs).unwrapped.system is system


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (
            "n_body",
            {"bodies": 9},
            "bodies=9 is unknown to n_body; choose one of 2, 3, 4, 5, 6, 7, 8",
        ),
        ("n_body", {"bodies": "3"}, "bodies='3' is unknown"),
        ("n_body", {"bodies": True}, "bodies=True is unknown"),
        ("acrobot", {"torques": "none"}, "choose one of both, elbow"),
        ("pendulum", {"bodies": 2}, "bodies=2 is not taken by pendulum.*mass_spring, n_body"),
        ("acrobot", {"bodies": 2}, "bodies=2 is not taken by acrobot"),
    ],
)
def test_a_shape_that_is_not_there_is_refused(name: str, given: dict[str, Any], words: str) -> None:
    for make in (PhysicsEnv, PhysicsVectorEnv):
        with pytest.raises(ValueError, match=words):
            make(name, **given)
    with pytest.raises(KeyError, match="did you mean 'n_body'"):
        get_system("n_body_9")


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_live_in_every_kind_of_env(name: str) -> None:
    for given in ({"obs_mode": "embedded", "action_mode": "continuous"}, {"obs_mode": "pixels"}):
        single = PhysicsEnv(name, randomize=True, **given)
        rows = PhysicsVectorEnv(name, 2, randomize=True, **given)
        alone, together = single.reset(seed=4)[0], rows.reset(seed=4)[0]
        single.action_space.seed(0)
        for _ in range(5):
            assert np.array_equal(alone, together[0])
            action = single.action_space.sample()
            (alone, reward, *_), (together, rewards, *_) = (
                single.step(action),
                rows.step(np.array([action, action])),
            )
            assert reward == rewards[0] and single.observation_space.contains(alone)


# -- what a system says of itself ------------------------------------------------------------


def cart(**changes: Any) -> Any:
    """A class like the mass on a spring, under another name."""
    base = type(SYSTEMS["mass_spring"])
    kept = {"name": "odd", "env_id": "Lab/Odd-v0", "variants": {}, **changes}
    return type("Odd", (base,), kept)


def test_registration_holds_acceleration_to_what_is_said_of_it() -> None:
    def old(self: Any, q: Any, u: Any, p: Any) -> Any:
        return (u[0] - q[0],)

    def dragged(self: Any, q: Any, v: Any, u: Any, p: Any) -> Any:
        return (u[0] - q[0] - v[0] * abs(v[0]),)

    with pytest.raises(TypeError, match=r"takes 3 arguments.*acceleration\(self, q, v, u, p\)"):
        physgym.register(cart(acceleration=old))
    with pytest.raises(ValueError, match="depends on velocities, so that it is not separable"):
        physgym.register(cart(acceleration=dragged))
    assert "odd" not in SYSTEMS


# -- starts by energy ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_ENERGY)
def test_starts_have_the_energy_asked_for(name: str) -> None:
    system, found = SYSTEMS[name], []
    env = gym.make(system.env_id, start="energy", energy=(0.7, 1.3), randomize=True)
    for seed in range(150):
        info = env.reset(seed=seed)[1]
        found.append(info["energy"] / system.energy_unit(system.Params(**info["params"])))
    assert 0.7 - 1e-9 <= min(found) < 0.72 < 1.28 < max(found) <= 1.3 + 1e-9
    assert env.unwrapped.task.reward == "dense", "the goal is the same"
    given = {"options": {"energy": (0.9, 0.9)}}
    rows = PhysicsVectorEnv(name, 12)
    states, energies = (
        rows.reset(seed=3, **given)[1]["state"],
        rows.reset(seed=3, **given)[1]["energy"],
    )
    assert energies == pytest.approx(0.9 * system.energy_unit(system.Params()), rel=1e-9)
    single = PhysicsEnv(name)
    for i in range(12):
        assert np.array_equal(single.reset(seed=3 + i, **given)[1]["state"], states[i])
    plain = rows.reset(seed=3)[1]["state"]
    assert np.array_equal(plain, PhysicsVectorEnv(name, 12).reset(seed=3)[1]["state"])


def test_a_cart_has_a_fifth_of_the_kinetic_energy_at_most() -> None:
    system, rng = SYSTEMS["cart_pole"], np.random.default_rng(0)
    task = system.task(energy=(0.1, 0.6))
    states = np.array([task.sample(rng)[0] for _ in range(100)])
    still = states * [1.0, 1.0, 0.0, 0.0]
    kinetic = system.energy(states, None) - system.energy(still, None)
    assert (0.5 * states[:, 2] ** 2 <= 0.2 * kinetic + 1e-12).all()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("pendulum", {"start": "energy"}, r"energy=None must be \(low, high\)"),
    ("pendulum", {"energy": (0.6, 0.1)}, r"energy=\(0.6, 0.1\) must be"),
    ("pendulum", {"energy": (0.0, 0.1)}, "0 < low <= high"),
    ("pendulum", {"energy": "ab"}, "energy='ab' must be"),
    ("pendulum", {"energy": (0.1, 0.2), "start": "default"}, "leave one of the two out"),
    (
        "three_body",
        {"energy": (0.1, 0.2)},
        "three_body has no starts by energy; those of .*acrobot",
    ),
    ("n_body", {"start": "energy", "energy": (0.1, 0.2)}, "n_body has no starts by energy"),
    ("spaceship", {"energy": (9.0, 9.0)}, "spaceship finds no start"),
]


@pytest.mark.parametrize("make", [PhysicsEnv, PhysicsVectorEnv])
@pytest.mark.parametrize(("name", "given", "words"), REFUSED)
def test_a_band_that_does_not_serve_is_refused(
    name: str, given: dict[str, Any], words: str, make: Any
) -> None:
    given_start = given.get("start")
    options = {**given, "start": SYSTEMS[name].starts[0]} if given_start == "default" else given
    with pytest.raises(ValueError, match=words):
        make(name, **options)
    env, twin = make(name), make(name)
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(ValueError, match=words):
        env.reset(options=options)
    assert np.array_equal(env.reset()[0], twin.reset()[0])


def test_the_planar_orbit_is_a_spaceship() -> None:
    """Kepler's third law for H = p^2 / 2 - 1 / r, at the parameters that the documents name."""
    params = {"gm": 1.0, "thrust": 0.05, "crash_radius": 0.05, "escape_radius": 20.0}
    env = gym.make("PhysGym/Spaceship-v0", params=params, dt=0.05, energy=(2.5, 3.75))
    system = env.unwrapped.system
    for seed in range(5):
        info = env.reset(seed=seed)[1]
        axis = -0.5 / info["energy"]
        assert 0.8 <= axis <= 1.2
        period, state = 2.0 * math.pi * axis**1.5, info["state"]
        after = system.step(state, np.zeros(2), params, period / 8, "dop853")
        for _ in range(7):
            after = system.step(after, np.zeros(2), params, period / 8, "dop853")
        assert after == pytest.approx(state, abs=1e-7)
    assert starts_for(system, np.random.default_rng(0), 3, "default").shape == (3, 4)
