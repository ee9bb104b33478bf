"""The cells of a sweep while it runs: a table redrawn in place on a terminal, lines elsewhere.

What a cell does is read from its run's folder, so that it is known under every launcher whose machines
share the disk.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodels.configs.training import scores_one
from worldmodels.storage.runs import RECORD
from worldmodels.training.rows import METRICS, read_metrics
from worldmodels.training.sweeps import Cell

HEAD = ("cell", "status", "epoch", "error", "time")
OTHER_LINES = 7
"""Lines of a table that are no cell: title, borders, head, what is left out, and the line of the prompt."""
ORDER = ("training", "failed", "done", "skipped", "waiting")
"""What is shown first where not all cells fit the terminal."""


class SweepTable:
    """What became of the cells of a sweep, and how far those are that are trained at this moment."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self._cells = {cell.name: cell for cell in cells}
        self._one = scores_one(cells[0].config)
        self._began = time.time()
        self._seen: dict[str, float] = {}
        self._read: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def rows(self) -> list[tuple[str, ...]]:
        """A row a cell, as ``HEAD`` says."""
        return [self._row(cell) for cell in self._cells.values()]

    def _row(self, cell: Cell) -> tuple[str, ...]:
        folder, result = Path(cell.config.out or ""), self.results.get(cell.name)
        if result is None and not self._begun(folder):
            return cell.name, "waiting", "", "", ""
        status = "training" if result is None else str(result["status"])
        best = None if result is None else result.get("best_nmse")
        rows = self._metrics(folder) if status != "failed" else []
        errors = [row["eval/nmse"] for row in rows if isinstance(row.get("eval/nmse"), float)]
        best = min(errors, default=None) if best is None else best
        epoch = f"{rows[-1].get('epoch', 0)}/{cell.config.epochs}" if rows else ""
        seconds = self._seconds(cell.name) if result is None else float(result["seconds"])
        return cell.name, status, epoch, "" if best is None else f"{best:.2g}", _clock(seconds)

    def _begun(self, folder: Path) -> bool:
        """Whether somebody has trained there since this sweep began: the run says that it is running."""
        try:
            return (folder / RECORD).stat().st_mtime >= self._began - 1.0
        except OSError:
            return False

    def _seconds(self, name: str) -> float:
        return time.time() - self._seen.setdefault(name, time.time())

    def _metrics(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of a run's metrics, read again when the file has grown."""
        path = folder / METRICS
        try:
            size = path.stat().st_size
            if self._read.get(folder.name, (-1,))[0] != size:
                self._read[folder.name] = size, read_metrics(path)
        except (OSError, ValueError):
            return []
        return self._read[folder.name][1]

    def drawn(self, height: int) -> Any:
        """The table in ``height`` lines at most: where not all cells fit, those at work first."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        rows, most = self.rows(), max(height - OTHER_LINES, 1)
        left = ""
        if len(rows) > most:
            rows.sort(key=lambda row: ORDER.index(row[1]))
            counts = Counter(row[1] for row in rows[most:])
            told = ", ".join(f"{count} {status}" for status, count in counts.items())
            left, rows = f"and {told}", rows[:most]
        table = Table()
        for index, name in enumerate(HEAD):
            table.add_column(name, justify="right" if index > 1 else "left", no_wrap=index > 0)
        for row in rows:
            table.add_row(*map(escape, row), style="red" if row[1] == "failed" else None)
        return Group(Text(self._title()), table, *([Text(left)] if left else []))

    def _title(self) -> str:
        return f"{self.counted()}; error 1: no better than {self._one}"

    def counted(self) -> str:
        """How many cells have ended, and about how long the others take."""
        return f"{len(self.results)} of {len(self._cells)} cells done{self._left()}"

    def _left(self) -> str:
        """About how long the rest takes, at the pace of the cells that this sweep trained."""
        trained = sum(result["status"] != "skipped" for result in self.results.values())
        waiting = len(self._cells) - len(self.results)
        if not trained or not waiting:
            return ""
        return f", about {_clock(waiting * (time.time() - self._began) / trained)} left"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def shown(table: SweepTable) -> Iterator[None]:
    """Show ``table`` on stderr while the block runs, where that is a terminal; it goes away at the end."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    live = Live(
        get_renderable=lambda: table.drawn(console.height),
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
    with contextlib.suppress(OSError, ValueError):  # showing never ends the work
        live.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            live.stop()
