"""`physgym`: one command of many verbs; sweeps and reports by the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import physgym
from worldmodels.commands import MODULES, VERBS, report, sweep, terminal, train
from worldmodels.configs.training import KINDS, PREDICTORS

ROOT = Path(__file__).parent.parent
TINY = ("epochs=1", "optim.steps_per_epoch=3", "optim.batch_size=16", "data.episodes=12")


def command(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m physgym ...` as a user runs it, outside the clone."""
    return subprocess.run(
        [sys.executable, "-m", "physgym", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two structures and two seeds, one cell of which cannot be."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "s" / "lstm-s1").mkdir(parents=True)
    (folder / "s" / "lstm-s1" / "mine").write_text("not a run")
    done = command(
        folder, "sweep", "--env", "PhysGym/Pendulum-v0", "--models", "jump", "lstm",
        "--seeds", 0, 1, "--set", *TINY, "--out", "s", "--workers", 2,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "lstm-s1: failed: " in done.stdout and "is not empty" in done.stdout
    assert "1 of 4 cells failed" in done.stdout and "report  s/report/report.html" in done.stdout
    return folder


def test_every_verb_has_a_module_and_a_line_of_help(tmp_path: Path) -> None:
    files = {path.stem for path in (ROOT / "worldmodels/commands").glob("[a-z]*.py")}
    assert {MODULES.get(verb, verb) for verb in VERBS} <= files
    shown = command(tmp_path, "--help")
    assert shown.returncode == 0 and all(f"  {verb} " in shown.stdout for verb in VERBS)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert command(tmp_path, "--version").stdout.strip() == physgym.__version__
    wrong = command(tmp_path, "trian")
    assert wrong.returncode == 2 and "did you mean 'train'" in wrong.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_eighty_columns(verb: str, tmp_path: Path) -> None:
    shown = command(tmp_path, verb, "--help", COLUMNS="80")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80, shown.stdout


def test_what_is_there_is_listed(swept: Path) -> None:
    done = command(swept, "list", "--outputs", swept)
    assert done.returncode == 0, done.stderr
    for word in (*physgym.SYSTEMS, *KINDS, *PREDICTORS, "force_limit", "pendulum/auto-"):
        assert word in done.stdout
    assert "12 episodes" in done.stdout
    assert "  s/jump-s0 " in done.stdout, "runs of any depth, as --out puts them"
    titles = [line for line in done.stdout.splitlines() if "state variables" in line]
    assert len(titles) == len(physgym.SYSTEMS) and all(" dt " in line for line in titles)


def test_a_sweep_goes_on_where_it_was(swept: Path) -> None:
    before = (swept / "s/jump-s0/run.json").read_bytes()
    (swept / "s/lstm-s1/mine").unlink()
    done = command(
        swept, "sweep", "--env", "pendulum", "--models", "jump", "lstm", "--seeds", 0, 1,
        "--set", *TINY, "--out", "s", "--no-report",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped") >= 3 and "lstm-s1: done" in done.stdout
    assert (swept / "s/jump-s0/run.json").read_bytes() == before


def test_a_report_groups_runs_by_what_they_share(swept: Path) -> None:
    plan = json.loads((swept / "s/sweep.json").read_text())
    plan["cells"] = dict(sorted(plan["cells"].items(), reverse=True))
    (swept / "s/sweep.json").write_text(json.dumps(plan))
    done = command(swept, "report", "s", "--horizon", 20, "--problems", 8)
    assert done.returncode == 0, done.stderr
    found = json.loads((swept / "s/report/report.json").read_text())
    assert [name for name, row in found["rows"].items() if row["kind"] == "model"] == [
        "lstm",
        "jump",
    ], "in the order of the sweep"
    assert found["rows"]["jump"]["runs"] == 2
    single = command(
        swept, "report", "s/jump-s0", "s/jump-s1", "--per-run", "--horizon", 20, "--out", "r"
    )
    assert single.returncode == 0, single.stderr
    assert {"jump-s0", "jump-s1"} < set(json.loads((swept / "r/report.json").read_text())["rows"])
    assert {path.name for path in (swept / "r").iterdir()} >= {
        "report.html",
        "report.tex",
        "report.csv",
    }


def test_runs_and_buffers_are_inspected(swept: Path) -> None:
    run = command(swept, "inspect", "s/jump-s0/", "--config")
    assert run.returncode == 0 and "checkpoint best" in run.stdout and "optim.lr = " in run.stdout
    (buffer,) = (swept / "datasets/pendulum").iterdir()
    sound = command(swept, "inspect", buffer)
    assert sound.returncode == 0 and "every hash holds" in sound.stdout
    shard = next(buffer.glob("*.h5"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    damaged = command(swept, "inspect", buffer)
    shard.write_bytes(whole)
    assert damaged.returncode == 1 and "damaged: " in damaged.stdout
    assert command(swept, "inspect", "nothing").returncode == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"models": ("jump",), "predictors": ("flat_jump",)}, "one of the two"),
        ({"models": ("jump", "jump")}, "jump stands there twice"),
        ({"models": ("visual",)}, "swept by its predictors"),
        ({"models": ("jmp",)}, "did you mean 'jump'"),
        ({"predictors": ("flat_jmp",)}, "did you mean 'flat_jump'"),
        ({"models": ("jump",), "set": ("epochs",)}, "expected name=value"),
        ({"models": ("jump",), "slurm": ("timeout_min=3",)}, "no effect without --launcher slurm"),
        ({"models": ("jump",), "ray_address": "auto"}, "no effect without --launcher ray"),
        ({"models": ("jump",), "launcher": "slurm", "slurm": ("a",)}, "--slurm a is not valid"),
        ({"models": ("jump",), "set": ("epochs=1", "epochs=2")}, "stands there twice"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_made(
    words: dict[str, object], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=told):
        sweep.prepare(sweep.SweepConfig(**words))  # type: ignore[arg-type]
    assert not os.listdir()


def test_the_last_run_is_found_wherever_it_was_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, started in (
        ("2026-01-01/10-00-00/jump", "2026-01-01T10"),
        ("mine/jump-s0", "2026-01-02T10"),
        ("mine", "2026-01-01T12"),
        ("damaged", "["),
    ):
        run = Path("outputs", name)
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text("{}")
        (run / "run.json").write_text(json.dumps({"started": started}) if started != "[" else "[")
    assert report._resolved("last") == Path("outputs/mine/jump-s0")
    Path("outputs/mine/sweep.json").write_text("{}")
    assert report._resolved("last") == Path("outputs/mine"), "a sweep is more than its cell"
    shutil.rmtree("outputs/mine")
    assert report._resolved("last") == Path("outputs/2026-01-01/10-00-00")


def test_the_same_command_goes_on_with_a_sweep_that_is_not_done(
    tmp_path: Path,
) -> None:
    """Without --out: the dated folder of the last such sweep, and a new one where all of it is done."""
    words = ("sweep", "--models", "jump", "--seeds", 0, 1, "--set", *TINY, "--no-report")
    first = command(tmp_path, *words)
    assert first.returncode == 0, first.stderr
    (sweep_folder,) = (path.parent for path in tmp_path.glob("outputs/*/*/sweep.json"))
    shutil.rmtree(sweep_folder / "jump-s1")
    again = command(tmp_path, *words)
    assert again.returncode == 0 and "1 of them done" in again.stdout, again.stderr
    assert "going on with outputs/" in again.stdout and "jump-s1: done" in again.stdout
    assert len(list(tmp_path.glob("outputs/*/*/sweep.json"))) == 1
    new = command(tmp_path, *words)
    assert new.returncode == 0 and "going on" not in new.stdout
    assert len(list(tmp_path.glob("outputs/*/*/sweep.json"))) == 2


def test_a_report_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, told in (
        ("last", "there is no run under outputs"),
        ("nothing", "no folder 'nothing'"),
    ):
        with pytest.raises(terminal.UsageError, match=told):
            report.runs_of([path])
    Path("empty").mkdir()
    with pytest.raises(terminal.UsageError, match="holds no run"):
        report.runs_of(["empty"])


@pytest.mark.parametrize(
    ("best", "copying", "told"),
    [
        (0.5, 1.2, ""),
        (1.1, 1.2, "no better than the mean"),
        (1.3, 1.2, "no better than copying"),
        (0.9, 0.8, "no better than copying"),
    ],
)
def test_a_model_no_better_than_a_baseline_says_so(
    best: float, copying: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"best_epoch": 1, "best_nmse": best, "copy_nmse": copying}
    train._report(Path("run"), result, 1.0)
    out, err = capsys.readouterr()
    assert f"(copying {copying:.3g}, the mean 1)" in out
    assert (told in err) if told else not err
    line = sweep._line("a", {"status": "done", "best_nmse": best, "seconds": 1.0}, "the mean")
    assert ("no better than the mean" in line) == (best >= 1.0)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--env", "pendulum", "--epochs", 2, "--epochs", 3),
        ("train", "--env", "pendulum", "--env", "spaceship"),
        ("sweep", "--models", "jump", "--seeds", 0, "--seeds=1"),
        ("list", "--outputs", "a", "--outputs", "b"),
    ],
)
def test_two_values_for_one_option_are_a_line(words: tuple[object, ...], tmp_path: Path) -> None:
    done = command(tmp_path, *words)
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(r"error: --(epochs|env|seeds|outputs) stands there twice.*\n", done.stderr)
    assert not list(tmp_path.iterdir())


def test_cells_of_different_buffers_are_trained_and_not_reported_on_as_one(tmp_path: Path) -> None:
    settings = (*TINY[:3], "data.episodes=12,14")
    done = command(
        tmp_path, "sweep", "--models", "jump", "--seeds", 0, "--set", *settings, "--out", "s"
    )
    assert done.returncode == 0, done.stderr
    assert "no report: the cells learned from 2 buffers" in done.stdout
    assert len(list((tmp_path / "datasets/pendulum").iterdir())) == 2
    assert not (tmp_path / "s/report").exists()
    (buffer, _) = sorted((tmp_path / "datasets/pendulum").iterdir())
    asked = command(tmp_path, "report", "s", "--dataset", buffer, "--horizon", 10)
    assert asked.returncode == 0 and "jump-episodes14" in asked.stdout, asked.stderr


def test_a_narrow_terminal_gets_medians_without_quartiles(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(swept)
    config = report.ReportConfig(paths=("s",), horizon=20, problems=4, out=tmp_path / "r")
    for width in (80, 160):
        monkeypatch.setattr(terminal, "width", lambda width=width: width)
        report.write(config)
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines()[:-1])) <= width
        assert (", " in shown.partition("copy-last-state")[2].splitlines()[1]) == (width == 160)
