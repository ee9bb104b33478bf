"""Pictures of models of states: what they show is what was learned, beside what is true."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import Perfect, make_pixel_spec, make_spec, small_model
from PIL import Image

import physgym
from worldmodels.configs.structures import MODELS
from worldmodels.data import CollectConfig, Dataset, collect, load_dataset
from worldmodels.evaluation.states import coefficients as measures
from worldmodels.evaluation.states.coefficients import control_unit, meter_of, truth_of
from worldmodels.films import portraits, series, subjects
from worldmodels.films.states import write_pictures
from worldmodels.films.subjects import Subject, plane_of
from worldmodels.films.viewer import viewer_of
from worldmodels.interface import Latent

SYSTEMS, STRUCTURES = tuple(physgym.SYSTEMS), tuple(MODELS)


@pytest.fixture(scope="module")
def buffers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """A small buffer of every system; the parameters of the last one vary, its actions are numbers."""
    root = tmp_path_factory.mktemp("datasets")

    def make(name: str, **options: Any) -> Dataset:
        config = CollectConfig(
            env=name, name="few", episodes=8, steps=20, val_fraction=0.25, test_fraction=0.45,
            **options,
        )  # fmt: skip
        return load_dataset(collect(config, root, progress=False))

    last = SYSTEMS[-1]
    free = make(last, randomize=True, action_mode="continuous")
    return {name: make(name) for name in SYSTEMS[:-1]} | {last: free}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes of few states, so that a test takes a moment."""
    monkeypatch.setattr(subjects, "GRID", 7)
    monkeypatch.setattr(series, "STATES", 12)


class Truth(Perfect):
    """The true system as a model, with its own energy in another unit and from another zero."""

    has_energy = True
    config = SimpleNamespace(name="port_hamiltonian")

    def energy(self, latent: Latent) -> torch.Tensor:
        params = self.system.Params(*latent.condition.double().numpy().T)
        value = self.system.energy(latent.z.double().numpy(), params)
        return torch.from_numpy(3.0 - 2.0 * np.asarray(value))


class Stepper(Truth):
    """The truth as a model that knows one step length."""

    any_dt = False


def spec_of(dataset: Dataset) -> Any:
    return make_spec(dataset.env_name, **dataset.env_kwargs)


def truth_for(dataset: Dataset, kind: type[Perfect] = Truth) -> Subject:
    return Subject(kind(spec_of(dataset)), dataset)


# Measured coefficients


