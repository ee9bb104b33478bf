"""Shards by somebody else: HDF5 may say where an array lies, and may not send the reader anywhere."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_cases import SMALL

from worldmodels.data import DatasetError, collect, load_dataset, store
from worldmodels.storage import files as storage
from worldmodels.storage import hdf5

ROOT = Path(__file__).parents[1]
PICTURES = replace(
    SMALL, env="pendulum", episodes=6, steps=4, shard_episodes=2, pixels=True, image_size=16
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small buffer with pictures that no test changes."""
    return collect(PICTURES, tmp_path_factory.mktemp("datasets"), progress=False)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return shutil.copytree(original, tmp_path / "d")


def reseal(folder: Path, name: str = "shard-00000.h5") -> None:
    """Make the hash of a shard right, as whoever changed it would."""
    header = storage.read_sealed(folder / "dataset.json")
    entry = next(entry for entry in header["shards"] if entry["file"] == name)
    entry.update(storage.fingerprint((folder / name).read_bytes()))
    (folder / "dataset.json").write_bytes(storage.seal(header))


def replaced(name: str, make: Callable[[h5py.File, str, np.ndarray], object]) -> Callable:
    """A change that puts something else in the place of the dataset `name`."""

    def change(file: h5py.File) -> None:
        old = file[name][()]
        del file[name]
        make(file, name, old)

    return change


