"""Starts a command of `physgym` in a clone: `python scripts/NAME.py` is `physgym NAME`.

A script imports this before any package, so that one that is not installed ends it with a line that says
what to do.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

NEEDED = ("gymnasium", "numpy", "physgym", "pydantic", "rich", "tyro")
"""Packages that every command needs before it can say anything itself."""
ACTIVATE = "activate the environment (. .venv/bin/activate) or install (pip install -e .)"
USAGE_ERROR = 2


def start(verb: str) -> None:
    """Run `physgym VERB` with the words behind the script, and end the process with its status."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{', '.join(missing)} not installed for {sys.executable}"
        print(f"error: {what}: {ACTIVATE}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    from worldmodels.commands import run

    run(verb)


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """What Python says of an exception that nobody caught: a line where it was Ctrl-C, while packages load."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__  # Python wraps it while a class is made
    if cause is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print("stopped", file=sys.stderr)


sys.excepthook = _tell_uncaught  # while packages load, nothing else listens
