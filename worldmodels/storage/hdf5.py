"""Arrays in HDF5 and back: the one place that reads or writes HDF5.

HDF5 can send a reader to any file of the machine (external storage, soft and external links, virtual
datasets), run plugins (filters) and take numbers for addresses (references, variable lengths). None
of that is read: HDF5 says only *where* in the verified bytes an array lies and of which type it is,
for plain numbers behind hard links, stored in one piece or, for pictures, in one gzip piece a row.
The numbers are then taken from those bytes themselves. h5py is imported when a function needs it.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from worldmodels.storage.reading import StorageError, read_range

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BLOCK_BYTES = 2**18
_MOST_COMPRESSION = 1100
"""deflate makes nothing more than 1032 times smaller."""


class Layout(NamedTuple):
    """What an array must be."""

    dtype: str
    """Name of a NumPy type of plain numbers."""
    shape: tuple[int, ...]


class Pieces(NamedTuple):
    """Where the compressed rows of an array lie in a file, and what each was when it was verified."""

    layout: Layout
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    digests: tuple[bytes, ...]
    """SHA-256 of each compressed row."""

    def read(self, path: Path, row: int) -> np.ndarray:
        """Row `row`, read from `path`; StorageError unless it is the row that was verified."""
        raw = read_range(path, self.offsets[row], self.sizes[row])
        if hashlib.sha256(raw).digest() != self.digests[row]:
            raise StorageError(f"{path} was changed or damaged since it was loaded")
        found = np.empty(self.layout.shape[1:], np.dtype(self.layout.dtype))
        _inflate(raw, found.reshape(-1).view(np.uint8).data, path)
        return found


def _inflate(raw: bytes, target: memoryview, path: Path) -> None:
    """Fill `target` with what `raw` holds, gzip, without ever making more than that of it."""
    stream, rest, filled = zlib.decompressobj(), raw, 0
    try:
        while not stream.eof:
            piece = stream.decompress(rest, _BLOCK_BYTES)
            if filled + len(piece) > len(target) or not (piece or stream.eof):
                break
            target[filled : filled + len(piece)] = piece
            rest, filled = stream.unconsumed_tail, filled + len(piece)
    except zlib.error as error:
        raise StorageError(f"{path} holds a row that is no gzip stream: {error}") from error
    if filled != len(target) or not stream.eof:
        raise StorageError(f"{path} holds a row of other than {len(target)} bytes")


def to_bytes(
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    pictures: Iterable[np.ndarray] | None = None,
) -> bytes:
    """An HDF5 file of `arrays`; `pictures` yields the rows of one more, `pixels`, gzip 1."""
    import h5py

    options = {"driver": "core", "backing_store": False, "block_size": 2**22}
    with h5py.File("shard", "w", libver="latest", **options) as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        if pictures is not None:
            _write_rows(file, len(arrays["lengths"]), pictures)
        file.flush()
        return file.id.get_file_image()


def _write_rows(file: h5py.File, rows: int, pictures: Iterable[np.ndarray]) -> None:
    target = None
    for row, frames in enumerate(pictures):
        if target is None:
            shape = (rows, *frames.shape)
            chunks = (1, *frames.shape)
            options = {"dtype": "u1", "compression": "gzip", "compression_opts": 1}
            target = file.create_dataset("pixels", shape, chunks=chunks, **options)
        target[row] = frames


class Contents(NamedTuple):
    """What `from_bytes` found."""

    arrays: dict[str, np.ndarray]
    """Those asked for as plain ones."""
    pieces: dict[str, Pieces]
    """Those asked for as compressed ones, still unread."""
    attributes: dict[str, Any]
    """Numbers at the root, None for one that is missing or no number."""


def from_bytes(
    content: bytes,
    plain: Mapping[str, Layout],
    compressed: Mapping[str, Layout],
    attributes: Iterable[str] = (),
) -> Contents:
    """The arrays named, out of the bytes of an HDF5 file that `to_bytes` could have written.

    Raises StorageError: no HDF5, an array missing, of another type or shape, or stored in another
    way; MemoryError.
    """
    import h5py

    try:
        if content[: len(_SIGNATURE)] != _SIGNATURE:  # HDF5 would look for one further behind
            raise StorageError("it is no HDF5 file")
        with h5py.File(io.BytesIO(content), "r") as file:
            found = {name: _attribute(file, name) for name in attributes}
            arrays = {n: _plain(content, file, n, layout) for n, layout in plain.items()}
            pieces = {n: _compressed(content, file, n, layout) for n, layout in compressed.items()}
    except (StorageError, MemoryError):
        raise
    except Exception as error:  # whatever HDF5 makes of a file that is not one of ours
        raise StorageError(f"it is no HDF5 file of ours: {error}") from error
    return Contents(arrays, pieces, found)


def _attribute(file: h5py.File, name: str) -> Any:
    from h5py import h5a, h5s, h5t

    if not h5a.exists(file.id, name.encode()):
        return None
    attribute = h5a.open(file.id, name.encode())
    if attribute.get_space().get_simple_extent_type() != h5s.SCALAR:
        return None
    # A text lies in a heap without a checksum: HDF5 searches a damaged one for ever.
    number = attribute.get_type().get_class() in (h5t.INTEGER, h5t.FLOAT)
    return file.attrs[name].item() if number else None


def _plain(content: bytes, file: h5py.File, name: str, layout: Layout) -> np.ndarray:
    from h5py import h5d

    dataset = _open(file, name, layout)
    dtype, count = np.dtype(layout.dtype), math.prod(layout.shape)
    offset, size = dataset.get_offset(), dataset.get_storage_size()
    whole = dataset.get_create_plist().get_layout() == h5d.CONTIGUOUS
    if not whole or offset is None or size != dtype.itemsize * count:
        raise StorageError(f"{name} is not stored in one piece")
    if offset + size > len(content):
        raise StorageError(f"{name} claims to lie behind the file's end")
    if dtype.kind == "b" and max(content[offset : offset + size], default=0) > 1:
        raise StorageError(f"{name} holds values that are neither true nor false")
    return np.frombuffer(content, dtype, count, offset).reshape(layout.shape).copy()


def _compressed(content: bytes, file: h5py.File, name: str, layout: Layout) -> Pieces:
    from h5py import h5d, h5z

    dataset = _open(file, name, layout)
    made = dataset.get_create_plist()
    filters = [made.get_filter(index)[0] for index in range(made.get_nfilters())]
    rowwise = made.get_layout() == h5d.CHUNKED and made.get_chunk() == (1, *layout.shape[1:])
    if not rowwise or filters != [h5z.FILTER_DEFLATE]:
        raise StorageError(f"{name} is not stored as one gzip piece a row")
    offsets, sizes, digests = [], [], []
    row_bytes = np.dtype(layout.dtype).itemsize * math.prod(layout.shape[1:])
    for row in range(layout.shape[0]):
        piece = dataset.get_chunk_info_by_coord((row, *(0,) * (len(layout.shape) - 1)))
        offset, size = piece.byte_offset, piece.size
        if piece.filter_mask or offset is None or offset + size > len(content):
            raise StorageError(f"{name} lacks row {row}")
        if row_bytes > _MOST_COMPRESSION * size:
            raise StorageError(f"{name} claims to hold more than its bytes can")
        offsets.append(offset)
        sizes.append(size)
        digests.append(hashlib.sha256(memoryview(content)[offset : offset + size]).digest())
    return Pieces(layout, tuple(offsets), tuple(sizes), tuple(digests))


def _open(file: h5py.File, name: str, layout: Layout) -> Any:
    """The dataset `name`, once it is known to be plain numbers in this very file."""
    from h5py import h5d, h5g, h5l, h5o, h5t

    place = h5g.open(file.id, b"/")
    for part in name.encode().split(b"/"):
        if not isinstance(place, h5g.GroupID) or not place.links.exists(part):
            raise StorageError(f"it has no {name}")
        if place.links.get_info(part).type != h5l.TYPE_HARD:
            raise StorageError(f"{name} is a link to another place")
        place = h5o.open(place, part)
    if not isinstance(place, h5d.DatasetID):
        raise StorageError(f"it has no {name}")
    made = place.get_create_plist()
    if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
        raise StorageError(f"{name} is stored in another file")
    wanted = h5t.py_create(np.dtype(layout.dtype), logical=True)
    if place.shape != layout.shape or not place.get_type().equal(wanted):
        raise StorageError(
            f"{name} is {_kind(place)} {list(place.shape)}, but {layout.dtype} "
            f"{list(layout.shape)} is expected"
        )
    return place


def _kind(dataset: Any) -> str:
    from h5py import h5t

    plain = dataset.get_type().get_class() in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM)
    return str(dataset.dtype) if plain else "no plain number"
