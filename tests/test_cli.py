"""The command line: one parser, errors in one line, runs that reproduce and resume."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import gymnasium
import pytest
from conftest import hear_signals

import physgym
from worldmodels.commands import terminal as cli
from worldmodels.commands import train as train_command
from worldmodels.commands import training_arguments as train_script
from worldmodels.configs.training import MODELS, TrainConfig, default_config, to_dict
from worldmodels.data import dataset_for
from worldmodels.storage.checkpoint import CheckpointError, find_checkpoint
from worldmodels.storage.files import RunLock, StorageError
from worldmodels.storage.runs import RunError, RunFolder
from worldmodels.training import experiment
from worldmodels.training.tracking import read_metrics

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    p.stem for p in (ROOT / "scripts").glob("*.py") if p.stem not in ("cli", "__init__")
)
TINY = ("--data.episodes", 12, "--optim.steps-per-epoch", 3, "--optim.batch-size", 32)
TINY = (*TINY, "--model.hidden", 8, "--validation-steps", 20)
EPOCHS = 40
HEAVY = ("torch", "cv2", "scipy", "matplotlib", "h5py", "wandb", "stable_baselines3")


def parse(*argv: object) -> TrainConfig:
    """The training configuration a command line stands for."""
    return train_script.to_config(train_script.parse([str(word) for word in argv]))


# -- the parser -----------------------------------------------------------------------------------


def test_defaults_are_oscillator_and_jump():
    assert parse() == default_config("oscillator", "jump")


@pytest.mark.parametrize("env", physgym.SYSTEMS)
@pytest.mark.parametrize("model", MODELS)
def test_every_env_and_model_parses(env, model):
    config = parse("--model", model, "--env", env)
    assert config == default_config(env, model)
    assert type(config.model) is MODELS[model]


@pytest.mark.parametrize("spelling", ["pendulum", "PhysGym/Pendulum-v0", "--env=pendulum"])
def test_an_env_goes_by_name_or_id(spelling):
    argv = [spelling] if spelling.startswith("--") else ["--env", spelling]
    assert parse(*argv).env_name == "pendulum"


def test_options_stand_in_any_order():
    groups = [
        ("--env", "pendulum"),
        ("--model=port_hamiltonian",),
        ("--model.hidden", "96"),
        ("--model.no-damping",),
        ("--env.params", "mass", "2", "length", "0.5"),
        ("--optim.lr=5e-4",),
        ("--epochs", "80"),
        ("--log.wandb", "offline"),
    ]
    parsed = set()
    for seed in range(10):
        random.Random(seed).shuffle(groups)
        config = parse(*(word for group in groups for word in group))
        parsed.add(json.dumps(to_dict(config)))
    assert len(parsed) == 1
    assert (config.model.hidden, config.model.damping, config.optim.lr) == (96, False, 5e-4)
    assert config.env.params == {"mass": 2.0, "length": 0.5}


@pytest.mark.parametrize("model", MODELS)
def test_help_shows_the_options_of_the_named_model(model, capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help", "--env", "spaceship", "--model", model)
    assert end.value.code == 0
    shown = set(re.findall(r"--([a-z]+\.[a-z-]+)", capsys.readouterr().out))
    for part in ("env", "model", "optim", "data", "log"):
        options = to_dict(default_config("spaceship", model))[part]
        expected = {f"{part}.{name.replace('_', '-')}" for name in options}
        expected.discard("env.params")
        assert expected <= shown
    own = {f"model.{field.name}".replace("_", "-") for field in fields(MODELS[model])}
    assert {name for name in shown if name.startswith("model.") and ".no-" not in name} == own


def test_help_names_the_parameters_of_the_env(capsys):
    with pytest.raises(SystemExit):
        parse("--help", "--env", "pendulum")
    assert "torque_limit 3" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("model", MODELS)
def test_a_saved_config_comes_back(model, tmp_path):
    config = parse("--env", "spaceship", "--model", model, "--optim.lr", "1e-8", "--env.dt", "0.05")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert parse("--config", path) == config
    assert parse("--config", tmp_path) == config, "a folder stands for the config.json in it"
    changed = parse("--config", path, "--epochs", 7, "--model.hidden", 5)
    assert (changed.epochs, changed.model.hidden, changed.optim.lr) == (7, 5, 1e-8)


def test_another_name_resets_what_depends_on_it(tmp_path):
    """Another model: its options. Another env: its options, and the model's, whose defaults follow it."""
    argv = ("--env", "pendulum", "--env.params", "mass", 2, "--model.hidden", 5, "--optim.lr", 1e-4)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(parse(*argv))))
    other = parse("--config", path, "--model", "lstm")
    assert other.model == MODELS["lstm"]()
    assert (other.env.params, other.optim.lr) == ({"mass": 2.0}, 1e-4)
    other = parse("--config", path, "--env", "spaceship")
    assert (other.env.params, other.optim.lr) == (None, 1e-4)
    assert other.model == default_config("spaceship", "jump").model


