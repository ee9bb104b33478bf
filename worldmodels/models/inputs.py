"""What the verbs of a world model take, asked by shape and type alone: nothing waits for a device.

A tensor of another shape often broadcasts, and is then silently read as something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import physgym
from worldmodels.interface import Latent, Spec

INTEGERS = (torch.int64, torch.int32)
"""Types that a table of discrete actions can be read with."""


def check_tensor(
    name: str, value: Any, sizes: Sequence[int | str], kind: str, what: str = ""
) -> None:
    """Raise ``ValueError`` unless ``value`` is a tensor of these sizes (a letter: any) and kind.

    ``kind``: "floats", "integers", "numbers" (either, or uint8) or "pixels" (uint8 or floats).
    """
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name} is a {type(value).__module__}.{type(value).__name__}, not a torch.Tensor: "
            f"expected {_layout(sizes, kind, what)}; torch.as_tensor makes one"
        )
    shape = value.shape
    fits = len(shape) == len(sizes) and all(
        type(size) is str or size == own for size, own in zip(sizes, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} of shape {tuple(shape)} is not valid: expected {_layout(sizes, kind, what)}"
        )
    floats = value.dtype.is_floating_point
    if not (
        (floats and kind != "integers")
        or (kind in ("integers", "numbers") and value.dtype in INTEGERS)
        or (kind == "pixels" and value.dtype == torch.uint8)
    ):
        raise ValueError(
            f"{name} of {value.dtype} is not valid: expected {_layout(sizes, kind, what)}"
        )


def _layout(sizes: Sequence[int | str], kind: str, what: str) -> str:
    layout = f"{what}({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''}) of {kind}"
    return layout + (" (int64 or int32)" if kind == "integers" else "")


def check_context(context: Any, sizes: Sequence[int], kind: str, least: int, what: str) -> None:
    """Raise ``ValueError`` unless ``context`` is (B, L, ``sizes``) with at least ``least`` moments."""
    check_tensor("context", context, ("B", "L", *sizes), kind, f"{what} ")
    if context.shape[1] < least:
        raise ValueError(
            f"context has {context.shape[1]} {what}, too few: this model reads the last {least}"
        )


def check_params(params: Any, spec: Spec, rows: int) -> Tensor:
    """``params``; ``ValueError`` unless they are (B, P), in the order of the spec's names."""
    names = ", ".join(spec.param_names)
    if params is None:
        raise ValueError(f"this model is told parameters: pass params (B, P) of {names}")
    check_tensor(f"params ({names})", params, (rows, len(spec.param_names)), "numbers")
    return params


def check_actions(actions: Any, spec: Spec, sizes: Sequence[int], name: str = "action") -> None:
    """Raise ``ValueError`` unless ``actions`` are ``sizes`` choices, or as many rows of A numbers."""
    if spec.action_kind == "discrete":
        check_tensor(name, actions, sizes, "integers")
    else:
        check_tensor(name, actions, (*sizes, spec.action_size), "numbers")


def check_latent(latent: Any, sizes: Sequence[int | str]) -> None:
    """Raise ``ValueError`` unless ``latent`` is a ``Latent`` whose z is (B, ``sizes``)."""
    if not isinstance(latent, Latent):
        raise ValueError(
            f"latent is a {type(latent).__name__}: expected the Latent that encode or step returns"
        )
    check_tensor("latent.z", latent.z, ("B", *sizes), "floats")


def idle_action(spec: Spec) -> int | None:
    """The discrete action without any control, 0 for continuous ones; None where there is none."""
    if spec.foreign:
        return None
    if spec.action_kind != "discrete":
        return 0
    levels = np.abs(physgym.system_of(spec).discrete_actions).sum(1)
    idle = np.flatnonzero(levels == 0)
    return int(idle[0]) if len(idle) else None
