"""Where a training runs, and what makes it quick there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class DeviceError(ValueError):
    """A device or precision that this machine does not have; the message says what it has."""


def resolve_device(name: str) -> str:
    """``auto`` as cuda, mps or cpu, the first that is there; other names are checked.

    Raises ``DeviceError`` for a device that torch does not find here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device: torch.device | None = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device={name!r} is not valid: expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device={name!r}: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            "devices here; use --device cpu, or install a CUDA build of torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device={name!r} is not there: use --device cpu or auto")
    return name


def mixed_dtype(precision: str, device: str) -> torch.dtype | None:
    """The type that convolutions of pictures run in, or None for float32.

    ``auto``: bfloat16 where the hardware multiplies it natively, on CUDA and on CPUs.
    """
    if precision == "float32":
        return None
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "cpu":
        native = _cpu_has_bfloat16()
    else:
        native = False
    if not native and precision == "bfloat16":
        raise DeviceError(f"precision='bfloat16': {device} has no bfloat16; use auto or float32")
    return torch.bfloat16 if native else None


def _cpu_has_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 in hardware here."""
    cpu: Any = torch.cpu
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(cpu, name, lambda: False)() for name in names)


@contextmanager
def quick_matrices(device: str) -> Iterator[None]:
    """TF32 for what stays float32 on CUDA; as it was afterwards."""
    if torch.device(device).type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions
