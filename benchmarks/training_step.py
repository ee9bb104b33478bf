"""A gradient step on rollouts, beside the loop that a user of torchdiffeq would write.

    python benchmarks/training_step.py --models first_order port_hamiltonian

Shooting over 32 steps of the pendulum, batches of 256, two hidden layers of 128, one thread. The peers hold the action
for a step, integrate it by `torchdiffeq.odeint` and descend the squared error with Adam: "mlp" is a network of
(cos, sin, velocity, action), "hnn" the gradient of an energy network by `torch.autograd.grad`. Contestants take turns
in blocks of one process; ratios are medians over the blocks. The floor is the time of the matrix products alone, at the
rate of one that is as large as these.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagination import measured
from reporting import print_table, write_json
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
BATCH, STEPS, WIDTH, DT = 256, 32, 128, 0.05
COLUMNS = ("step", "milliseconds", "gflop", "floor_ms", "over_floor", "faster_than_mlp", "faster_than_hnn")  # fmt: skip


def batch_of(steps: int = STEPS) -> Any:
    """States, actions and masks of noise."""
    from worldmodels.interface import Batch

    torch.manual_seed(0)
    return Batch(
        torch.randn(BATCH, steps + 1, 2),
        torch.randint(0, 3, (BATCH, steps)),
        torch.zeros(BATCH, 0),
        torch.ones(BATCH, steps, dtype=torch.bool),
    )


def ours(
    batch: Any, name: str, optimiser_name: str, fast: bool = True, **options: Any
) -> Callable[[], None]:
    """A step of our training: rollout, loss, backward, clip, optimiser; by torch alone unless ``fast``."""
    from worldmodels.configs.training import MODELS, OptimConfig
    from worldmodels.interface import Spec
    from worldmodels.models.building import build
    from worldmodels.training.optimisers import optimiser

    spec = Spec("pendulum", dt=DT, angles=(0,), state_size=2, action_kind="discrete", action_size=3)
    config = MODELS[name](hidden=WIDTH, objective="shooting", rollout_steps=STEPS)
    model = build(spec, name, replace(config, **options))
    if fast:
        model.accelerate()
    moved = optimiser(replace(OptimConfig(), name=optimiser_name), model)  # type: ignore[arg-type]

    def step() -> None:
        moved.zero_grad()
        loss, _ = model.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        moved.step()

    return step


class Field(nn.Module):
    """What a user would write: dz/dt of (angle, velocity) under the action that is held."""

    def __init__(self, hamiltonian: bool) -> None:
        super().__init__()
        self.hamiltonian = hamiltonian
        size_in, size_out = (3, 1) if hamiltonian else (6, 2)
        self.net = nn.Sequential(
            nn.Linear(size_in, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, size_out)
        )  # fmt: skip
        self.force = nn.Linear(3, 1, bias=False)
        self.held = torch.zeros(BATCH, 3)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        q, p = z[:, :1], z[:, 1:]
        if not self.hamiltonian:
            return self.net(torch.cat((q.cos(), q.sin(), p, self.held), 1))
        with torch.enable_grad():
            seen = z if z.requires_grad else z.requires_grad_()
            q, p = seen[:, :1], seen[:, 1:]
            energy = self.net(torch.cat((q.cos(), q.sin(), p), 1)).sum()
            (slope,) = torch.autograd.grad(energy, seen, create_graph=True)
        return torch.cat((slope[:, 1:], self.force(self.held) - slope[:, :1]), 1)


def theirs(batch: Any, method: str, hamiltonian: bool = False) -> Callable[[], None]:
    """A step of the plain loop."""
    from torchdiffeq import odeint

    torch.manual_seed(0)
    field = Field(hamiltonian)
    adam = torch.optim.Adam(field.parameters(), lr=1e-3)
    times = torch.tensor([0.0, DT])
    held = nn.functional.one_hot(batch.actions, 3).float()

    def step() -> None:
        adam.zero_grad()
        z, errors = batch.states[:, 0].clone(), []
        for t in range(STEPS):
            field.held = held[:, t]
            z = odeint(field, z, times, method=method)[-1]
            errors.append(((z - batch.states[:, t + 1]) ** 2).mean())
        loss = torch.stack(errors).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(field.parameters(), 1.0)
        adam.step()

    return step


def rate() -> float:
    """FLOP/s of the matrix product that these trainings consist of."""
    x, w = torch.randn(BATCH, WIDTH), torch.randn(WIDTH, WIDTH)
    best = np.inf
    for _ in range(20):
        began = time.process_time()
        for _ in range(50):
            x @ w
        best = min(best, (time.process_time() - began) / 50)
    return 2 * BATCH * WIDTH * WIDTH / best


def products(step: Callable[[], None]) -> float:
    """FLOP of the matrix products of a step."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return float(counter.get_total_flops())


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["first_order", "port_hamiltonian"])
    parser.add_argument("--blocks", type=int, default=7, help="of every contestant, in turns")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "training_step.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batch = batch_of()
    contestants = {
        "mlp, rk4": theirs(batch, "rk4"),
        "mlp, dopri5": theirs(batch, "dopri5"),
        "hnn, rk4": theirs(batch, "rk4", hamiltonian=True),
    }
    for name in arguments.models:
        contestants[f"ours, {name}, soap"] = ours(batch, name, "soap")
        contestants[f"ours, {name}, adam"] = ours(batch, name, "adam")
        contestants[f"ours, {name}, soap, by torch"] = ours(batch, name, "soap", fast=False)
    if "port_hamiltonian" in arguments.models:
        for end, fast in (("", True), (", by torch", False)):
            contestants[f"ours, port_hamiltonian rk4, soap{end}"] = ours(
                batch, "port_hamiltonian", "soap", fast, integrator="rk4"
            )
    flops = {}
    for name in contestants:  # products in machine code cannot be counted; they are the same
        fast = name.startswith("ours") and not name.endswith("by torch")
        counted = name.replace(", adam", ", soap") + ", by torch" if fast else name
        flops[name] = products(contestants[counted])
    seconds = measured(contestants, arguments.blocks, least=2)
    best = rate()
    rows = []
    for name, values in seconds.items():
        floor = 1000 * flops[name] / best
        row = {"step": name, "milliseconds": 1000 * float(np.median(values))}
        row |= {"gflop": flops[name] / 1e9, "floor_ms": floor}
        row["over_floor"] = row["milliseconds"] / floor
        for peer in ("mlp", "hnn"):
            other = seconds[f"{peer}, rk4"]
            row[f"faster_than_{peer}"] = float(np.median(other / values))
        rows.append(row)
    write_json(
        arguments.out, {"load": list(os.getloadavg()), "gflop_per_s": best / 1e9, "rows": rows}
    )
    print_table(rows, COLUMNS, "a gradient step, milliseconds of CPU time")


if __name__ == "__main__":
    main()
