"""Systems, structures and plugins from outside: what is registered is known everywhere, or refused whole."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from contributing import blocks
from gymnasium.utils.env_checker import check_env

import physgym
import worldmodels
from physgym import plugins
from worldmodels.configs.training import (
    KINDS,
    MODELS,
    PREDICTORS,
    FlowConfig,
    JumpConfig,
    ModelConfig,
    default_config,
    from_dict,
    to_dict,
)
from worldmodels.dynamics import STRUCTURES
from worldmodels.evaluation import plots

REGISTRIES = (physgym.SYSTEMS, gymnasium.registry, MODELS, KINDS, PREDICTORS, STRUCTURES)


@pytest.fixture(autouse=True)
def _closed(monkeypatch):
    """Whatever a test registers is gone after it."""
    monkeypatch.setenv(plugins.VARIABLE, "[]")
    monkeypatch.setattr(plugins, "_loaded", {})
    before = [dict(registry) for registry in REGISTRIES]
    count = len(plugins.JOURNAL)
    yield
    plugins._take_back(count)
    assert [dict(registry) for registry in REGISTRIES] == before


@pytest.fixture
def files(tmp_path):
    """The files of CONTRIBUTING.md, in a folder."""
    for name, text in blocks().items():
        (tmp_path / name).write_text(text)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_system_from_outside_is_an_env_like_any_other(files):
    assert worldmodels.load_plugin(files / "cart.py") == ["system cart"]
    system = physgym.get_system("Lab/Cart-v0")
    assert system is physgym.SYSTEMS["cart"] and system.reward_threshold is None
    check_env(gymnasium.make("Lab/Cart-v0").unwrapped, skip_render_check=True)
    single = gymnasium.make("Lab/Cart-v0", obs_mode="pixels", image_size=32)
    rows = gymnasium.make_vec("Lab/Cart-v0", num_envs=2, vectorization_mode="vector_entry_point")
    assert rows.unwrapped.max_episode_steps == system.max_episode_steps
    picture, info = single.reset(seed=3)
    _, infos = rows.reset(seed=3)
    np.testing.assert_array_equal(info["state"], infos["state"][0])
    after, *_ = single.step(2)
    assert picture.any() and (after != picture).any()
    states = np.zeros((4, 2))
    np.testing.assert_array_equal(system.controller(states, system.Params(), 0), [1, 1, 1, 1])


def test_the_plain_picture_shows_every_position():
    from physgym.plain import scene

    for angles in ((), (0,), (1, 2), (0, 1, 2)):
        for detail in (False, True):
            still = scene((0.1, 0.2, 0.3), angles, 2.0, detail)
            for index in range(3):
                moved = [0.1, 0.2, 0.3]
                moved[index] += 0.2
                assert scene(moved, angles, 2.0, detail) != still
    plane = scene((0.1, 0.2, -0.5, 0.4), (), 2.0, False)
    assert [(disc.x, disc.y) for disc in plane] == [(0.1, 0.2), (-0.5, 0.4)]


def test_a_structure_from_outside_is_in_every_registry(files):
    assert worldmodels.load_plugin(files / "spring.py") == ["structure spring"]
    config = default_config("pendulum", "spring")
    assert from_dict(to_dict(config)) == config and config.model.name == "spring"
    assert {"spatial_spring", "flat_spring"} <= set(PREDICTORS) and "spring" in STRUCTURES
    visual = default_config("pendulum", "visual", "flat_spring", "tiny")
    assert visual.model.structure == "spring" and from_dict(to_dict(visual)) == visual


def test_structures_from_elsewhere_have_colours_of_their_own():
    names = [f"mine{i}" for i in range(len(plots.SPARE_COLORS))]
    alone = [plots.color_of(name) for name in names]
    assert set(alone) <= set(plots.SPARE_COLORS)
    assert not set(plots.SPARE_COLORS) & set(plots.MODEL_COLORS.values())
    configs = {name: JumpConfig for name in names}
    MODELS.update(configs)
    try:
        together = [plots.color_of(name) for name in names]
        MODELS.update({name: MODELS.pop(name) for name in reversed(names)})
        assert [plots.color_of(name) for name in names] == together  # whichever came first
    finally:
        for name in names:
            MODELS.pop(name)
    assert len(set(together)) == len(names)


class Twin(physgym.System):
    """Another's equations under names that tests choose."""


def twin(**changes):
    parent = type(physgym.SYSTEMS["oscillator"])
    return type("Twin", (parent,), {"__module__": __name__, "__qualname__": "Twin", **changes})


