"""Compare world models with the truth, with baselines and with the oracle, in one table.

    physgym evaluate outputs/pendulum [RUN ...] --dt-values 0.025 0.05 0.1

Open-loop rollouts on the test split of the first run's buffer: a model sees the true start and the
actions, and nothing after. Runs of the visual model are compared in pixels, from true frames. Writes
report.json, report.md and plots.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from worldmodels.commands import terminal as cli
from worldmodels.configs.training import LogConfig

if TYPE_CHECKING:
    from worldmodels.data import Dataset


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run or checkpoint folders, all of one env."""
    dataset: str | None = None
    """Dataset whose test split is asked; None: the one that the first run learned from."""
    horizon: int | None = None
    """Steps of the rollouts; an episode longer than it gives several. None: 100, in pixels 60, or what
    the longest episode lasts."""
    dt_values: tuple[float, ...] = ()
    """Step lengths [s] to ask for over the same time, actions held for the longest of them."""
    problems: int = 256
    """Rollouts, at most."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of each run."""
    out: Path | None = None
    """Folder to write to; None: <run>/evaluation, or outputs/comparison-<time> for several runs."""
    video: bool = False
    """Film the first run beside the truth, too (always done for Weights & Biases)."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""

    def check(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if not self.runs:
            raise cli.UsageError("name at least one run folder: physgym evaluate RUN [RUN ...]")
        for name in ("horizon", "problems"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise cli.UsageError(f"--{name} {value} is not valid: expected 1 or more")
        for run in self.runs:
            if (
                self.checkpoint == "last"
                and run.name == "best"
                and run.parent.name == "checkpoints"
            ):
                raise cli.UsageError(
                    f"{run} is a checkpoint itself, and --checkpoint last names another: give the run, "
                    f"{run.parent.parent}"
                )
        if any(not 0 < dt < 100 for dt in self.dt_values):
            raise cli.UsageError(
                f"--dt-values {self.dt_values} are not valid: expected seconds above 0"
            )
        shares = [max(self.dt_values) / dt for dt in self.dt_values]
        if any(abs(share - round(share)) > 1e-6 for share in shares):
            raise cli.UsageError(
                f"--dt-values {self.dt_values} are not valid: expected step lengths that divide the "
                "longest one, as 0.05 0.1 0.2"
            )


def main() -> None:
    """Evaluate what the command line names, and say where the report lies."""
    config = cli.parse(EvaluateConfig, description=__doc__)
    config.check()
    from worldmodels.evaluation.comparison import evaluate, write_report

    models = load_models(config)
    folder = config.out or default_folder(config)
    cli.check_writable(folder, folder=True)
    dataset = find_test_data(
        config.dataset, config.runs[0], next(iter(models.values())).spec.env_name
    )
    check_physics(config.dataset, models, dataset)
    origin = f"--dataset {config.dataset}" if config.dataset else f"that of {config.runs[0]}"
    with cli.progress_in_shares("evaluating") as advance:
        report = evaluate(
            models,
            dataset,
            config.horizon,
            config.problems,
            config.dt_values,
            origin=origin,
            advance=advance,
        )
    files = write_report(report, folder)
    if config.video or config.log.wandb != "disabled":
        files.append(film(next(iter(models.values())), folder / "beside.mp4"))
    track(config, report, folder, files)
    show(report)  # last: a reader may go away
    print("\n".join(str(path) for path in files))


def load_models(config: EvaluateConfig) -> dict[str, Any]:
    """Models by row name: the structure, with the seed or folder where that is not enough."""
    import worldmodels
    from worldmodels.evaluation.comparison import medium_of

    loaded = [worldmodels.load(str(run), config.checkpoint) for run in config.runs]
    envs = sorted({model.spec.env_name for model in loaded})
    if len(envs) > 1:
        raise cli.UsageError(
            f"the runs are of different envs: {', '.join(envs)}; compare one at a time"
        )
    medium_of({str(run): model.spec for run, model in zip(config.runs, loaded, strict=True)})
    known = [getattr(model.config, "predictor", model.config.name) for model in loaded]
    names = known
    for label in (seed_of, str):
        doubled = {name for name in names if names.count(name) > 1}
        names = [
            f"{own} {label(run)}" if name in doubled else name
            for name, own, run in zip(names, known, config.runs, strict=True)
        ]
    return dict(zip(names, loaded, strict=True))


def check_physics(named: str | None, models: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuse runs that learned other physics than the first, or warn where a dataset is ``named``."""
    from worldmodels.evaluation.conditions import check_shared, mismatch

    specs = {name: model.spec for name, model in models.items()}
    if named is None:
        check_shared(specs)
    elif line := mismatch(specs, dataset):
        warnings.warn(line, stacklevel=1)


