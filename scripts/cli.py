"""What every script shares: streams that outlive their readers, errors as one line, progress, tables.

Scripts are run as `python scripts/NAME.py`, which puts this folder on the path. They `import cli`
before any package, so that one that is not installed ends them with a line that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")
USAGE_ERROR = 2
INTERRUPTED = 130
OUR_PACKAGES = ("physgym", "worldmodels", "scripts", "cli")
NEEDED = ("gymnasium", "numpy", "physgym", "pydantic", "rich", "tyro")
"""Packages that every script needs before it can say anything itself."""
ACTIVATE = "activate the environment (. .venv/bin/activate) or install (pip install -e .)"


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


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """What Python says of an exception that nobody caught: a line where it was Ctrl-C."""
    if was_interrupted(error):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what `error` comes from: Python itself wraps it while a class is made."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


sys.excepthook = _tell_uncaught  # while packages are imported there is no main_guard yet


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


def require_packages() -> None:
    """End the process with one line and status 2 where a package of `NEEDED` is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{', '.join(missing)} not installed for {sys.executable}"
        print(f"error: {what}: {ACTIVATE}", file=sys.stderr)
        sys.exit(USAGE_ERROR)


require_packages()


class UsageError(ValueError):
    """Something on the command line that cannot be: shown as one line, exit status 2."""


def parse(kind: Callable[..., Result], **options: Any) -> Result:
    """`tyro.cli(kind, **options)`, where a value that a config refuses is an error of one line.

    Raises UsageError for that; ends the process with status 2 for words that tyro cannot read.
    """
    import tyro

    from worldmodels.configs.schema import ConfigError

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(kind, **options)
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, ConfigError):
            cause = cause.__context__
        if cause is not None:
            raise UsageError(str(cause)) from None
        if not end.code:
            raise
    return tyro.cli(kind, **options)  # once more, to be heard


def is_user_error(error: BaseException) -> bool:
    """Whether `error` tells the user what to change, rather than us what to mend.

    True for values, files and packages that are missing, for Gymnasium's errors and for the named
    errors of this project, and for a KeyError that carries a sentence (an unknown name). A KeyError
    with a bare key, an IndexError, TypeError or AttributeError, or a module of our own that does
    not import, is a defect and keeps its traceback.
    """
    if type(error) is KeyError:
        return " " in one_line(error)
    if isinstance(error, ImportError):
        return (error.name or "").partition(".")[0] not in OUR_PACKAGES
    if is_out_of_memory(error):
        return True
    home = type(error).__module__.partition(".")[0]
    return isinstance(error, (ValueError, OSError)) or home in (*OUR_PACKAGES, "gymnasium")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory (of the machine, or of a GPU) does not suffice."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    told = isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)
    return isinstance(error, MemoryError) or told


def one_line(error: BaseException) -> str:
    """The message of `error` on one line (a KeyError's without the quotes of str())."""
    if isinstance(error, MemoryError):
        return f"not enough memory: {' '.join(str(error).split()) or 'ask for less at a time'}"
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def main_guard(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and end the process with its status.

    A user's error prints one line on stderr and exits with 2 (PHYSGYM_DEBUG=1 adds the traceback);
    Ctrl-C exits with 130. A closed pipe (`| head`), a closed or a full stdout change nothing: the
    work is done to its end, and its files are there.
    """
    steady_streams()
    warnings.showwarning = _show_warning
    try:
        status = main() or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        if os.environ.get("PHYSGYM_DEBUG") or not is_user_error(error):
            if was_interrupted(error):
                print("stopped", file=sys.stderr)
                sys.exit(INTERRUPTED)
            raise
        missing = type(error) is ModuleNotFoundError  # Gymnasium's own says what to install
        hint = f": {ACTIVATE}" if missing else ""
        print(f"error: {one_line(error)}{hint}", file=sys.stderr)
        status = USAGE_ERROR
    sys.exit(status)


def command(script: str) -> str:
    """How to run `script` of this folder from here, with the interpreter that runs now."""
    found = shutil.which("python")
    if found and Path(found).absolute() == Path(sys.executable).absolute():
        python = "python"
    else:
        python = _from_here(Path(sys.executable))
    return f"{python} {_from_here(Path(__file__).with_name(f'{script}.py'))}"


def _from_here(path: Path) -> str:
    """`path` relative to the working folder where it lies inside, or absolute."""
    path, here = Path(os.path.abspath(path)), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def check_writable(path: Path, folder: bool = False, option: str = "--out") -> None:
    """Raise UsageError or StorageError unless the file (or `folder`) `path` can be written; makes
    nothing.

    To be called before the work whose result would be lost.
    """
    from worldmodels.storage.files import check_parent

    check_parent(path / "file" if folder else path)
    reason, existing = None, path.absolute()
    if path.exists() and path.is_dir() != folder:
        reason = "it is a file" if folder else f"it is a folder; name a file in it, {path}/NAME"
    while not existing.exists():
        existing = existing.parent
    if existing != path.absolute() and not existing.is_dir():
        reason = f"{existing} is not a folder"
    elif not os.access(existing, os.W_OK):
        reason = "permission denied"
    if reason:
        raise UsageError(f"cannot write to {option} {path}: {reason}; choose another one")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show how much of `total` is done, once it takes longer than a second.

    Yields `advance(count=1)`.
    """
    from worldmodels.data.progress import Progress

    done = 0

    def advance(count: int = 1) -> None:
        nonlocal done
        done += count
        bar.reach(done)

    with Progress(title, total) as bar:
        yield advance


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column left, the others right; floats with three figures.

    No number is cut off: where not all columns fit the terminal, the others follow in a table below,
    the first column repeated.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    body = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    console = Console(width=None if sys.stdout.isatty() else 160)
    widths = [_widest(cells) for cells in zip(columns, *body, strict=True)]
    first = min(widths[0], max(console.width // 3, 8))
    for index, shown in enumerate(_fitting(widths, first, console.width)):
        table = Table(title=None if index else escape(title), title_justify="left")
        table.add_column(escape(columns[0]), overflow="fold", max_width=first)
        for column in shown:
            width = widths[column]
            name = escape(columns[column])
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        for row in body:
            table.add_row(*(escape(row[column]) for column in (0, *shown)))
        console.print(table)


def _widest(cells: Iterable[str]) -> int:
    """Width of the widest line in cells of one or more lines."""
    return max((len(line) for cell in cells for line in cell.splitlines()), default=0)


def _fitting(widths: Sequence[int], first: int, most: int) -> list[list[int]]:
    """Columns after the first in groups, each of which fits `most` characters beside it."""
    groups: list[list[int]] = [[]]
    border, room = 3, most - first - 4
    used = 0
    for column, width in enumerate(widths[1:], start=1):
        if groups[-1] and used + width + border > room:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += width + border
    return groups
