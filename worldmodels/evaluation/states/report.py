"""A report over states as tables, words and plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.evaluation import plots
from worldmodels.evaluation.tables import (
    UNKNOWN,
    Table,
    averaged,
    between,
    costs,
    number,
    seconds,
    share,
    spread,
)


def definitions(report: Mapping[str, Any]) -> str:
    """What columns and rows mean, for a reader who has nothing else."""
    if report["true_power_residual"] is None:
        return (
            f"{report['problems']} open-loop rollouts of {report['steps']} steps of {report['dt']:g} s on the "
            "test split, of which nothing but what was recorded is known: energies read n/a, and no oracle can "
            "be asked. Normalised squared error of observations after n steps: median (quartiles); finite: "
            "share of rollouts; valid: median seconds until the error first exceeds "
            f"{report['valid_threshold']:g} (>=: not before the end)."
        )
    return (
        f"{report['problems']} open-loop rollouts of {report['steps']} steps of {report['dt']:g} s "
        "on the test split. Normalised squared error after n steps: median (quartiles); finite: "
        "share of rollouts; valid: median seconds until the error first exceeds "
        f"{report['valid_threshold']:g} (>=: not before the end); energy: median error of the energy of the "
        "predicted state against the true series, over its standard deviation, after the last step; power: median "
        "energy a step that neither control nor damping accounts for, in the same unit (the truth "
        f"itself scores {number(report['true_power_residual'])}). An oracle is the true right-hand "
        "side through the integrator of a model. R² of H: of the true energy under an affine map of "
        "the learned one, at the true states."
    )


def legend(report: Mapping[str, Any]) -> str:
    """The definitions in a few lines, for a terminal."""
    if report["true_power_residual"] is None:
        return (
            "finite: share of rollouts; valid: seconds until the error first exceeds "
            f"{report['valid_threshold']:g} (>=: not before the end); energy and power: n/a, nobody knows "
            "them of this env; copy, linear: untrained baselines"
        )
    return (
        "finite: share of rollouts; valid: seconds until the error first exceeds "
        f"{report['valid_threshold']:g} (>=: not before the end); energy: error of the energy over its "
        "spread, after the last step; power: energy a step from nowhere, in that unit (truth: "
        f"{number(report['true_power_residual'])}); oracle: the true equations through a model's "
        "integrator; copy, velocity, linear: untrained baselines; R² of "
        "H: of the true energy under an affine map of the learned one"
    )


def tables(report: Mapping[str, Any], quartiles: bool = True, join: str = " ") -> list[Table]:
    """The scores, and the errors at other step lengths where they were asked for."""
    found = [_scores(report, quartiles, join)]
    if any("outcomes" in row for row in report["rows"].values()):
        found.append(outcomes_table(report))
    if "step_lengths" in report:
        found.append(_step_lengths(report, quartiles, join))
    return [*found, costs(report)]


def _scores(report: Mapping[str, Any], quartiles: bool, join: str) -> Table:
    horizons = report["horizons"]
    head = ["model", *(f"n = {h}" for h in horizons), "finite", "valid [s]", "energy", "power"]
    learned = any(row.get("energy_r_squared") is not None for row in report["rows"].values())
    head += ["R² of H"] if learned else []
    lines, unknown = [], report["true_power_residual"] is None
    for name, row in report["rows"].items():
        last = str(horizons[-1])
        finite, halves = row["nmse"][last]["finite"], row.get("halves", {})
        lines.append(
            [
                name,
                *(spread(row["nmse"][str(h)], quartiles, join) for h in horizons),
                UNKNOWN if finite is None else f"{100 * finite:.0f} %",
                seconds(row["valid_time"]),
                UNKNOWN if unknown else spread(row["energy_error"][last], False, join),
                UNKNOWN
                if unknown or row["kind"] == "baseline"
                else between(row["power_residual"], halves.get("power_residual")),
                *(
                    [share(row.get("energy_r_squared"), halves.get("energy_r_squared"))]
                    if learned
                    else []
                ),
            ]
        )
    title = (
        f"{report['problems']} rollouts of {report['steps']} steps of {report['dt']:g} s: "
        f"normalised squared error after n steps, {averaged(report, quartiles)}"
    )
    return Table(title, head, lines, True)


OUTCOMES = {
    "reward_r_squared": "R² of reward",
    "rollout_reward_r_squared": "imagined",
    "end_recall": "ends found",
    "end_precision": "ends right",
    "ends_early": "too early",
    "ends_late": "too late",
}
"""Columns of what was learned of rewards and ends."""


def outcomes_table(report: Mapping[str, Any]) -> Table:
    """What was learned of rewards and ends, of the rows that have ``outcomes``."""
    lines = []
    for name, row in report["rows"].items():
        if "outcomes" in row:
            known = row["outcomes"]
            shares = [
                UNKNOWN if known[key] is None else f"{100 * known[key]:.1f} %"
                for key in list(OUTCOMES)[2:]
            ]
            lines.append([name, *(share(known[key], None) for key in list(OUTCOMES)[:2]), *shares])
    title = (
        "learned rewards and ends: R² at true and at imagined transitions, ends of true transitions that are "
        "found and that are right, rollouts that end too early or too late"
    )
    return Table(title, ["model", *OUTCOMES.values()], lines, True)


def _step_lengths(report: Mapping[str, Any], quartiles: bool, join: str) -> Table:
    study = report["step_lengths"]
    names = [f"{dt:g}" for dt in study["dt_values"]]
    lines = [
        [name, *(spread(cells[dt], quartiles, join) if cells[dt] else UNKNOWN for dt in names)]
        for name, cells in study["rows"].items()
    ]
    title = (
        f"other step lengths: error after {study['seconds']:g} s, actions held {study['hold']:g} s"
    )
    return Table(title, ["model", *(f"dt {dt} s" for dt in names)], lines, True)


def plots_of(report: Mapping[str, Any], folder: Path, suffix: str) -> list[Path]:
    """Draw the report's plots into ``folder``, in the format of ``suffix``, and return their paths."""
    files = [plots.error_over_horizon(report, folder / f"error_over_horizon{suffix}")]
    if report["true_power_residual"] is not None:  # else nobody knows the energy
        files.append(plots.energy_over_time(report, folder / f"energy_over_time{suffix}"))
    if "step_lengths" in report:
        files.append(
            plots.error_over_step_length(report, folder / f"error_over_step_length{suffix}")
        )
    return files
