"""Collecting: the command, what kills it, who may write, and how fast it is."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import hear_signals

from worldmodels.data import CollectConfig, DatasetError, collect, load_dataset, store
from worldmodels.data.progress import Progress
from worldmodels.data.workers import run_jobs
from worldmodels.storage import files as storage

ROOT = Path(__file__).parents[1]
CONFIG = CollectConfig(
    env="pendulum", name="d", episodes=60, steps=20, policy="mixed", randomize=True,
    shard_episodes=3,
)  # fmt: skip
OPTIONS = (
    *("--env", "pendulum", "--name", "d", "--episodes", "60", "--steps", "20"),
    *("--policy", "mixed", "--randomize", "--shard-episodes", "3"),
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child to kill")
Script = Callable[..., "subprocess.CompletedProcess[str]"]


def content(root: Path) -> dict[str, bytes]:
    """Bytes of every file of the dataset under `root`, but its lock."""
    folder = root / "pendulum" / "d"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def listed(root: Path) -> int:
    """Shards that dataset.json lists, each of which must load."""
    folder = root / "pendulum" / "d"
    if not (folder / "dataset.json").exists():
        return 0
    shards = storage.read_sealed(folder / "dataset.json")["shards"]
    if shards:
        assert len(load_dataset(folder, partial=True)) == 3 * len(shards)
    return len(shards)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted collection writes."""
    root = tmp_path_factory.mktemp("whole")
    collect(CONFIG, root, progress=False)
    return content(root)


def fork(work: Callable[[], object]) -> int:
    """Start `work` in a forked child and return its process id; it exits with 0, or 99."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(99)
    return child


def status(child: int) -> int:
    """How a child ended: its exit status, or minus a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# D1, D2: death and a full disk


