"""Room for large arrays: in memory, or in files without a name where the memory allowed would not hold them.

Such a file is mapped: what is read or written of it lies in the page cache, which the system takes back when memory
is short, and none of it counts against a limit of the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHARE = 0.25
"""Part of the free memory that one array may take; the next may take that of what is then left."""
CHUNK = 2**22
"""Bytes that are copied at once."""
_UNLIMITED = 2**60
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory() -> float:
    """Bytes that this process may still take: of the machine, its container and its own limits, the least."""
    return max(min(_of_machine(), _of_container(), _of_process()), 0.0)


def _of_machine() -> float:
    """As far as the system tells; else half of all there is, or 4 GiB."""
    try:
        return float(_table("/proc/meminfo")["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 4.0 * 2**30


def _of_container() -> float:
    for most, used in _CGROUPS:
        try:
            limit = int(Path(most).read_text())  # "max" is no number
            return float(limit - int(Path(used).read_text())) if limit < _UNLIMITED else np.inf
        except (OSError, ValueError):
            continue
    return np.inf


def _of_process() -> float:
    """What `ulimit -v` and `ulimit -d` leave."""
    try:
        import resource

        status = _table("/proc/self/status")
        limits = {"VmSize": resource.RLIMIT_AS, "VmData": resource.RLIMIT_DATA}
        left = [
            float(resource.getrlimit(number)[0] - int(status[name].split()[0]) * 1024)
            for name, number in limits.items()
            if resource.getrlimit(number)[0] != resource.RLIM_INFINITY
        ]
    except (ImportError, OSError, KeyError, ValueError):
        return np.inf
    return min(left, default=np.inf)


def _table(path: str) -> dict[str, str]:
    with open(path) as table:
        return dict(line.split(":", 1) for line in table if ":" in line)


def is_large(size: float) -> bool:
    """Whether an array of ``size`` bytes takes more of the free memory than one may (and is no small one)."""
    return size > CHUNK / 4 and size > SHARE * free_memory()


def empty(shape: tuple[int, ...], kind: Any, beside: Path | None = None) -> np.ndarray:
    """An array to be filled; a large one lies in a file in the folder ``beside``, or the system's for such.

    Raises ``OSError`` where the disk has no room for it.
    """
    kind = np.dtype(kind)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if not is_large(size):
        return np.empty(shape, kind)
    folder = beside if beside is not None and os.access(beside, os.W_OK) else None
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told here, not by a signal
        return np.memmap(file, kind, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)


def taken(array: np.ndarray, rows: np.ndarray, beside: Path | None = None) -> np.ndarray:
    """``array[rows]``."""
    found = empty((len(rows), *array.shape[1:]), array.dtype, beside)
    for part in parts(len(rows), found.nbytes):
        found[part] = array[rows[part]]
    return found


def converted(array: np.ndarray, kind: Any) -> np.ndarray:
    """``array`` as numbers of another kind; itself where it is of that kind."""
    if array.dtype == np.dtype(kind):
        return array
    found = empty(array.shape, kind)
    for part in parts(len(array), found.nbytes):
        found[part] = array[part]
    return found


def parts(count: int, size: int) -> Iterator[slice]:
    """Slices of ``count`` rows of ``size`` bytes in all, of about ``CHUNK`` bytes each."""
    step = max(1, CHUNK * count // max(size, 1))
    for first in range(0, count, step):
        yield slice(first, first + step)
