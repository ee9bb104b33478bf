"""Checkpoints and the files under them: what a crash, a bad disk or a bad file can do to them."""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import os
import pickle
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodels import storage
from worldmodels.checkpoint import (
    CheckpointError,
    LockedError,
    RunLock,
    atomic_write,
    find_checkpoint,
    load,
    load_checkpoint,
    resume_checkpoint,
    save_checkpoint,
)
from worldmodels.config import NewtonianConfig, to_dict
from worldmodels.interface import Spec
from worldmodels.state import build

ROOT = Path(__file__).parents[1]
CONFIG = {"spec": {"env_name": "pendulum"}, "model_name": "jump", "model": {"hidden": 8}}
FILES = ("config.json", "model.safetensors", "train_state.pt")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child to kill")


def tensors(seed: int, size: int = 50) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"net.weight": torch.randn(size, 20, generator=generator), "net.bias": torch.ones(3)}


def state(step: int) -> dict[str, Any]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()
    rng = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.default_rng(step).bit_generator.state,
        "python": random.Random(step).getstate(),
    }
    return {"optimizer": optimizer, "scheduler": {}, "epoch": 1, "step": step, "rng": rng}


def save(folder: Path, step: int, size: int = 50) -> None:
    save_checkpoint(folder, CONFIG, tensors(step, size), state(step), {"step": step})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of step 2 that keeps the one of step 1."""
    path = tmp_path / "run" / "checkpoints" / "last"
    save(path, 1)
    save(path, 2)
    return path


def step_of(folder: Path) -> int:
    """Step of what loads, having checked that its weights are of the same step."""
    _, loaded, meta, train_state = resume_checkpoint(folder)
    size = len(loaded["net.weight"])
    assert torch.equal(loaded["net.weight"], tensors(meta["step"], size)["net.weight"])
    assert train_state["step"] == meta["step"]
    return meta["step"]


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child: its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Round trips


def test_everything_comes_back_equal(folder: Path) -> None:
    config, loaded, meta, train_state = resume_checkpoint(folder)
    assert config == CONFIG
    assert meta == {"step": 2}
    assert loaded.keys() == tensors(2).keys()
    assert all(torch.equal(value, tensors(2)[name]) for name, value in loaded.items())
    again = np.random.default_rng(0)
    again.bit_generator.state = train_state["rng"]["numpy"]
    assert again.random() == np.random.default_rng(2).random()
    restored = random.Random()
    restored.setstate(train_state["rng"]["python"])
    assert restored.random() == random.Random(2).random()


def test_meta_is_made_plain_and_config_must_be(tmp_path: Path) -> None:
    meta = {"metrics": {"a": float("nan"), "b": np.float32(0.5), "c": torch.tensor(2)}, "t": (1, 2)}
    save_checkpoint(tmp_path / "c", CONFIG, tensors(0), None, meta)
    assert load_checkpoint(tmp_path / "c")[2] == {
        "metrics": {"a": None, "b": 0.5, "c": 2},
        "t": [1, 2],
    }
    for bad in ({**CONFIG, "model": {"lr": float("nan")}}, {**CONFIG, "extra": 1}, {"spec": {}}):
        with pytest.raises(CheckpointError):
            save_checkpoint(tmp_path / "c", bad, tensors(0))
    with pytest.raises(CheckpointError, match="sha256"):
        save_checkpoint(tmp_path / "c", CONFIG, tensors(0), None, {"sha256": 1})


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    shared = torch.ones(4)
    save_checkpoint(tmp_path / "c", CONFIG, {"a": shared, "b": shared[:2]})
    assert torch.equal(load_checkpoint(tmp_path / "c")[1]["b"], torch.ones(2))


def test_train_state_that_needs_pickle_is_refused_at_saving(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="without running code"):
        save_checkpoint(folder, CONFIG, tensors(3), {"step": Path("x")})
    assert step_of(folder) == 2


def test_only_the_best_or_last_checkpoint_is_needed(folder: Path) -> None:
    run = folder.parents[1]
    (run / "config.json").write_text("{}")  # a run's own config is not a checkpoint's
    assert find_checkpoint(run) == find_checkpoint(run, "last") == find_checkpoint(folder) == folder
    with pytest.raises(CheckpointError, match="did you mean run"):
        find_checkpoint(run.with_name("runn"))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(folder.parents[2])


# C1, C2, C3: a crash or a full disk while saving


@needs_fork
@pytest.mark.parametrize("repeats", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_of_saving(folder: Path, repeats: int) -> None:
    delays = random.Random(0)
    step = 2
    for _ in range(repeats):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for number in range(step + 1, step + 10_000):
                save(folder, number, size=20_000)
                os.write(writer, f"{number} ".encode())
        time.sleep(delays.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(writer)
        acknowledged = os.read(reader, 1 << 16).decode().split()
        os.close(reader)
        newest = int(acknowledged[-1]) if acknowledged else step
        step = step_of_quietly(folder)
        assert step in (newest, newest + 1)
    save(folder, step + 1)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["last", "last.previous"]


def step_of_quietly(folder: Path) -> int:
    """As `step_of`, whether or not it has to fall back."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return step_of(folder)


