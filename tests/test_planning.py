"""Planning: laws over every search, kind of action and place, in the truth and in models of states and pictures."""

from __future__ import annotations

from typing import Any

import foreign_cases
import gymnasium
import numpy as np
import pytest
import torch
from model_doubles import Glow, Perfect, make_pixel_spec, make_spec, small_model
from visual_cases import SIDE, tiny_model, tiny_spec

import physgym
import worldmodels
from physgym.actions import ActionKind
from worldmodels.agents.beliefs import coloured_noise
from worldmodels.agents.futures import Problem, ranked
from worldmodels.agents.planning import Planner
from worldmodels.agents.returns import evaluate_agent
from worldmodels.agents.searches import METHODS
from worldmodels.agents.simulators import Moment, Seen, Simulator
from worldmodels.configs.training import MODELS
from worldmodels.envs.single import make_truth
from worldmodels.interface import Latent

LIGHT: dict[str, Any] = {"horizon": 20, "hold": 5, "samples": 24, "rounds": 2}
CASES = [
    (method, mode)
    for method in METHODS
    for mode in ("discrete", "continuous")
    if (method, mode) != ("gradient", "discrete")
]
STARTS = np.array([[1.2, -0.4], [-0.9, 0.8], [0.3, 0.0]])


def light(place: Any, method: str, **options: Any) -> Planner:
    own = {"samples": 3, "rounds": 6} if method == "gradient" else {}
    return Planner(place, method, **{**LIGHT, **own, **options})


def truth(name: str, mode: str, rows: int = 3, **options: Any) -> Any:
    return physgym.PhysicsVectorEnv(name, rows, action_mode=mode, **options)


class Smooth(Perfect):
    """The true system behind the verbs, on tensors: gradients pass through its steps."""

    def step(self, latent: Latent, action: torch.Tensor, dt: Any = None) -> Latent:
        if self.spec.action_kind == "discrete":
            return super().step(latent, action, dt)
        control = self.system.control_of(tuple(action.unbind(-1)), self.system.Params())
        parts = self.system.step(tuple(latent.z.unbind(-1)), control, None, dt or self.spec.dt)
        return latent._replace(z=torch.stack(parts, -1))


class Unsure(Perfect):
    """The true system, by members who disagree where the first coordinate is positive."""

    def disagreement(self, latent: Latent) -> torch.Tensor:
        return latent.z[:, 0].clamp(min=0.0)