# -- errors ---------------------------------------------------------------------------------------

WRONG = {
    "--env oscilator": "did you mean 'oscillator'",
    "--env Oscillator-v7": "oscillator, pendulum",
    "--model port_hamiltonain": "did you mean 'port_hamiltonian'",
    "--modle jump": "--model",
    "--model.hiden 3": "--model.hidden",
    "--model lstm --model.separable": "Unrecognized options: --model.separable",
    "--model.hidden 0": "model.hidden=0",
    "--model.hidden many": "--model.hidden",
    "--optim.lr nan": "optim.lr=nan",
    "--optim.lr -1": "optim.lr=-1",
    "--epochs 0": "epochs=0",
    "--seed -1": "seed=-1",
    "--env.dt 0": "env.dt=0",
    "--log.wandb cloud": "offline",
    "--model velocity --model.integrator leapfrog": "model.integrator='leapfrog'",
    "--model port_hamiltonian --model.mass network --model.integrator yoshida4": "one of auto, extended4",
    "--model port_hamiltonian --model.integrator extended4": "model.integrator='extended4'",
    "--model port_hamiltonian --model.mass network --model.no-separable": "leave one of them out",
    "--model port_hamiltonian --model.mass networks": "--model.mass",
    "--env pendulum --env.energy 0.6 0.1": "env.energy=(0.6, 0.1) is not valid",
    "--env pendulum --env.start energy": "env.start='energy' is not valid without env.energy",
    "--env three_body --env.energy 0.1 0.6": "three_body has no starts by energy",
    "--config": "--config",
    "--config missing.json": "cannot read the config 'missing.json'",
    "--resume missing": "no such run: missing",
    "--config a --resume b": "give one of them",
    "--resume a --out b": "--resume goes on in its own",
    "--env.start upp": "env.start='upp' is not valid: expected one of default",
    "--env.params mas 2": "did you mean 'mass'",
    "--env.params mass 2 --env.randomize": "draws it anew",
    "--dataset nowhere": "no dataset 'nowhere'",
    "--pretrained nowhere": "no checkpoint in nowhere",
    "--device gpu": "cuda:N or mps",
    "--resume .": "config.json",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_word_ends_with_two_and_says_why(arguments, run_script, tmp_path):
    done = run_script("train", *arguments.split())
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", done.stdout + done.stderr).split())
    assert done.returncode == 2, text
    assert "Traceback" not in text
    assert WRONG[arguments] in text
    assert not os.listdir(tmp_path), "it left files behind"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "config.json"),
        ("[]", "config.json"),
        ('{"optim": {"lrr": 1}}', "did you mean 'lr'"),
        ('{"model_name": "os:system"}', "os:system"),
        ('{"model_name": "jump", "model": {"_target_": "os.system"}}', "_target_"),
        ('{"epochs": "many"}', "epochs"),
        ('{"epochs": 1e999}', "config.json"),
        ('{"optim": {"lr": NaN}}', "NaN"),
        ('{"epochs": 1, "epochs": 2}', "twice"),
    ],
)
def test_a_bad_config_file_is_refused(text, reason, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(Exception, match=re.escape(reason)) as caught:
        parse("--config", path)
    assert cli.is_user_error(caught.value)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_helps_and_rejects_nonsense(script, run_script):
    done = run_script(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    done = run_script(script, "--nonsense")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script):
    """Help takes a quarter of a second because nothing behind it is loaded."""
    code = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / script)!r} + '.py', run_name='__main__')\n"
        f"except SystemExit: print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_its_packages_a_script_says_what_to_do(script, tmp_path):
    """Run by an interpreter that has none of them: a plain `python` outside the environment."""
    argv = [sys.executable, "-S", "-E", str(ROOT / "scripts" / f"{script}.py")]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: .*tyro not installed for .*activate .*\n", done.stderr)


