"""Files under checkpoints and datasets: atomic, sealed, locked, and never able to run."""

from __future__ import annotations

import ast
import copy
import os
import signal
import time
from pathlib import Path

import pytest
from checkpoint_cases import (
    fail_at,
    needs_fork,
    raise_no_space,
)

from worldmodels.storage import files as storage
from worldmodels.storage.checkpoint import (
    LockedError,
    RunLock,
    atomic_write,
)

ROOT = Path(__file__).parents[1]


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


ALLOWED = {"physgym/compile/program.py": ["exec"]}
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
