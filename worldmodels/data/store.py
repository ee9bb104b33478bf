"""The files of a dataset: shards in HDF5, each written whole, and a sealed `dataset.json`.

A shard is built in memory, hashed, and renamed into place; then `dataset.json`, which alone says
what belongs to the dataset, is replaced by one that lists it. A crash loses the shard in hand and
nothing else. Equal content gives equal bytes: no file holds a time or a host.

Arrays of a shard of n episodes of at most T steps (`lengths` of them are valid, then states and
energy repeat the last value and the rest is zero): states (n, T+1, D), actions (n, T) or
(n, T, A), rewards, terminated, truncated (n, T), energy (n, T+1), lengths, seeds, behaviours (n,),
params/<name> (n,), and pixels (n, T+1, H, W, 3) where asked for, gzip 1, one chunk an episode.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodels.data.header import (
    HEADER,
    SPLITS,
    Shard,
    SpaceRecord,
    action_bounds,
    checked,
    layouts,
)
from worldmodels.storage import files as storage
from worldmodels.storage import hdf5
from worldmodels.storage.reading import MAX_SHARD_BYTES

__all__ = ["HEADER", "SPLITS", "DamageError", "DatasetError", "Shard"]

FORMAT_VERSION = 1


class DatasetError(storage.StorageError):
    """A dataset cannot be written, read or trusted; the message names the file and the fix."""


class DamageError(DatasetError):
    """A file of a dataset is not there or not what it was: `physgym collect --repair` makes it again."""


class Episodes(NamedTuple):
    """What a shard holds."""

    arrays: dict[str, np.ndarray]
    """Every array but the pixels."""
    pixels: hdf5.Pieces | None
    """The pictures, still unread."""


def shard_name(index: int) -> str:
    """File name of shard `index`."""
    return f"shard-{index:05d}.h5"


def write_shard(
    folder: Path,
    index: int,
    first: int,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    pictures: Iterable[np.ndarray] | None = None,
) -> Shard:
    """Write one shard, whole or not at all; `pictures` yields (T+1, H, W, 3) uint8 an episode.

    Raises DatasetError for values that are not finite and where the disk refuses.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DatasetError(f"episode {first + row}: {name} is not finite; nothing was written")
    content = hdf5.to_bytes(arrays, attributes, pictures)
    path = folder / shard_name(index)
    if len(content) > MAX_SHARD_BYTES:
        raise DatasetError(
            f"{path} would have {len(content)} bytes, and a shard has at most {MAX_SHARD_BYTES}: "
            f"collect fewer than {len(arrays['lengths'])} episodes a shard (--shard-episodes)"
        )
    try:
        storage.atomic_write(path, content)
    except OSError as error:
        raise not_written(path, error, "; the shards before it are kept") from error
    return Shard(path.name, first, len(arrays["lengths"]), **storage.fingerprint(content))


