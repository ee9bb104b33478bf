"""Reading files that others may have made: regular ones alone, bounded, and the error's own name."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worldmodels.storage import files as storage
from worldmodels.storage import reading


def pipe(path: Path) -> None:
    """A pipe that nobody writes to: opening it to read would wait for ever."""
    os.mkfifo(path)


def device(path: Path) -> None:
    """A link to an endless device."""
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    """A symbolic link to itself."""
    path.symlink_to(path)


def unix_socket(path: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def sparse(path: Path) -> None:
    """A file of a terabyte that takes no room."""
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes and devices")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [pipe, device, circle, unix_socket, sparse, Path.mkdir])
@pytest.mark.parametrize("read", [storage.read_file, storage.read_json, storage.read_sealed])
def test_only_regular_files_of_bounded_size_are_read(
    tmp_path: Path, make: Callable[[Path], object], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "f"
    make(path)
    with pytest.raises(storage.StorageError, match=str(path)) as caught:
        read(path)
    assert not isinstance(caught.value, (storage.AccessError, storage.MissingError))


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b'{"a": 1}')
    (tmp_path / "link").symlink_to("there")
    assert storage.read_json(tmp_path / "link") == {"a": 1}


def test_the_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert storage.read_file(path, 5) == b"12345"
    with pytest.raises(storage.StorageError, match="5 bytes; at most 4 are read"):
        storage.read_file(path, 4)


@pytest.mark.parametrize(
    "text", ['{"a":' * 70 + "1" + "}" * 70, '{"a":' + "[" * 70 + "]" * 70 + "}"]
)
def test_nesting_is_bounded(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(storage.StorageError, match="nested"):
        storage.read_json(tmp_path / "f")


@contextlib.contextmanager
def few_descriptors() -> Iterator[None]:
    """No descriptor left to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])


def test_no_descriptors_and_no_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("{}")
    with (
        few_descriptors(),
        pytest.raises(storage.AccessError, match=r"Too many open files.*ulimit -n"),
    ):
        storage.read_json(tmp_path / "f")
    with pytest.raises(storage.MissingError, match="No such file"):
        storage.read_json(tmp_path / "g")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "owner or mode"), (errno.ENOMEM, "memory"), (errno.EIO, "nput/output")],
)
def test_what_the_system_refuses_may_be_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    (tmp_path / "f").write_text("{}")

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reading.os, "open", refuse)
    with pytest.raises(storage.AccessError, match=words):
        storage.read_json(tmp_path / "f")


def test_a_file_too_large_for_the_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("{}")

    def refuse(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(reading, "_read_up_to", refuse)
    with pytest.raises(storage.AccessError, match="not enough memory"):
        storage.read_json(tmp_path / "f")