def seed_of(run: Path) -> str:
    """The seed of a run folder, for its row's name."""
    from worldmodels.storage.runs import RunError, RunFolder

    try:
        return f"s{RunFolder.open(run).config['seed']}"
    except (RunError, KeyError):
        return ""


def find_test_data(named: str | None, run: Path, env_name: str | None = None) -> Dataset:
    """The dataset ``named`` (one of ``env_name``, if its name leaves that open), or the run's own."""
    from worldmodels.data import load_dataset, resolve_dataset
    from worldmodels.data.cache import dataset_of
    from worldmodels.storage.runs import RunFolder

    if named is not None:
        dataset = load_dataset(resolve_dataset(named, env_name))
        if env_name not in (None, dataset.env_name):
            raise cli.UsageError(
                f"--dataset {named} is of the env {dataset.env_name!r}, and the runs learned "
                f"{env_name!r}: name one of theirs"
            )
        return dataset
    return dataset_of(RunFolder.open(run))


def default_folder(config: EvaluateConfig) -> Path:
    """Inside the run, or a new folder for a comparison of several."""
    from worldmodels.storage.runs import run_of

    if len(config.runs) == 1:
        return run_of(config.runs[0]) / "evaluation"
    return Path("outputs") / time.strftime("comparison-%Y-%m-%d-%H-%M-%S")


def show(report: Mapping[str, Any]) -> None:
    """Print the header, the tables that a terminal shows, and what they mean."""
    from worldmodels.evaluation.comparison import comparison_of, header

    comparison = comparison_of(report["kind"])
    print(header(report))
    for table in comparison.tables(report, quartiles=cli.width() >= 130, join="\n"):
        if table.brief:
            cli.print_table(table.title, table.head, table.rows)
    print(comparison.legend(report))


def film(model: Any, path: Path) -> Path:
    """A film of an episode of random actions: truth, model and their difference."""
    from worldmodels.films.recording import record
    from worldmodels.films.video import write_video
    from worldmodels.films.viewer import viewer_of

    recording = record(model.spec.env_name, model.spec.env_kwargs, "random")
    with cli.progress("filming", 2 * len(recording.states)) as advance:
        frames = viewer_of(model.spec.medium).film(model, recording, 240, advance)
        return write_video(frames, path, 1 / recording.dt, advance)


def track(
    config: EvaluateConfig, report: Mapping[str, Any], folder: Path, files: list[Path]
) -> None:
    """Log the scores, the tables, the plots and the film, with what they came from."""
    from worldmodels.storage.checkpoint import find_checkpoint
    from worldmodels.training.tracking import Logger

    values = {
        "runs": [str(run) for run in config.runs],
        "dataset_hash": report["dataset"]["sha256"],
    }
    with Logger(folder, config.log, values, "evaluate") as logger:
        data = report["dataset"]
        name = f"buffer-{report['env']}"
        logger.artifact(name, "dataset", data["path"], {"sha256": data["sha256"]}, used=True)
        for row, run in zip(report["rows"], config.runs, strict=False):
            checkpoint = find_checkpoint(run, config.checkpoint)
            logger.artifact(f"model-{report['env']}-{row}", "model", checkpoint, used=True)
        logger.log(dict(_flat(report)), 0)
        for table, head, rows in logged_tables(report):
            logger.table(f"eval/{table}", head, rows)
        for path in files:
            if path.suffix == ".png":
                logger.image(path.stem, path)
            elif path.suffix == ".mp4":
                logger.video(path.stem, path)


def logged_tables(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Names, columns and rows of the tables to log."""
    from worldmodels.evaluation.comparison import comparison_of
    from worldmodels.evaluation.tables import horizon_table

    first = comparison_of(report["kind"]).tables(report)[0]
    yield "comparison", first.head, first.rows
    yield "horizon", *horizon_table(report)


def _flat(report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, row in report["rows"].items():
        for horizon, cell in row["nmse"].items():
            yield f"eval/{name}/nmse_{horizon}", cell["median"]
        yield f"eval/{name}/valid_time", row["valid_time"]["median"]
        for horizon, ratio in row.get("copy_ratio", {}).items():
            yield f"eval/{name}/copy_ratio_{horizon}", ratio
