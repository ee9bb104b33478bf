"""Learn a model and an agent from each other: collect, train, improve, and again.

    physgym loop --env pendulum --agent sac --rounds 10
    physgym loop --env Pendulum-v1 --model-free-steps 20000

The second puts the same agent without a model beside it.

Killed at any moment, the same command with the same --out goes on. True steps are what is counted; the plot
shows what the agent earns over them.

Needs the extra `agents` (Stable-Baselines3): pip install 'physgym[agents]'.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.loops.config import LoopConfig


@dataclass(frozen=True)
class Arguments:
    """What to run, and where."""

    config: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)
    """What to do."""
    out: Path | None = None
    """Folder of the loop, a new one or one to go on with; None: outputs/<date>/<time>/loop."""


def main() -> None:
    """Run the loop that the command line names, and say what it earned."""
    arguments = cli.parse(Arguments, description=__doc__)
    config = arguments.config
    out = arguments.out or Path("outputs") / time.strftime("%Y-%m-%d/%H-%M-%S") / "loop"
    cli.check_writable(out, folder=True)
    from worldmodels.films.loops import returns_over_true_steps
    from worldmodels.loops.loop import run

    record = run(config, out, lambda line: print(line, flush=True))
    plot = returns_over_true_steps(record, out / "loop.png")
    rows = [
        [row["round"] + 1, row["true_steps"], f"{row['return']:.1f} +- {row['standard_error']:.1f}"]
        for row in record["rows"]
    ]
    cli.print_table(
        f"{config.agent} in a learned {config.env}", ["round", "true steps", "return"], rows
    )
    print(f"{out / 'loop.json'}\n{plot}")
