"""Files that survive a crash: atomic writes, sealed JSON, atomically published folders, locks.

Knows no model and no dataset, and imports the standard library only. Every write follows the same
order: a temporary name in the same folder, fsync, rename, fsync of the folder. So a reader sees the
old file or the new one, never a mixture, whatever kills the writer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no flock: one writer at a time is then the caller's promise
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = ".tmp-"
_UNSEALED = "0" * 64
_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"\n\}\n\Z')
_NUMBERS = re.compile(r"\[\n([-+.\deE,\s]+)\]")
MAX_JSON_BYTES = 64 * 1024 * 1024


class StorageError(RuntimeError):
    """A file of ours cannot be written, read or trusted; the message names it and the fix."""


class LockedError(StorageError):
    """Another process holds the folder."""


def _temporary(path: Path) -> Path:
    return path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"


def sync_folder(folder: Path) -> None:
    """Make the renames inside `folder` durable (a no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, write: Callable[[BinaryIO], Any] | bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        if isinstance(write, bytes):
            file.write(write)
        else:
            write(file)
        file.flush()
        os.fsync(file.fileno())


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any] | bytes) -> None:
    """Replace the file `path` by what `write` puts into a binary file (or by the bytes given).

    After a crash at any point `path` holds its old content or the new one. The temporary file is
    removed on every exception, KeyboardInterrupt included. Raises what `write` raises, and OSError.
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        _write_synced(temporary, write)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def open_append(path: str | os.PathLike[str]) -> int:
    """A descriptor to append to the regular file `path` with, made where it is missing.

    Raises StorageError where it is no regular file; OSError where the system refuses.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path} is no regular file: nothing is written to it")
    return descriptor


def remove_orphans(folder: Path) -> None:
    """Delete the temporary files and folders that killed writers left in `folder`."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def previous_of(folder: Path) -> Path:
    """Where `publish_folder` keeps the generation before the present one."""
    return folder.parent / f"{folder.name}.previous"


def publish_folder(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Replace `folder` as a whole by one that holds exactly `files`, and keep the one before.

    The old generation goes to `previous_of(folder)`; the oldest is deleted last. Between the two
    renames only the previous generation is there, so a reader falls back to it. One writer at a
    time (`RunLock`). Raises OSError, and then leaves everything as it was.
    """
    target, previous = Path(folder), previous_of(Path(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_orphans(target.parent)
    fresh, retired = _temporary(target), _temporary(target)
    try:
        fresh.mkdir()
        for name, content in files.items():
            _write_synced(fresh / name, content)
        sync_folder(fresh)
        if target.exists():
            if previous.exists():
                os.rename(previous, retired)
            os.rename(target, previous)
        os.rename(fresh, target)
    except BaseException:
        _undo(target, previous, retired)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_folder(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _undo(target: Path, previous: Path, retired: Path) -> None:
    """Put the renames of a failed `publish_folder` back, as far as the disk lets us."""
    try:
        if previous.exists() and not target.exists():
            os.rename(previous, target)
        if retired.exists() and not previous.exists():
            os.rename(retired, previous)
    except OSError:  # a reader still finds one of the two generations
        return


def digest(content: bytes) -> str:
    """SHA-256 of `content` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Path, expected: Any) -> bytes:
    """The content of `path`, if it is what `fingerprint` recorded.

    `expected`: {"sha256": hex, "bytes": int}. Raises StorageError, which says what differs.
    """
    if not isinstance(expected, dict) or not isinstance(expected.get("bytes"), int):
        raise StorageError(f"{path.name} has no recorded size and SHA-256")
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise StorageError(f"{path} has {size} bytes, but {expected['bytes']} were written")
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if digest(content) != expected.get("sha256"):
        raise StorageError(f"{path} is damaged: its SHA-256 is not the one recorded at writing")
    return content


def fingerprint(content: bytes) -> dict[str, Any]:
    """What `read_verified` needs to recognise `content` again."""
    return {"sha256": digest(content), "bytes": len(content)}


def seal(document: Mapping[str, Any]) -> bytes:
    """`document` as JSON whose last field, "seal", is the SHA-256 of the text with the seal zeroed.

    Raises ValueError or TypeError for what plain JSON cannot hold (NaN, infinities, objects).
    """
    fields = {key: value for key, value in document.items() if key != "seal"}
    text = json.dumps({**fields, "seal": _UNSEALED}, indent=1, allow_nan=False) + "\n"
    raw = _NUMBERS.sub(_on_one_line, text).encode()
    return raw.replace(f'"seal": "{_UNSEALED}"\n}}\n'.encode(), _seal_line(digest(raw)))


def _on_one_line(numbers: re.Match[str]) -> str:
    return "[" + " ".join(numbers.group(1).split()) + "]"


def _seal_line(value: str) -> bytes:
    return f'"seal": "{value}"\n}}\n'.encode()


def unseal(raw: bytes, name: str) -> dict[str, Any]:
    """The document that `seal` made `raw` from, "seal" included. StorageError if a bit differs."""
    match = _SEAL.search(raw)
    if match is None:
        raise StorageError(f"{name} is torn, or was not written by this package")
    value = match.group(1).decode()
    if digest(raw[: match.start()] + _seal_line(_UNSEALED)) != value:
        raise StorageError(f"{name} was changed or damaged after it was written")
    return parse_json(raw, name)


def read_sealed(path: Path) -> dict[str, Any]:
    """Read and verify a sealed JSON file of at most 64 MiB. Raises StorageError."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise StorageError(f"{path} has {size} bytes; at most {MAX_JSON_BYTES} are read")
        return unseal(path.read_bytes(), str(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def read_file(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises StorageError, missing included."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{path} is no regular file")
        if found.st_size > limit:
            raise StorageError(f"{path} has {found.st_size} bytes; at most {limit} are read")
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a regular file of at most 64 MiB, strictly. Raises StorageError."""
    return parse_json(read_file(path), str(path))


def parse_json(raw: bytes, name: str) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no infinity, no key twice, no bottomless nesting."""
    try:
        document = json.loads(
            raw, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise StorageError(f"{name} holds a {type(document).__name__}, not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not allowed")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large")
    return value


class RunLock:
    """One writer a folder, by `flock`: the kernel frees it however the holder ends.

    A context manager; creates the folder where it is missing, so it also proves that the folder
    can be written. Raises LockedError naming the holder's process id, or StorageError.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def acquire(self) -> RunLock:
        """Take the lock, without waiting."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StorageError(
                f"cannot write to the folder {self.folder}: {error.strerror or error}; "
                "choose another one"
            ) from error
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "(unknown)"
            os.close(descriptor)
            raise LockedError(
                f"{self.folder} is in use by process {holder}; wait until it ends, "
                "or choose another folder"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Give the lock back; twice is no error."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)  # closing frees the lock
            self._descriptor = None

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()