SYSCALLS = ("open", "fsync", "rename", "replace", "mkdir")


def fail_at(call: int, fail: Callable[[], object], patch: pytest.MonkeyPatch) -> list[str]:
    """Make the call number `call` to any of SYSCALLS fail; returns the calls as they are made."""
    made: list[str] = []

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) == call:
                fail()
            return real(*args, **kwargs)

        patch.setattr(storage.os, name, wrapped)

    for name in SYSCALLS:
        wrap(name)
    return made


def raise_no_space() -> None:
    raise OSError(28, "No space left on device")


def calls_of_a_save(folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        made = fail_at(-1, raise_no_space, patch)
        save(folder, 2)
    return made


def test_files_are_synced_before_the_renames_and_the_folder_after(folder: Path) -> None:
    made = calls_of_a_save(folder)
    renames = [i for i, name in enumerate(made) if name == "rename"]
    assert made[: renames[0]].count("fsync") == len(FILES) + 1
    assert "fsync" in made[renames[-1] :]


@needs_fork
def test_a_crash_at_every_syscall_leaves_the_old_or_the_new(folder: Path) -> None:
    for call in range(1, len(calls_of_a_save(folder)) + 1):
        save(folder, 2)

        def crash(call: int = call) -> None:
            with pytest.MonkeyPatch.context() as patch:
                fail_at(call, lambda: os._exit(7), patch)
                save(folder, 3)

        assert in_child(crash) == 7
        assert step_of_quietly(folder) in (2, 3)


def test_an_error_at_every_syscall_is_named_and_leaves_no_litter(folder: Path) -> None:
    made = calls_of_a_save(folder)
    published = len(made) - made[::-1].index("rename") + 2  # and the folder is synced
    for call in range(1, len(made) + 1):
        save(folder, 2)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(call, raise_no_space, patch)
            # No matter: the parent folder is there already; the oldest one is deleted next time.
            if call == 1 or call > published:
                save(folder, 3)
            else:
                with pytest.raises(CheckpointError, match="No space left"):
                    save(folder, 3)
        assert step_of(folder) in (2, 3)
        save(folder, 2)  # works again, and cleans up
        assert {path.name for path in folder.parent.iterdir()} == {"last", "last.previous"}


@pytest.mark.parametrize("call", range(1, 6))  # open, fsync, replace; open and fsync the folder
def test_atomic_write_keeps_the_old_file_at_every_error(tmp_path: Path, call: int) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    with pytest.MonkeyPatch.context() as patch:
        fail_at(call, raise_no_space, patch)
        with pytest.raises(OSError, match="No space left"):
            atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == (b"old" if call <= 3 else b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@needs_fork
def test_a_full_disk_keeps_the_old_checkpoint(folder: Path) -> None:
    def fill() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(CheckpointError, match="the one before is untouched"):
            save(folder, 3, size=20_000)
        assert step_of(folder) == 2
        assert not list(folder.parent.glob(".tmp-*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        save(folder, 4, size=20_000)  # there is room again

    assert in_child(fill) == 0
    assert step_of(folder) == 4


# C4: places that cannot be written


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    for place in (occupied / "last", tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "last"):
        with pytest.raises(CheckpointError, match="cannot write"):
            save(place, 1)
    with pytest.raises(storage.StorageError, match="choose another"):
        RunLock(occupied / "run").acquire()
    save(tmp_path / "a place with späces" / "last", 1)
    assert step_of(tmp_path / "a place with späces" / "last") == 1


# C5, C6, C7: damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", ["nothing", "a byte", "half", "all but a byte", "missing"])
def test_a_torn_file_falls_back_with_a_warning(folder: Path, name: str, part: str) -> None:
    path = folder / name
    content = path.read_bytes()
    length = {"nothing": 0, "a byte": 1, "half": len(content) // 2}.get(part, len(content) - 1)
    if part == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:length])
    with pytest.warns(RuntimeWarning, match=r"CHECKPOINT DAMAGED.*step 1"):
        assert step_of(folder) == 1
    shutil.rmtree(storage.previous_of(folder))
    with pytest.raises(CheckpointError, match=name):
        resume_checkpoint(folder)


def test_a_flipped_bit_is_always_noticed(folder: Path) -> None:
    shutil.rmtree(storage.previous_of(folder))
    draw = random.Random(0)
    for trial in range(210):
        path = folder / FILES[trial % 3]
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError):
            resume_checkpoint(folder)
        path.write_bytes(content)
    assert step_of(folder) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_noticed(folder: Path, name: str) -> None:
    shutil.copy(storage.previous_of(folder) / name, folder / name)
    shutil.rmtree(storage.previous_of(folder))
    with pytest.raises(CheckpointError):
        resume_checkpoint(folder)


def test_other_files_in_the_folder_are_ignored(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert step_of(folder) == 2


def test_weights_alone_are_enough_to_use_but_not_to_resume(folder: Path) -> None:
    save_checkpoint(folder, CONFIG, tensors(5), None, {"step": 5})
    assert load_checkpoint(folder)[2] == {"step": 5}
    with pytest.warns(RuntimeWarning, match="can be used, not trained on"):
        assert step_of(folder) == 2
    (storage.previous_of(folder) / "train_state.pt").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.warns(RuntimeWarning, match="model.safetensors"):
        assert load_checkpoint(folder)[2] == {"step": 2}


# C8, C9, C10, C12: files made by someone else


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def forge(folder: Path, change: Callable[[dict[str, Any]], object], **files: bytes) -> None:
    """Rewrite a checkpoint with every hash right, as an attacker would."""
    document = json.loads((folder / "config.json").read_bytes())
    for name, content in files.items():
        full = next(file for file in FILES if file.startswith(name))
        (folder / full).write_bytes(content)
        document["sha256"][full] = storage.fingerprint(content)
    change(document)
    (folder / "config.json").write_bytes(storage.seal(document))
    shutil.rmtree(storage.previous_of(folder), ignore_errors=True)


def unchanged(document: dict[str, Any]) -> None:
    """Leave the config as it is."""


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("forced", [None, "1"])
@pytest.mark.parametrize("file", ["train_state", "model"])
def test_a_pickle_does_not_run(
    folder: Path, file: str, forced: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    torch.save({"step": Touch(marker)}, tmp_path / "zip.pt")
    for payload in (pickle.dumps(Touch(marker)), (tmp_path / "zip.pt").read_bytes()):
        forge(folder, unchanged, **{file: payload})
        with pytest.raises(CheckpointError):
            resume_checkpoint(folder)
        assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": -Infinity}',
        b"[1]",
        b"\xff\xfe",
        b'{"a": ' + b"9" * 100_000 + b"}",
    ],
)
def test_json_is_read_strictly(text: bytes) -> None:
    with pytest.raises(storage.StorageError):
        storage.parse_json(text, "it")


def test_huge_or_odd_files_are_refused_before_they_are_read(folder: Path) -> None:
    forge(folder, unchanged, model=(2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_checkpoint(folder)
    with (folder / "config.json").open("r+b") as file:
        file.truncate(storage.MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match="at most"):
        load_checkpoint(folder)


def test_a_newer_format_asks_for_an_upgrade_and_does_not_fall_back(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(storage.seal({**document, "format_version": 99}))
    with pytest.raises(CheckpointError, match=r"99.*upgrade"):
        load_checkpoint(folder)


def test_the_first_format_stays_readable() -> None:
    folder = ROOT / "tests" / "golden" / "checkpoint-v1"
    config, loaded, meta, train_state = resume_checkpoint(folder)
    assert (config, meta, train_state["step"]) == (CONFIG, {"step": 1}, 1)
    assert torch.equal(loaded["net.weight"], tensors(1, 4)["net.weight"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("file", ["model", "train_state"])
def test_mutated_files_raise_our_error_or_load(folder: Path, file: str) -> None:
    draw = random.Random(3)
    name = next(name for name in FILES if name.startswith(file))
    content = (folder / name).read_bytes()
    for _ in range(150):
        mutated = bytearray(content)
        for _ in range(draw.randrange(1, 8)):
            start = draw.randrange(len(mutated))
            piece = draw.randbytes(draw.randrange(0, 9))
            mutated[start : start + draw.randrange(0, 9)] = piece
        forge(folder, unchanged, **{file: bytes(mutated)})
        with contextlib.suppress(CheckpointError):
            resume_checkpoint(folder)


def test_sealing_keeps_the_document() -> None:
    document = {"a": [1, 2.5, -3e-5], "b": {"seal": "x", "c": [[1], []]}, "d": "[\n1]", "seal": "y"}
    raw = storage.seal(document)
    back = storage.unseal(raw, "it")
    assert {**back, "seal": "y"} == document
    assert storage.seal(copy.deepcopy(back)) == raw


# R7: one writer a run


@needs_fork
def test_a_second_writer_is_told_who_holds_the_run(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        lock = RunLock(tmp_path / "run").acquire()
        os.write(writer, b"held")
        time.sleep(60)
        os._exit(int(lock.folder is None))
    os.read(reader, 4)
    start = time.monotonic()
    with pytest.raises(LockedError, match=f"process {holder}"):
        RunLock(tmp_path / "run").acquire()
    assert time.monotonic() - start < 1
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    os.close(reader)
    os.close(writer)
    with RunLock(tmp_path / "run") as lock, pytest.raises(LockedError, match=str(os.getpid())):
        RunLock(lock.folder).acquire()
    RunLock(tmp_path / "run").acquire().release()


# Whole models, from the folder alone


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A checkpoint of a real model, in a run folder."""
    spec = Spec("pendulum", dt=0.05, angles=(0,), param_names=("mass",)).to_dict()
    config = to_dict(NewtonianConfig(hidden=8, layers=1))
    model = build(spec, "newtonian", config)
    path = tmp_path / "run" / "checkpoints" / "best"
    whole = {"spec": spec, "model_name": "newtonian", "model": config}
    save_checkpoint(path, whole, model.state_dict(), None, {"step": 1})
    return path


def test_a_model_is_rebuilt_bit_for_bit_from_its_folder(model_folder: Path) -> None:
    before = torch.get_rng_state()
    model = load(model_folder.parents[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    saved = load_checkpoint(model_folder)[1]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert load(model_folder).spec == model.spec


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    """Give one tensor another name."""
    tensors["other"] = tensors.pop(next(iter(tensors)))


def reshaped(tensors: dict[str, torch.Tensor]) -> None:
    """Give every tensor another shape."""
    tensors.update({name: torch.zeros(7, 7, 7) for name in tensors})


def retyped(tensors: dict[str, torch.Tensor]) -> None:
    """Give every tensor another type."""
    tensors.update({name: value.to(torch.float16) for name, value in tensors.items()})


def poisoned(tensors: dict[str, torch.Tensor]) -> None:
    """Make every tensor NaN."""
    tensors.update({name: torch.full_like(value, torch.nan) for name, value in tensors.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [(renamed, "missing.*extra"), (reshaped, "needs"), (retyped, "float16"), (poisoned, "NaN")],
)
def test_tensors_that_do_not_fit_are_named(
    model_folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    config, tensors, _ = load_checkpoint(model_folder)
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    change(floating)
    save_checkpoint(model_folder, config, floating)
    with pytest.raises(CheckpointError, match=message):
        load(model_folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name", "os:system"),
        ("model_name", "newtonion"),
        ("model_name", "../../x"),
        ("model_name", ["jump"]),
        ("model", {"_target_": "os.system"}),
        ("model", {"hidden": 10**9}),
        ("model", {"layers": 10**9}),
        ("model", {"hidden": "8"}),
        ("spec", {"env_name": "evil:Env-v0"}),
        ("spec", {"env_name": "pendulum", "state_size": 10**9}),
        ("spec", {"_target_": "os.system"}),
        ("spec", {"env_name": "pendulum", "state_size": "2"}),
        ("spec", {"env_name": "pendulum", "action_size": 10**12}),
    ],
)
def test_a_config_cannot_name_code_or_ask_for_the_moon(
    model_folder: Path, key: str, value: Any
) -> None:
    forge(model_folder, lambda document: document.update({key: value}))
    with pytest.raises(CheckpointError):
        load(model_folder)


# C11: no file of ours can run what it reads

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "cloudpickle.load",
    "cloudpickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "marshal.loads",
    "os.system",
    "os.popen",
    "joblib.load",
}


ALLOWED = {"physgym/program.py": ["exec"]}
"""Compiles the equations of the systems, source that it prints itself; it reads no file."""


def bad_calls(source: str) -> list[str]:
    """Calls in `source` that could run what a file holds, in the order of a walk."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        last = name.rpartition(".")[2]
        bad = name in FORBIDDEN_CALLS
        bad |= name == "torch.load" and options.get("weights_only") != "True"
        bad |= options.get("allow_pickle", "False") != "False"
        bad |= options.get("shell", "False") != "False"
        bad |= last in {"unsafe_load", "import_string"}
        if bad:
            found.append(name)
    return found


@pytest.mark.parametrize("package", ["physgym", "worldmodels", "scripts"])
def test_nothing_read_from_a_file_can_run(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {f.relative_to(ROOT).as_posix(): bad_calls(f.read_text()) for f in files}
    assert {name: calls for name, calls in found.items() if calls} == {
        name: calls for name, calls in ALLOWED.items() if name.startswith(package)
    }


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "eval(x)",
        "pickle.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_search_for_bad_calls_finds_them(source: str) -> None:
    assert bad_calls(source)
