"""Progress on stderr: nothing in the first second, then a bar that vanishes, or plain lines.

Showing never ends the work: where stderr cannot be written to, it is left alone from then on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

QUIET_SECONDS = 1.0
LINE_SECONDS = 10.0


def say(line: str) -> None:
    """A line on stderr, at once; nothing where it cannot be written to."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # its reader went away, its disk is full, or it was closed
        return


class Progress:
    """Counts `total` things done under `title`; a context manager. On a terminal a bar that goes
    away at the end; elsewhere a line now and then; both with the time left. Nothing at all if done
    within a second."""

    def __init__(self, title: str, total: int, shown: bool = True) -> None:
        self._title, self._total, self._shown = title, total, shown
        self._note = ""
        self._base = self._done = 0.0
        self._next = time.monotonic() + QUIET_SECONDS
        self._first: tuple[float, float] | None = None
        self._bar: Any = None
        self._task: Any = None

    def reach(self, done: float, note: str = "") -> None:
        """Report that `done` of the total are done; `note` is shown behind, such as a pace."""
        self._base, self._note = done, note
        self.part(0.0)

    def part(self, done: float) -> None:
        """Report that `done` more than at the last `reach` are as good as done."""
        self._done = self._base + done
        if self._first is None or self._done <= self._first[1]:  # the pace is that of what moves
            self._first = time.monotonic(), self._done
        if self._bar is not None:
            with self._harmless():
                self._bar.update(self._task, completed=self._done)
        elif self._shown and time.monotonic() >= self._next and self._done < self._total:
            if self._done <= self._first[1] and not self._note:
                return  # the next report says how long it takes
            with self._harmless():
                self._show()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Let nothing that goes wrong with showing reach the work, and show no more then."""
        try:
            yield
        except Exception:
            self._shown, self._bar = False, None

    def _show(self) -> None:
        if sys.stderr is None:
            return
        if not sys.stderr.isatty():
            note = f"; {self._note}" if self._note else ""
            counted = f"{self._title}: {int(self._done)}/{self._total}{self._left()}{note}"
            print(counted, file=sys.stderr, flush=True)
            self._next = time.monotonic() + LINE_SECONDS
            return
        self._bar = _bar(lambda: self._note)
        self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)
        self._bar.start()

    def _left(self) -> str:
        """About how long it still takes, at the pace since the first report."""
        began, base = self._first or (0.0, 0.0)
        if self._done <= base:
            return ""
        pace = (time.monotonic() - began) / (self._done - base)
        seconds = pace * (self._total - self._done)
        left = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        return f", about {left} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            with self._harmless():
                self._bar.stop()


def _bar(note: Callable[[], str]) -> Any:
    """A bar on stderr, with what `note` says in lines below it: beside it, neither would fit."""
    from rich.console import Console, RenderableType
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Bar(RichProgress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if told := note():
                yield Text(f"  {told}")

    return Bar(console=Console(stderr=True), transient=True)