def test_commands_are_named_as_they_can_be_run_from_here(tmp_path, monkeypatch):
    (tmp_path / ".venv").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "python"))
    monkeypatch.setattr(sys, "argv", ["physgym train"])
    assert cli.command("evaluate") == "physgym evaluate", "as it was begun"
    (tmp_path / "scripts").mkdir()
    for name in ("train", "train_agent"):
        (tmp_path / "scripts" / f"{name}.py").write_text("")
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert cli.command("agent").endswith("train_agent.py")
    assert cli.command("train") == os.path.join(".venv", "python scripts", "train.py")
    monkeypatch.setenv("PATH", str(tmp_path / ".venv"))
    for name in ("python", "python.exe"):
        (tmp_path / ".venv" / name).write_text("")
        (tmp_path / ".venv" / name).chmod(0o755)
    assert cli.command("train") == os.path.join("python scripts", "train.py")


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("folder").mkdir()
    for path, folder in (("new/x.gif", False), ("file", False), ("new", True), ("folder", True)):
        cli.check_writable(Path(path), folder)
    wrong = {("file/x.gif", False): "file is not a folder", ("folder", False): "folder/NAME"}
    for (path, folder), reason in {**wrong, ("file", True): "it is a file"}.items():
        with pytest.raises(cli.UsageError, match=f"cannot write to --out {path}: .*{reason}"):
            cli.check_writable(Path(path), folder)
    assert sorted(os.listdir()) == ["file", "folder"], "it made something"
    Path("run.json").write_text("{}")
    Path("link").symlink_to("folder")
    with pytest.raises(StorageError, match="link is a symbolic link"):
        cli.check_writable(Path("link"), folder=True, option="--pictures")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(cli.UsageError, match="permission denied"):
        cli.check_writable(Path("new"))


def test_help_is_quick():
    """Half a second; counted in processor time, and doubled, because other tests run beside."""
    resource = pytest.importorskip("resource")

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        began = spent()
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        seconds.append(spent() - began)
    assert min(seconds) < 1.0


class _Ours(RuntimeError):
    pass


