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
        """Catch both signals within the block (in the main thread; elsewhere nothing changes)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}

        def remember(number: int, frame: Any) -> None:
            self.signal = number
            for each in numbers:
                signal.signal(each, before[each])

        for number in numbers:
            signal.signal(number, remember)
        try:
            yield self
        finally:
            for number in numbers:
                signal.signal(number, before[number])

    def stop(self) -> None:
        """End the process's work as the signal asked: KeyboardInterrupt, or SystemExit(143)."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(143)