class Lamp(Glow):
    """Pictures that action 2 makes brighter and action 0 darker, and whose reward is how bright they are."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.read: list[tuple[np.ndarray, np.ndarray]] = []

    def encode(self, context: Any, params: Any = None, actions: Any = None) -> Latent:
        self.read.append((context.numpy(), actions.numpy()))
        return super().encode(context, params, actions)

    def step(self, latent: Latent, action: torch.Tensor, dt: Any = None) -> Latent:
        return latent._replace(z=latent.z + 0.05 * (action[:, None] - 1.0))

    def judge(self, latent: Latent, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return latent.z[:, 0], torch.full((len(latent.z),), -9.0)


@pytest.mark.parametrize(("method", "mode"), CASES)
@pytest.mark.parametrize("name", ["oscillator", "pendulum"])
def test_every_method_earns_more_than_doing_nothing(name: str, method: str, mode: str) -> None:
    env = truth(name, mode, max_episode_steps=60)
    idle = np.ones(3, np.int64) if mode == "discrete" else np.zeros((3, 1))
    still = evaluate_agent(lambda observations: idle, env, seed=1).mean
    hold = 10 if method == "gradient" else 5  # its steps are the dearest
    planned = evaluate_agent(light(env, method, hold=hold), env, seed=1).mean
    assert planned > still + 6.0, (planned, still)


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_the_perfect_model_plans_as_the_truth_does_and_a_seed_repeats(
    method: str, mode: str
) -> None:
    model = Smooth(make_spec("oscillator", action_mode=mode))
    planners = [
        light(place, method, seed=3)
        for place in (model, truth("oscillator", mode), worldmodels.make_env(model))
    ]
    expected = planners[0](STARTS)
    for planner in planners[1:]:
        np.testing.assert_allclose(planner(STARTS), expected, atol=1e-6)
    planners[0].reset()
    np.testing.assert_array_equal(planners[0](STARTS), expected)
    plans, others = planners[0].plans, light(model, method, seed=4)
    others(STARTS)
    assert plans.shape[:2] == (3, 4)
    alike = mode == "discrete" or method == "gradient"  # few plans, or all uphill to the same one
    assert alike or (plans != others.plans).any()


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_no_row_depends_on_others_nor_on_the_size_of_batches(method: str, mode: str) -> None:
    env = truth("oscillator", mode)
    whole, alone, small = light(env, method), light(env, method), light(env, method, batch=7)
    other = STARTS.copy()
    for _ in range(2 * LIGHT["hold"]):
        other = other + 0.1 * np.array([[0.0], [1.0], [-1.0]])
        actions = whole(STARTS)
        np.testing.assert_array_equal(alone(other)[0], actions[0])
        np.testing.assert_array_equal(small(STARTS), actions)


def test_rows_may_start_anew_at_different_times() -> None:
    env = truth("oscillator", "discrete")
    planner = light(env, "cem")
    first = planner(STARTS)
    np.testing.assert_array_equal(planner(-STARTS), first)  # held
    planner.reset(np.array([False, True, False]))
    again = planner(-STARTS)
    np.testing.assert_array_equal(again[[0, 2]], first[[0, 2]])
    assert again[1] != first[1]
    for mask in (np.array([True]), [0, 1, 0]):
        with pytest.raises(ValueError, match="mask of shape"):
            planner.reset(mask)


@pytest.mark.parametrize(("method", "mode"), CASES)
@pytest.mark.parametrize("place", ["truth", "model"])
def test_a_cost_is_kept_small(place: str, method: str, mode: str) -> None:
    def to_the(side: float) -> Any:
        return lambda states, actions, following: (following[:, 0] - 9.0 * side) ** 2

    env = truth("oscillator", mode)
    where = env if place == "truth" else Smooth(make_spec("oscillator", action_mode=mode))
    table = env.system.discrete_actions
    for side in (1.0, -1.0):
        actions = light(where, method, cost=to_the(side), horizon=6, hold=6)(0.0 * STARTS)
        levels = table[actions] if mode == "discrete" else actions
        assert (side * levels > 0.4).all(), levels


def test_an_end_is_no_way_out_of_a_cost_and_what_is_lost_ranks_last() -> None:
    totals, missed = np.array([[3.0, -5.0, 9.0, 9.0]]), np.array([[0, 0, 2, 4]])
    assert np.argsort(-ranked(totals, missed)).tolist() == [[0, 1, 2, 3]]
    all_lost = ranked(totals, missed + 1)
    assert np.isfinite(all_lost).all() and all_lost.argmax() in (0, 1)

    class Short(Simulator):
        """Ends after one step, unless action 1 is taken; every step costs 1."""

        actions, idle, cost = ActionKind(2, 0), 0, staticmethod(lambda *given: None)

        def read(self, observations: Any, params: Any) -> Any:
            return observations, np.zeros((len(observations), 0))

        def begin(self, seen: Seen, rows: np.ndarray) -> Any:
            return seen.context[rows, -1]

        def advance(self, carry: Any, actions: np.ndarray) -> Moment:
            costs = np.where(actions == 1, 0.9, 1.0)
            return Moment(carry, -costs, actions == 0, np.zeros(len(actions), np.bool_))

    planner = Planner(Short(), horizon=4, hold=1, samples=32)
    assert planner(np.zeros((2, 1))).tolist() == [1, 1]
    with pytest.raises(ValueError, match="cost=.*Simulator has its own"):
        Planner(Short(), cost=lambda *given: 0.0)


def test_disagreement_keeps_a_plan_where_the_model_is_sure() -> None:
    model = Unsure(make_spec("oscillator"))
    bold, careful = (
        Planner(model, horizon=8, hold=4, reward=lambda s, u, n, p: n[0], uncertainty_penalty=most)
        for most in (0.0, 5.0)
    )
    states = np.zeros((2, 2))
    assert (bold(states) == 2).all() and (careful(states) != 2).all()
    for place in (Perfect(make_spec("oscillator")), truth("oscillator", "discrete")):
        with pytest.raises(ValueError, match="ensemble"):
            Planner(place, uncertainty_penalty=1.0)
    ensemble = small_model("newtonian", make_spec("pendulum", action_mode="continuous"), ensemble=3)
    for method in ("icem", "gradient"):
        actions = light(ensemble, method, uncertainty_penalty=0.1)(STARTS)
        assert actions.shape == (3, 1) and actions.dtype == np.float32


def test_observations_are_read_in_every_mode() -> None:
    name = "pendulum"
    env = truth(name, "discrete", obs_mode="state", randomize=True, observe_params=True)
    observed, info = env.reset(seed=0)
    states, params = info["state"], info["params"]
    expected = light(env, "cem")(states, params)
    np.testing.assert_array_equal(light(env, "cem")(observed.astype(np.float64)), expected)
    table = np.stack([params[name] for name in env.system.Params._fields], axis=1)
    embedded = physgym.PhysicsEnv(name, obs_mode="embedded", observe_params=True)
    rows = embedded.task.observe_rows(states, table)
    _, told = light(embedded, "cem").simulator.read(rows, None)
    np.testing.assert_allclose(told, table, rtol=1e-6)
    both = gymnasium.make("PhysGym/Pendulum-v0", obs_mode="state_pixels", image_size=16)
    seen = both.unwrapped.task.observe_rows(states, table)  # type: ignore[attr-defined]
    found, _ = light(both, "cem").simulator.read(seen, None)
    np.testing.assert_allclose(found, states, rtol=1e-5, atol=1e-6)
    for wrong in ({"mas": 1.0}, {"mass": [1.0, 2.0]}, 3):
        with pytest.raises(ValueError, match="params"):
            light(env, "cem")(states, wrong)


def test_pictures_are_planned_for_by_reward_or_by_cost() -> None:
    model = Lamp(make_pixel_spec("pendulum", 16))
    pictures = np.full((2, 16, 16, 3), 120, np.uint8)
    options: dict[str, Any] = {"horizon": 6, "hold": 2, "samples": 16}
    assert (Planner(model, **options)(pictures) == 2).all()
    darker = Planner(model, **options, cost=lambda a, u, b: b.mean((1, 2, 3)))
    assert (darker({"pixels": pictures}) == 0).all()
    with pytest.raises(ValueError, match=r"expected \(N, 16, 16, 3\) of uint8"):
        Planner(model, **options)(pictures / 255.0)
    with pytest.raises(ValueError, match="cannot be read off a picture"):
        Planner(model, reward="sparse")
    own = truth("pendulum", "discrete", obs_mode="pixels", image_size=16)
    with pytest.raises(ValueError, match="as info\\['state'\\] holds them"):
        Planner(own)(pictures)


def test_pictures_and_actions_are_remembered_as_far_as_the_model_looks_back() -> None:
    model = Lamp(make_pixel_spec("pendulum", 16))
    model.context_frames = 3  # type: ignore[misc]
    planner = Planner(model, horizon=3, hold=1, samples=6, rounds=1)
    model.read.clear()
    given = []
    for level in (10, 20, 30, 40):
        given.append(planner(np.full((1, 16, 16, 3), level, np.uint8))[0])
    levels = [context[0, :, 0, 0, 0].tolist() for context, _ in model.read]
    assert levels == [[10, 10, 10], [10, 10, 20], [10, 20, 30], [20, 30, 40]]
    acted = [actions[0].tolist() for _, actions in model.read]
    assert acted == [[1, 1], [1, given[0]], given[:2], given[1:3]]
    planner.reset(np.array([True]))
    planner(np.full((1, 16, 16, 3), 50, np.uint8))
    context, actions = model.read[-1]
    assert context[0, :, 0, 0, 0].tolist() == [50, 50, 50] and actions[0].tolist() == [1, 1]


@pytest.mark.parametrize("predictor", ["spatial_jump", "keypoint_hamiltonian"])
@pytest.mark.parametrize(("method", "mode"), [("cem", "discrete"), ("gradient", "continuous")])
def test_visual_models_are_planned_in(predictor: str, method: str, mode: str) -> None:
    spec = tiny_spec(mode, 3 if mode == "discrete" else 1, env_kwargs={"action_mode": mode})
    env = worldmodels.make_env(tiny_model(predictor, spec), 2, max_episode_steps=3)
    planner = Planner(env, method, horizon=3, hold=1, samples=4, rounds=2)
    assert evaluate_agent(planner, env, seed=0).returns.shape == (2,)
    if method == "gradient":
        pictures = np.zeros((2, SIDE, SIDE, 3), np.uint8)
        dark = Planner(env, method, horizon=3, samples=3, cost=lambda a, u, b: b.mean((1, 2, 3)))
        assert np.isfinite(dark(pictures)).all()


def test_what_has_no_gradients_is_said() -> None:
    smooth = Smooth(make_spec("oscillator", action_mode="continuous"))
    with pytest.raises(ValueError, match="gradient.*discrete actions.*continuous"):
        Planner(truth("oscillator", "discrete"), "gradient")
    with pytest.raises(ValueError, match=r"SciPy.*rk4"):
        Planner(truth("oscillator", "continuous", integrator="dop853"), "gradient")
    for cost in (
        lambda s, u, n: torch.zeros(len(n)),
        lambda s, u, n: np.abs(n[:, 0]),
        lambda s, u, n: torch.as_tensor(np.square(n.numpy()[:, 0])),
    ):
        with pytest.raises(ValueError, match="cost=.*with torch"):
            light(smooth, "gradient", cost=cost)(STARTS)
    with pytest.raises(ValueError, match="no gradients"):
        light(Perfect(smooth.spec), "gradient")(STARTS)


def test_bad_arguments_are_named() -> None:
    env = truth("oscillator", "discrete")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"method": "cme"}, "method='cme'.*did you mean 'cem'"),
        ({"hold": 50}, "hold=50.*from 1 to 40"),
        ({"samples": 4, "elites": 5}, "elites=5.*from 1 to 4"),
        ({"samples": "many"}, "samples='many'.*an integer"),
        ({"rounds": 0}, "rounds=0"),
        ({"spread": 0.0}, "spread=0.0"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"batch": 0}, "batch=0"),
        ({"cost": 3}, "cost=3.*a function"),
        ({"reward": "dens"}, "reward='dens'"),
        ({"reward": "none"}, 'reward="none".*give reward='),
        ({"reward": "dense", "cost": lambda s, u, n: 0.0}, "one of them"),
    ]
    for options, words in wrong:
        with pytest.raises(ValueError, match=words):
            Planner(env, **options)
    with pytest.raises(ValueError, match="give reward="):
        Planner(truth("oscillator", "discrete", reward="none"))
    assert Planner(truth("oscillator", "discrete", reward="none"), reward="dense")
    with pytest.raises(ValueError, match="env_or_model=.*expected a WorldModel"):
        Planner(object())
    with pytest.raises(ValueError, match="put it into an observation"):
        Planner(gymnasium.make(foreign_cases.CART))
    with pytest.raises(ValueError, match=r"must return one number a row, \(72,\).*shape \(72, 2\)"):
        light(env, "cem", cost=lambda s, u, n: n)(STARTS)
    planner = light(env, "cem")
    planner(STARTS)
    with pytest.raises(ValueError, match=r"observations of 2 rows.*reset\(\)"):
        planner(STARTS[:2])


def test_coloured_noise_is_standard_normal_and_drifts_slowly() -> None:
    for exponent, low, high in ((0.0, -0.1, 0.1), (2.0, 0.6, 0.95)):
        for blocks in (9, 10):
            noise = coloured_noise([np.random.default_rng(0)], (4000, blocks, 2), exponent)
            assert noise.shape == (1, 4000, blocks, 2)
            assert abs(noise.std() - 1.0) < 0.03 and abs(noise.mean()) < 0.1
            together = (noise[:, :, 1:] * noise[:, :, :-1]).mean()
            assert low < together < high


@pytest.mark.parametrize("name", [*MODELS, "ensemble", "truth", "told"])
def test_the_slope_is_that_of_the_return(name: str) -> None:
    """By central differences, through every structure and the truth, with parameters as rows too."""
    spec = make_spec("pendulum", action_mode="continuous")
    if name in ("truth", "told"):
        place: Any = truth("pendulum", "continuous")
    else:
        kind = "newtonian" if name == "ensemble" else name
        place = small_model(kind, spec, **({"ensemble": 2} if name == "ensemble" else {})).double()
    simulator = light(place, "gradient").simulator
    shown, params = simulator.read(STARTS, {"mass": [0.9, 1.0, 1.1]} if name == "told" else None)
    seen = Seen(shown[:, None], np.zeros((3, 0, 1)), params)
    problem = Problem(simulator, seen, horizon=5, hold=2, batch=4)
    plans = np.random.default_rng(1).uniform(-0.5, 0.5, (3, 2, 3, 1))
    scores, slope = problem.slope(plans)
    np.testing.assert_allclose(scores, problem.score(plans), rtol=1e-9)
    for block in range(3):
        bump = np.zeros_like(plans)
        bump[:, :, block] = 1e-4
        change = (problem.score(plans + bump) - problem.score(plans - bump)) / 2e-4
        np.testing.assert_allclose(slope[:, :, block, 0], change, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_every_system_is_planned_in_and_shown_in_any_mode(name: str) -> None:
    """Planned in a perfect model and played in the truth, which shows angles as cos, sin."""
    for method, mode in (("icem", "discrete"), ("gradient", "continuous")):
        model = Smooth(make_spec(name, action_mode=mode))
        shown = make_truth(model.spec, 2, obs_mode="embedded", max_episode_steps=3)
        played = make_truth(model.spec, 2, max_episode_steps=3)
        options: dict[str, Any] = {"horizon": 3, "hold": 1, "samples": 6, "rounds": 2}
        earned = [
            evaluate_agent(Planner(place, method, **options), env, seed=2).returns
            for place, env in ((model, shown), (played, played))
        ]
        assert np.isfinite(earned).all()
        np.testing.assert_allclose(*earned, rtol=1e-3)