@pytest.mark.parametrize("name", SYSTEMS)
def test_coefficients_of_the_truth_are_those_of_its_equations(
    name: str, buffers: dict[str, Dataset]
) -> None:
    subject = truth_for(buffers[name])
    states, params = subject.sample(12)
    system, half = subject.system, subject.system.state_size // 2
    idle = np.zeros((len(states), system.control_size))
    known = system.derivative(states, idle, params)
    rates = np.stack([np.broadcast_to(system.damping_rate(params), len(states))] * half, axis=1)
    if (
        not system.separable
    ):  # what each velocity takes from its own acceleration, Coriolis included
        shifts = 1e-5 * np.eye(2 * half)[half:]
        ends = [[system.derivative(states + s * d, idle, params) for s in (1, -1)] for d in shifts]
        slopes = [(b - a)[:, half + i] / 2e-5 for i, (a, b) in enumerate(ends)]
        rates = np.stack(slopes, axis=1)
    size = 1.0 + np.abs(known)
    for meter in (subject.meter, subject.true_meter):
        assert meter.instant
        np.testing.assert_array_less(np.abs(meter.free_rates(states, params) - known) / size, 1e-6)
        found = meter.damping(states, params)
        np.testing.assert_allclose(found, rates, atol=1e-4)
        gains = meter.gain(states, params)
        for k, unit in enumerate(np.eye(system.control_size)):
            pushed = system.derivative(states, idle + unit, params) - known
            np.testing.assert_allclose(gains[:, :, k], pushed[:, half:], atol=1e-4)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_model_of_one_step_length_is_measured_over_that(
    name: str, buffers: dict[str, Dataset]
) -> None:
    subject = truth_for(buffers[name], Stepper)
    states, params = subject.sample(6)
    assert not subject.meter.instant and not subject.true_meter.instant
    rates = subject.meter.free_rates(states, params)
    controls = np.zeros((len(states), subject.system.control_size))
    after = subject.system.step(states, controls, params, subject.model.spec.dt)
    np.testing.assert_allclose(rates, (after - states) / subject.model.spec.dt, atol=1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_can_be_measured(
    structure: str, name: str, buffers: dict[str, Dataset]
) -> None:
    model = small_model(structure, spec_of(buffers[name]))
    subject = Subject(model, buffers[name])
    states, params = subject.sample(5)
    half, count = subject.system.state_size // 2, len(states)
    assert subject.meter.instant == (structure not in measures.STEPPERS)
    assert np.isfinite(subject.meter.free_rates(states, params)).all()
    assert subject.meter.damping(states, params).shape == (count, half)
    gains = subject.meter.gain(states, params)
    assert gains.shape == (count, half, subject.system.control_size) and np.isfinite(gains).all()
    assert next(model.parameters()).dtype == torch.float32, "the model itself is left alone"


@pytest.mark.parametrize("structure", ["newtonian", "port_hamiltonian"])
def test_measured_damping_is_the_one_that_a_structure_holds(
    structure: str, buffers: dict[str, Dataset]
) -> None:
    options = {"velocity_input": False} if structure == "newtonian" else {"mass": "identity"}
    model = small_model(structure, spec_of(buffers["pendulum"]), **options)
    model.time_scale.fill_(0.5)
    model.know_time_scale()
    dynamics = model.dynamics
    own = dynamics.damping() if structure == "newtonian" else dynamics.dissipation()
    subject = Subject(model, buffers["pendulum"])
    found = subject.meter.damping(*subject.sample(8))
    np.testing.assert_allclose(found, float(own[0].detach()) / 0.5, atol=1e-5)


def test_controls_have_the_unit_of_what_scales_them() -> None:
    units = {name: control_unit(system) for name, system in physgym.SYSTEMS.items()}
    known = {"pendulum": "N m", "oscillator": "N", "spaceship": "m/s^2", "three_body": "m/s^2"}
    known |= {"acrobot": "N m", "cart_pole": "N", "mass_spring": "N", "n_body": "m/s^2"}
    assert units == known
    pendulum = physgym.get_system("pendulum")
    odd = SimpleNamespace(
        Params=pendulum.Params, action_size=1, param_units=pendulum.param_units,
        control=lambda action, p: action * p.torque_limit * p.mass,
    )  # fmt: skip
    assert control_unit(odd) == "control", "two parameters scale it: no unit is known"


# Portraits


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_portrait_of_a_perfect_model_is_the_true_one(
    name: str, buffers: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps: list[np.ndarray] = []
    drawn = portraits._signed

    def catch(figure: Any, axes: Any, plane: Any, values: np.ndarray, label: str) -> None:
        gaps.append(values)
        drawn(figure, axes, plane, values, label)

    monkeypatch.setattr(portraits, "_signed", catch)
    subject = truth_for(buffers[name])
    truth, learned = portraits._trajectories(subject)
    np.testing.assert_allclose(learned, truth, atol=1e-9)
    assert np.isfinite(truth[:, :2]).all() and len(truth) > 1
    portraits.phase_portrait(subject, tmp_path / "phase.png")
    portraits.energy_landscape(subject, tmp_path / "energy.png")
    assert len(gaps) == 2
    for gap in gaps:
        assert np.isfinite(gap).any() and np.nanmax(np.abs(gap)) < 1e-5
    assert subject.energies.r_squared == pytest.approx(1.0, abs=1e-9)
    assert subject.energies.slope == pytest.approx(-0.5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_plane_goes_through_a_true_state_and_over_no_end(
    name: str, buffers: dict[str, Dataset]
) -> None:
    subject = truth_for(buffers[name])
    system, half = subject.system, subject.system.state_size // 2
    plane = plane_of(subject, half - 1)
    assert plane.states.shape == (49, 2 * half)
    grid = plane.states.reshape(7, 7, -1)
    np.testing.assert_array_equal(grid[3, :, half - 1], plane.position)
    np.testing.assert_array_equal(grid[:, 3, 2 * half - 1], plane.velocity)
    others = [i for i in range(2 * half) if i not in (half - 1, 2 * half - 1)]
    assert (plane.states[:, others] == subject.episodes.states[0, 0, others]).all()
    alive, params = plane.living()
    assert not np.any(system.terminated(alive, params))
    values = plane.on_grid(alive[:, half - 1])
    assert np.isnan(values).sum() == (~plane.alive).sum()


def test_a_wrong_energy_is_seen(buffers: dict[str, Dataset]) -> None:
    untrained = Subject(
        small_model("port_hamiltonian", spec_of(buffers["pendulum"])), buffers["pendulum"]
    )
    assert untrained.energies.r_squared < 0.99


# Files


PAIRS = [(structure, SYSTEMS[k % len(SYSTEMS)]) for k, structure in enumerate(STRUCTURES)]


@pytest.mark.parametrize(("structure", "name"), PAIRS)
def test_every_picture_is_written(
    structure: str, name: str, buffers: dict[str, Dataset], tmp_path: Path
) -> None:
    model = small_model(structure, spec_of(buffers[name]))
    paths = viewer_of("states").pictures(model, buffers[name], tmp_path / "shown", 3)
    names = {"phase_portrait.png", "coefficients.png", "series.png"}
    assert {path.name for path in paths} == names | (
        {"learned_energy.png"} if model.has_energy else set()
    )
    assert set(paths) == set((tmp_path / "shown").iterdir())
    for path in paths:
        with Image.open(path) as picture:
            page = np.asarray(picture.convert("RGB"))
        assert min(page.shape[:2]) > 150 and len(np.unique(page.reshape(-1, 3), axis=0)) > 20
        edges = (page[:2], page[-2:], page[:, :2], page[:, -2:])
        assert all((edge == 255).all() for edge in edges), f"{path.name}: nothing is cut"


def test_pictures_of_states_depend_on_the_seed_alone(
    buffers: dict[str, Dataset], tmp_path: Path
) -> None:
    model = small_model("newtonian", spec_of(buffers["spaceship"]))

    def drawn(seed: int, name: str) -> bytes:
        return series.series(
            Subject(model, buffers["spaceship"], seed), tmp_path / name
        ).read_bytes()

    assert drawn(1, "a.png") == drawn(1, "b.png")
    assert len({drawn(seed, "c.png") for seed in range(4)}) > 1


def test_pictures_of_what_diverges_are_drawn(buffers: dict[str, Dataset], tmp_path: Path) -> None:
    model = small_model("port_hamiltonian", spec_of(buffers["pendulum"]))
    with torch.no_grad():
        model.dynamics.potential.out.weight.fill_(1e30)
    paths = write_pictures(model, buffers["pendulum"], tmp_path)
    assert len(paths) == 4 and all(path.stat().st_size > 5000 for path in paths)


def test_pictures_of_states_name_what_does_not_fit(
    buffers: dict[str, Dataset], tmp_path: Path
) -> None:
    model = small_model("jump", make_spec("pendulum"))
    with pytest.raises(ValueError, match="learned env 'pendulum'"):
        write_pictures(model, buffers["oscillator"], tmp_path / "new")
    model.spec = make_pixel_spec("pendulum")
    with pytest.raises(ValueError, match="sees pixels"):
        write_pictures(model, buffers["pendulum"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_models_of_pixels_are_drawn_by_their_training() -> None:
    assert viewer_of("pixels").after_training and not viewer_of("states").after_training


def test_meters_of_model_and_truth_are_asked_the_same(buffers: dict[str, Dataset]) -> None:
    model = small_model("jump", spec_of(buffers["pendulum"]), dt_input=True)
    system = physgym.get_system("pendulum")
    assert model.any_dt, "a step length that it was told"
    assert meter_of(model, system).instant is truth_of(model, system).instant is False
