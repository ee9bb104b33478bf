"""A report over pixels as tables, words and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worldmodels.configs.keypoints import WELL_EXPLAINED
from worldmodels.evaluation import plots
from worldmodels.evaluation.pixels import verdict
from worldmodels.evaluation.states.report import outcomes_table
from worldmodels.evaluation.tables import UNKNOWN, Table, costs, number, seconds, spread

IMAGE_ERROR = "normalised image MSE"
COPY_RATIO = "mean MSE over that of copy-last-frame"
TIMES = "{:.2f}"


def definitions(report: Mapping[str, Any]) -> str:
    """What the columns and rows mean, for a reader who has nothing else."""
    texts = [
        f"{report['problems']} open-loop rollouts of {report['steps']} steps of {report['dt']:g} s, under "
        f"the true actions, from {report['context']} true frames of {report['image_size']} px of the test "
        "split. Median (quartiles); a frame that is not finite counts as an infinite error; finite: share "
        "of rollouts after the last step.",
        verdict.definition(report),
        *(_known_of_ours(report) if report["bodies"] else _known_of_foreign(report)),
        "Ratio to copy-last-frame: mean MSE over that of repeating the last frame seen.",
        "Reconstruction: what a model draws of the true frames around each step, the ceiling of its "
        "rollouts.",
    ]
    if any(row["backward"] for row in report["rows"].values()):
        texts.append(
            "Backward: from the last frames of the same windows, with a negative step length, under the "
            "action that was held over each interval; structures that step in jumps cannot. Frames up to "
            f"n = {report['context'] - 1} are among those seen."
        )
    if report["learned_energy"]:
        texts.append(
            "Learned energy H, along the model's own rollout under the action that does nothing: "
            "|H(t) - H(0)| over the spread of H on test frames; range: largest less smallest H of a rollout, "
            "in its own unit; R^2: of the true energy under an affine map of H, on test frames."
        )
    for name, share in report.get("explained", {}).items():
        text = f"{name}: its sprites draw {100 * share:.1f} % of what differs from the background."
        poor = (
            " The rest is not points: a spatial_ predictor may draw it."
            if share < WELL_EXPLAINED
            else ""
        )
        texts.append(text + poor)
    if report["ssim_install"]:
        texts.append(f"SSIM needs torchmetrics: {report['ssim_install']}.")
    return "\n\n".join(texts)


def _known_of_ours(report: Mapping[str, Any]) -> list[str]:
    """Of a system whose pictures are discs on black, and whose energy is known."""
    return [
        f"{IMAGE_ERROR}: summed squared error over the summed squared brightness of the true frame above "
        "the black background (a frame without the body scores 1, with it in a wrong place 2); valid: "
        f"median seconds until it first exceeds {report['valid_threshold']:g} (>=: not before the end).",
        "Centroid: distance of a body in the picture to where the true picture shows it, read in closed "
        f"form from its colour (1 px = {report['meters_per_pixel']:.4g} m); visible: share of rollouts "
        "whose last picture shows the body at all; where it does not, the error is infinite.",
        "Energy: error of the true energy of the state that a probe reads from the latent (a "
        "small network, fitted on latents of true training frames), over the spread of the energy; the row "
        "of the reconstruction is the probe's own error.",
    ]


def _known_of_foreign(report: Mapping[str, Any]) -> list[str]:
    """Of an env of which nobody knows what its pictures show."""
    return [
        f"{IMAGE_ERROR}: summed squared error over the summed squared difference of the true frame from the mean "
        "picture of the training split (which scores about 1 itself); valid: median seconds until it first "
        f"exceeds {report['valid_threshold']:g} (>=: not before the end).",
        "Centroids and energies: n/a, nobody knows what the pictures show. Probes read what the env observes.",
        "Learned rewards and ends: at true frames as a model reads them, and along its rollouts.",
    ]


def legend(report: Mapping[str, Any]) -> str:
    """What a terminal needs to know of the one table that it shows, and of those that it does not."""
    others = sum(not table.brief for table in tables(report))
    return (
        f"{verdict.definition(report)}\nreport.md has {others} more tables: errors of pictures and bodies over "
        "the horizon, probes of the latent, energies, cost; and what they mean."
    )


def tables(report: Mapping[str, Any], quartiles: bool = True, join: str = " ") -> list[Table]:
    """Every table of the report; ``join`` stands before quartiles. The first says it all in a terminal."""

    def cell(value: Mapping[str, Any] | None, form: str = "{:.1e}", lost: str = "inf") -> str:
        return UNKNOWN if value is None else spread(value, quartiles, join, form, lost)

    found = [
        verdict.table(report, join),
        *([outcomes_table(report)] if _any(report, "outcomes") else []),
        _errors(report, cell),
        _over_horizons(
            COPY_RATIO,
            report,
            lambda row, h: number(row["copy_ratio"][h], "{:.3g}"),
        ),
        _over_horizons("PSNR (dB)", report, lambda row, h: cell(row["psnr"][h], "{:.1f}", "-inf")),
        _over_horizons(
            "SSIM",
            report,
            lambda row, h: cell(row["ssim"] and row["ssim"][h], "{:.3f}", "-inf"),
        ),
        _over_horizons("MSE", report, lambda row, h: cell(row["mse"][h])),
        *_centroids(report, cell),
    ]
    if any(row["backward"] for row in report["rows"].values()):
        found += _backward(report, cell)
    if _any(report, "energy_error"):
        found.append(
            _over_horizons(
                "energy error over its spread",
                report,
                lambda row, h: cell(row["energy_error"][h]),
                lambda row: row["energy_error"] is not None,
            )
        )
    if report["probes"]:
        found.append(_probes(report))
    if report["learned_energy"]:
        found.append(_learned_energy(report, cell))
    if "step_lengths" in report:
        found += _step_lengths(report, cell)
    return [*found, costs(report)]


def plots_of(report: Mapping[str, Any], folder: Path, suffix: str) -> list[Path]:
    """Draw the report's plots into ``folder``, in the format of ``suffix``, and return their paths."""
    path = folder / f"error_over_horizon{suffix}"
    files = [
        plots.error_over_horizon(report, path, IMAGE_ERROR, "frame"),
    ]
    if report["bodies"]:
        place = folder / f"centroids_over_time{suffix}"
        files.append(plots.centroids_over_time(report, place))
    read = {name: row for name, row in report["rows"].items() if row["energy"]}
    if read:
        path = folder / f"energy_over_time{suffix}"
        files.append(plots.energy_over_time({**report, "rows": read}, path, seen="frame"))
    if "step_lengths" in report:
        path = folder / f"error_over_step_length{suffix}"
        files.append(plots.error_over_step_length(report, path, IMAGE_ERROR))
    return files


