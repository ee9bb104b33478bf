"""What `physgym agent` leaves behind: numbers, agents, learning curves, films, and where each of them lies."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.commands import terminal as cli

if TYPE_CHECKING:
    from worldmodels.agents.learning import LearningCurve
    from worldmodels.agents.returns import Returns
    from worldmodels.training.tracking import Logger

FILM_SIZE = 300
"""Width of a panel of a film [px]."""


class Results:
    """The agents of one command, as they come: everything of one is written before the next is trained.

    Args:
        args: of the command.
        out: file of the numbers; all others lie beside it and begin with its name.
        places: what agents are evaluated in.
        structure: of the model, for the colour of its curve.
    """

    def __init__(self, args: Any, out: Path, places: list[str], structure: str) -> None:
        self.args, self.out, self.places, self.structure = args, out, places, structure
        self.rows: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Path]] = {}
        self._trained: dict[str, Any] = {}
        self.planned = args.agent == "plan"  # it learns nothing, and there is nothing to keep
        self.done = "planned in" if self.planned else "trained in"

    def beside(self, place: str, suffix: str) -> Path:
        """Path of a file of the agent that was trained in ``place``."""
        return self.out.with_name(f"{self.out.stem}-{place}{suffix}")

    def logger(self, place: str) -> Logger:
        """Where the learning curve goes: a file of its own, and Weights & Biases where asked."""
        from worldmodels.storage.files import make_parent
        from worldmodels.training.tracking import Logger

        path, args = self.beside(place, ".jsonl"), self.args
        make_parent(path)
        values = {**self._settings(), "trained in": place}
        name = f"{self.out.stem}-{place}"
        logger = Logger(path.parent, args.log, values, "agent", name=name, file=path.name)
        logger.rewind(-1)  # a file that --out names again begins anew
        self.files[place] = {} if self.planned else {"learning": path}
        return logger

    def keep(self, place: str, agent: Any) -> None:
        """Write an agent as a whole, and through no link."""
        from worldmodels.storage.files import atomic_write

        path = self.beside(place, ".zip")
        atomic_write(path, agent.save)
        self.files[place]["agent"] = path
        print(f"agent   {path}", flush=True)

    def film(self, place: str, agent: Any, envs: Mapping[str, Any], stack: int) -> None:
        """Film an agent acting in each of the single ``envs``, from one start; they are closed then.

        Where OpenCV cannot encode, a line says so, and the work goes on.
        """
        from worldmodels.agents.returns import greedy
        from worldmodels.films.pairs import Side, filmed
        from worldmodels.films.video import write_video

        sides = [Side(envs["truth"], "in the truth", FILM_SIZE)]
        if "model" in envs:
            sides.append(Side(envs["model"], "in the model", FILM_SIZE))
        acts = [_single(_forgetful(agent) if self.planned else greedy(agent, stack)) for _ in sides]
        path = self.beside(place, ".mp4")
        with cli.progress("filming", sides[0].limit) as advance:

            def half() -> None:
                advance(0.5)  # a step is drawn, and then encoded

            frames = filmed(sides, acts, self.args.seed + 1_000_000, half)
            try:
                self.files[place]["film"] = write_video(frames, path, 1 / sides[0].dt, half)
            except OSError as error:
                print(f"no film: {cli.one_line(error)}", file=sys.stderr, flush=True)
        for env in envs.values():
            env.close()

    def add(
        self,
        place: str,
        seconds: float,
        earned: Mapping[str, Returns],
        curve: LearningCurve,
        logger: Logger,
    ) -> None:
        """Write the numbers and the plot, of all agents so far."""
        from worldmodels.films.returns import Trained, returns_over_steps

        self.rows.append({"trained in": place, "seconds": seconds, **earned})
        if not self.planned:
            truth = earned["truth"]
            error = truth.standard_error if len(truth.returns) > 1 else None
            self._trained[place] = Trained(self.args.steps, curve.rows, truth.mean, error)
            plot = self.out.with_name(f"{self.out.stem}-learning.png")
            title = f"{self.args.agent}: returns while it trains"
            returns_over_steps(self._trained, plot, title, self.structure)
            self.files[place]["plot"] = plot
        self._write()
        logger.summary({f"return in the {name}": each.mean for name, each in earned.items()})
        if "plot" in self.files[place]:
            logger.image("learning", self.files[place]["plot"])
        if "film" in self.files[place]:
            logger.video("agent", self.files[place]["film"])

    def report(self) -> None:
        """Print what every agent earns, and where every file lies."""
        args, places = self.args, self.places
        columns = ["agent", self.done, *([] if self.planned else ["steps", "seconds"])]
        columns += [f"return in the {place}" for place in places]
        cells = [
            [
                args.agent,
                row["trained in"],
                *([] if self.planned else [args.steps, row["seconds"]]),
                *(str(row[p]) for p in places),
            ]
            for row in self.rows
        ]
        cli.print_table(f"{args.agent}: mean return +- standard error", columns, cells)
        lines = [("numbers", self.out)]
        for place, files in self.files.items():
            lines += [
                (f"{what}, {self.done} the {place}", path)
                for what, path in files.items()
                if what != "plot"
            ]
        lines += [("plot", files["plot"])] if "plot" in files else []
        width = max(len(what) for what, _ in lines)
        print("\n".join(f"{what:<{width}}  {path}" for what, path in lines))

    def _settings(self) -> dict[str, Any]:
        args = self.args
        search = {"method": args.method, "horizon": args.horizon, "hold": args.hold}
        return {
            "agent": args.agent,
            **({"planner": search} if self.planned else {"steps": args.steps}),
            "seed": args.seed,
            "stack": args.stack,
            "device": args.device,
            "run": None if args.run is None else str(args.run),
            "env": args.env,
        }

    def _write(self) -> None:
        from worldmodels.storage.files import atomic_write

        rows = []
        for row in self.rows:
            files = {what: str(path) for what, path in self.files[row["trained in"]].items()}
            numbers = {k: _plain(v) if k in self.places else v for k, v in row.items()}
            rows.append({**numbers, "files": files})
        values = {**self._settings(), "rows": rows}
        atomic_write(self.out, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _forgetful(planner: Any) -> Any:
    """A planner as it was before its first plan, with plans of its own from then on."""
    own = copy.copy(planner)
    own.reset()
    return own


def _single(act: Any) -> Any:
    """A batched policy as one of a single observation."""
    return lambda observation: act(observation[None])[0]


def _plain(returns: Returns) -> dict[str, Any]:
    """`returns` in JSON types: what is not finite is None."""
    values = {**returns._asdict(), "returns": [_finite(each) for each in returns.returns.tolist()]}
    if len(returns.returns) < 2:
        values["standard_error"] = None
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
