"""Run folders: one folder a training run, never shared and never overwritten.

`outputs/<date>/<time>/<model>/` holds `config.json` (the whole configuration), `run.json` (where
it came from and how it ended), `metrics.jsonl`, `checkpoints/` and `evaluation/`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from worldmodels.storage.files import StorageError, atomic_write, parse_json

OUTPUTS = Path("outputs")
PACKAGES = ("physgym", "torch", "numpy", "gymnasium", "torchdiffeq", "h5py", "safetensors", "wandb")


class RunError(ValueError):
    """A run folder that cannot be made, found or continued."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. `path` exists; the files in it may not yet."""

    path: Path

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
            RunError: `out` is not empty, or cannot be written to.
        """
        path = _new_folder(Path(out)) if out else _dated_folder(Path(root), config["model_name"])
        run = cls(path)
        run._write("config.json", config)
        run._write("run.json", {**_provenance(), "argv": argv or [], "status": "created"})
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run's folder; RunError where there is none or it holds no `config.json`."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise RunError(f"no run folder at {str(path)!r}; give the folder that training printed")
        if not (run.path / "config.json").is_file():
            raise RunError(f"{str(path)!r} is no run folder: it holds no config.json")
        return run

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints: `best` and `last`."""
        return self.path / "checkpoints"

    @property
    def config(self) -> dict[str, Any]:
        """The configuration the run was started with."""
        return self._read("config.json")

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says: commit, versions, argv, status, start and end."""
        return self._read("run.json")

    def update(self, **fields: Any) -> None:
        """Change fields of `run.json`, the others kept (`status="done"`, `wandb_id=...`)."""
        self._write("run.json", {**self.record, **fields})

    def finish(self, status: str, **fields: Any) -> None:
        """Write the end of the run: `status` ("done", "interrupted", "failed") and the time."""
        self.update(status=status, ended=_now(), **fields)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return parse_json(path.read_bytes(), str(path))
        except FileNotFoundError:
            return {}
        except (OSError, StorageError) as error:
            raise RunError(f"no run can be read from {self.path}: {error}") from error

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        atomic_write(self.path / name, (json.dumps(value, indent=2) + "\n").encode())


def _new_folder(path: Path) -> Path:
    """Make `path`, which must not exist or be empty."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = any(path.iterdir())
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
    if taken:
        raise RunError(
            f"{path} is not empty and runs never overwrite one another: name another folder, "
            "or continue that run with --resume"
        )
    return path


def _dated_folder(root: Path, name: str) -> Path:
    """Make `<root>/<date>/<time>/<name>`; of two runs in one second the later gets `<name>-2`."""
    now = datetime.now()
    parent = root / now.strftime("%Y-%m-%d") / now.strftime("%H-%M-%S")
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
