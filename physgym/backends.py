"""Where a vector env keeps its arrays: in NumPy, or in torch tensors on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from physgym.observations import clip
from physgym.threads import use_torch

BACKENDS = ("numpy", "torch")


def backend_of(backend: Any, device: Any) -> NumpyBackend | TorchBackend:
    """The backend of that name; ValueError for another, or for a device that it has not."""
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if backend == "torch":
        return TorchBackend("cpu" if device is None else device)
    if device is not None:
        raise ValueError(f'device={device!r} needs backend="torch" (NumPy arrays lie on the CPU)')
    return NumpyBackend()


class NumpyBackend:
    """NumPy arrays."""

    torch: Any = None
    """The module that the arrays are of, where it is torch."""
    device: Any = None

    def array(self, array: np.ndarray) -> np.ndarray:
        """`array`, where this backend keeps arrays (not copied where it lies there)."""
        return array

    def blank(self, size: int, dtype: type) -> np.ndarray:
        """(size,) zeros of `dtype` (np.int64 or np.bool_)."""
        return np.zeros(size, dtype=dtype)

    def copied(self, array: Any) -> Any:
        """A copy."""
        return array.copy()

    def numpy(self, array: Any) -> np.ndarray:
        """`array` for NumPy, without gradients."""
        return array

    def lent(self, array: Any) -> Any:
        """`array` for NumPy in its own memory; what is no array as it is."""
        return array

    def repeated(self, row: Any, count: int) -> Any:
        """`row` (N,), so many times: (count * N,)."""
        return np.tile(row, count)

    def put(self, array: Any, index: Any, values: Any) -> Any:
        """`array` (K, N) with the columns `index` replaced by `values`; may change `array`."""
        array[:, index] = values
        return array

    def stacked(self, rows: Sequence[Any], into: Any) -> Any:
        """(K, N) of K `rows`; may use `into`, of that shape, for it."""
        for i, row in enumerate(rows):
            into[i] = row
        return into

    def vectors(self, columns: Sequence[Any]) -> Any:
        """(N, F) float32 of F `columns` (N,)."""
        out = np.empty((len(columns[0]), len(columns)), np.float32)
        for i, column in enumerate(columns):
            out[:, i] = column
        return out

    def clipped(self, vectors: Any, space: Any) -> Any:
        """`vectors` (N, F) brought into `space`; what is not a number reads 0."""
        return clip(vectors, space)

    def detached(self, value: Any) -> Any:
        """`value` as it is: arrays have no graph."""
        return value

    def quiet(self) -> Any:
        """A context in which motions that are lost raise no warning."""
        return np.errstate(all="ignore")

    def owned(self) -> Any:
        """A context in which arrays are made that outlive it."""
        return contextlib.nullcontext()


class TorchBackend:
    """Torch tensors on `device`. Nothing is written into a tensor that a graph may hold."""

    def __init__(self, device: Any) -> None:
        self.torch = import_torch()
        self.device = checked_device(self.torch, device)

    def array(self, array: np.ndarray) -> Any:
        """`array` as a tensor."""
        return self.torch.as_tensor(array, device=self.device)

    def blank(self, size: int, dtype: type) -> Any:
        """(size,) zeros of `dtype` (np.int64 or np.bool_)."""
        kind = self.torch.bool if dtype is np.bool_ else self.torch.int64
        return self.torch.zeros(size, dtype=kind, device=self.device)

    def copied(self, array: Any) -> Any:
        """A copy, with its graph."""
        return array.clone()

    def numpy(self, array: Any) -> np.ndarray:
        """`array` for NumPy, without gradients."""
        return array.detach().cpu().numpy()

    def lent(self, array: Any) -> Any:
        """`array` for NumPy, in its own memory where it lies on the CPU; what is no tensor as it is."""
        return self.numpy(array) if isinstance(array, self.torch.Tensor) else array

    def repeated(self, row: Any, count: int) -> Any:
        """`row` (N,), so many times: (count * N,)."""
        return row.repeat(count)

    def put(self, array: Any, index: Any, values: Any) -> Any:
        """`array` (K, N) with the columns `index` replaced by `values`, whose past is gone."""
        if isinstance(index, slice):
            return values
        array = array.clone()
        array[:, index] = values
        return array

    def stacked(self, rows: Sequence[Any], into: Any) -> Any:
        """(K, N) of K `rows`, a new tensor."""
        return self.torch.stack(self.torch.broadcast_tensors(*rows))

    def vectors(self, columns: Sequence[Any]) -> Any:
        """(N, F) float32 of F `columns` (N,)."""
        return self.torch.stack(tuple(columns), dim=-1).float()

    def clipped(self, vectors: Any, space: Any) -> Any:
        """`vectors` (N, F) brought into `space`; what is not a number reads 0."""
        low, high = self.array(space.low), self.array(space.high)
        return vectors.nan_to_num(nan=0.0).clamp(low, high)

    def detached(self, value: Any) -> Any:
        """`value` (a tensor, or a tuple or list of them) without its graph, which has no copy."""
        if type(value) in (tuple, list):
            return type(value)(self.detached(x) for x in value)
        return value.detach() if getattr(value, "requires_grad", False) else value

    def quiet(self) -> Any:
        """A context in which motions that are lost raise no warning."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def owned(self) -> Any:
        """A context in which tensors are made that outlive it: ordinary ones, without a graph,
        where the caller is in inference mode.
        """
        if not self.torch.is_inference_mode_enabled():
            yield
            return
        with self.torch.inference_mode(False), self.torch.no_grad():
            yield

    def __getstate__(self) -> str:
        return str(self.device)

    def __setstate__(self, device: str) -> None:
        self.torch, self.device = import_torch(), checked_device(import_torch(), device)


def checked_device(torch: Any, device: Any) -> Any:
    """The torch device of that name; ValueError where tensors cannot be kept and read there."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'device={device!r} is unknown to torch; give "cpu", "cuda" or "cuda:0"'
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'device={device!r}: this torch sees no CUDA device; use device="cpu", or install a '
            "CUDA build of torch on a machine with an NVIDIA GPU"
        )
    try:
        torch.zeros(1, device=found).item()
    except Exception as reason:  # each kind of device has its own
        said = str(reason).partition("\n")[0][:100]
        raise ValueError(
            f'device={device!r} cannot be used here ({said}); use device="cpu"'
        ) from None
    return found


def import_torch() -> Any:
    """torch; gymnasium.error.DependencyNotInstalled without it."""
    try:
        import torch
    except ImportError as reason:
        raise gymnasium.error.DependencyNotInstalled(
            'backend="torch" needs PyTorch: pip install torch'
        ) from reason
    use_torch()
    return torch
