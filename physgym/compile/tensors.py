"""Machine code for tensors: the steps that nobody differentiates, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from physgym.compile import native
from physgym.compile.program import Program


def tensor_rows(program: Program) -> Callable[..., tuple[Any, ...]]:
    """`program.function("tensors")`, which leaves what machine code can do to it."""
    eager = program.function("tensors")
    if not native.available():
        return eager
    step = native.transition(program, "tensors")
    return TensorRows(eager, step) if isinstance(step, native.NativeRows) else eager


class TensorRows:
    """A transition of tensors: by machine code in their own memory where they lie on the CPU as float64
    and no gradient is asked for, else by torch. Both agree to rounding.
    """

    def __init__(self, eager: Callable[..., tuple[Any, ...]], step: native.NativeRows) -> None:
        import torch

        self._torch, self._eager, self._step = torch, eager, step
        self._constants: Any = None
        self._fixed: Any = None

    def __call__(
        self, state: Any, control: Any, constants: Any, dt: float, substeps: int
    ) -> tuple[Any, ...]:
        """Take the rows of `state` (D, N) over `dt`; see `Program.transition`."""
        if not self._plain((state, *control, *constants)):
            return self._eager(state, control, constants, dt, substeps)
        if constants is not self._constants:
            self._constants, self._fixed = constants, tuple(map(_array, constants))
        pushes = tuple(map(_array, control))
        result = self._step(_array(state), pushes, self._fixed, dt, substeps)
        return tuple(map(self._torch.from_numpy, result))

    def machine_code(self, state: Any) -> native.NativeRows | None:
        """What takes many steps from `state` at once; None where torch has to."""
        return self._step if self._plain((state,)) else None

    def _plain(self, operands: Sequence[Any]) -> bool:
        torch = self._torch
        tensors = [x for x in operands if isinstance(x, torch.Tensor)]
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            return False
        return all(x.device.type == "cpu" and x.dtype is torch.float64 for x in tensors)


def _array(operand: Any) -> Any:
    return operand.detach().numpy() if hasattr(operand, "detach") else operand
