"""Laws of the state model and of ensembles: the four verbs, over every structure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import make_spec, small_model

import physgym
from worldmodels.configs.training import MODELS, default_config, from_dict, to_dict
from worldmodels.evaluation.problems import idle_actions
from worldmodels.imagination import imagine
from worldmodels.interface import Batch, Latent, Spec, WorldModel, select
from worldmodels.models.building import build
from worldmodels.models.states import StateWorldModel
from worldmodels.storage.checkpoint import load, save_checkpoint

SPECS = {
    "oscillator": Spec("oscillator", {}, 0.1, 2, (), "discrete", 3, ("mass", "stiffness")),
    "pendulum": Spec("pendulum", {}, 0.05, 2, (0,), "continuous", 1, ("mass",)),
    "spaceship": Spec("spaceship", {}, 0.1, 4, (), "discrete", 9, ("gm",)),
    "three_body": Spec("three_body", {}, 0.05, 12, (), "continuous", 2, ("g",)),
}
VARIANTS: list[dict[str, Any]] = [{}, {"condition": "params"}, {"ensemble": 3}]


def episodes(spec: Spec, count: int = 12, steps: int = 20) -> SimpleNamespace:
    """Smooth made-up episodes of unequal lengths; behind an end the last state repeats."""
    rng = np.random.default_rng(0)
    half = spec.state_size // 2
    phase = rng.uniform(0, 6, (count, 1, half))
    times = np.arange(steps + 1)[None, :, None] * spec.dt
    states = np.concatenate((2 * np.sin(times + phase), 2 * np.cos(times + phase)), 2) + 1.0
    lengths = rng.integers(steps // 2, steps + 1, count)
    for states_of, length in zip(states, lengths, strict=True):
        states_of[length + 1 :] = states_of[length]
    shape = (count, steps) if spec.action_kind == "discrete" else (count, steps, spec.action_size)
    actions = (
        rng.integers(0, spec.action_size, shape)
        if spec.action_kind == "discrete"
        else rng.uniform(-1, 1, shape).astype(np.float32)
    )
    params = {name: rng.uniform(0.5, 1.5, count) for name in spec.param_names}
    return SimpleNamespace(states=states, actions=actions, lengths=lengths, params=params)


def made(name: str, system: str = "oscillator", **options: Any) -> WorldModel:
    torch.manual_seed(0)
    spec = SPECS[system]
    config = replace(MODELS[name](), **{"hidden": 8, "rollout_steps": 3, **options})
    model = build(spec, name, config)
    model.fit_normaliser(episodes(spec))
    return model


def batch_of(spec: Spec, count: int = 5, steps: int = 4) -> Batch:
    data = episodes(spec)
    params = np.stack(list(data.params.values()), 1)[:count]
    return Batch(
        torch.as_tensor(data.states[:count, : steps + 1], dtype=torch.float32),
        torch.as_tensor(data.actions[:count, :steps]),
        torch.as_tensor(params, dtype=torch.float32),
        torch.ones(count, steps, dtype=torch.bool),
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("system", SPECS)
@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_two_steps_are_a_rollout_of_two(self, name: str, system: str, variant: Any) -> None:
        model = made(name, system, **variant).eval()
        batch = batch_of(model.spec)
        with torch.inference_mode():
            latent = model.encode(batch.states[:, :2], batch.params)
            states = imagine(model, latent, batch.actions[:, :2])
            assert states.shape == (5, 2, model.spec.state_size)
            for t in range(2):
                latent = model.step(latent, batch.actions[:, t])
                assert torch.equal(model.decode(latent), states[:, t])

    def test_decoding_an_encoded_state_gives_it_back(
        self, name: str, system: str, variant: Any
    ) -> None:
        model = made(name, system, **variant)
        batch = batch_of(model.spec)
        decoded = model.decode(model.encode(batch.states[:, :3], batch.params))
        torch.testing.assert_close(decoded, batch.states[:, 2], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("objective", ["matching", "shooting"])
    def test_the_loss_trains_every_parameter(
        self, name: str, system: str, variant: Any, objective: Any
    ) -> None:
        model = made(name, system, **variant, objective=objective)
        loss, logs = model.loss(batch_of(model.spec))
        assert loss.shape == ()
        assert not logs["loss"].requires_grad
        loss.backward()
        for label, parameter in model.named_parameters():
            assert parameter.grad is not None, label
            assert parameter.grad.isfinite().all(), label

    def test_saved_and_loaded_it_is_the_same_to_the_bit(
        self, name: str, system: str, variant: Any, tmp_path: Path
    ) -> None:
        model = made(name, system, **variant).eval()
        batch = batch_of(model.spec)
        config = {
            "spec": json.loads(json.dumps(model.spec.to_dict())),
            "model_name": name,
            "model": json.loads(json.dumps(to_dict(model.config))),
        }
        save_checkpoint(tmp_path / "saved", config, model.state_dict())
        again = load(tmp_path / "saved")
        assert again.spec == model.spec
        with torch.inference_mode():
            first, second = (
                imagine(each, each.encode(batch.states[:, :1], batch.params), batch.actions)
                for each in (model, again)
            )
        assert torch.equal(first, second)


@pytest.mark.parametrize("objective", ["matching", "shooting"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_behind_an_episodes_end_do_not_count(name: str, objective: Any) -> None:
    model = made(name, objective=objective)
    batch = batch_of(model.spec)
    mask = batch.mask.clone()
    mask[1, 2:] = False
    spoilt = batch.states.clone()
    spoilt[1, 3:] += 5.0
    clean = model.loss(batch._replace(mask=mask))[0]
    other = model.loss(batch._replace(mask=mask, states=spoilt))[0]
    torch.testing.assert_close(clean, other)


@pytest.mark.parametrize("name", MODELS)
def test_shooting_over_one_step_is_matching(name: str) -> None:
    batch = batch_of(SPECS["oscillator"], steps=1)
    losses = [made(name, objective=o).loss(batch)[0] for o in ("matching", "shooting")]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("name", MODELS)
def test_an_ensembles_members_are_models_of_their_own(name: str) -> None:
    together = made(name, "spaceship", ensemble=3)
    batch = batch_of(together.spec)
    with torch.no_grad():
        latent = together.encode(batch.states[:, :1], batch.params)
        for t in range(3):
            latent = together.step(latent, batch.actions[:, t])
        assert (together.disagreement(latent) > 0).all()
        for index, member in enumerate(together.models):
            alone = imagine(member, member.encode(batch.states[:, :1]), batch.actions[:, :3])
            expected = together.members(latent)[:, index]
            torch.testing.assert_close(alone[:, -1], expected, rtol=1e-4, atol=1e-5)
        losses = torch.stack([member.loss(batch)[0] for member in together.models])
        torch.testing.assert_close(together.loss(batch)[0], losses.sum(), rtol=1e-4, atol=1e-5)


def test_latent_velocities_are_the_rates_of_latent_positions() -> None:
    for system in SPECS:
        model = made("jump", system)
        half = model.spec.state_size // 2
        ratio = model.scale[half:] * model.time_scale / model.scale[:half]
        torch.testing.assert_close(ratio, torch.ones(half))
        assert all(model.scale[index] == 1.0 for index in model.spec.angles)


def test_a_coordinate_that_never_varies_is_no_division_by_zero() -> None:
    spec = SPECS["oscillator"]
    data = episodes(spec)
    data.states[:] = 0.5
    model = build(spec, "jump", MODELS["jump"](hidden=8))
    model.fit_normaliser(data)
    batch = batch_of(spec)
    assert model.loss(batch)[0].isfinite()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.states.fill(np.nan), "not finite"),
        (lambda data: data.lengths.fill(0), "no transitions"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(change: Any, match: str) -> None:
    spec = SPECS["oscillator"]
    data = episodes(spec)
    change(data)
    with pytest.raises(ValueError, match=match):
        build(spec, "jump", MODELS["jump"]()).fit_normaliser(data)


def test_a_model_that_is_told_parameters_asks_for_them() -> None:
    model = made("jump", condition="params")
    with pytest.raises(ValueError, match="mass, stiffness"):
        model.encode(torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="condition"):
        build(
            replace(SPECS["oscillator"], param_names=()), "jump", MODELS["jump"](condition="params")
        )


def test_parameters_a_model_is_told_matter() -> None:
    for name in MODELS:
        model = made(name, condition="params")
        states, action = torch.ones(2, 1, 2), torch.zeros(2, dtype=torch.int64)
        told = torch.tensor([[0.5, 1.0], [1.5, 1.0]])
        after = model.decode(model.step(model.encode(states, told), action))
        assert not torch.allclose(after[0], after[1]), name


def test_only_an_energy_model_has_an_energy() -> None:
    for name in MODELS:
        model = made(name)
        latent = model.encode(torch.ones(4, 1, 2))
        if model.has_energy:
            assert model.energy(latent).shape == (4,)
        else:
            with pytest.raises(NotImplementedError, match="port_hamiltonian has"):
                model.energy(latent)


def test_memory_is_reset_by_row() -> None:
    model = made("lstm")
    batch = batch_of(model.spec)
    fresh = model.encode(batch.states[:, :1])
    used = model.step(fresh, batch.actions[:, 0])
    mask = torch.tensor([True, False, True, False, False])
    mixed = select(fresh, mask, used)
    assert torch.equal(mixed.memory[0][0], fresh.memory[0][0])
    assert torch.equal(mixed.memory[0][1], used.memory[0][1])
    assert torch.equal(mixed.z[1], used.z[1])


def test_a_rollout_that_cannot_go_on_ends_in_nan() -> None:
    model = made("first_order", integrator="dopri5")
    latent = model.encode(torch.ones(2, 1, 2))
    latent = Latent(latent.z * float("nan"))
    states = imagine(model, latent, torch.zeros(2, 4, dtype=torch.int64))
    assert states.shape == (2, 4, 2)
    assert states.isnan().all()


def test_adaptive_ensembles_are_refused() -> None:
    with pytest.raises(ValueError, match="dopri5"):
        made("first_order", integrator="dopri5", ensemble=2)


@pytest.mark.parametrize("name", MODELS)
def test_configs_survive_json(name: str) -> None:
    config = default_config("pendulum", name)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"epocs": 3}, "did you mean 'epochs'"),
        ({"model": {"hiden": 3}}, "did you mean 'hidden'"),
        ({"model_name": "jmp"}, "did you mean 'jump'"),
        ({"model": {"layers": 10**9}}, "layers=1000000000"),
        ({"optim": {"lr": float("nan")}}, "lr"),
        ({"optim": {"lr": "fast"}}, "lr='fast'"),
        ({"model": {"hidden": True}}, "hidden"),
        ({"env": []}, "table of options"),
    ],
)
def test_bad_configs_are_refused_by_name(values: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_dict(values)


def test_a_spec_survives_json() -> None:
    spec = SPECS["pendulum"]
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(ValueError, match="not valid|not known"):
        Spec.from_dict({"env_name": "pendulum", "colour": 1})


def test_state_models_are_what_build_makes() -> None:
    assert isinstance(made("jump"), StateWorldModel)
    with pytest.raises(ValueError, match="does not build"):
        build(SPECS["oscillator"], "lstm", MODELS["jump"]())


def test_a_misspelt_default_is_refused_with_the_closest_match() -> None:
    with pytest.raises(ValueError, match="'pendulumm'.*did you mean 'pendulum'"):
        default_config("pendulumm", "jump")
    with pytest.raises(ValueError, match="'jmup'.*did you mean 'jump'"):
        default_config("pendulum", "jmup")
    by_id = default_config("PhysGym/Spaceship-v0", "newtonian")
    assert by_id.model == default_config("spaceship", "newtonian").model


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
@pytest.mark.parametrize("system", physgym.SYSTEMS)
def test_the_action_that_does_nothing_feeds_a_hamiltonian_nothing(system: str, mode: str) -> None:
    spec = make_spec(system, action_mode=mode)
    assert spec.idle is not None
    model = small_model("port_hamiltonian", spec, damping=False)
    latent = model.encode(torch.randn(3, 1, spec.state_size))
    still = torch.from_numpy(idle_actions(spec, 3, 1)[:, 0])
    if mode == "discrete":
        assert int(still[0]) == spec.idle
    moved = model.step(latent, still)
    kept = model.dynamics.conserve(latent, spec.dt / model.seconds)
    assert torch.equal(moved.z, kept.z)
    assert not torch.equal(model.step(latent, still + 1).z, kept.z)


@pytest.mark.parametrize(("kind", "idle"), [("discrete", 3), ("discrete", -1), ("continuous", 1)])
def test_an_idle_action_that_is_none_is_refused(kind: str, idle: int) -> None:
    with pytest.raises(ValueError, match=f"idle={idle} is not valid: expected None or 0 to"):
        Spec("pendulum", action_kind=kind, action_size=3, idle=idle)
