"""A model's step as machine code: the same numbers as torch's, wherever a learned env uses it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import worldmodels
from tests.model_doubles import make_spec
from worldmodels.configs.training import MODELS
from worldmodels.envs import served
from worldmodels.envs.native_steps import FEW_ROWS, NativeBlocks, NativeStep, native_step
from worldmodels.envs.quick import QuickRow
from worldmodels.imagination import map_tensors
from worldmodels.interface import Latent, WorldModel
from worldmodels.models.building import build
from worldmodels.native.recording import NotRecordable, record

pytest.importorskip("llvmlite")

CASES: list[tuple[str, str, dict[str, Any]]] = [
    *(("pendulum", name, {}) for name in MODELS),
    *(("spaceship", name, {}) for name in MODELS),
    ("three_body", "port_hamiltonian", {"integrator": "leapfrog", "layers": 3}),
    ("pendulum", "port_hamiltonian", {"separable": False, "integrator": "rk4"}),
    ("pendulum", "port_hamiltonian", {"mass": "diagonal", "input_map": "state", "damping": False}),
    ("pendulum", "port_hamiltonian", {"kinetic": "network", "damping": False, "substeps": 2}),
    ("acrobot", "port_hamiltonian", {"mass": "network", "integrator": "rk4"}),
    ("cart_pole", "port_hamiltonian", {"mass": "network", "integrator": "rk4", "cyclic": (0,)}),
    ("acrobot", "port_hamiltonian", {"mass": "network", "integrator": "extended4"}),
    ("pendulum", "newtonian", {"velocity_input": False, "integrator": "yoshida4"}),
    ("pendulum", "jump", {"dt_input": True}),
    ("pendulum", "jump", {"condition": "params"}),
    *(("pendulum", "jump", {"activation": a}) for a in ("tanh", "softplus", "sin")),
    *(("pendulum", name, {"ensemble": 3}) for name in ("jump", "lstm", "port_hamiltonian")),
]


def model_of(env: str, name: str, continuous: bool = False, **options: Any) -> WorldModel:
    """A model with weights drawn large enough to bend every nonlinearity."""
    torch.manual_seed(0)
    spec = make_spec(env, **({"action_mode": "continuous"} if continuous else {}))
    model = build(spec, name, MODELS[name](**{"hidden": 24, **options})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    return model


def beginning(model: WorldModel, rows: int = 5) -> tuple[Latent, torch.Tensor]:
    """Latents with a memory that is not blank, and an action for each."""
    spec = model.spec
    states = torch.randn(rows, 1, spec.state_size)
    with torch.no_grad():
        latent = model.encode(states, torch.rand(rows, len(spec.param_names)))
    latent = latent._replace(memory=tuple(torch.randn_like(x) for x in latent.memory))
    if spec.action_kind == "discrete":
        return latent, torch.randint(0, spec.action_size, (rows,))
    return latent, torch.rand(rows, spec.action_size) * 2.0 - 1.0


KINDS = [
    *((*case, False, False) for case in CASES),
    *(("pendulum", name, {}, True, False) for name in MODELS),
    *(("pendulum", name, {}, False, True) for name in ("jump", "lstm", "port_hamiltonian")),
    ("pendulum", "jump", {}, True, True),
]


@pytest.mark.parametrize(("env", "name", "options", "continuous", "double"), KINDS)
def test_machine_code_steps_as_torch_does(
    env: str, name: str, options: dict[str, Any], continuous: bool, double: bool
) -> None:
    model = model_of(env, name, continuous, **options)
    stepped_as_by_torch(model.double() if double else model, 5, NativeStep)


MANY = [
    *(("pendulum", name, {}, False, False) for name in MODELS),
    *(("spaceship", name, {}, True, False) for name in ("jump", "port_hamiltonian")),
    ("pendulum", "jump", {"condition": "params"}, False, False),
    ("cart_pole", "port_hamiltonian", {"mass": "network", "integrator": "rk4"}, False, False),
    *(("pendulum", name, {"ensemble": 2}, False, False) for name in ("jump", "lstm")),
    ("pendulum", "jump", {"condition": "params", "ensemble": 2}, True, True),
]


@pytest.mark.parametrize(("env", "name", "options", "continuous", "double"), MANY)
def test_blocks_of_many_rows_step_as_torch_does(
    env: str, name: str, options: dict[str, Any], continuous: bool, double: bool
) -> None:
    model = model_of(env, name, continuous, **options)
    stepped_as_by_torch(model.double() if double else model, FEW_ROWS + 3, NativeBlocks)


def stepped_as_by_torch(model: WorldModel, rows: int, kind: Any) -> None:
    """Machine code of that kind steps and decodes as the model does, again and again."""
    latent, action = beginning(model, rows)
    double = next(model.parameters()).dtype is torch.float64
    if double:
        latent = map_tensors(torch.Tensor.double, latent)
        action = action.double() if action.is_floating_point() else action
    dt = model.spec.dt
    native = native_step(model, latent, action, dt)
    assert native is not None and type(native) is kind and native.fits(latent)
    with torch.no_grad():
        native(latent, action)
        latent = map_tensors(lambda x: x.flip(0), latent)  # other rows than it was made for
        after, shown, doubt = native(latent, action)
        wanted = model.step(latent, action, dt)
        tolerance = 1e-12 if double else 2e-6
        torch.testing.assert_close(after.z, wanted.z, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(after.memory, wanted.memory, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(shown, model.decode(wanted), rtol=tolerance, atol=tolerance)
        assert (doubt is None) == (not hasattr(model, "disagreement"))
        if doubt is not None:
            told = model.disagreement(wanted)  # type: ignore[operator]
            torch.testing.assert_close(doubt, told, rtol=tolerance, atol=tolerance)


def test_blocks_see_weights_that_are_trained_in_place_or_moved() -> None:
    model = model_of("cart_pole", "port_hamiltonian", mass="diagonal", input_map="state")
    latent, action = beginning(model, FEW_ROWS + 1)
    native = native_step(model, latent, action, 0.05)
    assert native is not None
    changes: list[Callable[[torch.Tensor], Any]] = [
        lambda weight: weight.add_(0.1),
        lambda weight: weight.data.mul_(0.9),
        lambda weight: setattr(weight, "data", weight.data.clone() * 1.1),
    ]
    for change in changes:
        with torch.no_grad():
            for weight in model.parameters():
                change(weight)
            torch.testing.assert_close(
                native(latent, action)[0].z,
                model.step(latent, action, 0.05).z,
                rtol=2e-6,
                atol=2e-6,
            )


def test_what_blocks_give_is_not_written_over_by_the_next_step() -> None:
    model = model_of("pendulum", "lstm")
    latent, action = beginning(model, FEW_ROWS + 1)
    native = native_step(model, latent, action, 0.05)
    assert native is not None
    first, shown, _ = native(latent, action)
    kept = map_tensors(torch.clone, first), shown.clone()
    native(first, action)
    torch.testing.assert_close((first, shown), kept, rtol=0.0, atol=0.0)


def test_blocks_on_several_threads_are_those_of_one() -> None:
    model = model_of("pendulum", "port_hamiltonian")
    latent, action = beginning(model, FEW_ROWS + 1)
    native = native_step(model, latent, action, 0.05)
    assert native is not None
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3, 2):
            torch.set_num_threads(count)
            found.append(native(latent, action)[0].z)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_rows_do_not_depend_on_their_number() -> None:
    model = model_of("pendulum", "port_hamiltonian")
    latent, action = beginning(model, 7)
    native = native_step(model, latent, action, 0.05)
    assert native is not None
    together = native(latent, action)[0].z
    alone = [native(Latent(latent.z[i : i + 1]), action[i : i + 1])[0].z for i in range(7)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("options", [{}, {"ensemble": 2}], ids=["single", "ensemble"])
def test_weights_that_are_trained_in_place_are_seen(options: dict[str, Any]) -> None:
    model = model_of("pendulum", "jump", **options)
    latent, action = beginning(model)
    native = native_step(model, latent, action, 0.05)
    assert native is not None
    with torch.no_grad():
        before = native(latent, action)[0].z
        for weight in model.parameters():
            weight.add_(0.1)
        after = native(latent, action)[0].z
        wanted = model.step(latent, action, 0.05).z
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("value", [-200.0, -30.0, -1e-3, 0.0, 1e-3, 0.2499, 0.2501, 30.0, 200.0])
@pytest.mark.parametrize("activation", ["tanh", "silu", "softplus"])
def test_functions_are_right_at_any_size(activation: str, value: float) -> None:
    model = model_of("pendulum", "jump", activation=activation)
    latent, action = beginning(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.1)
        first: Any = model.dynamics.f.hidden[0]  # type: ignore[union-attr]
        first.bias.fill_(value)
        native = native_step(model, latent, action, 0.05)
        assert native is not None
        wanted = model.step(latent, action, 0.05).z
    size = float(wanted.abs().max())
    torch.testing.assert_close(native(latent, action)[0].z, wanted, rtol=0.0, atol=2e-6 * size)


def test_what_is_not_a_number_stays_so() -> None:
    model = model_of("pendulum", "port_hamiltonian")
    latent, action = beginning(model)
    native = native_step(model, latent, action, 0.05)
    assert native is not None
    latent.z[1] = float("nan")
    after = native(latent, action)[0].z
    assert after[1].isnan().all()
    assert after[[0, 2, 3, 4]].isfinite().all()


REFUSED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "draws at random": lambda x: x + torch.rand_like(x),
    "reads numbers out of": lambda x: x if bool((x > 0).all()) else -x,
    "writes into": lambda x: x.clone().mul_(2.0),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_written_down_is_refused(words: str) -> None:
    with pytest.raises(NotRecordable, match=words):
        record(lambda x: [REFUSED[words](x)], [], [torch.ones(1, 3)])


def test_only_structures_that_say_so_are_compiled() -> None:
    model: Any = model_of("pendulum", "jump")
    latent, action = beginning(model)

    class Own(type(model.dynamics)):  # type: ignore[misc]
        """A structure of a user's."""

    model.dynamics.__class__ = Own
    assert native_step(model, latent, action, 0.05) is None
    Own.recordable = True
    assert native_step(model, latent, action, 0.05) is not None
    model.step = model.step  # replaced on the instance, as tests and users do
    assert native_step(model, latent, action, 0.05) is None


