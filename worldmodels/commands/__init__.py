"""The command line: `physgym VERB ...`, a module a verb; `python -m physgym` and `scripts/*.py` are the same.

Nothing heavy is loaded before a verb needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import NoReturn

VERBS = {
    "demo": "the whole tool on a pendulum in a few minutes",
    "collect": "collect a buffer of episodes from a true env",
    "convert": "bring episodes from elsewhere: Minari, NumPy; and back",
    "train": "train a world model",
    "sweep": "train many: models, seeds and settings, here or on a cluster",
    "evaluate": "compare world models with the truth and with baselines",
    "report": "one page of a whole sweep or of any runs: tables, plots, intervals",
    "visualize": "watch a system, or a world model beside it; film and draw",
    "play": "steer a learned world and the truth beside it with the keys",
    "agent": "train a stock agent inside a learned world model",
    "loop": "learn a model and an agent from each other, in rounds",
    "list": "systems, structures, predictors, buffers and runs that are there",
    "inspect": "what a buffer or a run is, and whether its hashes hold",
}
"""Commands and what they do; each is a module here with a function `main`."""
MODULES = {"list": "listing", "inspect": "inspection"}
"""Modules whose name is not that of their command."""


def usage() -> str:
    """What `physgym --help` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: physgym COMMAND [options]        physgym COMMAND --help lists the options",
            "",
            "Learned simulators of physical systems: collect, train, measure, act.",
            "",
            *lines,
            "",
            "--plugin FILE_OR_MODULE, on every command, makes your own systems and structures",
            "known to it.",
        ]
    )


def run(verb: str) -> NoReturn:
    """Run a command with the words of `sys.argv` behind it, and end the process with its status."""
    from worldmodels.commands import terminal

    def main() -> int | None:
        from worldmodels.commands import plugging

        plugging.load_named()
        _check_alone(verb)
        return importlib.import_module(f"{__name__}.{MODULES.get(verb, verb)}").main()

    terminal.main_guard(main)


def _check_alone(verb: str) -> None:
    """Raise UsageError where torchrun starts what is not made for several processes; one of them says so."""
    from worldmodels.commands.terminal import UsageError
    from worldmodels.training.ranks import several

    if verb == "train" or not several():
        return
    if os.environ["RANK"] != "0":
        sys.exit(2)
    raise UsageError(f"physgym {verb} runs in one process: torchrun is for physgym train")


def main() -> NoReturn:
    """`physgym`: find the command, and run it."""
    verb, *rest = sys.argv[1:] or [""]
    if verb in ("", "-h", "--help"):
        print(usage())
        sys.exit(0 if verb else 2)
    if verb == "--version":
        import physgym

        print(physgym.__version__)
        sys.exit(0)
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(
            f"error: no command {verb!r}: expected one of {', '.join(VERBS)}{hint}",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv = [f"physgym {verb}", *rest]
    run(verb)
