"""stdout and stderr that outlive their readers: what is shown never ends what is done."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


def fill_closed_descriptors() -> None:
    """Put the null device where stdin, stdout or stderr was closed at the start (`>&-`).

    Otherwise the next file to be opened gets the number, and what some library writes to stderr
    lands in a dataset.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(null, True)


fill_closed_descriptors()


class LastingFile(io.FileIO):
    """A stream's file, whose failure to write ends nothing: a reader that went away, a full disk.

    What cannot be written is dropped; the first failure that is no reader's leaving is told `tell`.
    """

    def __init__(self, descriptor: int, tell: Callable[[str], object]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._tell: Callable[[str], object] | None = tell

    def write(self, content: Any) -> int:
        """Write, or do as if."""
        try:
            super().write(content)
        except OSError as error:
            tell, self._tell = self._tell, None
            if tell is not None and error.errno not in (errno.EPIPE, errno.EBADF):
                tell(f"warning: output is lost: {error.strerror}; the work goes on")
        return memoryview(content).nbytes


def steady_streams() -> None:
    """Make stdout and stderr outlive their readers and show any text, with "?" for what they lack.

    Python's own streams only: those that a test or a notebook has put in their place stay.
    """
    if sys.stdout is not None and sys.stdout is not sys.__stdout__:
        return
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if os.name == "nt" and stream is not None and stream.isatty():
            stream.reconfigure(errors="replace")  # a console there is no file of bytes
            continue
        if stream is not None:
            stream.flush()
        file = LastingFile(number, _tell_other(number))
        at_once = number == 2 or file.isatty() or getattr(stream, "write_through", False)
        lasting = io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding=getattr(stream, "encoding", None) or "utf-8",
            errors="replace",
            line_buffering=at_once,
        )
        setattr(sys, name, lasting)


def _tell_other(number: int) -> Callable[[str], object]:
    """Says a line on stderr for stdout; there is nobody to tell that stderr is full."""
    return lambda line: print(line, file=sys.stderr) if number == 1 else None
