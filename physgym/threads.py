"""How many threads torch works on: one in a forked child, one where the work is small.

A child that fork made has none of its parent's OpenMP threads, and torch waits for them for ever. In
children of a process in which PhysGym or worldmodels use torch it therefore works on one thread
(`torch.set_num_threads` gives it more, at the caller's risk). Nothing here imports torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SMALL_WORK = 2**24
"""Rows times weights up to which one thread is at least about as fast as several: a pass takes about a
millisecond then, and where other processes want the cores too, several threads mostly wait for each
other (5 to 24 times as slow on two busy cores)."""

_in_use = False
_forked_beside_torch = False


def use_torch() -> None:
    """Say that this process is about to use torch; modules that import it call this, once each."""
    global _in_use
    _in_use = True
    if _forked_beside_torch:
        _torch().set_num_threads(1)


def _after_fork() -> None:
    global _forked_beside_torch
    if "torch" not in sys.modules:
        return
    _forked_beside_torch = True
    if _in_use:
        _torch().set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def small_work(work: float) -> Iterator[None]:
    """Run `work` (rows times weights) of at most `SMALL_WORK` on one thread, the caller's number after.

    The number of threads is each Python thread's own, so callers in several threads do not disturb each
    other. Where it is one already nothing is set, then or afterwards.
    """
    torch = _torch()
    before = torch.get_num_threads()
    if before == 1 or work > SMALL_WORK:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _torch() -> Any:
    import torch

    return torch
