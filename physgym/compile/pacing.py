"""Adaptive sub-steps of many rows, each at its own pace, on NumPy and on torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from physgym import elementwise

MAX_SUBSTEPS = 4096
"""Most sub-steps in one control step of a system that chooses their size; a step that needs more is
reported as unresolved, never silently wrong.
"""


def advance_rows(
    functions: dict[str, Any],
    state: Sequence[Any],
    control: Sequence[Any],
    constants: Sequence[Any],
    dt: float,
) -> tuple[tuple[Any, ...], Any]:
    """Adaptive sub-steps on NumPy rows, each row at its own pace; finished rows leave the batch."""
    state, control, constants, shape = _same_rows(state, control, constants)
    final = [np.array(s) for s in state]
    index, remaining = np.arange(final[0].size), np.full(final[0].size, float(dt))
    unresolved = np.zeros(final[0].size, dtype=bool)
    for count in range(MAX_SUBSTEPS + 1):
        limit, halted = functions["rule"](state, control, constants)
        keep = (remaining > 0.0) & ~np.asarray(halted, dtype=bool)
        if not keep.all():
            for f, s in zip(final, state, strict=True):
                f[index] = s
            index, remaining, limit = index[keep], remaining[keep], limit[keep]
            state, control, constants = (
                [x[keep] for x in group] for group in (state, control, constants)
            )
        if not len(index):
            break
        if count == MAX_SUBSTEPS:
            unresolved[index] = True
            for f, s in zip(final, state, strict=True):
                f[index] = s
            break
        h = remaining / np.ceil(remaining / limit)
        remaining = remaining - h
        state = functions["substep"](state, control, constants, h)
    return tuple(f.reshape(shape) for f in final), unresolved.reshape(shape)


def _same_rows(*groups: Sequence[Any]) -> tuple[Any, ...]:
    shape = np.broadcast_shapes(*(np.shape(x) for group in groups for x in group))
    rows = [[np.broadcast_to(x, shape).reshape(-1) for x in group] for group in groups]
    return (*rows, shape)


def advance_tensors(
    functions: dict[str, Any],
    state: Sequence[Any],
    control: Sequence[Any],
    constants: Sequence[Any],
    dt: float,
) -> tuple[tuple[Any, ...], Any]:
    """Adaptive sub-steps on torch rows: finished rows take steps of size 0, so the graph stays
    differentiable.
    """
    torch = elementwise.library(*state, *control, *constants)._torch
    tensors = [x for x in (*state, *control, *constants) if isinstance(x, torch.Tensor)]
    shape = torch.broadcast_shapes(*(x.shape for x in tensors))
    state = tuple(
        torch.as_tensor(s, dtype=tensors[0].dtype, device=tensors[0].device).expand(shape)
        for s in state
    )
    remaining = torch.full(shape, float(dt), dtype=tensors[0].dtype, device=tensors[0].device)
    for _ in range(MAX_SUBSTEPS):
        with torch.no_grad():
            limit, halted = functions["rule"](state, control, constants)
            if halted is not False:  # nothing can collide
                remaining = torch.where(halted, torch.zeros_like(remaining), remaining)
            if not bool((remaining > 0.0).any()):
                break
            h = torch.where(remaining > 0.0, remaining / torch.ceil(remaining / limit), remaining)
            remaining = remaining - h
        state = functions["substep"](state, control, constants, h)
    return tuple(state), remaining > 0.0