def test_an_adaptive_integrator_stays_with_torch() -> None:
    model = model_of("pendulum", "first_order", integrator="dopri5")
    assert native_step(model, *beginning(model), 0.05) is None


@pytest.mark.parametrize("integrator", ["implicit_midpoint", "gauss4"])
def test_steps_that_are_solved_until_they_stand_still_stay_with_torch(integrator: str) -> None:
    model = model_of("acrobot", "port_hamiltonian", mass="network", integrator=integrator)
    assert native_step(model, *beginning(model), 0.05) is None


def rollout(env: Any, seed: int, steps: int = 60) -> list[Any]:
    """All that an env says in some steps under actions of its own space."""
    env.action_space.seed(seed)
    said: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        said.append(env.step(env.action_space.sample()))
        if said[-1][2] or said[-1][3]:
            said.append(env.reset())
    return said


SERVED: list[tuple[str, int, dict[str, Any]]] = [
    *((env, 1, {}) for env in ("pendulum", "spaceship", "three_body", "cart_pole")),
    ("pendulum", 1, {"obs_mode": "embedded"}),
    ("spaceship", 1, {"action_mode": "continuous"}),
    ("spaceship", 1, {"observe_params": True}),
    ("pendulum", 3, {}),
    ("pendulum", 3, {"uncertainty_penalty": 0.1, "uncertainty_limit": 0.7}),
]