def not_written(path: Path, error: OSError, kept: str = "") -> DatasetError:
    """The error to raise where the disk refuses a file of a dataset, with what helps."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make room and run the same command again" if full else "run the same command then"
    return DatasetError(f"cannot write {path}: {storage.explain(error)}{kept}: {advice}")


def read_shard(
    folder: Path, shard: Shard, header: Mapping[str, Any], verify: bool = True
) -> Episodes:
    """The episodes of a shard, held to its hash and to `header`, `dataset.json`.

    Raises DamageError naming the shard: missing, damaged, of another dt, type or shape, or holding
    values that cannot be; DatasetError where the system refuses the file or has too little memory.
    """
    try:
        content = _content(folder / shard.file, shard, verify)
        wanted = layouts(header["schema"], shard.episodes)
        pictures = {"pixels": wanted.pop("pixels")} if "pixels" in wanted else {}
        found = hdf5.from_bytes(content, wanted, pictures, ("dt", "first_episode"))
        _check_origin(found.attributes, shard, header)
        _check_values(found.arrays, shard, header)
    except storage.AccessError as error:
        raise DatasetError(str(error)) from error
    except MemoryError as error:
        raise DatasetError(f"not enough memory to read {folder / shard.file}") from error
    except storage.StorageError as error:
        named = "" if shard.file in str(error) else f"{shard.file}: "
        raise DamageError(
            f"{named}{error}; drop the shard with physgym collect --repair"
        ) from error
    return Episodes(found.arrays, found.pieces.get("pixels"))


def _content(path: Path, shard: Shard, verify: bool) -> bytes:
    if not verify:
        return storage.read_file(path, MAX_SHARD_BYTES)
    expected = {"sha256": shard.sha256, "bytes": shard.bytes}
    return storage.read_verified(path, expected, MAX_SHARD_BYTES)


def _check_origin(found: Mapping[str, Any], shard: Shard, header: Mapping[str, Any]) -> None:
    wanted = {"dt": header["dt"], "first_episode": shard.first}
    if found != wanted:
        raise storage.StorageError(f"{shard.file} is of {found}, but {HEADER} says {wanted}")


def _check_values(
    arrays: Mapping[str, np.ndarray], shard: Shard, header: Mapping[str, Any]
) -> None:
    """Raise StorageError naming the first episode that holds what no env can have given."""
    low, high = action_bounds(SpaceRecord(**header["spaces"]["action"]))
    allowed: dict[str, tuple[Any, Any]] = {
        "actions": (low, high),
        "lengths": (1, header["steps"]),
        "seeds": (0, np.inf),
        "behaviours": (0, len(header["behaviours"]) - 1),
    }
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            episode = shard.first + int(np.argwhere(~np.isfinite(array))[0][0])
            raise storage.StorageError(f"{shard.file}: {name} of episode {episode} is not finite")
        bottom, top = allowed.get(name, (None, None))
        if bottom is None:
            continue
        outside = (array < bottom) | (array > top)
        if name == "actions":  # behind an episode's end there are zeros, in the space or not
            outside[np.arange(header["steps"]) >= arrays["lengths"][:, None]] = False
        if outside.any():
            episode = shard.first + int(np.argwhere(outside)[0][0])
            raise storage.StorageError(
                f"{shard.file}: {name} of episode {episode} lies outside {bottom} to {top}"
            )


def read_header(folder: Path) -> dict[str, Any]:
    """`dataset.json`, verified, and of the types and sizes that it must have.

    Raises DamageError: missing, damaged or never written by this package; DatasetError: of another
    format, or refused by the system.
    """
    try:
        header = storage.read_sealed(folder / HEADER)
    except storage.AccessError as error:
        raise DatasetError(str(error)) from error
    except storage.StorageError as error:
        if not os.path.lexists(folder / HEADER) and not any(folder.glob("shard-*")):
            raise DatasetError(f"{folder} is no dataset: it holds no {HEADER}") from error
        raise DamageError(f"{error}; {_ANEW}") from error
    version = header.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise DatasetError(f"{folder} has format_version {version}: upgrade this package")
    if type(version) is not int or version != FORMAT_VERSION:
        raise DatasetError(f"{folder} has format_version {version!r}, not {FORMAT_VERSION}")
    try:
        return {**header, "config": checked(header).config.to_dict()}
    except ValueError as error:
        raise DamageError(f"{folder}: {error}; {_ANEW}") from error


_ANEW = "physgym collect --repair with the dataset's own options writes it anew"


def write_header(folder: Path, header: Mapping[str, Any]) -> None:
    """Replace `dataset.json`. Raises DatasetError where the disk refuses, or it would be too large."""
    content = storage.seal(header)
    if len(content) > storage.MAX_JSON_BYTES:
        raise DatasetError(
            f"{folder / HEADER} would have {len(content)} bytes, and at most "
            f"{storage.MAX_JSON_BYTES} are read: collect fewer episodes, or more in each shard"
        )
    try:
        storage.atomic_write(folder / HEADER, content)
    except OSError as error:
        raise not_written(folder / HEADER, error) from error


def shards_of(header: Mapping[str, Any]) -> list[Shard]:
    """The shards that a header lists, in the order of their episodes."""
    return sorted((Shard(**entry) for entry in header["shards"]), key=lambda shard: shard.first)


def damaged_shards(folder: Path, header: Mapping[str, Any]) -> dict[str, str]:
    """Listed shards that cannot be trusted: file name -> what is wrong with it.

    Raises DatasetError where the system does not let one be read: it may be sound.
    """
    found: dict[str, str] = {}
    for shard in shards_of(header):
        try:
            read_shard(folder, shard, header)
        except DamageError as error:
            found[shard.file] = str(error)
    return found


def repair(folder: str | Path, report: Callable[[str], object] = print) -> list[str]:
    """Drop every damaged or missing shard from `dataset.json`; what is left of the file is kept
    beside it as `<file>.damaged`. Returns the dropped file names, and reports each.

    The same collect command then collects them again, to the same bytes. Hold the dataset's lock.
    """
    path = Path(folder)
    header = read_header(path)
    damaged = damaged_shards(path, header)
    for shard in shards_of(header):
        if shard.file in damaged:
            last = shard.first + shard.episodes - 1
            report(f"dropped {shard.file}, episodes {shard.first} to {last}: {damaged[shard.file]}")
            if os.path.lexists(path / shard.file):  # whatever stands there, a folder, too
                (path / shard.file).replace(path / f"{shard.file}.damaged")
    if damaged:
        kept = [entry for entry in header["shards"] if entry["file"] not in damaged]
        write_header(path, {**header, "shards": kept})
    return sorted(damaged)
