"""What every script shares: errors as one line, progress, tables.

Scripts are run as `python scripts/NAME.py`, which puts this folder on the path. They `import cli`
before any package, so that one that is not installed ends them with a line that says what to do.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

USAGE_ERROR = 2
INTERRUPTED = 130
OUR_PACKAGES = ("physgym", "worldmodels", "scripts", "cli")
NEEDED = ("gymnasium", "numpy", "physgym", "pydantic", "rich", "tyro")
"""Packages that every script needs before it can say anything itself."""
ACTIVATE = "activate the environment (. .venv/bin/activate) or install (pip install -e .)"


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


def check_writable(path: Path, folder: bool = False) -> None:
    """Raise UsageError unless the file (or `folder`) `path` can be written; makes nothing.

    To be called before the work whose result would be lost.
    """
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
        raise UsageError(f"cannot write to --out {path}: {reason}; choose another one")


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
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for index, column in enumerate(columns):
        side: Any = "left" if index == 0 else "right"
        table.add_column(escape(column), justify=side, no_wrap=True)
    for row in rows:
        cells = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row)
        table.add_row(*map(escape, cells))
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)