def _any(report: Mapping[str, Any], name: str) -> bool:
    """Whether any row has that score."""
    return any(row.get(name) is not None for row in report["rows"].values())


Cell = Callable[..., str]
Row = Mapping[str, Any]


def _over_horizons(
    title: str,
    report: Mapping[str, Any],
    text: Callable[[Row, str], str],
    kept: Callable[[Row], bool] = lambda row: True,
) -> Table:
    horizons = report["horizons"]
    rows = [
        [name, *(text(row, str(h)) for h in horizons)]
        for name, row in report["rows"].items()
        if kept(row)
    ]
    return Table(title, ["model", *(f"n = {h}" for h in horizons)], rows)


def _errors(report: Mapping[str, Any], cell: Cell) -> Table:
    table = _over_horizons(
        f"{IMAGE_ERROR} after n steps", report, lambda row, h: cell(row["nmse"][h])
    )
    last = str(report["horizons"][-1])
    for line in table.rows:
        row = report["rows"][line[0]]
        line.append(_share(row["nmse"][last]["finite"]))
        line.append(seconds(row["valid_time"]))
    return table._replace(head=[*table.head, "finite", "valid (s)"])


def _centroids(report: Mapping[str, Any], cell: Cell) -> list[Table]:
    last = str(report["horizons"][-1])
    found = []
    for key, unit, form in (("centroid_pixels", "px", TIMES), ("centroid", "m", "{:.3g}")):
        for body in report["bodies"]:

            def text(row: Row, h: str, key: str = key, body: str = body, form: str = form) -> str:
                return cell(row[key][body][h], form)

            title = f"centroid error of the {body} body ({unit})"
            table = _over_horizons(title, report, text)
            for line in table.rows:
                line.append(_share(report["rows"][line[0]][key][body][last]["finite"]))
            found.append(table._replace(head=[*table.head, "visible"]))
    return found


