"""Laws of every config: what can be made can be saved, hashed and read again; all else is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import physgym
from worldmodels.configs import environment, pixels, schema, structures, training, visual
from worldmodels.configs.coordinates import Coordinates
from worldmodels.configs.training import (
    KINDS,
    MODELS,
    PREDICTORS,
    TrainConfig,
    config_hash,
    default_config,
    from_dict,
    to_dict,
)
from worldmodels.data import config as data_config
from worldmodels.data.config import CollectConfig

NAN, INF = float("nan"), float("inf")
LONG = "x" * 10_000
NOTHING = object()
WRONG: dict[Any, list[Any]] = {
    int: ["3", 1.5, 2.0, True, np.True_, NAN, INF, 10**30, -(10**30), 10**5000, np.arange(2), 3j],
    float: ["0.1", True, NAN, -INF, np.float64(NAN), 10**400, 1e300, Fraction(1, 3), [0.1], 1j],
    bool: [1, 0, "yes", 1.0, np.array([True])],
    str: [1, b"text", "\0", LONG, "\ud800", ["text"], Path("a\0b")],
    dict: [[], "mass", 1.0, {"mass": NAN}, {"mass": "1"}, {1: 1.0}, {"mass": None}],
}
"""Values that no field of such a type takes."""
ANY_NAMES = ["no such name", 1, 2.5, True, b"random", ["random"], LONG]


def examples() -> dict[str, Any]:
    """One sound config of every kind there is, by name."""
    base = default_config("pendulum", "jump")
    made = {"train": base, "env": base.env, "optim": base.optim, "data": base.data, "log": base.log}
    made["collect"] = CollectConfig(env="pendulum")
    made |= {name: default_config("pendulum", name).model for name in MODELS}
    for predictor in PREDICTORS:
        made[predictor] = default_config("pendulum", "visual", predictor, "tiny").model
    return made


EXAMPLES = examples()
ONE_OF_A_KIND = {type(config): name for name, config in EXAMPLES.items()}
FIELDS = [(name, field.name) for name in ONE_OF_A_KIND.values() for field in fields(EXAMPLES[name])]


def hint_of(config: Any, field: str) -> tuple[Any, bool]:
    """Type of a field without None, and whether None is a value of it."""
    hint = get_type_hints(type(config))[field]
    inner = [kind for kind in get_args(hint) if kind is not type(None)]
    optional = type(None) in get_args(hint)
    return (inner[0] if optional and len(inner) == 1 else hint), optional


def wrong_values(config: Any, field: str) -> list[Any]:
    """What the field must refuse."""
    hint, optional = hint_of(config, field)
    own = getattr(config, field)
    kind: Any = dict if "dict" in str(hint) else hint
    values = WRONG.get(kind, ANY_NAMES)
    if field == "make_kwargs":  # whose values may be text
        values = [value for value in values if value != {"mass": "1"}]
    if is_dataclass(own):
        values = [{}, "x", 1, type(own), [own]]
    return [*values, NOTHING, *([] if optional else [None])]


def whole(config: Any) -> Any:
    """A config as what is written to disk: alone, or in the run that it is a part of."""
    base = default_config("pendulum", "jump")
    if isinstance(config, (TrainConfig, CollectConfig)):
        return config
    for part in ("env", "optim", "data", "log"):
        if type(config) is type(getattr(base, part)):
            return replace(base, **{part: config})
    return replace(base, model_name=config.name, model=config)


def read_again(config: Any) -> Any:
    """A config through JSON and back."""
    text = json.dumps(asdict(config), allow_nan=False)
    if isinstance(config, CollectConfig):
        return CollectConfig(**json.loads(text))
    return from_dict(json.loads(text))


def test_no_config_is_left_out() -> None:
    for module in (schema, environment, structures, visual, training, data_config):
        for value in vars(module).values():
            if isinstance(value, type) and is_dataclass(value):
                bases = (structures.ModelConfig, structures.FlowConfig, pixels.PixelConfig)
                bases = (*bases, Coordinates)  # a part of none: it is saved as its text
                assert value in ONE_OF_A_KIND or value in bases, value


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_wrong_value_is_refused_by_name(name: str, field: str) -> None:
    config = EXAMPLES[name]
    for value in wrong_values(config, field):
        with pytest.raises(ValueError, match=field) as caught:
            replace(config, **{field: value})
        text = str(caught.value)
        assert len(text) < 1200
        assert "\n" not in text
        assert "expected" in text


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_whatever_can_be_made_can_be_read_again(name: str, field: str) -> None:
    config = EXAMPLES[name]
    tried = [0, 1, 2, 3, 8, 0.5, 1e-6, "", "a", "small", None, False, True, {}, {"mass": 2}]
    tried += [
        *map(np.int64, (1, 8)),
        np.float32(0.1),
        np.float64(0.25),
        np.bool_(True),
        np.str_("a"),
    ]
    for value in [*tried, Path("a/b"), getattr(config, field)]:
        try:
            made = whole(replace(config, **{field: value}))
        except ValueError:
            continue
        assert read_again(made) == made
        assert config_hash(read_again(made)) == config_hash(made)


@pytest.mark.parametrize("name", KINDS)
def test_defaults_are_read_again(name: str) -> None:
    for system in ("oscillator", "three_body"):
        config = default_config(system, name)
        assert read_again(config) == config
        assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


def test_what_means_the_same_is_converted() -> None:
    base = default_config("pendulum", "jump")
    config = replace(
        base,
        env_name="PhysGym/Pendulum-v0",
        seed=np.int64(3),
        dataset=Path("datasets") / "b",
        env=replace(
            base.env, params=MappingProxyType({"mass": np.float32(0.5)}), dt=np.float64(0.1)
        ),
        optim=replace(base.optim, lr=np.logspace(-4, -2, 3)[1], batch_size=np.uint8(7)),
        model=replace(base.model, hidden=np.int32(5), relative_loss=np.False_),
    )
    assert config.env_name == "pendulum"
    assert config.env.params == {"mass": 0.5}
    leaves = [config.seed, config.dataset, config.optim.lr, config.optim.batch_size]
    leaves += [config.model.hidden, config.model.relative_loss, config.env.dt]
    assert [type(leaf) for leaf in leaves] == [int, str, float, int, int, bool, float]
    wanted = {"env": "PhysGym/ThreeBody-v0", "episodes": np.int64(3), "params": {"mass_0": 2}}
    collected = CollectConfig(**wanted)
    assert collected == CollectConfig(env="three_body", episodes=3, params={"mass_0": 2.0})
    assert collected.content_hash() == CollectConfig(**collected.to_dict()).content_hash()


def test_a_config_does_not_follow_its_makers_table() -> None:
    params = {"mass": 1.0}
    config = CollectConfig(env="pendulum", params=params)
    before = config.content_hash()
    params["mass"] = 2.0
    assert config.content_hash() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env_name": "pendulun"}, "did you mean 'pendulum'"),
        ({"model_name": "lstn"}, "did you mean 'lstm'"),
        ({"device": "gpu"}, "device='gpu'.*cuda:N"),
        ({"env": {"start": "upp"}}, "env.start=.upp. is not valid: expected one of default"),
        ({"env": {"integrator": "rk5"}}, "env.integrator='rk5'.*did you mean 'rk4'"),
        ({"env": {"params": {"mas": 1.0}}}, "env.params.*'mas'.*did you mean 'mass'"),
        ({"env": {"params": {"mass": -1.0}}}, r"env.params=\{'mass': -1.0\}.*more than 0"),
        ({"env": {"dt": 11.0}}, "env.dt=11.0.*at most 10"),
        ({"model": {"objective": "shoting"}}, "model.objective='shoting'.*did you mean 'shooting'"),
        ({"model": {"condition": "param"}}, "model.condition='param'.*did you mean 'params'"),
        ({"optim": {"name": "sgd"}}, "optim.name='sgd'.*one of soap, adam"),
        ({"optim": {"schedule": "one_cycle"}}, "did you mean 'onecycle'"),
        ({"log": {"wandb": "ofline"}}, "log.wandb=.ofline.*did you mean .offline."),
        ({"epochs": 1.5}, "epochs=1.5 .*an integer"),
    ],
)
def test_a_typo_is_told_with_what_is_meant(change: dict[str, Any], words: str) -> None:
    base = default_config("pendulum", "jump")

    def made() -> TrainConfig:
        nested = {
            k: replace(getattr(base, k), **v) for k, v in change.items() if isinstance(v, dict)
        }
        return replace(base, **{**change, **nested})

    with pytest.raises(ValueError, match=words):
        made()
    with pytest.raises(ValueError, match=words):  # the same where it is read
        from_dict(change if "env_name" in change else {"env_name": "pendulum", **change})


def test_a_visual_models_options_are_refused_for_others() -> None:
    with pytest.raises(ValueError, match="predictor='spatial_lstm'.*'visual'"):
        default_config("pendulum", "jump", "spatial_lstm")
    with pytest.raises(ValueError, match="size='tiny'.*'visual'"):
        default_config("pendulum", "jump", size="tiny")


def _inertia(system: Any, positions: np.ndarray) -> np.ndarray:
    """Second differences of the true energy in the velocities, at rest."""
    size = len(positions)
    steps = np.eye(size)

    def energy(velocities: np.ndarray) -> float:
        return float(system.energy((*positions, *velocities), system.Params()))

    at = [[energy(a + b) - energy(a - b) for b in steps] for a in steps]
    return np.array(at) / 4.0


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_inertia_is_learned_as_a_function_of_the_place_just_where_it_is_one(name: str) -> None:
    system = physgym.SYSTEMS[name]
    rng = np.random.default_rng(0)
    one, two = (_inertia(system, rng.uniform(0.3, 1.5, system.state_size // 2)) for _ in range(2))
    moving = not np.allclose(one, two, atol=1e-6)
    model: Any = default_config(name, "port_hamiltonian").model
    assert (model.mass == "network") == moving
    assert model.splits != moving
