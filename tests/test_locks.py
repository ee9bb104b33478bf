"""One writer a folder, on every file system, and never through a link that somebody left there."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldmodels.evaluation.comparison import write_report
from worldmodels.films.mosaics import figure_at
from worldmodels.films.video import write_video
from worldmodels.storage import files as storage
from worldmodels.storage import locks
from worldmodels.storage.locks import LockedError, RunLock
from worldmodels.training.tracking import Logger

NO_LOCKS = [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK]
needs_flock = pytest.mark.skipif(locks.fcntl is None, reason="this system has no flock")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a second process")


def failing(number: int) -> Any:
    """A system call that ends with the error `number`."""

    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def second_process_gets(folder: Path) -> str:
    """What another process hears that wants the lock of `folder` too."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            RunLock(folder).acquire()
            os.write(writer, b"the lock")
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:500])
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    heard = os.read(reader, 500).decode()
    os.close(reader)
    return heard


@pytest.mark.parametrize("how", ["symlink", "hard link", "dangling", "own words"])
def test_what_a_lock_file_stands_for_is_never_emptied(tmp_path: Path, how: str) -> None:
    folder, other = tmp_path / "run", tmp_path / "thesis"
    folder.mkdir()
    other.write_text("years of work")
    lock = folder / ".lock"
    if how == "symlink":
        lock.symlink_to(other)
    elif how == "dangling":
        lock.symlink_to(tmp_path / "nowhere")
    elif how == "hard link":
        os.link(other, lock)
    else:
        lock.write_text("years of work")
    if how in ("symlink", "dangling"):
        with pytest.raises(storage.StorageError, match=r"\.lock is a link.*remove it"):
            RunLock(folder).acquire()
    else:
        with RunLock(folder), pytest.raises(LockedError):
            RunLock(folder).acquire()
        assert lock.read_text() == "years of work"
    assert other.read_text() == "years of work"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_is_a_regular_file(tmp_path: Path, make: Any) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(storage.StorageError, match="no regular file"):
        RunLock(tmp_path).acquire()


def test_a_lock_that_is_not_got_leaves_the_holders_note(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with pytest.raises(LockedError, match=str(os.getpid())):
            RunLock(tmp_path).acquire()
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert (tmp_path / ".lock").read_text() == ""


@needs_flock
@needs_fork
@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_flock_a_record_lock_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", failing(number))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with RunLock(tmp_path):
            assert "LockedError" in second_process_gets(tmp_path)
            with pytest.raises(LockedError):
                RunLock(tmp_path).acquire()
        assert second_process_gets(tmp_path) == "the lock"
        RunLock(tmp_path).acquire().release()


@needs_flock
@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_any_lock_it_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", failing(number))
    monkeypatch.setattr(locks.fcntl, "lockf", failing(number))
    with pytest.warns(RuntimeWarning, match=r"has no locks.*one process"), RunLock(tmp_path):
        pass


@needs_flock
def test_another_failure_is_no_lock_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", failing(errno.EIO))
    with pytest.raises(storage.StorageError, match="cannot lock") as caught:
        RunLock(tmp_path).acquire()
    assert not isinstance(caught.value, LockedError)


# Writing


def test_folders_and_files_are_not_written_through_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f").write_text("mine")
    (tmp_path / "run").symlink_to(elsewhere)
    (tmp_path / "line").symlink_to(elsewhere / "f")
    os.link(elsewhere / "f", tmp_path / "second")
    with pytest.raises(storage.StorageError, match="symbolic link"):
        storage.make_folder(tmp_path / "run")
    with pytest.raises(storage.StorageError, match="symbolic link"):
        storage.publish_folder(tmp_path / "run" / "best", {"f": b"x"})
    for name in ("line", "second", "elsewhere"):
        with pytest.raises(storage.StorageError, match=name):
            storage.open_append(tmp_path / name)
    storage.atomic_write(tmp_path / "line", b"new")
    assert (elsewhere / "f").read_text() == "mine"
    assert list(elsewhere.iterdir()) == [elsewhere / "f"]
    assert (tmp_path / "line").read_text() == "new"


def test_what_belongs_to_a_run_stays_in_it(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (run / "run.json").write_text("{}")
    for name in ("evaluation", "pictures"):
        (run / name).symlink_to(elsewhere)
    (run / "metrics.jsonl").symlink_to(elsewhere / "f")
    (elsewhere / "f").write_text('{"epoch": 1}\n')
    with pytest.raises(storage.StorageError, match="evaluation is a symbolic link"):
        write_report({"kind": "states"}, run / "evaluation")
    with pytest.raises(storage.StorageError, match="pictures is a symbolic link"):
        write_video([np.zeros((8, 8, 3), np.uint8)], run / "pictures" / "a.gif", 5)
    with figure_at(elsewhere / "new.png"):
        pass
    (run / "new.png").symlink_to(elsewhere / "f")
    with figure_at(run / "new.png"):
        pass
    with pytest.raises(storage.StorageError, match=r"metrics\.jsonl"):
        Logger(run)
    assert (elsewhere / "f").read_text() == '{"epoch": 1}\n'
    assert {path.name for path in elsewhere.iterdir()} == {"f", "new.png"}
    (tmp_path / "mine").symlink_to(elsewhere)  # the user's own link is followed
    with figure_at(tmp_path / "mine" / "new2.png"):
        pass
    assert (elsewhere / "new2.png").read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device.*report\.json"):
        storage.atomic_write(tmp_path / "report.json", fill)
    with pytest.raises(OSError, match=r"nowhere/report\.json"):
        storage.atomic_write(tmp_path / "nowhere" / "report.json", b"")
