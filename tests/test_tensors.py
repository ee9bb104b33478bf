"""Train states that claim more than their bytes: nothing is unpacked, repeated or made up."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch

from worldmodels.storage.files import StorageError
from worldmodels.storage.tensors import state_from_bytes, state_to_bytes

STATE = {"step": 3, "model": {"weight": torch.arange(6.0)}, "rng": [torch.zeros(4)]}


def packed(change: Callable[[str, bytes], bytes], compression: int, twice: bool = False) -> bytes:
    """A train state packed again, with other members."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(state_to_bytes(STATE))) as old,
        zipfile.ZipFile(target, "w", compression) as new,
    ):
        for name in old.namelist():
            content = change(name, old.read(name))
            new.writestr(name, content)
            if twice and name.endswith("data.pkl"):
                with pytest.warns(UserWarning, match="Duplicate"):
                    new.writestr(name, content)
    return target.getvalue()


def same(name: str, content: bytes) -> bytes:
    """The member as it is."""
    return content


def saved(value: Any) -> bytes:
    """What `torch.save` makes of a value."""
    target = io.BytesIO()
    torch.save(value, target)
    return target.getvalue()


def test_a_state_comes_back() -> None:
    again = state_from_bytes(state_to_bytes(STATE), "s")
    assert again["step"] == 3
    assert torch.equal(again["model"]["weight"], torch.arange(6.0))
    assert state_from_bytes(packed(same, zipfile.ZIP_STORED), "s")["step"] == 3


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(method: int) -> None:
    with pytest.raises(StorageError, match=r"s is not a train state of ours: .* is compressed"):
        state_from_bytes(packed(same, method), "s")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    content = packed(lambda name, old: bytes(2**28) if "/data/" in name else old, zipfile.ZIP_LZMA)
    assert len(content) < 2**20
    with pytest.raises(StorageError, match="compressed"):
        state_from_bytes(content, "s")


@pytest.mark.parametrize(
    "value",
    [
        {"a": torch.zeros(1).expand(2**40)},
        {"a": [{"b": torch.empty(2**40, device="meta")}]},
        {"a": torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), [1.0], (2**40,))},
    ],
)
def test_a_tensor_is_no_more_than_its_bytes(value: Any) -> None:
    with pytest.raises(StorageError, match="s holds a tensor that is more than the bytes"):
        state_from_bytes(saved(value), "s")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06",
        b"\x80\x02}q\x00.",
        state_to_bytes(STATE)[:-30],
        packed(same, zipfile.ZIP_STORED, twice=True),
        saved([1, 2]),
    ],
)
def test_what_is_no_train_state_is_named(content: bytes) -> None:
    with pytest.raises(StorageError, match=r"^s "):
        state_from_bytes(content, "s")
