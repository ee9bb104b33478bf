"""One writer a folder: a lock that the kernel frees however its holder ends."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from pathlib import Path

from worldmodels.storage.reading import StorageError, explain

try:
    import fcntl
except ImportError:  # Windows has no flock: one writer at a time is then the caller's promise
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_NOTE_BYTES = 32
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}
_by_record: set[tuple[int, int, int]] = set()
"""(process, device, inode) locked by record here: such a lock does not exclude its own process."""


class LockedError(StorageError):
    """Another process holds the folder."""


class RunLock:
    """One writer a folder, by `flock`: the kernel frees it however the holder ends.

    Where the file system has no `flock`, by a record lock (`fcntl`); where it has neither, there
    is no lock, and a warning says so. A context manager; creates the folder where it is missing, so
    it also proves that the folder can be written. Raises LockedError naming the holder's process
    id, or StorageError.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None
        self._record: tuple[int, int, int] | None = None
        self._noted = False

    def acquire(self) -> RunLock:
        """Take the lock, without waiting."""
        descriptor = self._open()
        try:
            self._lock(descriptor)
            self._noted = _is_note(descriptor)
            if self._noted:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BaseException as error:
            self._forget()
            os.close(descriptor)
            if isinstance(error, OSError):
                raise StorageError(
                    f"cannot write to {self.folder / LOCK}: {explain(error)}"
                ) from error
            raise
        self._descriptor = descriptor
        return self

    def _open(self) -> int:
        """The lock file, itself: no link that somebody put in its place."""
        path = self.folder / LOCK
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            if path.is_symlink() or path.is_dir():
                raise _not_ours(path) from error
            raise StorageError(
                f"cannot write to the folder {self.folder}: {explain(error)}; choose another one"
            ) from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise _not_ours(path)
        return descriptor

    def _lock(self, descriptor: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                self._lock_record(descriptor)
            else:
                raise self._refusal(descriptor, error) from error

    def _lock_record(self, descriptor: int) -> None:
        """Take a record lock instead, which network file systems have more often."""
        found = os.fstat(descriptor)
        record = (os.getpid(), found.st_dev, found.st_ino)
        try:
            if record in _by_record:
                raise BlockingIOError(errno.EWOULDBLOCK, "held by this process")
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise self._refusal(descriptor, error) from error
            warnings.warn(
                f"the file system of {self.folder} has no locks ({os.strerror(error.errno)}): "
                "let only one process write to it at a time",
                RuntimeWarning,
                stacklevel=2,
            )
        self._record = record
        _by_record.add(record)

    def _refusal(self, descriptor: int, error: OSError) -> StorageError:
        if error.errno not in _HELD:
            return StorageError(f"cannot lock {self.folder / LOCK}: {explain(error)}")
        note = os.pread(descriptor, _NOTE_BYTES, 0).strip()
        holder = note.decode() if note.isdigit() else "(unknown)"
        return LockedError(
            f"{self.folder} is in use by process {holder}; wait until it ends, "
            "or choose another folder"
        )

    def release(self) -> None:
        """Give the lock back; twice is no error."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                if self._noted:
                    os.ftruncate(descriptor, 0)
            finally:
                self._forget()
                os.close(descriptor)  # closing frees the lock

    def _forget(self) -> None:
        if self._record is not None:
            _by_record.discard(self._record)
            self._record = None

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()


def _not_ours(path: Path) -> StorageError:
    return StorageError(
        f"{path} is a link or no regular file, so it is no lock of ours and is left alone: "
        "remove it"
    )


def _is_note(descriptor: int) -> bool:
    """Whether the lock file is ours to write: of one name, and with a process id in it at most."""
    if os.fstat(descriptor).st_nlink > 1:
        return False
    note = os.pread(descriptor, _NOTE_BYTES + 1, 0)
    return len(note) <= _NOTE_BYTES and (not note.strip() or note.strip().isdigit())