def test_registering_again_changes_nothing_and_defining_anew_replaces():
    first = physgym.register(twin(name="twin", env_id="Lab/Twin-v0"))
    system, count = physgym.SYSTEMS["twin"], len(plugins.JOURNAL)
    assert physgym.register(first) is first
    assert physgym.SYSTEMS["twin"] is system and len(plugins.JOURNAL) == count
    again = physgym.register(twin(name="twin", env_id="Lab/Twin-v1"))
    assert type(physgym.SYSTEMS["twin"]) is again
    assert "Lab/Twin-v0" not in gymnasium.registry and "Lab/Twin-v1" in gymnasium.registry


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "pendulum"}, "name='pendulum' of .*Twin is taken by physgym.systems.pendulum"),
        ({"env_id": "PhysGym/Pendulum-v0"}, "env_id='PhysGym/Pendulum-v0' .* is taken"),
        ({"env_id": "CartPole-v1"}, "env_id='CartPole-v1' is taken by gymnasium"),
        ({"name": "My System"}, "name='My System' must be"),
        ({"env_id": "no version!"}, "env_id='no version!' must read like"),
        ({"state_units": ("m",)}, "state_units"),
        ({"action_names": ("one",)}, "action_names"),
        ({"ranges": {"mas": (0, 1)}}, "ranges"),
    ],
)
def test_a_system_that_does_not_fit_is_refused_whole(changes, told):
    before = dict(physgym.SYSTEMS), dict(gymnasium.registry)
    with pytest.raises(ValueError, match=told):
        physgym.register(twin(**{"name": "twin", "env_id": "Lab/Twin-v0", **changes}))
    assert (dict(physgym.SYSTEMS), dict(gymnasium.registry)) == before


@pytest.mark.parametrize("given", [int, "pendulum", Twin, physgym.SYSTEMS["pendulum"]])
def test_what_is_no_whole_system_is_refused(given):
    with pytest.raises(TypeError, match="System|lacks name, env_id"):
        physgym.register(given)


@dataclass(frozen=True)
class OwnConfig(ModelConfig):
    """Options of a test's structure."""


@dataclass(frozen=True)
class WithoutDefault(ModelConfig):
    """A config that cannot be made from nothing."""

    shape: tuple[int, ...] = ()

    def __post_init__(self):
        raise ValueError("no such shape")


class Own(STRUCTURES["jump"]):  # type: ignore[misc,name-defined]
    """A test's structure."""


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("jump", OwnConfig, "structure 'jump' of .*Own is taken by worldmodels.dynamics.jump"),
        ("visual", OwnConfig, "'visual' .* is taken"),
        ("ode", OwnConfig, "spatial_ode is first_order's"),
        ("My-own", OwnConfig, "'My-own'"),
        ("own", JumpConfig, "JumpConfig is jump's"),
        ("own", FlowConfig, "FlowConfig is every structure's"),
        ("own", WithoutDefault, "WithoutDefault.*no such shape"),
        ("own", dict, "config=.*dict.* must be a class below"),
    ],
)
def test_a_structure_that_does_not_fit_is_refused_whole(name, config, told):
    before = [dict(registry) for registry in REGISTRIES]
    with pytest.raises((TypeError, ValueError), match=told):
        worldmodels.register_structure(name, config)(Own)
    assert [dict(registry) for registry in REGISTRIES] == before


