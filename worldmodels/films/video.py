"""Films of states, and truth beside prediction; MP4 (VP9, plays in browsers) and GIF files."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from physgym.rendering import SCREEN, opencv, render, write_text
from worldmodels.storage.files import make_parent

TRUE_COLOR = (86, 180, 233)
"""In a difference panel: what only the truth shows (sky blue)."""
LEARNED_COLOR = (230, 159, 0)
"""In a difference panel: what only the prediction shows (orange)."""
DIVIDER = (70, 76, 92)
SUFFIXES = (".mp4", ".gif")
GIF_COLORS = 256
MAX_GIF_FPS = 50.0  # what viewers play: a GIF counts hundredths of a second, and 1/100 is ignored


def film(
    system: Any,
    states: np.ndarray,
    controls: np.ndarray | None,
    params: Any,
    size: int = 360,
    captions: Sequence[str] | None = None,
    advance: Callable[[], object] | None = None,
) -> np.ndarray:
    """Pictures for people of ``states`` (T+1, D): uint8 (T+1, size, size, 3).

    ``controls`` (T, U) are those applied after each state (the last picture shows none),
    ``captions`` T+1 lines, ``params`` one episode's; ``advance`` is called after each picture.
    A state that is not finite leaves its picture empty.
    """
    frames = np.empty((len(states), size, size, 3), np.uint8)
    for index, state in enumerate(np.asarray(states, np.float64)):
        known = controls is not None and index < len(controls)
        control = tuple(map(float, controls[index])) if known and controls is not None else None
        finite = bool(np.isfinite(state).all())
        caption = captions[index] if captions is not None else None
        if "pictures" not in system.knows:
            frames[index] = system.portrait(state, size, caption)
            if advance is not None:
                advance()
            continue
        scene = system.scene(tuple(map(float, state)), control, params, True) if finite else []
        frames[index] = render(scene, system.view, size, SCREEN, caption)
        if advance is not None:
            advance()
    return frames


def side_by_side(
    truth: np.ndarray,
    learned: np.ndarray,
    labels: tuple[str, str, str] = ("true", "learned", "difference"),
    gap: int = 2,
    captions: Sequence[Sequence[str]] | None = None,
) -> np.ndarray:
    """Three panels in one film: uint8 (T, H + bar, 3 W + 2 gap, 3) of two (T, H, W, 3).

    The difference is of brightness: ``TRUE_COLOR`` where only the truth is bright,
    ``LEARNED_COLOR`` where only the prediction is. ``captions``: for each panel, one line
    for each picture. Raises ``ValueError`` for unequal shapes.
    """
    if truth.shape != learned.shape or truth.ndim != 4:
        raise ValueError(f"films of shapes {truth.shape} and {learned.shape} cannot be compared")
    count, height, width, _ = truth.shape
    bar = max(24, height // 12)
    film = np.empty((count, height + bar, 3 * width + 2 * gap, 3), np.uint8)
    film[:] = DIVIDER
    film[:, :bar] = SCREEN
    for column, label in enumerate(labels):
        at = slice(column * (width + gap), column * (width + gap) + width)
        heading = np.full((bar, width, 3), SCREEN, np.uint8)
        write_text(heading, label, "bottom", scale=1.0 + height / 480)
        film[:, :bar, at] = heading
    for index in range(count):
        panels = truth[index], learned[index], difference(truth[index], learned[index])
        for column, panel in enumerate(panels):
            if captions is not None:
                panel = panel.copy()
                write_text(panel, captions[column][index])
            film[index, bar:, column * (width + gap) : column * (width + gap) + width] = panel
    return film


def difference(truth: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) of where two pictures differ, on a dark ground."""
    return _DIFFERENCE[255 + _brightness(truth) - _brightness(learned)]


def _brightness(picture: np.ndarray) -> np.ndarray:
    red, green, blue = (picture[..., channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue).astype(np.int16)


def _difference_colors() -> np.ndarray:
    """Colour (511, 3) of each difference of brightness from -255 to 255."""
    signed = np.arange(-255, 256)[:, None]
    amount = np.clip(np.abs(signed) / 200.0, 0.0, 1.0)
    color = np.where(signed > 0, TRUE_COLOR, LEARNED_COLOR)
    ground = np.array(SCREEN)
    return (ground + amount * (color - ground)).astype(np.uint8)


_DIFFERENCE = _difference_colors()


def write_video(
    frames: Iterable[np.ndarray],
    path: str | Path,
    fps: float,
    advance: Callable[[], object] = lambda: None,
) -> Path:
    """Write ``frames`` (H, W, 3 each, uint8, RGB) to ``path``; its suffix chooses MP4 or GIF.

    The file appears whole or not at all. A GIF plays at most ``MAX_GIF_FPS``: of a faster film it
    keeps every second (third, ...) picture, so that time stays true. ``advance`` is called after
    each frame. Returns the path.

    Raises:
        ValueError: another suffix, no frame, frames of unequal shape, or fps not above 0.
        OSError: the folder cannot be written to, or OpenCV has no VP9 encoder.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name!r} is no video name: expected it to end in .mp4 or .gif")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps={fps!r} is not valid: expected a number above 0")
    film = [np.ascontiguousarray(frame, np.uint8) for frame in frames]
    if not film:
        raise ValueError("no frame to write: a video needs at least one")
    if len({frame.shape for frame in film}) > 1:
        raise ValueError(f"frames differ in shape: {sorted({frame.shape for frame in film})}")
    make_parent(path)
    # A name that nobody can have put a link at.
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix.lower()}")
    try:
        (_write_gif if path.suffix.lower() == ".gif" else _write_mp4)(film, partial, fps, advance)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write_mp4(
    film: list[np.ndarray], path: Path, fps: float, advance: Callable[[], object]
) -> None:
    cv2 = opencv()
    height, width = film[0].shape[:2]
    even = width + width % 2, height + height % 2  # VP9 cuts odd sizes
    fourcc = cv2.VideoWriter_fourcc(*"vp09")
    writer = cv2.VideoWriter(str(path), fourcc, fps, even)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write VP9 to {str(path)!r}; write a .gif instead")
    for frame in film:
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        writer.write(np.ascontiguousarray(padded[..., ::-1]))
        advance()
    writer.release()


def _write_gif(
    film: list[np.ndarray], path: Path, fps: float, advance: Callable[[], object]
) -> None:
    from PIL import Image

    stride = int(np.ceil(fps / MAX_GIF_FPS))
    kept = film[::stride]
    palette = _palette(kept)
    images = []
    for frame in kept:
        images.append(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
        for _ in range(stride):
            advance()
    duration = max(20, round(100 * stride / fps) * 10)
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )


def _palette(film: list[np.ndarray]) -> Any:
    """Picture with the colours of a GIF of ``film``: every colour counts once, however few its pixels.

    By octree, since median cut spends its colours on the background and greys small bright bodies.
    """
    from PIL import Image

    place = np.array([1 << 16, 1 << 8, 1], np.uint32)
    codes = np.unique(np.concatenate([np.unique(frame.reshape(-1, 3) @ place) for frame in film]))
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8)
    return Image.fromarray(colors[None]).quantize(GIF_COLORS, method=Image.Quantize.FASTOCTREE)
