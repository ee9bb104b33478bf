"""What every command shares: streams that outlive their readers, errors as one line, progress, tables."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from worldmodels.commands.streams import steady_streams

Result = TypeVar("Result")
USAGE_ERROR = 2
INTERRUPTED = 130
OUR_PACKAGES = ("physgym", "worldmodels")
SCRIPTS = {"agent": "train_agent"}
"""Scripts whose name is not that of their command."""
ACTIVATE = "activate the environment (. .venv/bin/activate) or install (pip install -e .)"


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


class UsageError(ValueError):
    """Something on the command line that cannot be: shown as one line, exit status 2."""


def parse(kind: Callable[..., Result], **options: Any) -> Result:
    """`tyro.cli(kind, **options)`, where a value that a config refuses is an error of one line.

    Raises UsageError for that, and for an option that stands there twice; ends the process with status 2 for
    words that tyro cannot read.
    """
    check_once(options.get("args", sys.argv[1:]))
    import tyro

    from worldmodels.configs.schema import ConfigError

    if "description" in options:
        options["description"] = wrapped(options["description"])
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


def check_once(words: Sequence[str]) -> None:
    """Raise UsageError where an option stands twice: which value is meant, nobody can say."""
    names = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    doubled = dict.fromkeys(name for name in names if names.count(name) > 1)
    if doubled:
        raise UsageError(f"{' '.join(doubled)} stands there twice: give each option once")


def wrapped(text: str) -> str:
    """Paragraphs as lines that fit the terminal; lines that begin with spaces (examples) stay.

    All are set in by a space: of a line that begins with a letter, tyro makes one with the line before.
    """
    most = max(shutil.get_terminal_size().columns, 40)
    found = []
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.startswith(" "):
            paragraph = textwrap.fill(" ".join(paragraph.split()), most - 1)
        found.append(textwrap.indent(paragraph, " "))
    return "\n\n".join(found)


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
    sys.excepthook = _tell_uncaught
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


def command(verb: str) -> str:
    """How to run another command the way this one was: as `physgym VERB`, or by its script in a clone."""
    begun = Path(sys.argv[0])
    if (
        begun.suffix != ".py"
        or not (script := begun.with_name(f"{SCRIPTS.get(verb, verb)}.py")).is_file()
    ):
        return f"physgym {verb}"
    found = shutil.which("python")
    if found and Path(found).absolute() == Path(sys.executable).absolute():
        python = "python"
    else:
        python = from_here(Path(sys.executable))
    return f"{python} {from_here(script)}"


def from_here(path: Path) -> str:
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

    done: float = 0

    def advance(count: float = 1) -> None:
        nonlocal done
        done += count
        bar.reach(done)

    with Progress(title, total) as bar:
        yield advance


@contextmanager
def progress_in_shares(title: str) -> Iterator[Callable[[float], None]]:
    """``progress`` of work that tells shares of itself, which add up to 1."""
    with progress(f"{title}: % done", 100) as advance:
        yield lambda share: advance(100 * share)


def width() -> int:
    """Columns that tables may take: those of the terminal, or 160 in a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 160


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column left, the others right; floats with three figures.

    No number is cut off: where not all columns fit the terminal, the others follow in a table below,
    the first column repeated.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    body = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    console = Console(width=width())
    widths = [_widest(cells) for cells in zip(columns, *body, strict=True)]
    first = min(widths[0], max(console.width // 3, 8))
    console.print(escape(title), style="italic", highlight=False)
    for shown in _fitting(widths, first, console.width):
        table = Table()
        table.add_column(escape(columns[0]), overflow="fold", max_width=first)
        for column in shown:
            name = escape(columns[column])
            table.add_column(name, justify="right", no_wrap=True, min_width=widths[column])
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
