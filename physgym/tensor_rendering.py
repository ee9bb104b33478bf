"""Pictures of thousands of states at once, by torch: those of `physgym.rendering`, differentiable.

A disc covers a pixel by how far the pixel's middle lies inside its edge, which is as soft as OpenCV's
is. Pictures therefore equal those of OpenCV but for shades along edges, lie on the device of the states,
and have gradients with respect to positions, and to parameters that move or size what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from physgym.primitives import Disc, Segment
from physgym.system import get_system

__all__ = ["render"]

SOFT = 0.8
"""Half the width of an edge [pixels]."""
_ROWS = {"cpu": 64}
"""Pictures that are drawn at a time where no graph is kept: on a CPU, so that they stay in its cache."""
_MOST_ROWS = 4096
"""And on other devices, so that they stay in their memory."""


def render(
    system: Any, states: Any, params: Any = None, size: int = 64, background: Any = (0, 0, 0)
) -> Any:
    """Pictures (N, size, size, 3) of `states` (N, D), tensors, RGB in [0, 255] and in their type.

    What is drawn is what `obs_mode="pixels"` shows. Round and cast them for uint8.

    Args:
        system: a `System`, or its name or env id.
        params: its `Params`, of numbers or (N,) tensors; None for the defaults, a dict for what
            differs from them.

    Raises:
        TypeError: states that are no floating-point tensor, and a picture of more than discs and
            straight lines.
        ValueError: states of another size, bad parameters, or a size that is no whole number >= 1.
    """
    import torch

    from physgym.validation import count_of, params_of

    if not isinstance(states, torch.Tensor) or not states.is_floating_point():
        raise TypeError(f"states {type(states).__name__} must be a floating-point tensor (N, D)")
    system = get_system(system) if isinstance(system, str) else system
    if states.ndim != 2 or states.shape[1] != system.state_size:
        raise ValueError(
            f"states of shape {tuple(states.shape)} must be (N, {system.state_size}) for {system.name}"
        )
    size = count_of("size", size, 1, 4096, " of pixels")
    like: dict[str, Any] = {"dtype": states.dtype, "device": states.device}
    told = system.Params(*(torch.as_tensor(x, **like) for x in params_of(system, params)))
    graph = torch.is_grad_enabled() and any(x.requires_grad for x in (states, *told))
    step = len(states) if graph else _ROWS.get(states.device.type, _MOST_ROWS)
    pieces = [slice(i, i + step) for i in range(0, max(len(states), 1), max(step, 1))]
    drawn = []
    for rows in pieces:
        mine = system.Params(*(x[rows] if x.ndim else x for x in told))
        scene = _scene(system, states[rows], mine)
        drawn.append(_draw(torch, scene, states[rows], system.view, size, background))
    return torch.cat(drawn).contiguous()


def _scene(system: Any, states: Any, params: Any) -> Any:
    """What is drawn of `states` (N, D), its numbers (N,) tensors or floats."""
    # Rows of one would pass as floats where functions of floats are called, and lose their gradients.
    rows = states if len(states) != 1 else states.expand(2, -1)
    try:
        scene = system.scene(tuple(rows.T), None, params, False)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise TypeError(
            f"the scene of {system.name} does not draw rows of tensors ({reason}): write it by "
            "physgym.elementwise, as equations are, or use OpenCV (physgym.rendering)"
        ) from reason
    return scene if rows is states else [_first(shape) for shape in scene]


def _first(shape: Any) -> Any:
    return shape._replace(**{n: x[:1] for n, x in shape._asdict().items() if getattr(x, "ndim", 0)})


def _draw(torch: Any, scene: Any, states: Any, view: float, size: int, background: Any) -> Any:
    """The pictures of a `scene` whose numbers are floats or (N,) tensors."""
    like = {"dtype": states.dtype, "device": states.device}
    canvas = torch.tensor(background, **like)[:, None, None].expand(len(states), 3, size, size)
    scale = 0.5 * size / view
    pixels = (torch.arange(size, **like) - (0.5 * size - 0.5)) / scale  # [world units]
    for shape in scene:
        try:
            distance = _DISTANCES[type(shape)]
        except KeyError:
            raise TypeError(
                f"torch draws discs and straight lines, not {shape!r}: use OpenCV (physgym.rendering)"
            ) from None
        numbers = (torch.as_tensor(x, **like).reshape(-1, 1, 1) for x in shape[:-1])
        depth = distance(torch, pixels[None, None, :], -pixels[None, :, None], scale, *numbers)
        covered = _covered(depth.nan_to_num(nan=-size, posinf=size, neginf=-size))
        color = torch.tensor(shape.color, **like)[:, None, None]
        canvas = torch.lerp(canvas, color, covered[:, None])
    return canvas.permute(0, 2, 3, 1)


def _covered(depth: Any) -> Any:
    """The part of a pixel that is covered, its middle `depth` [pixels] inside an edge: smooth."""
    x = (0.5 + 0.5 / SOFT * depth).clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _in_disc(torch: Any, px: Any, py: Any, scale: float, x: Any, y: Any, radius: Any) -> Any:
    square = (px - x) ** 2 + (py - y) ** 2
    # The root has no slope at 0, which lies deep inside.
    return scale * (radius - square.clamp(min=1e-12).sqrt())


def _in_segment(
    torch: Any, px: Any, py: Any, scale: float, x0: Any, y0: Any, x1: Any, y1: Any, width: Any
) -> Any:
    dx, dy = x1 - x0, y1 - y0
    along = ((px - x0) * dx + (py - y0) * dy) / (dx * dx + dy * dy).clamp(min=1e-12)
    along = along.clamp(0.0, 1.0)
    # OpenCV's lines are a whole number of pixels wide, at least one.
    half = 0.5 / scale * (width * scale).detach().round().clamp(min=1.0)
    return _in_disc(torch, px, py, scale, x0 + along * dx, y0 + along * dy, half)


_DISTANCES: dict[type, Callable[..., Any]] = {Disc: _in_disc, Segment: _in_segment}
