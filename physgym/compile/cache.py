"""What is compiled once a process, whichever thread asks first, and in forked children too."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A fork waits for a compilation that another thread is in the middle of: the child would
    # inherit the lock (and LLVM's own) held by a thread that it does not have.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def once(make: Callable[..., Result]) -> Callable[..., Result]:
    """Decorator: `make` runs once for each set of arguments (hashable), one thread at a time.

    `functools.cache` alone lets two threads make the same thing twice, and keeps one of the two.
    """
    kept = functools.cache(make)

    @functools.wraps(make)
    def made(*arguments: object) -> Result:
        with _lock:
            return kept(*arguments)

    return made
