"""A function for a reward: one rule in single and vector envs, on NumPy and torch, in learned envs and the planner."""

from __future__ import annotations

import copy
import json
import pickle

import gymnasium
import numpy as np
import pytest
from model_doubles import Perfect, make_spec

import physgym
import worldmodels
from physgym.elementwise import cos, where
from physgym.system import SYSTEMS
from worldmodels.envs.single import make_truth


def asked(state, control, next_state, params):
    """Looks at everything that it is given."""
    change = next_state[0] - state[0]
    return 0.5 * change + cos(next_state[-1]) - 0.1 * control[0] * params[0]


def dense(system):
    """The system's own, as a function."""

    def own(state, control, next_state, params):
        return system.reward(state, control, next_state, params, "dense")

    return own


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("randomize", [False, True])
def test_single_env_vector_env_and_tensors_agree(name, randomize):
    arguments = {"reward": asked, "randomize": randomize}
    single = physgym.PhysicsEnv(name, **arguments)
    rows = physgym.PhysicsVectorEnv(name, 3, autoreset_mode="Disabled", **arguments)
    tensors = physgym.PhysicsVectorEnv(
        name, 3, backend="torch", autoreset_mode="Disabled", **arguments
    )
    for env in (single, rows, tensors):
        env.reset(seed=5)
    for action in (0, 1, 0):
        _, reward, *_ = single.step(action)
        _, rewards, *_ = rows.step(np.full(3, action))
        _, on_torch, *_ = tensors.step(np.full(3, action))
        assert type(reward) is float and rewards.dtype == np.float64 and rewards.shape == (3,)
        assert reward == rewards[0]
        np.testing.assert_allclose(on_torch.numpy(), rewards, rtol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_systems_own_reward_as_a_function_is_the_kind(name):
    kinds, functions = (
        physgym.PhysicsVectorEnv(name, 4, reward=reward)
        for reward in ("dense", dense(SYSTEMS[name]))
    )
    for env in (kinds, functions):
        env.reset(seed=2)
        env.action_space.seed(0)
    for _ in range(30):
        actions = kinds.action_space.sample()
        expected, found = kinds.step(actions), functions.step(actions)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-12)
        np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_learned_env_of_a_perfect_model_earns_what_the_true_env_does(name):
    spec = make_spec(name)
    learned = worldmodels.WorldModelVectorEnv(Perfect(spec), 3, reward=asked)
    truth = make_truth(spec, 3, reward=asked)
    for env in (learned, truth):
        env.reset(seed=4)
    for _ in range(5):
        actions = np.array([0, 1, 2])
        np.testing.assert_allclose(
            learned.step(actions)[1], truth.step(actions)[1], rtol=1e-4, atol=1e-5
        )


def test_the_planner_does_what_its_reward_asks_for():
    model, states = Perfect(make_spec("oscillator")), np.zeros((2, 2))
    table = SYSTEMS["oscillator"].discrete_actions[:, 0]
    for sign in (1.0, -1.0):
        planner = worldmodels.Planner(
            model,
            horizon=10,
            hold=5,
            samples=32,
            reward=lambda s, u, n, p, sign=sign: sign * (n[0] - s[0]),
        )
        assert (np.sign(table[planner(states)]) == sign).all()
    with pytest.raises(ValueError, match="reward='gentle' is unknown"):
        worldmodels.Planner(model, reward="gentle")
    with pytest.raises(ValueError, match="fails on a start state"):
        worldmodels.Planner(model, reward=lambda s: 0.0)


def test_gradients_pass_through():
    torch = pytest.importorskip("torch")
    env = physgym.PhysicsVectorEnv(
        "pendulum", 2, backend="torch", action_mode="continuous", reward=asked
    )
    env.reset(seed=0)
    actions = torch.full((2, 1), 0.3, dtype=torch.float64, requires_grad=True)
    env.step(actions)[1].sum().backward()
    assert actions.grad is not None and (actions.grad != 0.0).all()


BAD = {
    "its state": lambda s, u, n, p: s,
    "too few arguments": lambda s: 0.0,
    "not a number": lambda s, u, n, p: float("nan") * n[0],
    "nothing": lambda s, u, n, p: None,
    "text": lambda s, u, n, p: "much",
}


@pytest.mark.parametrize("backend", [None, "numpy", "torch"])
@pytest.mark.parametrize("given", [*BAD, "dens", 3, float])
def test_a_reward_that_does_not_serve_is_refused_when_the_env_is_made(given, backend):
    reward = BAD.get(given, given)
    with pytest.raises(ValueError, match="reward="):
        if backend is None:
            physgym.PhysicsEnv("pendulum", reward=reward)
        else:
            physgym.PhysicsVectorEnv("pendulum", 2, reward=reward, backend=backend)


def test_branches_are_refused_where_there_are_rows():
    def branching(state, control, next_state, params):
        return 1.0 if next_state[0] > 0.0 else 0.0

    assert physgym.PhysicsEnv("pendulum", reward=branching).reset(seed=0)
    with pytest.raises(ValueError, match="fails on a start state"):
        physgym.PhysicsVectorEnv("pendulum", 2, reward=branching)


def test_a_value_that_is_not_finite_later_counts_as_nothing_and_warns_once():
    def brittle(state, control, next_state, params):
        return where(next_state[1] > 1.5, float("nan"), 1.0 + 0.0 * next_state[0])

    for env in (
        physgym.PhysicsEnv("pendulum", reward=brittle),
        physgym.PhysicsVectorEnv("pendulum", 1, reward=brittle),
    ):
        env.reset(seed=0, options={"state": [0.0, 2.0]})
        action = np.array([1]) if isinstance(env, gymnasium.vector.VectorEnv) else 1
        with pytest.warns(RuntimeWarning, match="brittle is not finite") as caught:
            rewards = [float(np.ravel(env.step(action)[1])[0]) for _ in range(20)]
        assert len(caught) == 1 and rewards[0] == 0.0 and set(rewards) == {0.0, 1.0}


def test_what_it_returns_is_the_users_own():
    """A row of the state, given back as the reward, is a copy."""
    env = physgym.PhysicsVectorEnv("pendulum", 2, reward=lambda s, u, n, p: n[0])
    env.reset(seed=0)
    _, rewards, _, _, info = env.step(np.array([1, 1]))
    rewards += 5.0
    np.testing.assert_array_equal(env._state[0], info["state"][:, 0])


def test_copies_and_pickles():
    env = physgym.PhysicsEnv("pendulum", reward=asked)
    env.reset(seed=1)
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = env.step(2)[1]
    assert [twin.step(2)[1] for twin in twins] == [expected, expected]
    for made in (physgym.PhysicsEnv, physgym.PhysicsVectorEnv):
        with pytest.raises(pickle.PicklingError, match="reward=.*lambda.* at the top of a module"):
            pickle.dumps(made("pendulum", reward=lambda s, u, n, p: 0.0))


def test_the_spec_of_a_kind_stays_json():
    env = gymnasium.make("PhysGym/Pendulum-v0", reward="sparse")
    assert json.loads(env.spec.to_json())["kwargs"]["reward"] == "sparse"
