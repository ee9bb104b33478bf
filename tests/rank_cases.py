"""What both processes of `test_ranks.py` do: `torchrun rank_cases.py FOLDER`; alone, the same in one process."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from data_cases import Log
from test_training import DATA, folder, small

from worldmodels.configs.training import TrainConfig
from worldmodels.training import trainer as trainers
from worldmodels.training.fit import fit
from worldmodels.training.ranks import Ranks, joined


def case(name: str, batch: int = 31, optim: Any = "adam", parts: int = 1, **model: Any) -> Any:
    """Batches of an odd number of windows, many of which end early."""
    config = small(name, 3, **model)
    changed = {"name": optim, "batch_size": batch, "accumulate": parts, "grad_clip": 0.5}
    return replace(config, optim=replace(config.optim, **changed))


CASES: dict[str, TrainConfig] = {
    "matching": case("jump"),
    "masked": case("first_order", objective="shooting", rollout_steps=24),
    "accumulated": case("port_hamiltonian", parts=3, batch=7),
    "memory": case("lstm", rollout_growth=True, objective="shooting"),
    "members": case("newtonian", ensemble=2),
    "soap": case("jump", optim="soap"),
}


def exact(config: TrainConfig, dataset: Any, made: Any = None, checkpoints: Any = None) -> Any:
    """A model in float64."""
    return seeded(config, dataset, made, checkpoints).double()


seeded = trainers.seeded_model


def curve(config: TrainConfig, where: Path, ranks: Ranks, resume: bool = False) -> list[Any]:
    """Rows that a training logs."""
    log = Log()
    fit(config, DATA, folder(where), log, resume=resume, ranks=ranks)
    return log.rows


def unlucky(where: Path, ranks: Ranks) -> list[Any]:
    """Rows of a training in which the last process has a loss that is not finite in step 3."""
    loss, calls = trainers.Trainer._loss, [0]

    def spoilt(self: Any, batch: Any, number: int) -> Any:
        calls[0] += 1
        if calls[0] == 3 and ranks.index == ranks.count - 1:
            return None, {}
        return loss(self, batch, number)

    trainers.Trainer._loss = spoilt  # type: ignore[method-assign]
    try:
        return curve(CASES["matching"], where, ranks)
    finally:
        trainers.Trainer._loss = loss  # type: ignore[method-assign]


def resumed(where: Path, ranks: Ranks) -> None:
    """The same training, in one go and in two."""
    config = CASES["masked"]
    curve(config, where / "whole", ranks)
    with contextlib.suppress(SystemExit):
        curve(config, where / "parts", Stopping(ranks, 8))
    curve(config, where / "parts", ranks, resume=True)


class Stopping(Ranks):
    """Processes of which the last is asked to end behind a step."""

    def __init__(self, ranks: Ranks, steps: int) -> None:
        super().__init__(ranks.index, ranks.count)
        self.left = steps

    def most(self, value: int) -> int:
        self.left -= 1
        asked = self.left == 0 and self.index == self.count - 1
        return super().most(15 if asked else value)


def all_of(where: Path, ranks: Ranks) -> dict[str, Any]:
    """Every curve by name."""
    torch.set_num_threads(1)
    trainers.seeded_model = exact
    try:
        curves = {name: curve(config, where / name, ranks) for name, config in CASES.items()}
        curves["unlucky"] = unlucky(where / "unlucky", ranks)
    finally:
        trainers.seeded_model = seeded
    return curves


def main() -> None:
    where = Path(sys.argv[1])
    with joined() as ranks:
        curves = all_of(where, ranks)
        (where / f"curves-{ranks.index}.json").write_text(json.dumps(curves))
        resumed(where / "resumed", ranks)


if __name__ == "__main__":
    main()
