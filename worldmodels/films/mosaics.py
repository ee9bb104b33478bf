"""Small pictures in a labelled grid, every pixel of them an equal square of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodels.evaluation.plots import STYLE, save_figure
from worldmodels.storage.files import make_parent

GAP, WIDE_GAP, MARGIN = 4, 18, 14
"""Pixels between cells, between groups of cells, and around what is written."""
SMALL = 9.0
"""Points of labels."""

LEGEND = (
    ("difference:", "#000000"),
    ("only in the truth", "#3a8fc0"),
    ("only in the prediction", "#b97f00"),
)
"""``video.TRUE_COLOR`` and ``video.LEARNED_COLOR``, darker, to be read on white."""


class Scale(NamedTuple):
    """A colour bar of signed values."""

    limit: float
    """Values go from -limit to limit."""
    label: str
    """What they are."""


def colored(values: np.ndarray, limit: float) -> np.ndarray:
    """Pictures uint8 (..., 3) of signed ``values``: white for 0, full colour for ``limit`` and beyond."""
    shares = 0.5 + 0.5 * np.clip(np.asarray(values, np.float64) / max(limit, 1e-12), -1.0, 1.0)
    return np.asarray(signed_colors()(shares, bytes=True))[..., :3]


def signed_colors() -> Any:
    """Colour map from blue over white to vermilion, safe for all eyes."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", ["#0072B2", "#ffffff", "#D55E00"], 257)


def compose(
    cells: np.ndarray, row_groups: Sequence[int] = (), column_groups: Sequence[int] = ()
) -> tuple[np.ndarray, list[int], list[int]]:
    """One picture (H', W', 3) of ``cells`` (R, C, H, W, 3) on white, and where rows and columns begin.

    Before the rows and columns named in the groups the gap is wider.
    """
    rows, columns, height, width, _ = cells.shape
    tops, bottom = _places(rows, height, row_groups)
    lefts, right = _places(columns, width, column_groups)
    canvas = np.full((bottom, right, 3), 255, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            canvas[top : top + height, left : left + width] = cells[row, column]
    return canvas, tops, lefts


def _places(count: int, size: int, groups: Sequence[int]) -> tuple[list[int], int]:
    """Where each of ``count`` cells begins, and where the last one ends."""
    places, at = [], 0
    for index in range(count):
        if index:
            at += WIDE_GAP if index in groups else GAP
        places.append(at)
        at += size
    return places, at


def draw_grid(
    cells: np.ndarray,
    path: str | Path,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    notes: Sequence[tuple[str, str]] = (),
    heads: Sequence[str] = (),
    row_groups: Sequence[int] = (),
    column_groups: Sequence[int] = (),
    scale: Scale | None = None,
) -> Path:
    """Write ``cells`` (R, C, H, W, 3) uint8 as a PNG, with a label for each row and column.

    ``notes`` are words and their colours, written below one after the other; ``heads`` stand at the top of
    the first row of each group. The picture is as large as its parts need: pixels are never stretched, and
    labels never cut.
    """
    canvas, tops, lefts = compose(cells, row_groups, column_groups)
    height, width = canvas.shape[:2]
    with figure_at(path) as figure:
        left = MARGIN + max(_extent(figure, text)[0] for text in (*rows, *heads)) + MARGIN // 2
        heading = max((_extent(figure, text)[1] for text in columns), default=0)
        lines = _extent(figure, title, STYLE["axes.titlesize"])
        below = max((_extent(figure, text)[1] + MARGIN for text, _ in notes), default=0)
        top = MARGIN + lines[1] + MARGIN + heading + (MARGIN // 2 if heading else 0)
        noted = sum(_extent(figure, text)[0] + MARGIN for text, _ in notes)
        right = MARGIN + (120 if scale else 0)
        wide = max(left + width + right, left + lines[0] + MARGIN, left + noted)
        tall = top + height + below + MARGIN
        figure.set_size_inches(wide / figure.dpi, tall / figure.dpi)

        def write(x: float, y: float, text: str, **options: Any) -> None:
            options = {"fontsize": SMALL, **options}
            figure.text(x / wide, 1 - y / tall, text, **options)

        box = [left / wide, 1 - (top + height) / tall, width / wide, height / tall]
        axes = figure.add_axes(box)
        axes.imshow(canvas, interpolation="none", aspect="auto")
        axes.set_axis_off()
        write(left, MARGIN, title, fontsize=STYLE["axes.titlesize"], va="top")
        for at, text in zip(tops, rows, strict=True):
            x, y = left - MARGIN // 2, top + at + cells.shape[2] / 2
            write(x, y, text, ha="right", va="center")
        for row, text in zip((0, *row_groups), heads, strict=False):
            write(left - MARGIN // 2, top + tops[row] + GAP, text, ha="right", va="top")
        for at, text in zip(lefts, columns, strict=True):
            x, y = left + at + cells.shape[3] / 2, top - MARGIN // 2
            write(x, y, text, ha="center", va="bottom")
        x = left
        for text, color in notes:
            write(x, top + height + MARGIN, text, color=color, va="top")
            x += _extent(figure, text)[0] + MARGIN
        if scale:
            edge = (left + width + MARGIN) / wide
            _bar(figure, [edge, box[1], MARGIN / wide, box[3]], scale)
    return Path(path)


def _bar(figure: Any, box: list[float], scale: Scale) -> None:
    """Draw a colour bar into ``box`` of the figure."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = ScalarMappable(Normalize(-scale.limit, scale.limit), signed_colors())
    bar = figure.colorbar(known, cax=figure.add_axes(box), label=scale.label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL)


@contextmanager
def figure_at(path: str | Path, **options: Any) -> Iterator[Any]:
    """A new figure in the style of ``plots``, saved whole to ``path`` at the end."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    make_parent(path)
    with rc_context({**STYLE, "savefig.bbox": "standard"}):
        figure = Figure(**options)
        FigureCanvasAgg(figure)
        yield figure
        save_figure(figure, path)


def _extent(figure: Any, text: str, size: float = SMALL) -> tuple[int, int]:
    """Width and height of ``text`` in pixels of the file."""
    if not text:
        return 0, 0
    written = figure.text(0, 0, text, fontsize=size)
    box = written.get_window_extent(figure.canvas.get_renderer())
    written.remove()
    return int(np.ceil(box.width)), int(np.ceil(box.height))


def quantised(pictures: Any) -> np.ndarray:
    """Pictures of floats in [0, 1] as uint8; what is not finite is black."""
    values = np.nan_to_num(np.asarray(pictures, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.rint(255.0 * values.clip(0.0, 1.0)).astype(np.uint8)


def enlarged(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Pictures (..., H, W, 3) with every pixel as a square of ``factor`` x ``factor``."""
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)
