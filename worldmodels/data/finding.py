"""Which folder a dataset's name, path or hash means: one resolver for every command.

A dataset is known by its hash; a path is a hint where it lay.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from worldmodels.data.header import HEADER
from worldmodels.data.store import DatasetError
from worldmodels.storage import files as storage

ROOT = "datasets"
_SIGNS = (HEADER, "shard-00000.h5", ".")
"""What makes a folder a dataset: a damaged one is found too, to be named, but a sound one first."""


def find_dataset(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] = ROOT,
    env: str | None = None,
    sha256: str | None = None,
    places: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """The folder of a dataset.

    `path`: a folder, `<env>/<name>` under `root`, or `<name>` alone, with or without a slash at its
    end; of several envs' datasets of one name, `env`'s. With `sha256`, the hash that stands for the
    dataset (`Dataset.hash`), `path` is a hint where it lay: the folder must have that hash, and
    where it has not, it is looked for beside `path`, in `places` and in `root`, whatever its name
    is now. Raises DatasetError with close matches, or with what was found instead.
    """
    text = os.fspath(path)
    if not text.strip(" /") or "\0" in text:
        raise DatasetError(f"{text!r} names no dataset: give its folder, <env>/<name> or <name>")
    found = _named(text, Path(root), env)
    if sha256 is not None:
        return _of_hash(sha256, text, found, [*map(Path, places), Path(root)])
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in found)
        raise DatasetError(f"{text!r} is the name of several datasets: give one of {names}")
    if found:
        return found[0]
    raise DatasetError(f"no dataset {text!r}. {_known(text, Path(root))}")


def dataset_hash(folder: str | os.PathLike[str]) -> str | None:
    """The hash that stands for the dataset in `folder`; None where there is none to trust.

    Raises DatasetError where the system does not let it be read.
    """
    try:
        return str(storage.read_sealed(Path(folder) / HEADER)["seal"])
    except storage.AccessError as error:
        raise DatasetError(str(error)) from error
    except storage.StorageError:
        return None


def _named(text: str, root: Path, env: str | None) -> list[Path]:
    """The folders that `text` can mean: one, or those of several envs, or none."""
    path = Path(text)
    path = path.parent if path.name == HEADER else path
    single = len(path.parts) == 1 and path.name not in ("", "..")
    exact = [root / env / path] if single and env else []
    exact += [path, root / path]
    others = [folder / path for folder in sorted(root.glob("*"))] if single else []
    for sign in _SIGNS:
        for place in exact:
            if _is_there(place / sign):
                return [place]
        if hits := [place for place in others if os.path.exists(place / sign)]:
            return hits
    return []


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError as error:
        raise DatasetError(f"{path.parent} cannot be read: {storage.explain(error)}") from error
    except (OSError, ValueError):
        return False
    return True


def _of_hash(sha256: str, text: str, named: list[Path], places: list[Path]) -> Path:
    """The folder with that hash: one of `named`, or one beside it or in `places`."""
    parent = Path(text).parent
    beside = [parent] if parent.absolute() != Path("/") else []  # never through the whole disk
    places = [*beside, *places]
    seen: set[Path] = set()
    for folder in itertools.chain(named, *map(_below, places)):
        if folder not in seen and dataset_hash(folder) == sha256:
            return folder
        seen.add(folder)
    here = f"{named[0]} holds another one now" if named else "it is no longer there"
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise DatasetError(
        f"the dataset {text!r} with the hash {sha256[:8]}: {here}, and none of that hash lies in "
        f"{looked}; name the folder it was moved to with --dataset"
    )


def _below(place: Path) -> Iterator[Path]:
    """Datasets in a folder, itself, one or two levels down."""
    for pattern in (HEADER, f"*/{HEADER}", f"*/*/{HEADER}"):
        yield from (path.parent for path in sorted(place.glob(pattern)))


def _known(text: str, root: Path) -> str:
    known = [str(path.parent.relative_to(root)) for path in sorted(root.glob(f"*/*/{HEADER}"))]
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return f"{hint}Known: {', '.join(known) or f'none in {root}; physgym collect makes one'}"
