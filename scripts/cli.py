"""What every script shares: errors as one line, progress, tables.

Scripts are run as `python scripts/NAME.py`, which puts this folder on the path:
`from cli import main_guard`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

USAGE_ERROR = 2
INTERRUPTED = 130
OUR_PACKAGES = ("physgym", "worldmodels", "scripts", "cli")


class UsageError(ValueError):
    """Something on the command line that cannot be: shown as one line, exit status 2."""


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
    home = type(error).__module__.partition(".")[0]
    return isinstance(error, (ValueError, OSError)) or home in (*OUR_PACKAGES, "gymnasium")


def one_line(error: BaseException) -> str:
    """The message of `error` on one line (a KeyError's without the quotes of str())."""
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def main_guard(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and end the process with its status.

    A user's error prints one line on stderr and exits with 2 (PHYSGYM_DEBUG=1 adds the traceback);
    Ctrl-C exits with 130; a closed pipe (`| head`) ends quietly.
    """
    warnings.showwarning = _show_warning
    try:
        status = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        if os.environ.get("PHYSGYM_DEBUG") or not is_user_error(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = USAGE_ERROR
    sys.exit(status)


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
    """Print a table: the first column left, the others right; floats with three figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)