@pytest.mark.parametrize(("env", "members", "kwargs"), SERVED)
def test_a_single_env_says_what_it_says_without_machine_code(
    env: str, members: int, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    continuous = kwargs.get("action_mode") == "continuous"
    model: Any = model_of(env, "jump", continuous, ensemble=members)
    kwargs = {name: value for name, value in kwargs.items() if name != "action_mode"}
    arguments = {**kwargs, "max_episode_steps": 25, "divergence_factor": 3.0}
    model.reach.fill_(1.0)
    quick = worldmodels.make_env(model, **arguments)
    said = rollout(quick, 3)
    assert isinstance(quick._quick, QuickRow)  # type: ignore[union-attr]
    monkeypatch.setenv("PHYSGYM_NATIVE", "0")
    slow = worldmodels.make_env(model, **arguments)
    wanted = rollout(slow, 3)
    assert slow._quick is None  # type: ignore[union-attr]
    assert len(said) == len(wanted)
    for ours, theirs in zip(said, wanted, strict=True):
        same(ours, theirs)


VECTORS: list[tuple[str, int, int, dict[str, Any]]] = [
    *((env, rows, 1, {}) for env in ("pendulum", "cart_pole") for rows in (3, FEW_ROWS + 1)),
    ("pendulum", 3, 1, {"autoreset_mode": "SameStep", "randomize": True}),
    ("spaceship", 3, 1, {"observe_params": True, "randomize": True}),
    ("pendulum", FEW_ROWS + 1, 1, {"randomize": True}),
    *(
        ("pendulum", rows, 3, {"uncertainty_penalty": 0.1, "uncertainty_limit": 0.7})
        for rows in (3, FEW_ROWS + 1)
    ),
]


@pytest.mark.parametrize(("env", "rows", "members", "kwargs"), VECTORS)
def test_a_vector_env_says_what_it_says_without_machine_code(
    env: str, rows: int, members: int, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = model_of(env, "jump", ensemble=members, condition="params")
    model.reach.fill_(1.0)
    arguments = {"obs_mode": "embedded", **kwargs} if "observe_params" not in kwargs else kwargs
    said: list[list[Any]] = []
    for switch in ("1", "0"):
        monkeypatch.setenv("PHYSGYM_NATIVE", switch)
        rows_of: Any = worldmodels.make_env(
            model, rows, max_episode_steps=9, divergence_factor=3.0, **arguments
        )
        rows_of.action_space.seed(0)
        actions = [rows_of.action_space.sample() for _ in range(20)]
        some = {"reset_mask": np.arange(rows) % 2 == 0}
        said.append([rows_of.reset(seed=1), *map(rows_of.step, actions[:6])])
        said[-1] += [rows_of.reset(options=some), *map(rows_of.step, actions[6:])]
        assert (rows_of.predictor.native_step() is None) == (switch == "0")
    for ours, theirs in zip(*said, strict=True):
        same(ours, theirs)


def test_a_single_env_takes_the_parameters_of_each_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = model_of("spaceship", "jump", condition="params")
    said = []
    for switch in ("1", "0"):
        monkeypatch.setenv("PHYSGYM_NATIVE", switch)
        env = worldmodels.make_env(model, max_episode_steps=5, randomize=True)
        said.append(rollout(env, 3))
    for ours, theirs in zip(*said, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("name", MODELS)
def test_members_disagree_alike_in_single_envs_in_rows_and_by_torch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("pendulum", name, ensemble=2)
    told = []
    for switch, rows in (("1", None), ("1", 1), ("1", FEW_ROWS + 1), ("0", 1)):
        monkeypatch.setenv("PHYSGYM_NATIVE", switch)
        env: Any = worldmodels.make_env(model, rows)
        env.reset(options={"state": np.array([0.5, -0.3])})
        acts = ([action] * rows if rows else action for action in (0, 2, 1, 1))
        seen = [env.step(action if rows is None else np.array(action))[4] for action in acts]
        told.append([float(np.ravel(info["uncertainty"])[0]) for info in seen])
    assert min(told[-1]) > 1e-3
    np.testing.assert_allclose(told, [told[-1]] * len(told), rtol=1e-4)
    np.testing.assert_allclose(told[0], told[1], rtol=0.0)  # the same code, to the bit


def same(ours: Any, theirs: Any) -> None:
    """The same types and keys in the same order, and numbers to rounding."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, tuple) or (np.asarray(ours).dtype == object and np.asarray(ours).shape):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif ours is not None:
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_single_env_sees_what_becomes_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = (model_of("pendulum", "lstm", condition="params") for _ in range(2))
    env, slow = worldmodels.make_env(model), worldmodels.make_env(other)
    changes: list[Callable[[torch.Tensor], Any]] = [
        lambda weight: weight.data.mul_(0.9),
        lambda weight: setattr(weight, "data", weight.data.clone() * 1.1),
    ]
    told: list[list[Any]] = []
    for switch, one, its in (("1", env, model), ("0", slow, other)):
        monkeypatch.setenv("PHYSGYM_NATIVE", switch)
        said: list[Any] = []
        told.append(said)
        for episode, change in enumerate(changes):
            said.append(one.reset(seed=1, options={"params": {"mass": 1.0 + 0.5 * episode}}))
            for action in (0, 2, 1, 1):
                said.append(one.step(action))
                list(map(change, its.parameters()))
    for ours, theirs in zip(*told, strict=True):
        same(ours, theirs)


CHANGED: dict[str, Callable[[Any], Any]] = {
    "one weight has moved": lambda layer: setattr(
        layer.weight, "data", layer.weight.data.clone() * 1.1
    ),
    "its storage has moved": lambda layer: layer.weight.data.mul_(1.1).share_memory_(),
    "it was replaced": lambda layer: setattr(
        layer, "weight", torch.nn.Parameter(layer.weight.data * 1.1)
    ),
}


@pytest.mark.parametrize("asks", [True, False], ids=["by machine code", "by Python"])
@pytest.mark.parametrize("rows", [None, 3, FEW_ROWS + 1])
@pytest.mark.parametrize("change", CHANGED)
def test_an_env_sees_what_becomes_of_a_single_weight(
    change: str, rows: int | None, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an episode what has moved, from the next episode on what was replaced."""
    if not asks:
        monkeypatch.setattr(served, "data_pointer", lambda: None)
    said = []
    for switch in ("1", "0"):
        monkeypatch.setenv("PHYSGYM_NATIVE", switch)
        model: Any = model_of("pendulum", "jump")
        env: Any = worldmodels.make_env(model, rows)
        action: Any = 2 if rows is None else np.full(rows, 2)
        said.append([env.reset(seed=1), env.step(action), env.step(action)])
        CHANGED[change](model.dynamics.f.hidden[1])
        if change == "it was replaced":
            env.reset(seed=1)
        said[-1] += [env.step(action), env.step(action)]
    for ours, theirs in zip(*said, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_the_middle_of_an_episode_goes_on(clone: Any) -> None:
    env = worldmodels.make_env(model_of("pendulum", "port_hamiltonian"))
    env.reset(seed=1)
    env.step(0)
    other = clone(env)
    for action in (0, 2, 1):
        same(other.step(action), env.step(action))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_model_that_was_changed_in_type_is_not_read_wrongly(
    swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = model_of("pendulum", "jump"), model_of("pendulum", "jump")
    env, slow = worldmodels.make_env(model), worldmodels.make_env(other)
    env.reset(seed=1)
    env.step(0)
    monkeypatch.setenv("PHYSGYM_NATIVE", "0")
    slow.reset(seed=1)
    slow.step(0)
    same(env.step(1), slow.step(1))
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(swapped)
    try:
        for change in (lambda its: its.double().float(), torch.nn.Module.double):
            change(model), change(other)
            same(env.step(0), slow.step(0))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def test_models_of_one_shape_share_their_code() -> None:
    first, second = (model_of("pendulum", "first_order") for _ in range(2))
    codes = [native_step(model, *beginning(model), 0.05).code.function for model in (first, second)]  # type: ignore[union-attr]
    assert codes[0] is codes[1]
    told = replace(first.config, hidden=25)  # type: ignore[type-var]
    third = build(first.spec, "first_order", told)
    assert native_step(third, *beginning(third), 0.05).code.function is not codes[0]  # type: ignore[union-attr]