def _backward(report: Mapping[str, Any], cell: Cell) -> list[Table]:
    found = []

    def add(title: str, text: Callable[[Row, str], str]) -> None:
        def of_row(row: Row, h: str) -> str:
            return UNKNOWN if row["backward"] is None else text(row["backward"], h)

        title = f"backward in time, n steps before the last frame seen: {title}"
        found.append(_over_horizons(title, report, of_row))

    add(IMAGE_ERROR, lambda part, h: cell(part["nmse"][h]))
    add(COPY_RATIO, lambda part, h: number(part["copy_ratio"][h], "{:.3g}"))
    for body in report["bodies"]:

        def place(part: Row, h: str, body: str = body) -> str:
            return cell(part["centroid_pixels"][body][h], TIMES)

        add(f"centroid error of the {body} body (px)", place)
    return found


def _probes(report: Mapping[str, Any]) -> Table:
    rows = []
    names: list[str] = []
    for name, scores in report["probes"].items():
        names = list(scores["linear"])
        labels = {"linear": name, "random weights": f"{name}, random weights"}
        for key, label in {**labels, "network": f"{name}, network"}.items():
            rows.append([label, *(_score(scores[key][part]) for part in names)])
    title = (
        "R^2 of probes of the latent, on test episodes: linear, and the network that reads energies"
    )
    return Table(title, ["model", *names], rows)


def _learned_energy(report: Mapping[str, Any], cell: Cell) -> Table:
    horizons = report["horizons"]
    rows = [
        [
            name,
            _score(scores["r_squared"]),
            *(cell(scores["drift"][str(h)]) for h in horizons),
            cell(scores["wander"], "{:.3g}"),
        ]
        for name, scores in report["learned_energy"].items()
    ]
    head = ["model", "R^2", *(f"n = {h}" for h in horizons), "range"]
    title = "drift of the learned energy, without control and learned dissipation"
    return Table(title, head, rows)


def _step_lengths(report: Mapping[str, Any], cell: Cell) -> list[Table]:
    study, pixel = report["step_lengths"], report["meters_per_pixel"]
    names = [f"{dt:g}" for dt in study["dt_values"]]
    head = ["model", *(f"dt {dt} s" for dt in names)]
    when = f"after {study['seconds']:g} s, actions held {study['hold']:g} s"
    errors = [[name, *(cell(row[dt]) for dt in names)] for name, row in study["rows"].items()]
    places = [
        [name, *(cell(_scaled(row[dt], 1 / pixel), TIMES) for dt in names)]
        for name, row in study["centroid"].items()
    ]
    return [
        Table(f"other step lengths: {IMAGE_ERROR} {when}", head, errors),
        Table(f"other step lengths: largest centroid error of a body (px) {when}", head, places),
    ]


def _scaled(cell: Mapping[str, Any] | None, factor: float) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {
        key: value * factor if key in ("median", "q25", "q75") and value is not None else value
        for key, value in cell.items()
    }


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def _score(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"
