"""How true the truth is: errors of every system against references, and orders of the integrators.

`python benchmarks/physics.py` writes `benchmarks/results/physics.json` beside three tables. Errors are
|error| / max(1, |x|) at every one of 20 steps from random starts under random held controls and randomised
parameters, against DOP853 at 1e-12 on equations written a second time; and against closed forms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from reporting import print_table, write_json
from truth import (
    FIGURE_EIGHT,
    FIGURE_EIGHT_ENERGY,
    FIGURE_EIGHT_PERIOD,
    kepler,
    oscillator_step,
    pendulum_period,
    reference_step,
    scaled_error,
    separatrix,
)

import physgym
from physgym.integrators import ORDERS

STEPS = 20


@dataclass(frozen=True)
class Args:
    """Errors of the true systems."""

    rollouts: int = 256
    """Random rollouts a system and kind of start, in default mode."""
    accurate_rollouts: int = 16
    """The same with integrator="dop853"."""
    seed: int = 0
    """Seed of all starts, parameters and controls."""
    out: Path = Path(__file__).parent / "results" / "physics.json"
    """Where the JSON goes."""


def rollout_errors(
    system: Any, start: str, count: int, seed: int, integrator: str | None
) -> np.ndarray:
    """The worst error (count,) of each of `count` rollouts, each followed until it ends."""
    rng = np.random.default_rng(seed)
    worst = np.zeros(count)
    for i in range(count):
        params = system.sample_params(rng, True)
        state = truth = np.array(system.sample_state(rng, params, start))
        for _ in range(STEPS):
            action = rng.uniform(-1.0, 1.0, system.action_size)
            control = system.control(action, params)
            state = system.step(state, control, params, integrator=integrator)
            if system.terminated(tuple(state.tolist()), params):
                break
            tolerance = 3e-14 if integrator == "dop853" else 1e-12
            truth = reference_step(system.name, truth, control, params, system.dt, tolerance)
            worst[i] = max(worst[i], scaled_error(state, truth))
    return worst


def reference_rows(args: Args) -> list[dict[str, Any]]:
    """One row a system and kind of start."""
    rows = []
    for name, system in physgym.SYSTEMS.items():
        for start in system.starts:
            default = rollout_errors(system, start, args.rollouts, args.seed, None)
            accurate = rollout_errors(
                system, start, args.accurate_rollouts, args.seed + 1, "dop853"
            )
            rows.append(
                {
                    "system": name,
                    "start": start,
                    "integrator": system.default_integrator,
                    "median": float(np.median(default)),
                    "p99": float(np.quantile(default, 0.99)),
                    "worst": float(default.max()),
                    "bar": 1e-11 if system.default_integrator == "exact" else 1e-5,
                    "dop853_worst": float(accurate.max()),
                    "dop853_bar": 1e-8,
                }
            )
    return rows


def oscillator_error(integrator: str | None) -> float:
    """Against the matrix exponential: no, weak, critical and strong damping; dt 0.01 to 1 s."""
    system, worst = physgym.SYSTEMS["oscillator"], 0.0
    for damping in (0.0, 0.1, 2.0, 20.0):
        params = system.Params(damping=damping)
        for dt in (0.01, 0.1, 0.2, 1.0):
            state = truth = np.array([1.3, -0.7])
            for force in np.random.default_rng(0).uniform(-1.0, 1.0, STEPS):
                state = system.step(state, np.array([force]), params, dt, integrator)
                truth = oscillator_step(truth, force, params, dt)
                worst = max(worst, scaled_error(state, truth))
    return worst


def period_error(integrator: str | None) -> float:
    """Relative error of a pendulum's period from 0.5, 2 and 3 rad, by the crossing at the bottom."""
    system = physgym.SYSTEMS["pendulum"]
    params, worst = system.Params(damping=0.0), 0.0
    for theta in (0.5, 2.0, 3.0):
        state, t = (theta, 0.0), 0.0
        while (after := system.step(state, (0.0,), params, None, integrator))[0] > 0.0:
            state, t = after, t + system.dt
        part = -state[0] / state[1]
        for _ in range(5):
            after = system.step(state, (0.0,), params, part, integrator)
            part -= after[0] / after[1]
        worst = max(worst, abs(4.0 * (t + part) / pendulum_period(theta) - 1.0))
    return worst


