"""The pictures of a dataset, read from disk when asked for: the very bytes that were verified."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldmodels.data.store import DamageError, DatasetError
from worldmodels.storage.hdf5 import Pieces
from worldmodels.storage.reading import AccessError, StorageError


class Pixels:
    """The pictures of a dataset, read when asked for: `pixels[rows]` is (n, T+1, H, W, 3) uint8.

    `pixels[row]` of one episode is (T+1, H, W, 3). Keeps no file open, so there may be any number
    of shards, threads and processes. Raises DatasetError where a file is no longer what was loaded.
    """

    def __init__(
        self, files: Sequence[tuple[Path, Pieces]], rows: np.ndarray | None = None
    ) -> None:
        self._files = [(Path(os.path.abspath(path)), pieces) for path, pieces in files]
        counts = [pieces.layout.shape[0] for _, pieces in self._files]
        self._starts = np.cumsum([0, *counts])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        shape = (len(self), *self._files[0][1].layout.shape[1:])
        return f"<Pixels {shape} uint8 in {len(self._files)} files>"

    def take(self, rows: np.ndarray) -> Pixels:
        """The pictures of some episodes, still unread."""
        return Pixels(self._files, self._rows[rows])

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = self._rows[rows]
        if np.ndim(chosen) == 0:
            return self._read(int(chosen))
        found = np.empty((len(chosen), *self._files[0][1].layout.shape[1:]), np.uint8)
        for index, row in enumerate(chosen):
            found[index] = self._read(int(row))
        return found

    def _read(self, row: int) -> np.ndarray:
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        path, pieces = self._files[index]
        try:
            return pieces.read(path, row - int(self._starts[index]))
        except AccessError as error:
            raise DatasetError(str(error)) from error
        except StorageError as error:
            raise DamageError(f"{error}; drop the shard with physgym collect --repair") from error