_Ours.__module__ = "worldmodels.somewhere"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x=3 is not\nvalid"),
        FileNotFoundError(2, "No such file", "x"),
        KeyError("unknown system 'x'; did you mean 'y'?"),
        gymnasium.error.NameNotFound("no env x"),
        ModuleNotFoundError("No module named 'stable_baselines3'", name="stable_baselines3"),
        _Ours("broken"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_users_error_is_one_line(error, capsys, monkeypatch):
    monkeypatch.delenv("PHYSGYM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main_guard(lambda: _raise(error))
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert re.fullmatch(r"error: .+\n", shown)
    monkeypatch.setenv("PHYSGYM_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.main_guard(lambda: _raise(error))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        IndexError("out of range"),
        TypeError("no"),
        AttributeError("no"),
        ModuleNotFoundError("No module named 'worldmodels.x'", name="worldmodels.x"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.main_guard(lambda: _raise(error))


def test_statuses(capsys):
    for result, code in ((None, 0), (0, 0), (3, 3)):
        with pytest.raises(SystemExit) as end:
            cli.main_guard(lambda result=result: result)
        assert end.value.code == code
    with pytest.raises(SystemExit) as end:
        cli.main_guard(lambda: _raise(KeyboardInterrupt()))
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


def test_ctrl_c_that_python_wraps_is_ctrl_c(capsys):
    def define():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("Error calling __set_name__") from error

    with pytest.raises(SystemExit) as end:
        cli.main_guard(define)
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


def test_ctrl_c_while_packages_load_is_one_line():
    code = "import cli; raise KeyboardInterrupt"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "stopped\n"
    assert done.returncode in (130, -signal.SIGINT)


def _raise(error: BaseException) -> None:
    raise error


def test_a_table_aligns(capsys):
    cli.print_table("title", ["model", "error"], [["jump", 0.123456], ["floor", "n/a"]])
    shown = capsys.readouterr().out
    assert "0.123" in shown
    assert "0.1234" not in shown


# -- run folders ----------------------------------------------------------------------------------


def test_unnamed_runs_never_share_a_folder(tmp_path):
    config = to_dict(default_config())
    runs = [RunFolder.create(config, root=tmp_path) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    pattern = r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d/jump(-\d)?"
    assert all(re.fullmatch(pattern, str(run.path.relative_to(tmp_path))) for run in runs)


def test_a_run_is_never_overwritten(tmp_path):
    config = to_dict(default_config())
    run = RunFolder.create(config, tmp_path / "empty")
    with pytest.raises(RunError, match="--resume"):
        RunFolder.create(config, run.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        RunFolder.create(config, tmp_path / "file")


def test_run_json_says_where_a_run_came_from(tmp_path):
    run = RunFolder.create(
        to_dict(default_config()), tmp_path / "a b ü", ["train.py", "--seed", "1"]
    )
    run.finish("done", best=1.0)
    record = RunFolder.open(run.path).record
    assert record["argv"] == ["train.py", "--seed", "1"]
    assert record["versions"]["torch"]
    assert (record["status"], record["best"]) == ("done", 1.0)
    assert record["started"] <= record["ended"]
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", record["git_commit"])


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_what_is_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError):
        _ = RunFolder.open(tmp_path / "missing").config
    with pytest.raises(RunError):
        _ = RunFolder.open(tmp_path).config


# -- runs, as a user makes them -------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished tiny run in `run`, made by the command line."""
    folder = tmp_path_factory.mktemp("trained")
    done = _train(folder, *TINY, "--epochs", 4, "--out", "run", "--save-seconds", 0)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def uninterrupted(trained):
    """A longer run, long enough to be stopped in the middle."""
    done = _train(trained, "--config", "run", "--out", "whole", "--epochs", EPOCHS)
    assert done.returncode == 0, done.stderr
    return trained / "whole"


def _command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]


def _train(folder: Path, *arguments: object, **environment: str):
    return subprocess.run(
        _command(*arguments),
        cwd=folder,
        env={**os.environ, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _weights(run: Path) -> dict[str, bytes]:
    return {
        name: (run / "checkpoints" / name / "model.safetensors").read_bytes()
        for name in ("best", "last")
    }


def _same(one: Path, two: Path) -> None:
    assert _weights(one) == _weights(two)
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()


def test_a_run_leaves_its_folder(trained):
    run = trained / "run"
    assert {"config.json", "run.json", "metrics.jsonl", "checkpoints"} <= set(os.listdir(run))
    record = RunFolder.open(run).record
    assert record["status"] == "done"
    assert [row["epoch"] for row in read_metrics(run)] == [1, 2, 3, 4]
    assert all(row["train/loss"] > 0 and row["eval/nmse"] > 0 for row in read_metrics(run))
    config = RunFolder.open(run).config
    assert (config["epochs"], config["out"]) == (4, None)


def test_a_config_reproduces_its_run_bit_for_bit(trained):
    done = _train(trained, "--config", "run/config.json", "--out", "again")
    assert done.returncode == 0, done.stderr
    _same(trained / "run", trained / "again")


def test_wandb_changes_no_number(trained):
    done = _train(trained, "--config", "run", "--out", "logged", "--log.wandb", "offline")
    assert done.returncode == 0, done.stderr
    _same(trained / "run", trained / "logged")
    assert list((trained / "logged").glob("wandb/offline-run-*/*.wandb"))
    assert f"wandb leet {Path('logged', 'wandb')}\n" in done.stdout
    assert RunFolder.open(trained / "logged").record["wandb_id"]


def test_a_finished_run_resumes_to_nothing(trained):
    before = _weights(trained / "run")
    for epochs, said in ((4, "already has 4 of 4 epochs"), (2, "already has 4 epochs")):
        done = _train(trained, "--resume", "run", "--epochs", epochs)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert "give --epochs above 4" in done.stdout
    assert _weights(trained / "run") == before
    assert len(read_metrics(trained / "run")) == 4


@pytest.mark.parametrize(
    "change",
    [
        ("--seed", 3),
        ("--model.hidden", 9),
        ("--model", "lstm"),
        ("--env", "pendulum"),
        ("--optim.lr", 1),
    ],
    ids=lambda change: change[0],
)
def test_a_resumed_run_keeps_its_configuration(trained, change):
    run = RunFolder.open(trained / "run")
    with pytest.raises(RunError, match=r"keeps its configuration, but \w+ differs: .*was"):
        experiment.reopen(run, parse("--resume", run.path, *change))


def test_what_a_resumed_run_may_change(trained):
    run = RunFolder.open(trained / "run")
    changed = parse("--resume", run.path, "--epochs", 9, "--log.wandb", "offline")
    assert experiment.reopen(run, changed) == changed
    assert experiment.reopen(run).epochs == 4
    renamed = experiment.reopen(run, parse("--resume", run.path, "--dataset", "another name"))
    assert renamed.dataset == "another name"  # whose content must then be that of the run's own


@pytest.mark.parametrize(
    ("device", "reason"),
    [("tpu", "expected auto, cpu"), ("", "expected"), ("cuda:99", "CUDA devices")],
)
def test_a_device_that_is_not_there(tmp_path, device, reason):
    with pytest.raises((RunError, cli.UsageError), match=reason):
        experiment.start(parse("--device", device, "--out", tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_run_has_one_writer(trained):
    with RunLock(trained / "run"):
        done = _train(trained, "--resume", "run", "--epochs", 5)
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr
    assert RunFolder.open(trained / "run").record["status"] == "done"


def test_a_split_that_is_empty_is_said(trained, capsys):
    dataset = dataset_for(parse("--config", trained / "run"), trained / "datasets", progress=False)
    train_command._warn_of_empty_splits(dataset)
    assert not capsys.readouterr().err
    train_command._warn_of_empty_splits(replace(dataset, splits={"train": dataset.splits["train"]}))
    assert "no val and no test episodes" in capsys.readouterr().err


def test_runs_are_found_by_who_looks_for_one(trained, monkeypatch):
    (trained / "a.txt").write_text("")
    wrong = {".": r"holds the runs .*\brun\b.*: name one", "a.txt": "is a file", "rum": "mean run"}
    monkeypatch.chdir(trained)
    for name, said in wrong.items():
        with pytest.raises(CheckpointError, match=said):
            find_checkpoint(name)


def test_another_dataset_is_not_resumed_on(trained, tmp_path):
    run = RunFolder.create(RunFolder.open(trained / "run").config, tmp_path / "run")
    run.update(dataset={"path": "x", "sha256": "0" * 64})
    config = experiment.reopen(run)
    dataset = dataset_for(config, trained / "datasets", progress=False)
    with pytest.raises(RunError, match="not the one this run began with"):
        experiment.train(config, dataset, run, resume=True, progress=False)


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name
)
def test_a_stopped_run_resumes_bit_for_bit(trained, uninterrupted, sent):
    name = f"stopped-{sent.name}"
    process = subprocess.Popen(
        _command("--config", "run", "--out", name, "--epochs", EPOCHS),
        cwd=trained,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    )
    try:
        _wait_for(lambda: len(read_metrics(trained / name)) >= 2, process)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent]
    assert process.returncode == expected, stderr
    assert len(read_metrics(trained / name)) < EPOCHS, "too fast to be stopped"
    resumed = _train(trained, "--resume", name)
    assert resumed.returncode == 0, resumed.stderr
    _same(trained / name, uninterrupted)


def _wait_for(condition, process: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_an_evaluation_is_written_first_shown_last_and_apart(trained, tmp_path):
    """From another folder, named by a checkpoint, into the run's own folder, for a reader that left."""
    run, script = trained / "run", ROOT / "scripts" / "evaluate.py"
    before = (run / "metrics.jsonl").read_bytes()
    options = f"--problems 4 --horizon 5 --out {run}"
    line = f"{sys.executable} {script} {run / 'checkpoints' / 'best'} {options} | true"
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"report.json", "report.md", "error_over_horizon.png"} <= set(os.listdir(run))
    assert (run / "metrics.jsonl").read_bytes() == before
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("argument", ["--out=taken", "--device=tpu", "--pretrained=nothing"])
def test_what_cannot_be_is_said_before_anything_is_collected(argument, run_script, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("")
    done = run_script("train", argument)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*(not empty|tpu|nothing).*\n", done.stderr)
    assert os.listdir(tmp_path) == ["taken"]


# -- options of the other commands -----------------------------------------------------------------

USELESS = {
    "collect --image-size 32": "add --pixels",
    "collect --params mass 2 --randomize": "params.mass=2.0",
    "collect --env pendulun": "did you mean 'pendulum'",
    "demo --epochs 0": "epochs=0",
    "demo --agents 0": "--agents 0",
    "demo --env pendulun": "did you mean 'pendulum'",
    "evaluate missing": "no checkpoint in missing",
    "evaluate a/checkpoints/best --checkpoint last": "is a checkpoint itself",
    "visualize --env pendulun --out a.gif": "did you mean 'pendulum'",
    "visualize --env pendulum --seed -1 --out a.gif": "--seed -1",
    "visualize --run a --pictures p --speed 2": "--speed 2.0 is of a film",
    "visualize --run a --pictures p --policy zero": "--policy zero is of a film",
    "train_agent --env pendulum --compare": "name its --run",
    "train_agent --env pendulum --seed -1": "--seed -1",
    "train_agent --env pendulun": "did you mean 'pendulum'",
    "train_agent --env pendulum --device gpu": "device='gpu' is not valid: expected auto, cpu",
    "train_agent --env pendulum --device cuda:99": "use --device cpu",
    "train_agent --env pendulum --stack 3": "stack=3 is not valid: expected 1",
    "train_agent --env pendulum --stack 0": "stack=0 is not valid: expected 1",
    "train_agent --run missing": "no checkpoint in missing",
}


@pytest.mark.parametrize("line", USELESS)
def test_what_a_command_would_not_obey_is_refused_in_one_line(line, run_script, tmp_path):
    done = run_script(*line.split())
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert USELESS[line] in done.stderr
    assert not os.listdir(tmp_path), "it left files behind"


def test_another_dataset_or_env_forgets_how_the_last_one_was_collected(tmp_path):
    config = replace(default_config("pendulum", "jump"), dataset="b")
    config = replace(config, data=replace(config.data, episodes=12))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert parse("--config", path).data.episodes == 12
    other = parse("--config", path, "--dataset", "c")
    assert (other.dataset, other.data.episodes) == ("c", 1000)
    other = parse("--config", path, "--env", "spaceship")
    assert (other.dataset, other.data.episodes) == (None, 1000)


def test_the_options_that_were_asked_for_are_known_by_field():
    words = ["--data.image-size", "32", "--env.no-randomize", "--data.episodes=3", "--epochs", "2"]
    assert train_script.asked(words) == {"data.image_size", "env.randomize", "data.episodes"}
