"""Starts a command of `physgym` in a clone: `python scripts/NAME.py` is `physgym NAME`.

A script imports this before any package, so that one that is not installed ends it with a line that says
what to do.
"""

from __future__ import annotations

import importlib.util
import sys

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
