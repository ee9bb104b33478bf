"""What an action is: one rule for a single env, NumPy rows and torch rows.

A discrete action is one integer of any integer type, a continuous one is finite real numbers of any
such type. Truth values, text, dates and complex numbers are none (Python's own True and False are
0 and 1 to a single discrete env, as they are to `gymnasium.spaces.Discrete`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction

from physgym.validation import real_array, whole_number


@dataclass(frozen=True)
class ActionKind:
    """The actions of a task; every refusal is a `gymnasium.error.InvalidAction`."""

    count: int
    """n of Discrete(n); 0 where actions are continuous."""
    size: int
    """A of Box(-1, 1, (A,)); 0 where actions are discrete."""

    def index(self, action: Any) -> int:
        """One discrete action as an int from 0 to `count` - 1."""
        number = int(action) if isinstance(action, bool) else whole_number(action)
        if number is None or not 0 <= number < self.count:
            raise InvalidAction(
                f"action {action!r} is not one of the {self.count} discrete actions: "
                f"give an integer from 0 to {self.count - 1}"
            )
        return number

    def vector(self, action: Any) -> tuple[float, ...]:
        """One continuous action as `size` floats, clipped to [-1, 1]."""
        array = real_array(action)
        values = None
        if array is not None and array.shape == (self.size,):
            values = [float(a) for a in array.tolist()]
        if values is None or not all(map(math.isfinite, values)):
            raise InvalidAction(
                f"action {action!r} must be {self.size} finite number(s), shape ({self.size},), "
                f"in [-1, 1] (beyond it, clipped){_carries(action)}"
            )
        return tuple(-1.0 if a < -1.0 else 1.0 if a > 1.0 else a for a in values)

    def rows(self, actions: Any, num_envs: int, resting: Any | None = None) -> np.ndarray:
        """Actions of a batch as (N,) int64, or (N, A) float64 in [-1, 1].

        Those of the rows of the mask `resting` are not looked at and read zero.
        """
        array = real_array(actions)
        self._check_kind(actions, None if array is None else array.dtype.kind)
        array = np.asarray(array)
        self._check_shape(array.shape, num_envs)
        dtype: Any = np.int64 if self.count else np.float64
        return self._in_range(np, array.astype(dtype, copy=False), resting)

    def tensor_rows(
        self, torch: Any, device: Any, actions: Any, num_envs: int, resting: Any | None = None
    ) -> Any:
        """As `rows`, as a tensor on `device`; gradients of a floating tensor pass through."""
        if isinstance(actions, torch.Tensor):
            tensor, kind = actions, _kind(torch, actions.dtype)
            self._check_kind(actions, kind)
        else:
            array = real_array(actions)
            self._check_kind(actions, None if array is None else array.dtype.kind)
            number = np.int64 if self.count else np.float64
            tensor = torch.as_tensor(np.asarray(array).astype(number))
        self._check_shape(tuple(tensor.shape), num_envs)
        tensor = tensor.to(device, torch.int64 if self.count else torch.float64)
        return self._in_range(torch, tensor, resting)

    def _check_kind(self, actions: Any, kind: str | None) -> None:
        if kind is None or kind not in ("iu" if self.count else "iuf"):
            wanted = f"integers from 0 to {self.count - 1}" if self.count else "real numbers"
            dtype = getattr(actions, "dtype", type(actions).__name__)
            raise InvalidAction(f"actions of type {dtype} are not {wanted}{_carries(actions)}")

    def _check_shape(self, shape: tuple[int, ...], num_envs: int) -> None:
        wanted = (num_envs,) if self.count else (num_envs, self.size)
        if shape != wanted:
            raise InvalidAction(f"actions have shape {shape}, but this env takes {wanted}")

    def _in_range(self, library: Any, array: Any, resting: Any | None) -> Any:
        """`array` (NumPy's or a tensor, `library` its module) with every row checked."""
        if resting is not None:
            mask = resting if self.count else resting[:, None]
            array = library.where(mask, library.zeros_like(array), array)
        if self.count:
            if int(array.min()) < 0 or int(array.max()) >= self.count:
                raise InvalidAction(
                    f"actions {array!r} must be integers from 0 to {self.count - 1}"
                )
            return array
        if not bool(library.isfinite(array).all()):
            raise InvalidAction(
                "actions must be finite numbers in [-1, 1] (beyond it, clipped); some are NaN "
                "or infinite"
            )
        return library.clip(array, -1.0, 1.0)


def _kind(torch: Any, dtype: Any) -> str:
    """NumPy's letter for a tensor's type."""
    if dtype is torch.bool:
        return "b"
    return "c" if dtype.is_complex else "f" if dtype.is_floating_point else "i"


def _carries(action: Any) -> str:
    """A hint for tensors that NumPy cannot read."""
    if getattr(action, "requires_grad", False):
        return "; this tensor carries gradients, which end here: pass action.detach()"
    if getattr(getattr(action, "device", None), "type", "cpu") not in ("cpu", None):
        return "; this tensor lies on another device: pass action.cpu()"
    return ""
