"""Files that are whole and sealed, and hold values of another kind: errors with a name, only."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_cases import SMALL

from worldmodels.configs.training import NewtonianConfig, to_dict
from worldmodels.data import DatasetError, collect, load_dataset
from worldmodels.interface import Spec
from worldmodels.models.building import build
from worldmodels.storage import files as storage
from worldmodels.storage.checkpoint import CheckpointError, load, save_checkpoint

OTHERS: list[Any] = [None, True, "text", -1, 0, 2.5, 10**30, 1e300, [1], {"a": 1}]


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every value in a document, those of containers included, a few of long lists."""
    if path:
        yield path
    if isinstance(document, dict):
        for key, item in document.items():
            yield from leaves(item, (*path, key))
    elif isinstance(document, list):
        for index, item in enumerate(document[:1]):
            yield from leaves(item, (*path, index))


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at `path`, or without the key where `value` is Ellipsis."""
    fresh = copy.deepcopy(document)
    place = fresh
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return fresh


def with_nan(document: dict[str, Any], path: tuple[Any, ...]) -> bytes:
    """A sealed document with NaN in it, which `seal` itself refuses to write."""
    raw = json.dumps({**changed(document, path, float("nan")), "seal": "0" * 64}, indent=1)
    raw = f"{raw}\n".encode()
    start = raw.rindex(b'"seal": "')
    return raw[:start] + b'"seal": "' + storage.digest(raw).encode() + b'"\n}\n'


def variants(document: dict[str, Any]) -> Iterator[tuple[Any, bytes]]:
    """Every change of every value, sealed."""
    for path in leaves(document):
        if path != ("seal",):
            for value in (*OTHERS, ...):
                yield (path, value), storage.seal(changed(document, path, value))
            yield (path, "NaN"), with_nan(document, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A buffer with everything in it."""
    config = replace(
        SMALL, env="pendulum", episodes=3, steps=3, action_mode="continuous", pixels=True, image_size=8,
        params={"mass": 2.0}, randomize=False, dt=0.1,
    )  # fmt: skip
    return collect(config, tmp_path_factory.mktemp("datasets"), progress=False)


def test_every_value_of_a_dataset_has_its_type(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder, tmp_path / "d")
    document = storage.read_sealed(path / "dataset.json")
    refused = loaded = 0
    for what, raw in variants(document):
        (path / "dataset.json").write_bytes(raw)
        try:
            load_dataset(path)
            loaded += 1
        except DatasetError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert refused > 10 * loaded > 0


@pytest.mark.filterwarnings("ignore:.*before its first epoch")
def test_every_value_of_a_checkpoint_has_its_type(tmp_path: Path) -> None:
    spec = Spec("pendulum", dt=0.05, angles=(0,), param_names=("mass",)).to_dict()
    config = to_dict(NewtonianConfig(hidden=4, layers=1))
    model = build(spec, "newtonian", config)
    whole = {"spec": spec, "model_name": "newtonian", "model": config}
    save_checkpoint(tmp_path / "c", whole, model.state_dict(), None, {"step": 1, "epoch": 1})
    document = storage.read_sealed(tmp_path / "c" / "config.json")
    refused = loaded = 0
    for what, raw in variants(document):
        (tmp_path / "c" / "config.json").write_bytes(raw)
        try:
            load(tmp_path / "c")
            loaded += 1
        except CheckpointError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert refused > loaded > 0
