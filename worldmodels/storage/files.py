"""Files that survive a crash: atomic writes, sealed JSON, atomically published folders.

Knows no model and no dataset, and imports the standard library only. Every write follows the same
order: a temporary name in the same folder, fsync, rename, fsync of the folder. So a reader sees the
old file or the new one, never a mixture, whatever kills the writer. Nothing is written through a
symbolic link that lies in a run or a dataset: a folder of somebody else's could send us anywhere.
Reading and locking stand in `reading` and `locks`; their names are here too.
"""

from __future__ import annotations

import errno
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

from worldmodels.storage.locks import LockedError, RunLock
from worldmodels.storage.reading import (
    MAX_JSON_BYTES,
    AccessError,
    MissingError,
    StorageError,
    explain,
    parse_json,
    read_file,
    read_json,
)

__all__ = [
    "MAX_JSON_BYTES",
    "AccessError",
    "LockedError",
    "MissingError",
    "RunLock",
    "StorageError",
    "atomic_write",
    "check_no_link",
    "check_parent",
    "digest",
    "explain",
    "fingerprint",
    "make_folder",
    "make_parent",
    "open_append",
    "parse_json",
    "previous_of",
    "publish_folder",
    "read_file",
    "read_json",
    "read_sealed",
    "read_verified",
    "remove_orphans",
    "seal",
    "sync_folder",
    "unseal",
]

_TEMPORARY = ".tmp-"
_UNSEALED = "0" * 64
_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"\n\}\n\Z')
_NUMBERS = re.compile(r"\[\n([-+.\deE,\s]+)\]")


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


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder `path` where it is missing, to write files of ours into it.

    Raises StorageError where `path` is a symbolic link, which would send the files elsewhere, or
    no folder; OSError, which names it, where the system refuses.
    """
    folder = Path(path)
    check_no_link(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StorageError(f"{folder} is a file, not a folder: choose another one") from error
    return folder


def check_no_link(folder: Path) -> None:
    """Raise StorageError where the folder to write into is a symbolic link."""
    if folder.is_symlink():
        raise StorageError(
            f"{folder} is a symbolic link, and nothing is written through one: remove it, or name "
            "the folder it points to"
        )


def make_parent(path: str | os.PathLike[str]) -> None:
    """Make the folder to write `path` into. In a run or a dataset it may be no symbolic link.

    Elsewhere a link is the user's own. Raises as `make_folder` does.
    """
    folder = Path(path).parent
    check_parent(path)
    folder.mkdir(parents=True, exist_ok=True)


def check_parent(path: str | os.PathLike[str]) -> None:
    """Raise what `make_parent` says of links, and make nothing: to be asked before the work."""
    folder = Path(path).parent
    if any((folder.parent / name).exists() for name in ("run.json", "dataset.json")):
        check_no_link(folder)


def open_append(path: str | os.PathLike[str]) -> int:
    """A descriptor to append to the regular file `path` with, made where it is missing.

    Raises StorageError where it is a symbolic link, a file of two names or no regular file; OSError
    where the system refuses.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise
        raise StorageError(f"{path} is no regular file: nothing is written to it") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise StorageError(f"{path} is no regular file of one name: nothing is written to it")
    return descriptor


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
    removed on every exception, KeyboardInterrupt included. A symbolic link `path` is replaced, not
    written through. Raises what `write` raises, and OSError, which names `path`.
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        _write_synced(temporary, write)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _naming(error, target) from error
        raise
    sync_folder(target.parent)


def _naming(error: OSError, path: Path) -> OSError:
    """`error` as one that names the file meant: a write's names none, or the temporary one."""
    if error.errno is None:
        return error
    return OSError(error.errno, os.strerror(error.errno), str(path))


def remove_orphans(folder: Path) -> None:
    """Delete the temporary files and folders that killed writers left in `folder`.

    Nothing where `folder` is a link: what lies behind it is somebody else's.
    """
    if folder.is_symlink():
        return
    for path in folder.glob(f"{_TEMPORARY}*"):
        _remove(path)


def _remove(path: Path) -> None:
    """Delete a file, a link or a folder, where there is one."""
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
    make_folder(target.parent)
    remove_orphans(target.parent)
    fresh, retired = _temporary(target), _temporary(target)
    try:
        fresh.mkdir()
        for name, content in files.items():
            _write_synced(fresh / name, content)
        sync_folder(fresh)
        if os.path.lexists(target):  # a link to nowhere has to make room, too
            if os.path.lexists(previous):
                os.rename(previous, retired)
            os.rename(target, previous)
        os.rename(fresh, target)
    except BaseException as error:
        _undo(target, previous, retired)
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError):
            raise _naming(error, target) from error
        raise
    sync_folder(target.parent)
    _remove(retired)


def _undo(target: Path, previous: Path, retired: Path) -> None:
    """Put the renames of a failed `publish_folder` back, as far as the disk lets us."""
    try:
        if os.path.lexists(previous) and not os.path.lexists(target):
            os.rename(previous, target)
        if os.path.lexists(retired) and not os.path.lexists(previous):
            os.rename(retired, previous)
    except OSError:  # a reader still finds one of the two generations
        return


def digest(content: bytes) -> str:
    """SHA-256 of `content` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Path, expected: Any, limit: int = MAX_JSON_BYTES) -> bytes:
    """The content of `path`, of at most `limit` bytes, if it is what `fingerprint` recorded.

    `expected`: {"sha256": hex, "bytes": int}. Raises StorageError, which says what differs, and
    the subclasses of it that `read_file` raises.
    """
    if not isinstance(expected, dict) or not isinstance(expected.get("bytes"), int):
        raise StorageError(f"{path.name} has no recorded size and SHA-256")
    content = read_file(path, limit)
    if len(content) != expected["bytes"]:
        raise StorageError(f"{path} has {len(content)} bytes, but {expected['bytes']} were written")
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
    return unseal(read_file(path), str(path))
