"""What is there: systems with their parameters, structures, predictors, buffers and runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

import physgym
from worldmodels.commands import terminal as cli
from worldmodels.configs.training import KINDS, PREDICTORS
from worldmodels.storage.runs import OUTPUTS, RunError, RunFolder, runs_by_depth

Kind = Literal["systems", "structures", "predictors", "buffers", "runs"]
KINDS_OF_THINGS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class ListConfig:
    """What to list."""

    kinds: Annotated[
        tuple[Kind, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[KIND ...]")
    ] = KINDS_OF_THINGS
    """systems, structures, predictors, buffers, runs; none named: all."""
    root: Path = Path("datasets")
    """Folder of all datasets."""
    outputs: Path = OUTPUTS
    """Folder of all runs."""


def main() -> None:
    """List what the command line names."""
    config = cli.parse(ListConfig, description=__doc__)
    for kind in config.kinds:
        {
            "systems": systems,
            "structures": structures,
            "predictors": predictors,
            "buffers": lambda: buffers(config.root),
            "runs": lambda: runs(config.outputs),
        }[kind]()


def systems() -> None:
    """Every system: its id, and each parameter with unit, default and range."""
    for system in physgym.SYSTEMS.values():
        rows = [
            [name, f"{value:g}", system.param_units.get(name, ""), _range(system, name)]
            for name, value in system.Params()._asdict().items()
        ]
        title = (
            f"{system.name}: {system.env_id}, {system.state_size} state variables "
            f"({', '.join(system.state_names)}), dt {system.dt:g} s"
        )
        for argument, values in system.variants.items():
            title += f"; {argument}={' | '.join(map(str, sorted(values)))} (as {system.name}_{values[-1]})"
        cli.print_table(title, ["parameter", "default", "unit", "range when randomised"], rows)


def _range(system: physgym.System, name: str) -> str:
    low, high = system.ranges.get(name, (None, None))
    return "" if low is None else f"{low:g} to {high:g}"


def structures() -> None:
    """Every structure over states, and what it is."""
    rows = [[name, _first_line(kind.__doc__)] for name, kind in KINDS.items()]
    _print("structures (--model)", rows)


def predictors() -> None:
    """Every predictor of the visual model."""
    rows = [
        [name, f"{medium} latent, {structure}"] for name, (medium, structure) in PREDICTORS.items()
    ]
    _print("predictors of the visual model (--model visual --predictor)", rows)


def buffers(root: Path) -> None:
    """Every buffer under the folder of datasets."""
    from worldmodels.data.header import HEADER
    from worldmodels.data.store import DatasetError, read_header

    rows = []
    for path in sorted(root.glob(f"*/*/{HEADER}")):
        name = path.parent.relative_to(root).as_posix()
        try:
            header = read_header(path.parent)
        except DatasetError as error:
            rows.append([name, f"damaged: {error}"])
            continue
        config = header["config"]
        pixels = f", {config['image_size']} px" if config["pixels"] else ""
        rows.append(
            [name, f"{config['episodes']} episodes of up to {header['steps']} steps{pixels}"]
        )
    _print(f"buffers in {root}", rows)


def runs(outputs: Path) -> None:
    """Every run under the folder of outputs: model, env and how it ended."""
    rows = []
    for path in sorted(itertools.chain(*runs_by_depth(outputs))):
        try:
            run = RunFolder.open(path)
            config, record = run.config, run.record
            words = f"{config.get('env_name')} {config.get('model_name')}, {record.get('status')}"
        except RunError as error:
            words = f"damaged: {error}"
        rows.append([path.relative_to(outputs).as_posix(), words])
    _print(f"runs in {outputs}", rows)


def _print(title: str, rows: Iterable[list[str]]) -> None:
    """Names and words, one a line: a word too long for the line is not cut."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    print(title if rows else f"{title}: none")
    for name, words in rows:
        print(f"  {name:<{width}}  {words}")
    print()


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
