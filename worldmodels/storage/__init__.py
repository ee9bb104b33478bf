"""What lies on disk: files that survive a crash, checkpoints, run folders."""

from worldmodels.storage.files import (
    LockedError,
    RunLock,
    StorageError,
    atomic_write,
    fingerprint,
    read_sealed,
    seal,
    unseal,
)

__all__ = [
    "LockedError",
    "RunLock",
    "StorageError",
    "atomic_write",
    "fingerprint",
    "read_sealed",
    "seal",
    "unseal",
]
