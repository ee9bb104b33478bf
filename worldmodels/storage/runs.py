"""Run folders: one folder a training run, never shared and never overwritten.

`outputs/<date>/<time>/<model>/` holds `config.json` (the whole configuration), `run.json` (where
it came from and how it ended), `metrics.jsonl`, `checkpoints/` and `evaluation/`. Who writes to one
holds its lock; of several that ask for one new folder at the same time, one is given it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from worldmodels import plugins
from worldmodels.configs.schema import LONGEST_TEXT
from worldmodels.storage.files import (
    LockedError,
    RunLock,
    StorageError,
    atomic_write,
    read_json,
    remove_orphans,
)
from worldmodels.storage.records import check_record

OUTPUTS = Path("outputs")
CONFIG, RECORD = "config.json", "run.json"
OWN_FILES = (CONFIG, RECORD, "metrics.jsonl", "model.safetensors", "train_state.pt")
PACKAGES = ("physgym", "torch", "numpy", "gymnasium", "torchdiffeq", "h5py", "safetensors", "wandb")


class RunError(ValueError):
    """A run folder that cannot be made, found or continued."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. `path` exists; the files in it may not yet."""

    path: Path
    _held: list[bool] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def create(
        cls,
        config: Mapping[str, Any],
        out: str | Path | None = None,
        argv: list[str] | None = None,
        root: str | Path = OUTPUTS,
    ) -> RunFolder:
        """Make a new folder and write `config.json` and `run.json` into it.

        Args:
            config: the whole configuration, JSON-able (`worldmodels.configs.training.to_dict`).
            out: the folder; it may exist but must be empty. None: a dated one under `root`.
            argv: the command line that asked for the run, recorded only.
            root: where unnamed runs go.

        Raises:
            RunError: `out` is not empty, is being given to another run, or cannot be written to.
        """
        path = Path(out) if out else _dated_folder(Path(root), config["model_name"])
        check_free(path)
        run = cls(path)
        try:
            with run.lock():
                check_free(path)  # another may have been quicker
                run._write(CONFIG, config)
                run._write(RECORD, {**_provenance(), "argv": argv or [], "status": "created"})
        except LockedError as error:
            raise RunError(f"{path} is taken by another run at this moment: {error}") from error
        except StorageError as error:
            raise RunError(f"cannot make the run folder {path}: {error}") from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run's folder; RunError where there is none or it holds no `config.json`.

        `path`: the folder, or something of the run's own inside it: a checkpoint, `config.json`.
        """
        run = cls(run_of(path))
        if not run.path.is_dir():
            raise RunError(f"no run folder at {str(path)!r}; give the folder that training printed")
        if not (run.path / CONFIG).is_file():
            raise RunError(f"{str(path)!r} is no run folder: it holds no {CONFIG}")
        if (run.path / "model.safetensors").is_file():
            raise RunError(f"{str(path)!r} is a checkpoint without its run: name the run's folder")
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the run's only writer; inside such a block of this object's, nothing more is asked.

        What writers that were killed left half written is removed. Raises LockedError naming the
        process that writes to the run, at once, or StorageError.
        """
        if self._held:
            yield
            return
        with RunLock(self.path):
            self._held.append(True)
            try:
                for folder in (self.path, self.checkpoints):
                    remove_orphans(folder)
                yield
            finally:
                self._held.clear()

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints: `best` and `last`."""
        return self.path / "checkpoints"

    @property
    def config(self) -> dict[str, Any]:
        """The configuration the run was started with."""
        return self._read(CONFIG)

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says: commit, versions, argv, status, start and end; {} without one.

        Raises RunError for a field of another type than a run writes.
        """
        values = self._read(RECORD)
        try:
            check_record(values)
        except ValueError as error:
            raise RunError(
                f"{self.path / RECORD}: {error}; mend the field, or take the file away: a run can "
                "be evaluated and resumed without it"
            ) from error
        return values

    def update(self, **fields: Any) -> None:
        """Change fields of `run.json`, the others kept (`status="done"`, `wandb_id=...`)."""
        values = {**self.record, **fields}
        check_record(values)
        self._write(RECORD, values)

    def finish(self, status: str, **fields: Any) -> None:
        """Write the end of the run: `status` ("done", "interrupted", "failed") and the time.

        Where no second file fits on the disk any more, the present one is written over.
        """
        values = {**self.record, "status": status, "ended": _now(), **fields}
        if isinstance(reason := values.get("error"), str):
            values["error"] = reason[:LONGEST_TEXT]
        check_record(values)
        try:
            self._write(RECORD, values)
        except RunError:
            try:
                self._write_over(RECORD, values)
            except RunError:  # a long reason may be what does not fit
                self._write_over(RECORD, {**values, "error": None})

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return read_json(path) if os.path.lexists(path) else {}
        except StorageError as error:
            raise RunError(f"no run can be read from {self.path}: {error}") from error

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.path / name
        try:
            atomic_write(path, (json.dumps(value, indent=2) + "\n").encode())
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error

    def _write_over(self, name: str, value: Mapping[str, Any]) -> None:
        """Put `value` into the blocks that the file has already; they are enough without indents."""
        path = self.path / name
        content = json.dumps(value, separators=(",", ":")).encode()
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if len(content) > size:
                    raise OSError(0, f"{len(content)} bytes do not fit into its {size}")
                file.write(content.ljust(size))
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def run_of(path: str | Path) -> Path:
    """The run folder that `path` is, or is a part of: its config, a checkpoint, or the folder of these."""
    path = folder_of(path)
    for inner, run in ((path.name, path.parent), (path.parent.name, path.parent.parent)):
        if inner == "checkpoints" and (run / CONFIG).is_file():
            return run
    return path


def folder_of(path: str | os.PathLike[str]) -> Path:
    """The folder of a run or a checkpoint that `path` is, or is a file of."""
    path = Path(path)
    if path.name in ("", ".."):  # the working folder, or one above: their names are asked below
        path = path.resolve()
    return path.parent if path.name in OWN_FILES and path.is_file() else path


def check_free(path: str | Path) -> None:
    """Raise RunError unless `path` can become the folder of a new run; makes nothing.

    What a run leaves that was killed before it wrote anything does not count.
    """
    path = Path(path)
    try:
        found = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
    if any(name != ".lock" and not name.startswith(".tmp-") for name in found):
        raise RunError(
            f"{path} is not empty and runs never overwrite one another: name another folder, "
            "or continue that run with --resume"
        )


def runs_by_depth(root: Path) -> Iterator[list[Path]]:
    """Run folders one, two and three levels below `root`, sorted, a list a level."""
    for depth in ("*", "*/*", "*/*/*"):
        yield sorted(found.parent for found in root.glob(f"{depth}/{RECORD}"))


def dated(root: Path = OUTPUTS) -> Path:
    """`<root>/<date>/<time>` of this second; makes nothing."""
    return root / datetime.now().strftime("%Y-%m-%d/%H-%M-%S")


def _dated_folder(root: Path, name: str) -> Path:
    """Make `<root>/<date>/<time>/<name>`; of two runs in one second the later gets `<name>-2`."""
    parent = dated(root)
    for count in range(1, 1000):
        path = parent / (name if count == 1 else f"{name}-{count}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
        return path
    raise RunError(f"{parent} already holds 999 runs")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _provenance() -> dict[str, Any]:
    """Where a run came from: commit, versions, platform, start."""
    commit = _git("rev-parse", "HEAD")
    return {
        "git_commit": commit,
        "git_dirty": None if commit is None else bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "plugins": plugins.loaded(),
        "started": _now(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """A git command's answer about this package's own checkout; None outside one."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
