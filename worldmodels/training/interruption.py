"""SIGINT and SIGTERM, held back until the work in hand is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Remembers SIGINT and SIGTERM until the step in hand is done; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def watched(self) -> Iterator[Interruption]:
        """Catch both signals within the block (in the main thread; elsewhere nothing changes).

        One that the process was told to ignore (`nohup`, a shell's background job) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # None: a handler that Python did not install, and could not put back.
        before = {n: how for n, how in found.items() if how not in (signal.SIG_IGN, None)}

        def remember(number: int, frame: Any) -> None:
            self.signal = number
            restore()

        def restore() -> None:
            for number, how in before.items():
                signal.signal(number, how)

        for number in before:
            signal.signal(number, remember)
        try:
            yield self
        finally:
            restore()

    def stop(self) -> None:
        """End the process's work as the signal asked: KeyboardInterrupt, or SystemExit(143)."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(143)
