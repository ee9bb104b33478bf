"""Rows of the tables that stand beside published figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from hnn_protocol import TASKS
from hwm_protocol import DT, HORIZONS, LYAPUNOV, PROBLEMS
from symoden_protocol import TASKS as CONTROLLED
from table_parts import Table

NAMES = {
    "pendulum": "pendulum",
    "cart_pole": "cart-pole",
    "acrobot": "acrobot",
    "orbit": "orbit",
}
FILMED = {
    "mass_spring": "mass on a spring",
    "pendulum": "pendulum",
    "two_bodies": "two bodies",
    "three_bodies": "three bodies",
}
CONSERVATIVE = {
    "spring": "mass on a spring, noise",
    "spring_exact": "the same without noise",
    "pendulum": "pendulum, noise",
    "pendulum_exact": "the same without noise",
    "two_bodies": "two bodies",
    "three_bodies": "three bodies",
}
STEERED = {
    "pendulum": "pendulum, angle and momentum",
    "pendulum_embedded": "pendulum, cosine and sine",
    "cart_pole": "cart-pole",
    "acrobot": "acrobot",
}
_NOT = "not run"


def hwm(result: dict[str, Any]) -> Table:
    """Scores of each structure, seed by seed, with what was published in the last rows of a system."""
    from hwm import MODELS

    head = ["", "model", "drift", "nMSE(10), seen", "nMSE(100), seen", "nMSE(100), unseen"]
    table = [[*head, "parameters", "updates", "CPU s"]]
    for env, problem in PROBLEMS.items():
        ran = 0
        for model in MODELS:
            rows = [r for r in result["rows"] if (r["env"], r["model"]) == (env, model)]
            if rows:
                table.append([NAMES[env], f"`{model}`", *_cells(rows)])
                ran += 1
        if not ran:
            table.append([NAMES[env], _NOT, *[""] * 7])
        errors = [problem.published_error, "< 5 M", "30,000", "GPU"]
        table.append([NAMES[env], "published", problem.published_drift, "", "", *errors])
    return table


def lyapunov(result: dict[str, Any]) -> Table:
    """Errors of the tested structure on the acrobot as the horizon grows, and those of every rival over them, the
    geometric means over the seeds that both have.
    """
    from hwm import RIVALS, TESTED

    tested, steps = TESTED["acrobot"], [h for h in HORIZONS if h >= 10]
    found = {(r["model"], r["seed"]): r for r in result["rows"] if r["env"] == "acrobot"}
    table = [["energies", "model", *(f"{h * DT / LYAPUNOV:.1f}" for h in steps), "seeds"]]
    for band, title in (("seen", "seen"), ("unseen", "never seen")):
        logs = {key: np.log([row[f"{band}_{h}"] for h in steps]) for key, row in found.items()}
        own = [log for (model, _), log in logs.items() if model == tested]
        cells = [_short(float(error)) for error in np.exp(np.mean(own, 0))]
        table.append([title, f"`{tested}`", *cells, str(len(own))])
        for rival in RIVALS:
            pairs = [
                log - logs[tested, seed]
                for (model, seed), log in logs.items()
                if model == rival and (tested, seed) in logs
            ]
            if pairs:
                cells = [f"{ratio:.2g}" for ratio in np.exp(np.mean(pairs, 0))]
                table.append([title, f"`{rival}` over it", *cells, str(len(pairs))])
    return table


def hnn(result: dict[str, Any]) -> Table:
    """Energy errors of both structures, seed by seed, beside the published ones."""
    from hnn import MODELS, TESTED

    published = ["published baseline", "published HNN"]
    table = [["", *(f"`{model}`" for model in MODELS), *published, "CPU s"]]
    for name, title in CONSERVATIVE.items():
        found = {model: _of_system(result["rows"], name, model) for model in MODELS}
        ours = [_errors(rows, "energy_error") for rows in found.values()]
        theirs = [_short(value) if value is not None else "" for value in TASKS[name].published]
        seconds = [row["cpu_seconds"] for row in found[TESTED] if row["cpu_seconds"] is not None]
        table.append([title, *ours, *theirs, _span(seconds)])
    return table


def symoden(result: dict[str, Any]) -> Table:
    """Errors of short and of long predictions, seed by seed, beside the published ones."""
    from symoden import MODELS, TESTED

    names = (*(f"`{model}`" for model in MODELS), "published naive", "published SymODEN")
    head = [f"{what}: {name}" for what in ("test", "long") for name in names]
    table = [["", *head, "CPU s"]]
    for name, title in STEERED.items():
        task, cells = CONTROLLED[name], [title]
        found = {model: _of_system(result["rows"], name, model) for model in MODELS}
        for i, key in enumerate(("test_error", "prediction_error")):
            cells += [_errors(rows, key) for rows in found.values()]
            cells += [_short(task.naive[i]), _short(task.published[i])]
        seconds = [row["cpu_seconds"] for row in found[TESTED] if row["cpu_seconds"] is not None]
        table.append([*cells, _span(seconds)])
    return table


def _of_system(rows: list[dict[str, Any]], system: str, model: str) -> list[dict[str, Any]]:
    own = [row for row in rows if (row["system"], row["model"]) == (system, model)]
    return sorted(own, key=lambda row: row["seed"])


def _errors(rows: list[dict[str, Any]], key: str) -> str:
    return ", ".join(_short(row[key]) for row in rows) or _NOT


def hgn(result: dict[str, Any]) -> Table:
    """Errors of pictures, seed by seed, and how long they stay right, beside the published errors."""
    from hgn import FILMS

    head = ["", "model", "MSE x 1e4", "of all light", "valid steps", "backward", "spread of H"]
    table = [[*head, "parameters", "updates", "CPU s"]]
    for name, film in FILMS.items():
        own = [row for row in result["rows"] if row["film"] == name]
        title = FILMED[name.removesuffix("_noise")] + film.noise * ", noise"
        for model in dict.fromkeys((row["predictor"], row["size"]) for row in own):
            rows = [row for row in own if (row["predictor"], row["size"]) == model]
            table.append([title, _film_model(*model), *_film_cells(rows)])
        if not own:
            table.append([title, _NOT, *[""] * 8])
        if not film.noise:
            errors = f"{film.paper}; again {film.seen}, from 5 frames {film.inferred}"
            table.append([title, "published", errors, *[""] * 7])
        elif own:
            found = f"{own[0]['floor_1e4']:.1f}"
            table.append([title, "the truth without noise", found, *[""] * 7])
    return table


def _film_model(predictor: str, size: str) -> str:
    return f"`{predictor}`" + (f", {size}" if size != "small" else "")


def _film_cells(rows: list[dict[str, Any]]) -> list[str]:
    rows = sorted(rows, key=lambda row: row["seed"])

    def all_of(key: str, digits: str) -> str:
        return ", ".join("n/a" if row[key] is None else f"{row[key]:{digits}}" for row in rows)

    return [
        all_of("mse_1e4", ".1f"),
        ", ".join(f"{100 * row['mse_1e4'] / row['bright_1e4']:.1f} %" for row in rows),
        all_of("valid_forward", ".0f"),
        all_of("valid_backward", ".0f"),
        ", ".join(_short(row["energy_spread"]) if row["energy_spread"] else "n/a" for row in rows),
        f"{rows[0]['parameters']:,}",
        f"{rows[0]['updates']:,}",
        _span([row["cpu_seconds"] for row in rows if row["cpu_seconds"] is not None]),
    ]


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    rows = sorted(rows, key=lambda row: row["seed"])

    def all_of(key: str) -> str:
        return ", ".join(_short(row[key]) for row in rows)

    seconds = [row["cpu_seconds"] for row in rows if row["cpu_seconds"] is not None]
    return [
        *(all_of(key) for key in ("drift", "seen_10", "seen_100", "unseen_100")),
        f"{rows[0]['parameters']:,}",
        f"{rows[0]['updates']:,}",
        _span(seconds),
    ]


def _span(seconds: list[float]) -> str:
    if not seconds:
        return "n/a"
    low, high = min(seconds), max(seconds)
    return f"{low:.0f}-{high:.0f}" if len(seconds) > 1 else f"{low:.0f}"


def _short(value: float | None) -> str:
    if value is None:
        return "infinite"
    if 100.0 <= value < 1000.0:
        return f"{value:.0f}"
    return (
        f"{value:.2g}"
        if 0.01 <= value < 1000
        else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    )
