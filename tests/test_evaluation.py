"""Scores mean what they say: a perfect model scores like the truth, and nothing else does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_doubles import Perfect, Still, make_spec

import physgym
from worldmodels.agents.planning import Planner
from worldmodels.data import CollectConfig, Dataset, collect, load_dataset
from worldmodels.evaluation import plots, problems
from worldmodels.evaluation.comparison import comparison_of, evaluate, header, write_report
from worldmodels.evaluation.conditions import check_shared, describe, mismatch
from worldmodels.evaluation.states import scoring
from worldmodels.evaluation.states.baselines import (
    baseline_entries,
    model_entry,
    oracle_entry,
    oracles_of,
)
from worldmodels.evaluation.states.scoring import Entry
from worldmodels.evaluation.tables import share
from worldmodels.films.recording import POLICIES, baseline, record
from worldmodels.films.states import predict

STEPS = 20


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """A small buffer of every system, with parameters of its own in every episode."""
    root = tmp_path_factory.mktemp("datasets")

    def make(name: str) -> Dataset:
        config = CollectConfig(env=name, name="small", episodes=30, steps=45, randomize=True)
        return load_dataset(collect(config, root, progress=False))

    return {name: make(name) for name in physgym.SYSTEMS}


def scored(dataset: Dataset, entries: dict[str, Entry], steps: int = STEPS) -> dict[str, Any]:
    tasks = problems.from_dataset(dataset, steps)
    return scoring.score(entries, tasks, scoring.scale_of(dataset), (1, 10))


def medians(row: dict[str, Any]) -> list[float]:
    return [cell["median"] for cell in row["nmse"].values()]


def perfect(dataset: Dataset) -> Perfect:
    return Perfect(make_spec(dataset.env_name, **dataset.env_kwargs))


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_a_perfect_model_scores_nothing_wrong(name: str, datasets: dict[str, Dataset]) -> None:
    entries = {
        "perfect": model_entry(perfect(datasets[name])),
        "oracle": oracle_entry(None, None),
    }
    for row in scored(datasets[name], entries)["rows"].values():
        assert max(medians(row)) < 1e-20
        assert row["energy_error"]["10"]["median"] < 1e-10
        assert row["valid_time"]["median"] == pytest.approx(STEPS * datasets[name].dt)


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_order_of_rows_is_the_order_of_knowledge(name: str, datasets: dict[str, Dataset]) -> None:
    entries = {**baseline_entries(datasets[name]), "rk4": oracle_entry("rk4", 1)}
    entries["euler"] = oracle_entry("euler", 1)
    rows = scored(datasets[name], entries)["rows"]
    first = {key: medians(row)[0] for key, row in rows.items()}
    assert first["rk4"] < first["euler"] < first["copy-last-state"]
    assert first["linear-fit"] < first["copy-last-state"]


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_the_truth_balances_its_power(name: str, datasets: dict[str, Dataset]) -> None:
    report = scored(datasets[name], {"coarse": oracle_entry("euler", 1)})
    assert report["true_power_residual"] < 1e-5
    assert report["rows"]["coarse"]["power_residual"] > 10 * report["true_power_residual"]


def test_diverging_never_flatters(datasets: dict[str, Dataset]) -> None:
    def broken(share: float) -> Entry:
        def answer(tasks: problems.Problems) -> np.ndarray:
            states = tasks.states[:, 1:].copy()
            states[: math.ceil(share * len(states)), 5:] = np.nan
            return states

        return Entry(answer)

    rows = scored(datasets["pendulum"], {"few": broken(0.1), "most": broken(0.9)})["rows"]
    assert rows["few"]["nmse"]["10"]["median"] == 0.0
    assert rows["few"]["nmse"]["10"]["finite"] == pytest.approx(0.9, abs=0.02)
    assert rows["most"]["nmse"]["1"]["finite"] == 1.0
    assert rows["most"]["nmse"]["10"]["median"] is None
    assert rows["most"]["valid_time"]["median"] == pytest.approx(5 * 0.05)


def test_angles_are_compared_the_short_way_round(datasets: dict[str, Dataset]) -> None:
    turned = Entry(lambda tasks: tasks.states[:, 1:] + [6 * math.pi, 0.0])
    assert max(medians(scored(datasets["pendulum"], {"turned": turned})["rows"]["turned"])) < 1e-20


def test_problems_stay_inside_episodes() -> None:
    lengths = np.array([7, 25, 25])
    states = np.arange(3 * 26 * 2, dtype=float).reshape(3, 26, 2)
    dataset: Any = SimpleNamespace(
        env_name="oscillator",
        env_kwargs={},
        dt=0.1,
        lengths=lengths,
        states=states,
        actions=np.ones((3, 25), np.int64),
        params={"mass": np.array([1.0, 2.0, 3.0])},
    )
    tasks = problems.from_dataset(dataset, 10)
    assert tasks.states.shape == (5, 11, 2), "one of the short episode, two of each long one"
    assert tasks.valid.sum(axis=1).tolist() == [7, 10, 10, 10, 10]
    np.testing.assert_array_equal(tasks.states[3], states[1, 10:21])
    assert tasks.params.mass.tolist() == [1.0, 2.0, 3.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="horizon 26 .* at most 25 steps"):
        problems.from_dataset(dataset, 26)


@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_step_lengths_share_time_starts_and_actions(
    name: str, datasets: dict[str, Dataset]
) -> None:
    dataset, dt = datasets[name], datasets[name].dt
    tasks = problems.from_dataset(dataset, STEPS)
    asked = [problems.at_step_length(tasks, factor * dt, 2 * dt, 16 * dt) for factor in (0.5, 1, 2)]
    ends = [some.states[:, -1] for some in asked]
    alive = asked[0].valid[:, -1] & asked[2].valid[:, -1]
    for other in ends[1:]:
        np.testing.assert_allclose(other[alive], ends[0][alive], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(asked[1].actions[:, ::2], asked[1].actions[:, 1::2])
    np.testing.assert_array_equal(asked[2].actions, asked[1].actions[:, ::2])


def test_step_lengths_say_what_cannot_be_asked(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["pendulum"]
    tasks = problems.from_dataset(dataset, STEPS)
    scale = scoring.scale_of(dataset)
    entries = {"any": oracle_entry(None, None), "one": oracle_entry(None, None)}
    entries["one"] = entries["one"]._replace(any_dt=False)
    study = scoring.over_step_lengths(entries, tasks, scale, (0.025, 0.05, 0.1))
    assert study["rows"]["one"]["0.025"] is None and study["rows"]["one"]["0.1"] is None
    assert study["rows"]["one"]["0.05"]["median"] < 1e-20
    assert all(cell["median"] < 1e-20 for cell in study["rows"]["any"].values())
    with pytest.raises(ValueError, match="no multiple"):
        scoring.over_step_lengths(entries, tasks, scale, (0.03, 0.05))


def test_oracles_follow_the_models() -> None:
    def like(**config: Any) -> Any:
        return SimpleNamespace(config=SimpleNamespace(**config))

    models = {
        "a": like(integrator="rk4", substeps=2),
        "b": like(integrator="rk4", substeps=2),
        "c": like(integrator="leapfrog", substeps=1),
        "d": like(),
    }
    assert list(oracles_of(models)) == ["oracle (rk4 x 2)", "oracle (leapfrog x 1)"]
    assert len(oracles_of({"d": models["d"]})) == 1


@pytest.fixture
def report(datasets: dict[str, Dataset]) -> dict[str, Any]:
    """A report with a perfect model, one that diverges, baselines, an oracle and step lengths."""
    dataset = datasets["pendulum"]
    spec = make_spec("pendulum", **dataset.env_kwargs)
    models = {"perfect": perfect(dataset), "lost": Still(spec, lambda z, count: z / 0.0)}
    for name, model in models.items():
        model.config = SimpleNamespace(name="jump" if name == "lost" else "newtonian")  # type: ignore[attr-defined]
    return evaluate(models, dataset, STEPS, dt_values=(0.025, 0.05))


def test_reports_are_json_tables_and_plots(report: dict[str, Any], tmp_path: Path) -> None:
    files = write_report(report, tmp_path / "new" / "folder")
    assert json.loads(files[0].read_text()) == report
    assert all(path.stat().st_size > 500 for path in files)
    assert {path.suffix for path in files} == {".json", ".md", ".png"}
    scores, lengths, sizes = comparison_of("states").tables(report)
    _, head, rows, brief = scores
    assert brief and not sizes.brief and sizes.rows[0][0] == "perfect"
    assert [row[0] for row in rows][:2] == ["perfect", "lost"]
    assert all(len(row) == len(head) for row in rows)
    assert rows[1][1].startswith("inf") and rows[1][-4] == "0 %"
    assert {"copy-last-state", "constant-velocity", "linear-fit"} < set(report["rows"])
    _, head, rows, _ = lengths
    assert dict(zip(head, rows[-2], strict=True))["dt 0.025 s"] == "n/a", "linear fit, other dt"


def test_the_horizon_fits_short_episodes(tmp_path: Path) -> None:
    config = CollectConfig(env="pendulum", name="short", episodes=30, steps=12)
    dataset = load_dataset(collect(config, tmp_path, progress=False))
    model = perfect(dataset)
    model.config = SimpleNamespace(name="jump")  # type: ignore[attr-defined]
    assert evaluate({"a": model}, dataset)["steps"] == 12
    with pytest.raises(ValueError, match="horizon 13 is beyond the episodes.*1 to 12"):
        evaluate({"a": model}, dataset, 13)


def test_a_model_of_another_env_is_refused(datasets: dict[str, Dataset]) -> None:
    model = perfect(datasets["pendulum"])
    model.config = SimpleNamespace(name="jump")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="'pendulum'.*'oscillator'"):
        evaluate({"a": model}, datasets["oscillator"])


def test_other_physics_is_named() -> None:
    plain, same = make_spec("pendulum"), make_spec("pendulum", params={"mass": 1.0})
    damped = make_spec("pendulum", params={"damping": 0.3})
    both = make_spec("pendulum", params={"damping": 0.3, "length": 0.9})
    with pytest.raises(ValueError, match=r"length is 1.0 .*; env.params.damping is .* 0.3 for b;"):
        check_shared({"a": plain, "b": both})
    check_shared({"a": plain, "b": same})
    with pytest.raises(ValueError, match=r"env.params.damping is .* for a, and 0.3 for b;.*--data"):
        check_shared({"a": plain, "b": damped})
    with pytest.raises(ValueError, match="env.randomize is {} for a"):
        check_shared({"a": plain, "b": make_spec("pendulum", randomize=True)})
    with pytest.raises(ValueError, match="env.dt is 0.05 for a, and 0.02 for b; comp"):
        check_shared({"a": plain, "b": make_spec("pendulum", dt=0.02)})
    assert mismatch({"a": plain, "b": same}, plain) == ""
    line = mismatch({"a": plain, "b": damped}, plain)
    assert "b with env.params.damping 0.3" in line and "\n" not in line and "a with" not in line
    assert describe(plain) == "discrete actions, dt 0.05 s, default parameters"
    assert describe(damped).endswith("damping 0.3")
    assert describe(make_spec("pendulum", randomize=True)).endswith("drawn in every episode")


def test_reports_say_what_they_are_of(report: dict[str, Any], tmp_path: Path) -> None:
    text = write_report(report, tmp_path)[1].read_text()
    assert header(report) in text and report["dataset"]["conditions"] in text
    assert report["dataset"]["path"] in header(report)
    for word in ("finite", "valid", "energy", "power", "oracle"):
        assert word in comparison_of("states").legend(report)


def test_a_structure_has_one_colour() -> None:
    rows = {
        "a s0": {"kind": "model", "model": "jump"},
        "b": {"kind": "model", "model": "lstm"},
        "a s1": {"kind": "model", "model": "jump"},
        "copy": {"kind": "baseline", "model": ""},
    }
    chosen = plots.styles(rows)
    assert chosen["a s0"]["color"] == chosen["a s1"]["color"] == plots.MODEL_COLORS["jump"]
    assert chosen["a s0"]["linestyle"] != chosen["a s1"]["linestyle"]
    assert len({style["color"] for style in chosen.values()}) == 3


def test_lines_on_one_another_are_all_seen() -> None:
    rows = {name: {"kind": "model", "model": name} for name in plots.MODEL_COLORS}
    drawn = plots.stacked(plots.styles(rows), rows)
    widths, orders, dashes = (
        [style[key] for style in drawn.values()] for key in ("linewidth", "zorder", "linestyle")
    )
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[1]
    assert orders == sorted(orders)
    assert dashes[0] == "-" and len(set(dashes)) == len(dashes)


def test_a_row_that_shows_no_line_says_why() -> None:
    cases = {0.0: "a: exact", 1e-20: "a: below 1e-16", 1e-3: "a", math.nan: "a: not finite"}
    assert [plots._label("a", np.full(3, value)) for value in cases] == list(cases.values())


def test_every_structure_has_its_own_colour() -> None:
    from worldmodels.configs.training import MODELS

    assert set(MODELS) <= set(plots.MODEL_COLORS)
    assert len(set(plots.MODEL_COLORS.values())) == len(plots.MODEL_COLORS)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", physgym.SYSTEMS)
def test_a_perfect_model_retells_a_recording(name: str, policy: str) -> None:
    recording = record(name, {}, policy, steps=15, seed=3)
    learned = predict(Perfect(make_spec(name)), recording)
    assert learned.shape == recording.states.shape
    np.testing.assert_allclose(learned, recording.states, rtol=1e-9, atol=1e-9)
    assert len(recording.actions) == len(recording.controls) == len(recording.rewards)


def test_recordings_of_continuous_envs_act_as_the_discrete_ones() -> None:
    discrete = record("spaceship", {}, "random", steps=10)
    continuous = record("spaceship", {"action_mode": "continuous"}, "random", steps=10)
    np.testing.assert_allclose(continuous.states, discrete.states, rtol=1e-6, atol=1e-6)
    assert continuous.actions.shape == (10, 2)


def test_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="'best'.*controller, random, zero"):
        baseline(physgym.get_system("pendulum"), "best", 0)


def test_a_planner_earns_more_than_chance_and_repeats() -> None:
    model = Perfect(make_spec("oscillator"))

    def played(policy: Any) -> Any:
        return record("oscillator", {}, policy, steps=60, seed=1)

    def planned() -> Any:
        planner = Planner(model, horizon=15, hold=3, samples=32, seed=4)
        return played(lambda states, params, step: planner(states))

    first, second = planned(), planned()
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.rewards.sum() > 1.5 * played("random").rewards.sum()


class Energetic(Perfect):
    """The true system, with an energy of its own scale and offset."""

    has_energy = True

    def energy(self, latent: Any) -> Any:
        params = self.system.Params(*latent.condition.double().numpy().T)
        return 3.0 - 2.0 * torch.from_numpy(self.system.energy(latent.z.numpy(), params))


def test_the_learned_energy_is_held_against_the_true_one(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["pendulum"]
    models: dict[str, Any] = {
        "knows": Energetic(make_spec("pendulum", **dataset.env_kwargs)),
        "has none": perfect(dataset),
    }
    for model in models.values():
        model.config = SimpleNamespace(name="jump")
    report = evaluate(models, dataset, STEPS)
    rows = report["rows"]
    assert rows["knows"]["energy_r_squared"] == pytest.approx(1.0, abs=1e-9)
    assert rows["has none"]["energy_r_squared"] is None
    table, *_ = comparison_of("states").tables(report)
    assert table.head[-1] == "R² of H"
    assert table.rows[0][-1].startswith(("1 - ", "1.000")) and table.rows[1][-1] == "n/a"
    assert share(1.0 - 2e-13) == "1 - 2.0e-13" and share(0.5) == "0.500"


def test_the_oracle_takes_no_integrator_that_its_system_cannot_have() -> None:
    suzuki = SimpleNamespace(config=SimpleNamespace(method="suzuki4", substeps=1))
    runge = SimpleNamespace(config=SimpleNamespace(integrator="rk4", substeps=2))
    serving = physgym.get_system("acrobot").integrators
    assert list(oracles_of({"a": suzuki}, serving)) == ["oracle (own integrator)"]
    assert list(oracles_of({"a": suzuki, "b": runge}, serving)) == ["oracle (rk4 x 2)"]
