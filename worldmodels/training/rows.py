"""The rows of a run's metrics in a file of JSON lines: each written whole or not at all."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worldmodels.storage.files import (
    StorageError,
    atomic_write,
    open_append,
    parse_json,
    read_file,
)

METRICS = "metrics.jsonl"
FILES = {"evaluate": "evaluation.jsonl"}
"""Where the rows of other work than training go: it must never write a training's."""
MOST_BYTES = 2**30
"""Largest file of rows that is read."""
_CELL = (int, float, str, type(None))


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` (or of the run folder that holds one), oldest first.

    A last line torn by a kill is left out, and so is what is no row, with a warning; a missing file
    has no rows.
    """
    path = Path(path)
    path = path / METRICS if path.is_dir() else path
    return [row for _, row in _whole_rows(_content(path), str(path))]


class RowFile:
    """A file of rows, open to append to; without the torn last line that a kill leaves.

    Raises StorageError where it cannot be written, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self.drop(lambda row: False)

    def drop(self, unwanted: Callable[[dict[str, Any]], bool]) -> None:
        """Take the unwanted rows out of the file, and whatever is no row."""
        self.close()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            old = _content(self.path)
            rows = _whole_rows(old, str(self.path))
            new = b"".join(line + b"\n" for line, row in rows if not unwanted(row))
            if new != old:
                atomic_write(self.path, new)
            self._descriptor = open_append(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row. Raises StorageError where it does not fit; the file is then as before."""
        if self._descriptor is None:
            raise StorageError(f"{self.path} is closed: nothing is logged after `finish`")
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        size = os.fstat(self._descriptor).st_size
        try:
            while line:  # a disk that is all but full takes a part, and then says why
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file; twice is no error."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self.path}: {error.strerror or error}; what was saved is kept: make room, "
            "and go on with --resume"
        )


def _content(path: Path) -> bytes:
    """The bytes of a file of rows; none where a run is only just beginning."""
    return read_file(path, MOST_BYTES) if os.path.lexists(path) else b""


def _whole_rows(content: bytes, name: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines and rows that a logger wrote; what else stands before the last line is warned of."""
    rows, foreign = [], 0
    *lines, torn = content.split(b"\n")
    for line in (*lines, torn):
        try:
            row = parse_json(line, name)
            valid = all(isinstance(value, _CELL) for value in row.values())
        except StorageError:
            valid = False
        if valid and _counted(row):
            rows.append((line, row))
        elif line.strip() and line is not torn:
            foreign += 1
    if foreign:
        message = f"{name}: {foreign} lines are no rows of metrics, and are left out"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    return rows


def _counted(row: dict[str, Any]) -> bool:
    """Whether a row says at which step it is, in whole steps."""
    steps = [row[name] for name in ("epoch", "env_steps") if name in row]
    return bool(steps) and all(isinstance(step, int) and step >= 0 for step in steps)
