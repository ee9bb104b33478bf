"""Metrics of a run: always in `metrics.jsonl`, and at Weights & Biases where asked.

A row is written whole or not at all; an evaluation's rows go to a file of its own. The local file
comes first and is never lost to the other: any failure of wandb (not installed, no key, no network,
a broken connection) costs one warning and at most fifteen seconds, and the run goes on.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.configs.training import LogConfig
from worldmodels.training.rows import FILES, METRICS, RowFile, read_metrics

__all__ = ["METRICS", "Logger", "read_metrics"]

INIT_SECONDS = 12.0
FINISH_SECONDS = 15.0


class Logger:
    """Writes the metrics of one run.

    Args:
        run_dir: the run folder; rows are appended to `metrics.jsonl` in it, or to
            `evaluation.jsonl` where they are an evaluation's, or to `file`.
        config: where else to log (`config.wandb` is disabled, offline or online).
        values: the run's configuration, shown beside it at wandb.
        job_type: what the run does: collect, train, evaluate or agent. An agent's steps are
            counted as `env_steps`, all others' as `epoch`.
        name: the run's name at wandb; None: the run folder's.
        run_id: id of an earlier run at wandb, to continue it. The id in use is `.run_id`.
        file: name of the file of rows, where a folder holds several; None: that of the job.

    Raises StorageError where the file cannot be written, or is no file of ours.
    """

    def __init__(
        self,
        run_dir: str | Path,
        config: LogConfig | None = None,
        values: Mapping[str, Any] | None = None,
        job_type: str = "train",
        *,
        name: str | None = None,
        run_id: str | None = None,
        file: str | None = None,
    ) -> None:
        self.path = Path(run_dir) / (file or FILES.get(job_type, METRICS))
        self.step_name = "env_steps" if job_type == "agent" else "epoch"
        self._file = RowFile(self.path)
        self._wandb: Any = None
        self._run: Any = None
        config = config or LogConfig()
        if config.wandb != "disabled":
            self._start(config, dict(values or {}), job_type, name, run_id)

    @property
    def run_id(self) -> str | None:
        """The run's id at wandb; None where nothing is logged there."""
        return self._run.id if self._run is not None else None

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Write one row of numbers at `step`; a number that is not finite is written as null.

        Raises StorageError where the row does not fit on the disk; the file is then as before.
        """
        row = {self.step_name: int(step), **{key: _plain(value) for key, value in values.items()}}
        self._file.append(row)
        # One NaN would stay the minimum of its metric at wandb for ever: nothing is sent for it.
        self._send(lambda run: run.log({k: v for k, v in row.items() if v is not None}))

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run writes them again."""
        self._file.drop(lambda row: row.get(self.step_name, 0) > step)

    def image(self, name: str, path: str | Path) -> None:
        """Show the picture at `path` (png, jpg) as `media/<name>`."""
        self._send(lambda run: run.log({_media_name(name): self._wandb.Image(str(path))}))

    def video(self, name: str, path: str | Path) -> None:
        """Show the film at `path` (mp4, gif, webm) as `media/<name>`; it is not encoded again."""
        kind = Path(path).suffix.lstrip(".")
        self._send(
            lambda run: run.log({_media_name(name): self._wandb.Video(str(path), format=kind)})
        )

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Show a table as `name`."""
        data = [[_plain(cell) for cell in row] for row in rows]
        self._send(lambda run: run.log({name: self._wandb.Table(columns=list(columns), data=data)}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set results that belong to the whole run rather than to a step."""
        self._send(lambda run: run.summary.update({k: _plain(v) for k, v in values.items()}))

    def artifact(
        self,
        name: str,
        kind: str,
        path: str | Path,
        metadata: Mapping[str, Any] | None = None,
        *,
        aliases: Sequence[str] = (),
        used: bool = False,
    ) -> None:
        """Record a file or folder with its content.

        Args:
            name: such as `buffer-pendulum`; characters wandb does not allow become dashes.
            kind: `dataset` or `model`.
            path: the file or folder.
            metadata: what describes it (episodes, dt, sha256).
            aliases: names of this version, such as `best`.
            used: an input of this run rather than a result: an edge of the lineage graph. A
                server is needed to resolve an input, so an offline run records its content as an
                output marked with `input: true`, and names it in its configuration.
        """
        self._send(lambda run: self._record(run, name, kind, path, metadata, aliases, used))

    def finish(self, status: str = "done") -> None:
        """Close the file and end the run at wandb; a second call does nothing."""
        self._file.close()
        self._send(lambda run: run.finish(exit_code=0 if status == "done" else 1))
        self._run = None

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.finish("done" if kind is None else "failed")

    def _start(
        self,
        config: LogConfig,
        values: dict[str, Any],
        job_type: str,
        name: str | None,
        run_id: str | None,
    ) -> None:
        """Begin a run at wandb: as asked, or offline where that fails, or not at all."""
        try:
            import wandb
        except ImportError:
            _warn("wandb is not installed (pip install wandb): metrics go to metrics.jsonl alone")
            return
        self._wandb = wandb
        os.environ.setdefault("WANDB_SILENT", "true")
        arguments: dict[str, Any] = {
            "project": config.project,
            "group": config.group,
            "config": values,
            "job_type": job_type,
            "name": name or self.path.parent.name,
            "dir": str(self.path.parent),
            "id": run_id,
            "resume": "allow" if run_id else None,
        }
        mode: str = config.wandb
        if mode == "online":
            try:
                if not wandb.login(prompt=False, verify=False):
                    raise ValueError("no key: run `wandb login`, or use --log.wandb offline")
                self._run = wandb.init(mode="online", settings=_settings(wandb), **arguments)
            except Exception as error:
                _warn(
                    f"wandb is offline for this run ({_short(error)}); `wandb sync` sends it later"
                )
                mode = "offline"
        if mode == "offline":
            try:
                self._run = wandb.init(mode="offline", settings=_settings(wandb), **arguments)
            except Exception as error:
                _warn(f"wandb is off for this run ({_short(error)}); metrics are in metrics.jsonl")
        self._send(self._define)

    def _define(self, run: Any) -> None:
        run.define_metric(self.step_name)
        if self.step_name == "epoch":
            run.define_metric("train/*", step_metric="epoch")
            run.define_metric("eval/*", step_metric="epoch", summary="min")
        else:
            run.define_metric("agent/*", step_metric="env_steps")

    def _record(
        self,
        run: Any,
        name: str,
        kind: str,
        path: str | Path,
        metadata: Mapping[str, Any] | None,
        aliases: Sequence[str],
        used: bool,
    ) -> None:
        marked = {**(metadata or {}), **({"input": True} if used else {})}
        artifact = self._wandb.Artifact(_artifact_name(name), type=kind, metadata=marked)
        # An input is finished and may be large: it is not copied before it is sent.
        policy = "immutable" if used else "mutable"
        path = Path(path)
        if path.is_dir():
            artifact.add_dir(str(path), policy=policy)
        else:
            artifact.add_file(str(path), policy=policy)
        if used:
            run.config.update({f"uses/{kind}": artifact.name}, allow_val_change=True)
        if used and not run.offline:
            run.use_artifact(artifact)
        else:
            run.log_artifact(artifact, aliases=list(aliases) or None)

    def _send(self, action: Callable[[Any], Any]) -> None:
        """Do something at wandb; the first failure warns and ends it for this run."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _warn(f"wandb failed ({_short(error)}); metrics go on in {self.path.name} alone")


class Unlogged:
    """What a process logs to whose training another process logs."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Write nothing."""

    def rewind(self, step: int) -> None:
        """Nothing was written."""


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
        init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS, console="off", silent=True
    )


def _number(value: Any) -> Any:
    """A tensor's or array's single number as a Python one; anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any) -> Any:
    """A JSON value: numbers that are not finite become None."""
    value = _number(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _media_name(name: str) -> str:
    """A key outside `train/` and `eval/`, whose step and minimum are rules for numbers."""
    return f"media/{name.rpartition('/')[2]}"


def _artifact_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