def separatrix_error(integrator: str | None) -> float:
    """One second along the unstable path to the top."""
    system = physgym.SYSTEMS["pendulum"]
    rate = math.sqrt(9.81)
    state, worst = (0.0, 2.0 * rate), 0.0
    for n in range(1, STEPS + 1):
        state = system.step(state, (0.0,), system.Params(damping=0.0), None, integrator)
        worst = max(worst, scaled_error(state, separatrix(system.dt * n, rate)))
    return worst


def kepler_error(integrator: str | None) -> float:
    """Ten seconds on ellipses of eccentricity 0, 0.4 and 0.7."""
    system = physgym.SYSTEMS["spaceship"]
    params, worst = system.Params(), 0.0
    for a, e in ((2.0, 0.0), (3.0, 0.4), (4.0, 0.7)):
        state = tuple(kepler(a, e, params.gm, 0.0).tolist())
        for n in range(1, 101):
            state = system.step(state, (0.0, 0.0), params, 0.1, integrator)
            worst = max(worst, scaled_error(state, kepler(a, e, params.gm, 0.1 * n)))
    return worst


def figure_eight_errors(integrator: str | None) -> tuple[float, float]:
    """After one period: the distance from the start, and the worst energy error sampled at every step."""
    system, count = physgym.SYSTEMS["three_body"], 128
    state, energy = FIGURE_EIGHT, 0.0
    for _ in range(count):
        state = system.step(
            state, np.zeros(2), system.Params(), FIGURE_EIGHT_PERIOD / count, integrator
        )
        energy = max(
            energy, abs(float(system.energy(state, system.Params())) - FIGURE_EIGHT_ENERGY)
        )
    return scaled_error(state, FIGURE_EIGHT), energy


def closed_form_rows() -> list[dict[str, Any]]:
    """One row a closed form."""
    rows = []
    for label, error in (
        ("oscillator: matrix exponential, 20 steps", oscillator_error),
        ("pendulum: period by agm", period_error),
        ("pendulum: separatrix, 1 s", separatrix_error),
        ("spaceship: Kepler ellipses, 10 s", kepler_error),
        ("three_body: figure-eight return", lambda i: figure_eight_errors(i)[0]),
        ("three_body: figure-eight energy", lambda i: figure_eight_errors(i)[1]),
    ):
        rows.append({"closed form": label, "default": error(None), "dop853": error("dop853")})
    return rows


def slope_rows() -> list[dict[str, Any]]:
    """Order of each integrator on each system that it serves, by halving the step."""
    rows = []
    for name, system in physgym.SYSTEMS.items():
        row: dict[str, Any] = {"system": name}
        rng = np.random.default_rng(0)
        params = system.Params()
        state = np.array(system.sample_state(rng, params, system.starts[0]))
        control = system.control(rng.uniform(-1.0, 1.0, system.action_size), params)
        exact = reference_step(name, state, control, params, 0.4, 1e-13)
        for integrator, order in ORDERS.items():
            if integrator not in system.integrators:
                continue
            coarse = {1: 128, 2: 32, 4: 16}[order]
            errors = [
                np.linalg.norm(system.step(state, control, params, 0.4, integrator, n) - exact)
                for n in (coarse, 2 * coarse)
            ]
            row[integrator] = float(math.log2(errors[0] / errors[1]))
        rows.append(row)
    return rows


def main(args: Args) -> None:
    """Measure, print and write."""
    closed, slopes = closed_form_rows(), slope_rows()
    print_table(closed, ("closed form", "default", "dop853"), "Errors against closed forms")
    print_table(
        slopes, ("system", *ORDERS), "Slopes of the integrators (order by halving the step)"
    )
    rows = reference_rows(args)
    columns = ("system", "start", "median", "p99", "worst", "bar", "dop853_worst")
    print_table(rows, columns, f"Errors of {args.rollouts} rollouts against DOP853 at 1e-12")
    orders = {name: float(order) for name, order in ORDERS.items()}
    write_json(
        args.out,
        {
            "rollouts": args.rollouts,
            "steps": STEPS,
            "against_dop853": rows,
            "closed_forms": closed,
            "orders": orders,
            "slopes": slopes,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Args))
