"""Reading files that we may not have written: regular files alone, and never more than a limit.

Every file of a run or a dataset comes in through `read_file`. It neither waits for a pipe nor fills
the memory from a device, and its errors tell a file that is not there, a file that the system
refuses (permission, descriptors, memory) and a file that is wrong from one another.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

MIB, GIB = 2**20, 2**30
MAX_JSON_BYTES = 64 * MIB
"""Largest JSON document: a config, `run.json`, `dataset.json`."""
MAX_LINES_BYTES = 1 * GIB
"""Largest file of JSON lines: `metrics.jsonl`."""
MAX_WEIGHTS_BYTES = 4 * GIB
"""Largest file of weights: `model.safetensors`."""
MAX_STATE_BYTES = 16 * GIB
"""Largest train state: `train_state.pt`, the weights several times over."""
MAX_SHARD_BYTES = 8 * GIB
"""Largest shard of a dataset."""
MAX_DEPTH = 64
"""Deepest nesting of a JSON document: what walks one by recursion is then safe."""

_WRONG = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
"""What says that the file is wrong; any other error says that the system refuses it."""


class StorageError(RuntimeError):
    """A file of ours cannot be written, read or trusted; the message names it and the fix."""


class MissingError(StorageError):
    """There is no such file."""


class AccessError(StorageError):
    """The system refuses a file that may be sound: permission, descriptors, memory, a bad disk."""


def explain(error: BaseException) -> str:
    """What an OSError or MemoryError means and what helps, on one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if not isinstance(error, OSError) or error.errno is None:
        return str(error) or type(error).__name__
    reason = os.strerror(error.errno)
    if error.errno == errno.EMFILE:
        return f"{reason} in this process{_descriptors()}; raise `ulimit -n`"
    if error.errno == errno.ENFILE:
        return f"{reason} (in all processes together)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{reason}: change its owner or mode, or run as a user who may"
    return reason


def _descriptors() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    return f" (at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"


def unreadable(path: str | os.PathLike[str], error: OSError | MemoryError) -> StorageError:
    """The error to raise where reading `path` failed: MissingError, AccessError or StorageError."""
    message = f"{path} cannot be read: {explain(error)}"
    if isinstance(error, FileNotFoundError):
        return MissingError(message)
    if isinstance(error, MemoryError) or error.errno not in _WRONG:
        return AccessError(message)
    return StorageError(message)


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read the regular file `path` with. Never waits, as for a pipe's writer.

    A symbolic link to a regular file is followed. Raises StorageError for anything else.
    """
    try:
        _check_regular(path, os.stat(path))  # before opening, which can do things to a device
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags | getattr(os, "O_NOCTTY", 0))
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # a name with a zero byte
        raise StorageError(f"{str(path)!r} is no name of a file: {error}") from error
    try:
        _check_regular(path, os.fstat(descriptor))
    except StorageError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
    raise StorageError(f"{path} cannot be read: it is {kind}, not a regular file")


def read_file(path: str | os.PathLike[str], limit: int = MAX_JSON_BYTES) -> bytes:
    """The content of the regular file `path`, of at most `limit` bytes.

    Raises MissingError; AccessError where the system refuses it (permission, descriptors, memory);
    StorageError where it is larger, or a folder, a pipe, a device or a circle of links.
    """
    descriptor = open_regular(path)
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            size = os.fstat(descriptor).st_size
            if size > limit:
                raise StorageError(f"{path} has {size} bytes; at most {limit} are read")
            return _read_up_to(file, size)
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error


def _read_up_to(file: Any, size: int) -> bytes:
    """`size` bytes, or fewer where the file ends before them."""
    content = file.read(size)
    while len(content) < size and (more := file.read(size - len(content))):
        content += more
    return bytes(content)


def read_range(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """`size` bytes of the regular file `path` from `offset` on, or fewer where it ends before.

    Keeps no file open, so there may be any number of files, threads and processes. Raises as
    `read_file` does.
    """
    descriptor = open_regular(path)
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            file.seek(offset)
            return _read_up_to(file, size)
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in the file `path`, read as `read_file` and `parse_json` do."""
    return parse_json(read_file(path, limit), str(path))


def parse_json(raw: bytes, name: str) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no infinity, no key twice, no bottomless nesting."""
    try:
        document = json.loads(
            raw, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{name} is not valid JSON: {error}") from error
    except MemoryError as error:
        raise AccessError(f"{name} cannot be read: {explain(error)}") from error
    if not isinstance(document, dict):
        raise StorageError(f"{name} holds a {type(document).__name__}, not a JSON object")
    if _depth_exceeds(document, MAX_DEPTH):
        raise StorageError(f"{name} is not valid JSON: nested more than {MAX_DEPTH} deep")
    return document


def _depth_exceeds(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


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