def test_a_structure_is_a_dynamics_and_registers_once():
    with pytest.raises(TypeError, match="no subclass"):
        worldmodels.register_structure("own", OwnConfig)(int)
    with pytest.raises(TypeError, match="lacks step"):
        worldmodels.register_structure("own", OwnConfig)(worldmodels.Dynamics)
    for _ in range(2):
        assert worldmodels.register_structure("own", OwnConfig)(Own) is Own
    assert len([e for e in plugins.JOURNAL if e.name == "own"]) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such file"),
        ("x = 1\n", "registers nothing"),
        ("x = \n", "does not import: SyntaxError"),
        ("import phisgym\n", "does not import: ModuleNotFoundError: .*'phisgym'.*bad.py, line 1"),
        ("import sys\nsys.exit(3)\n", "does not import: SystemExit: 3"),
    ],
)
def test_a_plugin_that_is_none_is_told_in_a_line(tmp_path, text, told):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(plugins.PluginError, match=told) as caught:
        worldmodels.load_plugin(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert plugins.loaded() == []


@pytest.mark.parametrize("given", ["", 3, "no-such.module", "no_such_module", "folder/cart"])
def test_a_name_that_leads_nowhere_is_told(given):
    with pytest.raises(plugins.PluginError, match="plugin"):
        worldmodels.load_plugin(given)


def test_what_a_plugin_registered_before_it_failed_is_taken_back(files):
    path = write(files / "half.py", blocks()["cart.py"] + "\nraise RuntimeError('half-way')\n")
    with pytest.raises(plugins.PluginError, match=r"RuntimeError: half-way \(half.py, line \d+\)"):
        worldmodels.load_plugin(path)
    assert "cart" not in physgym.SYSTEMS and "Lab/Cart-v0" not in gymnasium.registry
    path.write_text(blocks()["cart.py"])
    assert worldmodels.load_plugin(path) == ["system cart"] == worldmodels.load_plugin(str(path))
    assert plugins.loaded() == [str(path)]


def python(code: str, folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` by a Python of its own in `folder`, with `path` on its path."""
    import os

    root = str(Path(__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *map(str, path)])}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def install(folder: Path, package: str, points: str) -> None:
    """What pip leaves of a package with entry points."""
    info = folder / f"{package}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(points)


@pytest.mark.slow
def test_installed_packages_bring_their_own_and_a_broken_one_warns(files):
    site = files / "site"
    install(site, "lab", "[physgym.systems]\ncart = cart:Cart\n[physgym.structures]\ns = spring\n")
    install(site, "wrong", "[physgym.systems]\nx = wrong_cart\n[physgym.structures]\nx = gone\n")
    (site / "wrong_cart.py").write_text("raise RuntimeError('out of order')\n")
    told = "import sys, physgym; print('cart' in physgym.SYSTEMS, 'torch' in sys.modules)"
    first = python(told, files, files, site)
    assert first.stdout.split() == ["True", "False"]
    assert first.stderr.count("Warning") == 1
    assert "package wrong brings wrong_cart" in first.stderr and "out of order" in first.stderr
    code = "from worldmodels.configs.training import KINDS; print('spring' in KINDS)"
    second = python(code, files, files, site)
    assert second.stdout.strip() == "True" and "package wrong brings gone" in second.stderr
    itself = python("import cart, physgym; print('cart' in physgym.SYSTEMS)", files, files, site)
    assert itself.stdout.strip() == "True", itself.stderr


@pytest.mark.slow
def test_load_says_what_is_missing_and_which_plugin_the_run_had(files, monkeypatch):
    monkeypatch.chdir(files)
    worldmodels.load_plugin("cart.py")
    worldmodels.load_plugin("spring.py")
    made = worldmodels.collect(
        worldmodels.CollectConfig("cart", episodes=10, steps=10), progress=False
    )
    config = default_config("cart", "spring")
    optim = replace(config.optim, steps_per_epoch=2, batch_size=8)
    out = str(files / "run")
    config = replace(config, epochs=1, optim=optim, dataset=str(made), out=out)
    worldmodels.train(config, progress=False)
    model = worldmodels.load(out)
    assert type(model).__name__ == "StateWorldModel" and model.config.name == "spring"
    code = "import worldmodels, sys\ntry: worldmodels.load('run')\nexcept Exception as e: print(e)"
    told = python(code, files).stdout
    assert "the system 'cart', which is not registered here" in told
    assert str(files / "cart.py") in told and str(files / "spring.py") in told
    assert (
        "spring.py"
        in python(f"import worldmodels\nworldmodels.load_plugin('cart.py')\n{code}", files).stdout
    )
    resume = (
        "from worldmodels.storage.runs import RunFolder\n"
        "from worldmodels.training.experiment import reopen\n"
        "try: reopen(RunFolder.open('run'))\nexcept Exception as e: print(e)"
    )
    assert "load it first" in python(resume, files).stdout


@pytest.mark.slow
def test_workers_know_the_plugins(files, monkeypatch):
    """Started fresh: of a collection, of Gymnasium's vector env, and of a sweep."""
    monkeypatch.chdir(files)
    worldmodels.load_plugin("cart.py")
    worldmodels.load_plugin("spring.py")
    config = worldmodels.CollectConfig("cart", episodes=10, steps=10, shard_episodes=5)
    data = worldmodels.collect(config, workers=2, progress=False)
    rows = gymnasium.make_vec(
        "Lab/Cart-v0", 2, vectorization_mode="async", vector_kwargs={"context": "spawn"}
    )
    try:
        observations, _ = rows.reset(seed=0)
        assert observations.shape == (2, 2)
    finally:
        rows.close()
    from worldmodels.training import launchers, sweeps

    train = replace(
        default_config("cart", "spring"), epochs=1, dataset=str(data), out=str(files / "s0")
    )
    train = replace(train, optim=replace(train.optim, steps_per_epoch=2, batch_size=8))
    ((_, result),) = launchers.launch("local", sweeps.run_cell, [(to_dict(train), 1)], 1, 1)
    assert result["status"] == "done", result
