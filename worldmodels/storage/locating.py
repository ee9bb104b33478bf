"""Which checkpoint a path means: of a run, or itself; and what to say where there is none."""

from __future__ import annotations

import difflib
import os
import warnings
from pathlib import Path

from worldmodels.storage import files as storage
from worldmodels.storage.runs import folder_of
from worldmodels.storage.verification import CONFIG, CheckpointError


def find_checkpoint(run: str | os.PathLike[str], which: str = "best") -> Path:
    """The checkpoint folder meant by `run`: itself, or `checkpoints/<which>` inside it; a file of either
    stands for its folder.

    Where a run has no such checkpoint, the other one (`load` says so).
    """
    path = folder_of(run)
    path = path.parent if path.name == "checkpoints" else path
    folders = [path]
    if (path / "checkpoints").is_dir() or (path / "run.json").is_file():
        names = [which, *(name for name in ("best", "last") if name != which)]
        folders = [path / "checkpoints" / name for name in names]
    for folder in folders:
        if any((kept / CONFIG).is_file() for kept in (folder, storage.previous_of(folder))):
            return folder
    raise CheckpointError(f"no checkpoint in {path}; {_what_is_there(path)}")


def warn_of_another(folder: Path, run: str | os.PathLike[str], which: str = "best") -> None:
    """Warn where `find_checkpoint` had to take another checkpoint of `run` than `which`."""
    if folder.name != which and folder != folder_of(run):
        warnings.warn(
            f"{run} has no checkpoint {which!r} (none was good enough yet, or it was removed): using "
            f"{folder.name!r}",
            RuntimeWarning,
            stacklevel=3,
        )


def _what_is_there(path: Path) -> str:
    if (path / "run.json").is_file():
        return f"its training ended before the first one: physgym train --resume {path} goes on"
    if path.is_dir():
        if runs := _runs_in(path):
            return f"it holds the runs {', '.join(runs)}: name one of them"
        return "expected checkpoints/best or checkpoints/last there: was the run ended before one?"
    if path.exists():
        return "it is a file, and a run is a folder"
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=3)
    return f"did you mean {', '.join(close)}?" if close else "there is no such folder"


def _runs_in(path: Path, most: int = 5) -> list[str]:
    """Runs below `path`, down to `<date>/<time>/<model>`: the last of them by name."""
    for depth in ("*", "*/*", "*/*/*"):
        if found := sorted(path.glob(f"{depth}/checkpoints")):
            return [folder.parent.relative_to(path).as_posix() for folder in found[-most:]]
    return []
