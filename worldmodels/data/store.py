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

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from worldmodels.storage import files as storage

FORMAT_VERSION = 1
HEADER = "dataset.json"
SPLITS = ("train", "val", "test")


class DatasetError(storage.StorageError):
    """A dataset cannot be written, read or trusted; the message names the file and the fix."""


@dataclass(frozen=True)
class Shard:
    """One file of a dataset, as `dataset.json` lists it."""

    file: str
    """Name inside the dataset's folder."""
    first: int
    """Index of its first episode."""
    episodes: int
    """Number of its episodes."""
    sha256: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file."""


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
    content = _to_bytes(arrays, attributes, pictures)
    path = folder / shard_name(index)
    try:
        storage.atomic_write(path, content)
    except OSError as error:
        raise DatasetError(
            f"cannot write {path}: {error.strerror or error}; the shards before it are kept: "
            "make room and run the same command again"
        ) from error
    return Shard(path.name, first, len(arrays["lengths"]), **storage.fingerprint(content))


def _to_bytes(
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    pictures: Iterable[np.ndarray] | None,
) -> bytes:
    options = {"driver": "core", "backing_store": False, "block_size": 2**22}
    with h5py.File("shard", "w", libver="latest", **options) as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        if pictures is not None:
            _write_pictures(file, len(arrays["lengths"]), pictures)
        file.flush()
        return file.id.get_file_image()


def _write_pictures(file: h5py.File, episodes: int, pictures: Iterable[np.ndarray]) -> None:
    target = None
    for row, frames in enumerate(pictures):
        if target is None:
            shape = (episodes, *frames.shape)
            chunks = (1, *frames.shape)
            options = {"dtype": "u1", "compression": "gzip", "compression_opts": 1}
            target = file.create_dataset("pixels", shape, chunks=chunks, **options)
        target[row] = frames


def read_shard(
    folder: Path, shard: Shard, header: Mapping[str, Any], verify: bool = True
) -> dict[str, np.ndarray]:
    """Every array of a shard but the pixels, held to its hash and to `header`, `dataset.json`.

    Raises DatasetError naming the shard: missing, damaged, of another dt, type or shape, or
    holding values that are not finite.
    """
    try:
        source: Path | io.BytesIO = folder / shard.file
        if verify:
            expected = {"sha256": shard.sha256, "bytes": shard.bytes}
            source = io.BytesIO(storage.read_verified(folder / shard.file, expected))
        with h5py.File(source, "r") as file:
            found = {name: file.attrs.get(name) for name in ("env", "dt", "first_episode")}
            wanted = {"env": header["env_id"], "dt": header["dt"], "first_episode": shard.first}
            if found != wanted:
                raise DatasetError(f"{shard.file} is of {found}, but {HEADER} says {wanted}")
            names = [name for name in header["schema"] if name != "pixels" and name in file]
            if any(file[name].nbytes > shard.bytes for name in names):
                raise DatasetError(f"{shard.file} claims to hold more than its {shard.bytes} bytes")
            arrays = {name: file[name][()] for name in names}
    except Exception as error:  # whatever HDF5 makes of a file that is not one of ours
        raise DatasetError(f"{error}; drop the shard with collect.py --repair") from error
    _check_arrays(shard, arrays, header)
    return arrays


def _check_arrays(
    shard: Shard, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    for name, wanted in header["schema"].items():
        if name == "pixels":
            continue
        if name not in arrays:
            raise DatasetError(f"{shard.file} has no {name}")
        found = arrays[name]
        shape = [shard.episodes, *wanted["shape"]]
        if str(found.dtype) != wanted["dtype"] or list(found.shape) != shape:
            raise DatasetError(
                f"{shard.file}: {name} is {found.dtype} {list(found.shape)}, "
                f"but {HEADER} says {wanted['dtype']} {shape}"
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            episode = shard.first + int(np.argwhere(~np.isfinite(found))[0][0])
            raise DatasetError(f"{shard.file}: {name} of episode {episode} is not finite")
    steps = arrays["rewards"].shape[1]
    if ((arrays["lengths"] < 1) | (arrays["lengths"] > steps)).any():
        raise DatasetError(f"{shard.file} has episodes of a length outside 1 to {steps}")


def read_header(folder: Path) -> dict[str, Any]:
    """`dataset.json`, verified. Raises DatasetError: missing, damaged, or of a newer format."""
    try:
        header = storage.read_sealed(folder / HEADER)
    except storage.StorageError as error:
        raise DatasetError(
            f"{error}; collect.py --repair with the dataset's own options writes it anew"
        ) from error
    version = header.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatasetError(f"{folder} has format_version {version}: upgrade this package")
    if version != FORMAT_VERSION:
        raise DatasetError(f"{folder} has format_version {version!r}, not {FORMAT_VERSION}")
    return header


def write_header(folder: Path, header: Mapping[str, Any]) -> None:
    """Replace `dataset.json`. Raises DatasetError where the disk refuses."""
    try:
        storage.atomic_write(folder / HEADER, storage.seal(header))
    except OSError as error:
        raise DatasetError(
            f"cannot write {folder / HEADER}: {error.strerror or error}; make room and run the "
            "same command again"
        ) from error


def shards_of(header: Mapping[str, Any]) -> list[Shard]:
    """The shards listed, in the order of their episodes. Raises DatasetError for a bad list."""
    try:
        shards = sorted((Shard(**entry) for entry in header["shards"]), key=lambda s: s.first)
        ends = [shard.first + shard.episodes for shard in shards]
        plain = all(Path(shard.file).name == shard.file for shard in shards)
        overlap = any(end > after.first for end, after in zip(ends, shards[1:], strict=False))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{HEADER} lists its shards wrongly: {error}") from error
    if overlap or not plain:
        raise DatasetError(f"{HEADER} lists an episode twice, or a file outside the dataset")
    return shards


def damaged_shards(folder: Path, header: Mapping[str, Any]) -> dict[str, str]:
    """Listed shards that cannot be trusted: file name -> what is wrong with it."""
    found: dict[str, str] = {}
    for shard in shards_of(header):
        try:
            read_shard(folder, shard, header)
        except DatasetError as error:
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
            if (path / shard.file).is_file():
                (path / shard.file).replace(path / f"{shard.file}.damaged")
    if damaged:
        kept = [entry for entry in header["shards"] if entry["file"] not in damaged]
        write_header(path, {**header, "shards": kept})
    return sorted(damaged)