@needs_fork
@pytest.mark.parametrize("repeats", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    tmp_path: Path, whole: dict[str, bytes], repeats: int
) -> None:
    delays = random.Random(1)
    kept = 0
    for _ in range(repeats):
        child = fork(lambda: collect(CONFIG, tmp_path, progress=False))
        time.sleep(delays.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before, kept = kept, listed(tmp_path)
        assert kept >= before
    collect(CONFIG, tmp_path, progress=False)
    assert content(tmp_path) == whole


@needs_fork
def test_a_crash_before_each_file_operation_loses_one_shard_at_most(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    for call in range(1, 12):
        root = tmp_path / str(call)

        def crash(call: int = call, root: Path = root) -> None:
            count = 0

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def wrapped(*args: Any, **kwargs: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == call:
                        os._exit(7)
                    return real(*args, **kwargs)

                return wrapped

            for name in ("fsync", "replace"):
                setattr(os, name, counted(getattr(os, name)))
            collect(CONFIG, root, progress=False)

        assert status(fork(crash)) == 7
        # A header, then a shard and a header for each: write, fsync, replace, fsync the folder.
        assert listed(root) >= (call - 3) // 6 - 1
        if call % 4 == 0:
            collect(CONFIG, root, progress=False)
            assert content(root) == whole


@needs_fork
def test_a_full_disk_stops_it_and_keeps_what_is_there(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    largest = max(len(raw) for name, raw in whole.items() if name.endswith(".h5"))

    def fill() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        for limit, kept in ((largest - 1, 0), (len(whole["dataset.json"]) - 500, None)):
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (min(limit, hard) if hard > 0 else limit, hard)
            )
            with pytest.raises(DatasetError, match="make room and run the same command again"):
                collect(CONFIG, tmp_path, progress=False)
            assert kept is None or listed(tmp_path) == kept
            assert not list((tmp_path / "pendulum" / "d").glob(".tmp-*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        collect(CONFIG, tmp_path, progress=False)

    assert status(fork(fill)) == 0
    assert content(tmp_path) == whole


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(storage.StorageError, match="choose another"):
        collect(CONFIG, tmp_path / "file", progress=False)


# D6, D8: several processes


def test_two_workers_write_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    collect(CONFIG, tmp_path, workers=2, progress=False)
    assert content(tmp_path) == whole


def test_an_env_id_is_the_same_as_a_name(tmp_path: Path, whole: dict[str, bytes]) -> None:
    collect(replace(CONFIG, env="PhysGym/Pendulum-v0"), tmp_path, progress=False)
    assert content(tmp_path) == whole


def test_other_versions_are_told(tmp_path: Path) -> None:
    folder = collect(CONFIG, tmp_path, progress=False)
    header = store.read_header(folder)
    store.write_header(folder, {**header, "versions": {**header["versions"], "numpy": "1.0"}})
    with pytest.warns(UserWarning, match=r"'numpy': '1.0'.*last digits"):
        collect(CONFIG, tmp_path, progress=False)


@needs_fork
def test_a_second_collector_is_told_who_holds_the_dataset(tmp_path: Path) -> None:
    with storage.RunLock(tmp_path / "pendulum" / "d"):
        with pytest.raises(storage.LockedError, match=f"process {os.getpid()}"):
            collect(CONFIG, tmp_path, progress=False)
        assert status(fork(lambda: collect(CONFIG, tmp_path, progress=False))) == 99
    collect(CONFIG, tmp_path, progress=False)


def killed(number: int, tick: Callable[[float], object]) -> int:
    """A job whose worker dies."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def failing(number: int, tick: Callable[[float], object]) -> int:
    """A job that fails."""
    raise DatasetError(f"job {number}")


def test_a_dying_or_failing_worker_is_named() -> None:
    with pytest.raises(DatasetError, match="a worker was killed"):
        list(run_jobs(killed, [(1,), (2,)], 2, bool))
    with pytest.raises(DatasetError, match="job 1"):
        list(run_jobs(failing, [(1,)], 1, bool))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    many = ["--episodes", "100000", "--name", marker, "--shard-episodes", "50", "--workers", "2"]
    command = [sys.executable, str(ROOT / "scripts" / "collect.py"), "--env", "pendulum", *many]
    environment = {**os.environ, "PHYSGYM_TEST_MARKER": marker}
    parent = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    folder = tmp_path / "datasets" / "pendulum" / marker
    wait_for(lambda: any(folder.glob("shard-*.h5")))
    assert len(alive(marker)) >= 3
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(marker))


def alive(marker: str) -> list[int]:
    """Processes that have `marker` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


# The command


def test_the_command_collects_goes_on_and_refuses(
    run_script: Script, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    done = run_script("collect", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("datasets/pendulum/d: 60 episodes of up to 20 steps")
    assert content(tmp_path / "datasets") == whole
    assert run_script("collect", *OPTIONS).returncode == 0
    for options, words in (
        (["--episodes", "61"], ["episodes=60", "61", "--name"]),
        (["--env", "pendulun"], ["did you mean 'pendulum'"]),
        (["--params", "mas", "2"], ["mas", "mass"]),
    ):
        words_before = list(OPTIONS)
        if options[0] in words_before:  # each option once
            at = words_before.index(options[0])
            del words_before[at : at + 2]
        failed = run_script("collect", *words_before, *options)
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1
        assert failed.stderr.startswith("error: ")
        assert all(word in failed.stderr for word in words), failed.stderr
    assert content(tmp_path / "datasets") == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"randomize": False}, "randomize=True, not False"),
        ({"seed": 3}, "seed=0, not 3"),
        ({"env": "PhysGym/Pendulom-v0"}, "unknown system"),
        ({"name": "n", "randomize": False, "params": {"mass": -1.0}}, "mass=-1.0.* more than 0"),
        ({"name": "n", "integrator": "rk5"}, "'rk5'.*rk4"),
        ({"name": "n", "start": "up"}, "'up'"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    root = tmp_path
    collect(replace(CONFIG, episodes=3), root, progress=False)
    before = sorted(root.rglob("*"))
    with pytest.raises((DatasetError, ValueError), match=words):
        collect(replace(CONFIG, **{"episodes": 3, **change}), root, progress=False)
    assert sorted(root.rglob("*")) == before
    with pytest.raises(ValueError, match="workers=0"):
        collect(CONFIG, root, workers=0)


def test_repair_reports_what_it_drops(
    run_script: Script, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    collect(CONFIG, tmp_path / "datasets", progress=False)
    path = tmp_path / "datasets" / "pendulum" / "d" / "shard-00004.h5"
    path.write_bytes(b"?" * path.stat().st_size)
    failed = run_script("collect", *OPTIONS)
    assert failed.returncode == 2
    assert "shard-00004" in failed.stderr
    assert "--repair" in failed.stderr
    mended = run_script("collect", *OPTIONS, "--repair")
    assert mended.returncode == 0
    assert "dropped shard-00004.h5, episodes 12 to 14" in mended.stdout
    assert {k: v for k, v in content(tmp_path / "datasets").items() if k in whole} == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_it_says_so_and_goes_on(tmp_path: Path, workers: int) -> None:
    many = ["--episodes", "20000", "--shard-episodes", "50", "--workers", str(workers)]
    command = [sys.executable, str(ROOT / "scripts" / "collect.py"), "--env", "pendulum", *many]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )
    wait_for(lambda: (tmp_path / "datasets/pendulum/default/shard-00002.h5").exists())
    os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C does: the whole group
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert len(load_dataset("pendulum/default", tmp_path / "datasets", partial=True)) % 50 == 0


def test_help_is_quick_and_imports_little() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "sys.argv = ['collect.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'scripts' / 'collect.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'wandb', 'h5py', 'cv2', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "    print(heavy or 'nothing heavy')\n"
        "    sys.exit(end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nothing heavy" in done.stdout
    assert "--shard-episodes" in done.stdout


def test_a_thousand_episodes_take_under_two_seconds(tmp_path: Path) -> None:
    start = time.process_time()
    config = CollectConfig(env="pendulum", episodes=1000, steps=100)
    collect(config, tmp_path, progress=False)
    assert time.process_time() - start < 2.0


# Progress


def test_progress_is_silent_at_first_then_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("collecting", 100) as bar:
        bar.reach(10)
        assert capsys.readouterr().err == ""
        now[0] += 1.1
        bar.part(20.5)
        assert capsys.readouterr().err == "collecting: 30/100, about 4 s left\n"
        bar.part(30)
        assert capsys.readouterr().err == ""
        now[0] += 11
        bar.reach(60)
        assert capsys.readouterr().err == "collecting: 60/100, about 10 s left\n"
    with Progress("hidden", 100, shown=False) as bar:
        now[0] += 100
        bar.reach(10)
    assert capsys.readouterr().err == ""


def test_stages_before_the_work_are_shown_and_do_not_slow_its_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("worldmodels.data.progress.time", clock)
    with Progress("training, epoch", 10) as bar:
        for second in range(0, 100, 10):
            now[0] = float(second)
            bar.reach(0.0, f"reading {second} %")
        now[0] = 101.0
        bar.reach(1.0, "loss 1")
        now[0] = 112.0
        bar.reach(2.0, "loss 1")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training, epoch: 0/10; reading 10 %"
    assert lines[-1] == "training, epoch: 2/10, about 88 s left; loss 1"
