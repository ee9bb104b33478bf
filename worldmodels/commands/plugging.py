"""`--plugin FILE_OR_MODULE`, on every command: taken off the words before the command reads them."""

from __future__ import annotations

import sys

from worldmodels.commands.terminal import UsageError

OPTION = "--plugin"


def load_named() -> None:
    """Load the plugins that the command line names, each time it does, and forget the words.

    Raises UsageError where a name is missing, and what ``worldmodels.plugins.load_plugin`` raises.
    """
    rest: list[str] = []
    named: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word == OPTION:
            named.append(next(words, ""))
        elif word.startswith(f"{OPTION}="):
            named.append(word.partition("=")[2])
        else:
            rest.append(word)
    if any(not name or name.startswith("-") for name in named):
        raise UsageError(f"{OPTION} names no plugin: give a file ending in .py, or a module")
    sys.argv = [sys.argv[0], *rest]
    if named:
        from worldmodels.plugins import load_plugin

        for name in named:
            load_plugin(name)