def external(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Numbers that lie in another file."""
    file.create_dataset(name, old.shape, dtype=old.dtype, external=[("/etc/passwd", 0, old.nbytes)])


def virtual(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Numbers put together from other files."""
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource("other.h5", name, old.shape)
    file.create_virtual_dataset(name, layout)


def unlimited_virtual(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Numbers put together from another file that may grow."""
    layout = h5py.VirtualLayout(old.shape, old.dtype, maxshape=(None, *old.shape[1:]))
    layout[:] = h5py.VirtualSource("other.h5", name, old.shape, maxshape=(None, *old.shape[1:]))
    file.create_virtual_dataset(name, layout)


def soft(file: h5py.File, name: str, old: np.ndarray) -> None:
    """A soft link within the file."""
    file[f"{name}-there"] = old
    file[name] = h5py.SoftLink(f"/{name}-there")


def linked_file(file: h5py.File, name: str, old: np.ndarray) -> None:
    """A link to an array of another file that is really there."""
    file[name] = h5py.ExternalLink("shard-00001.h5", f"/{name}")


def empty(file: h5py.File, name: str, old: np.ndarray) -> None:
    """An array of no bytes that claims its whole shape."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple(old.shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(old.dtype), space, made)


def compact(file: h5py.File, name: str, old: np.ndarray) -> None:
    """An array inside the header of its object."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(old.shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(old.dtype), space, made)


def swapped_bytes(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Numbers in the other order of bytes."""
    file[name] = old.astype(old.dtype.newbyteorder())


def references(file: h5py.File, name: str, old: np.ndarray) -> None:
    """References to objects."""
    file.create_dataset(name, old.shape, dtype=h5py.ref_dtype)


def texts(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Texts of any length."""
    file.create_dataset(name, old.shape, dtype=h5py.string_dtype())


def compound(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Records of several fields."""
    file.create_dataset(name, old.shape, dtype=[("a", "f8"), ("b", "i4")])


def group(file: h5py.File, name: str, old: np.ndarray) -> None:
    """A group instead of an array."""
    file.create_group(name)


def named_type(file: h5py.File, name: str, old: np.ndarray) -> None:
    """A type instead of an array."""
    file[name] = np.dtype("f8")


def zipped(file: h5py.File, name: str, old: np.ndarray) -> None:
    """Compressed where it is not to be."""
    file.create_dataset(name, data=old, chunks=old.shape, compression="gzip")


CHANGES = [
    external, virtual, unlimited_virtual, soft, linked_file, empty, compact, swapped_bytes,
    references, texts, compound, group, named_type, zipped,
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["seeds", "energy", "params/mass", "pixels"])
@pytest.mark.parametrize("make", CHANGES)
def test_arrays_are_plain_numbers_in_the_file_itself(
    folder: Path, make: Callable[..., object], name: str
) -> None:
    if name == "pixels" and make is swapped_bytes:
        pytest.skip("a byte has one order")
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        replaced(name, make)(file)
    reseal(folder)
    with pytest.raises(DatasetError, match=rf"shard-00000\.h5.*{name}.*--repair"):
        load_dataset(folder)


def stored(**options: object) -> Callable[..., object]:
    """Pictures stored with other options."""
    return lambda file, name, old: file.create_dataset(name, data=old, **options)


@pytest.mark.parametrize(
    "make",
    [
        stored(chunks=(1, 5, 16, 16, 3), compression="lzf"),
        stored(chunks=(1, 5, 16, 16, 3), compression="gzip", shuffle=True),
        stored(chunks=(1, 5, 16, 16, 3), compression="gzip", fletcher32=True),
        stored(chunks=(2, 5, 16, 16, 3), compression="gzip"),
        stored(chunks=(1, 1, 16, 16, 3), compression="gzip"),
        stored(chunks=(1, 5, 16, 16, 3)),
        stored(),
    ],
)
def test_pictures_are_one_gzip_piece_an_episode(folder: Path, make: Callable[..., object]) -> None:
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        replaced("pixels", make)(file)
    reseal(folder)
    with pytest.raises(DatasetError, match="pixels is not stored as one gzip piece a row"):
        load_dataset(folder)


@pytest.mark.parametrize("piece", ["none", "junk", "short", "long", "torn", "bomb"])
def test_a_piece_that_is_not_its_picture_is_refused(folder: Path, piece: str) -> None:
    size = 5 * 16 * 16 * 3
    raw = {
        "junk": b"no gzip",
        "short": zlib.compress(bytes(size - 1)),
        "long": zlib.compress(bytes(size + 1)),
        "torn": zlib.compress(os.urandom(size))[:-9],
        "bomb": zlib.compress(bytes(2**28)),
    }

    def make(file: h5py.File, name: str, old: np.ndarray) -> None:
        target = file.create_dataset(
            name, old.shape, dtype="u1", chunks=(1, *old.shape[1:]), compression="gzip"
        )
        target[1] = old[1]
        if piece != "none":
            target.id.write_direct_chunk((0, 0, 0, 0, 0), raw[piece])

    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        replaced("pixels", make)(file)
    reseal(folder)
    with pytest.raises(DatasetError, match="shard-00000"):
        load_dataset(folder).pixels[0]


def test_values_lie_in_their_ranges(folder: Path) -> None:
    for name, value, words in (
        ("actions", 7, "outside 0 to 2"),
        ("actions", -1, "outside 0 to 2"),
        ("behaviours", 9, "outside 0 to 5"),
        ("seeds", -5, "outside 0"),
        ("lengths", 0, "outside 1 to 4"),
        ("states", np.inf, "not finite"),
    ):
        shutil.copy(folder / "shard-00000.h5", folder / "kept")
        with h5py.File(folder / "shard-00000.h5", "r+") as file:
            array = file[name][()]
            array.reshape(2, -1)[1, 0] = value
            file[name][...] = array
        reseal(folder)
        with pytest.raises(DatasetError, match=rf"{name} of episode 1 .*{words}"):
            load_dataset(folder)
        (folder / "kept").replace(folder / "shard-00000.h5")


def test_a_flag_is_true_or_false(folder: Path) -> None:
    path = folder / "shard-00000.h5"
    with h5py.File(path) as file:
        offset = file["terminated"].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[offset] = 2
    path.write_bytes(bytes(raw))
    reseal(folder)
    with pytest.raises(DatasetError, match="terminated .*neither true nor false"):
        load_dataset(folder)


def test_pictures_are_the_bytes_that_were_verified(folder: Path) -> None:
    data = load_dataset(folder)
    before = data.pixels[:]
    path = folder / "shard-00001.h5"
    raw = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["pixels"][0] = 7
    with pytest.raises(DatasetError, match=r"shard-00001\.h5 was changed or damaged since"):
        data.pixels[2]
    path.write_bytes(raw)
    assert np.array_equal(data.pixels[:], before)
    path.unlink()
    with pytest.raises(DatasetError, match=r"shard-00001\.h5 .*No such file"):
        data.pixels[2]
    assert np.array_equal(data.pixels[0], before[0])
    assert before.flags.writeable
    assert data.pixels[0].flags.writeable


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
def test_no_file_stays_open(folder: Path) -> None:
    data = load_dataset(folder)
    before = len(os.listdir("/proc/self/fd"))
    assert data.pixels[:].shape == (6, 5, 16, 16, 3)
    assert len(os.listdir("/proc/self/fd")) == before


def test_pictures_are_read_in_threads_and_after_a_change_of_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    pixels = load_dataset("d").pixels
    whole = pixels[:]
    monkeypatch.chdir("/")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: pixels[row % 6], range(60)))
    assert all(np.array_equal(found, whole[row % 6]) for row, found in enumerate(read))


FUZZ = """
import faulthandler, random, sys
from pathlib import Path
from worldmodels.data import DatasetError, load_dataset
from worldmodels.storage import files as storage

folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
path, rng, ends = folder / "shard-00000.h5", random.Random(seed), {"loaded": 0, "refused": 0}
whole, header = path.read_bytes(), storage.read_sealed(folder / "dataset.json")
for _ in range(count):
    raw = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 30])):
        at = rng.randrange(len(raw))
        kind = rng.randrange(4)
        if kind == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            raw[at : at + 8] = rng.choice([b"\\xff" * 8, bytes(8), (2**62).to_bytes(8, "little")])
        elif kind == 2:
            raw[at : at + 8] = rng.randbytes(8)
        else:
            start, size = rng.randrange(len(raw)), rng.randrange(1, 200)
            raw[at : at + size] = raw[start : start + size]
    raw = bytes(raw if rng.random() < 0.9 else raw[: rng.randrange(len(raw))])
    path.write_bytes(raw)
    header["shards"][0].update(storage.fingerprint(raw))
    (folder / "dataset.json").write_bytes(storage.seal(header))
    faulthandler.dump_traceback_later(30, exit=True)
    try:
        load_dataset(folder).pixels[:]
        ends["loaded"] += 1
    except DatasetError:
        ends["refused"] += 1
print(ends["loaded"] > 0, ends["refused"] > 0)
"""


@pytest.mark.parametrize("count", [80, pytest.param(1500, marks=pytest.mark.slow)])
def test_damage_with_a_right_hash_is_refused_or_harmless(
    folder: Path, tmp_path: Path, count: int
) -> None:
    script = tmp_path / "fuzz.py"
    script.write_text(FUZZ)
    command = [sys.executable, str(script), str(folder), "1", str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True", "True"]


def test_one_module_alone_speaks_hdf5() -> None:
    users = set()
    for path in (ROOT / "worldmodels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "h5py" for name in names):
                users.add(path.relative_to(ROOT).as_posix())
    assert users == {"worldmodels/storage/hdf5.py"}


def test_what_is_written_is_read() -> None:
    arrays = {"lengths": np.arange(3), "a/b": np.random.default_rng(0).normal(size=(3, 4))}
    content = hdf5.to_bytes(arrays, {"x": 2})
    layouts = {name: hdf5.Layout(str(a.dtype), a.shape) for name, a in arrays.items()}
    found = hdf5.from_bytes(content, layouts, {}, ("x", "y"))
    assert found.attributes == {"x": 2, "y": None}
    assert all(np.array_equal(found.arrays[name], array) for name, array in arrays.items())


def test_an_unreadable_shard_is_not_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> bytes:
        raise storage.AccessError(f"{path} cannot be read: Permission denied")

    monkeypatch.setattr(store.storage, "read_verified", refuse)
    for work in (load_dataset, store.repair):
        with pytest.raises(DatasetError, match="Permission denied") as caught:
            work(folder)
        assert "--repair" not in str(caught.value)
    assert len(list(folder.glob("shard-*.h5"))) == 3
