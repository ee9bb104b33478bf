"""What is shown never ends the work: readers that leave, streams that are closed, other encodings."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worldmodels.commands import terminal as cli
from worldmodels.data import progress as progress_module
from worldmodels.data.progress import Progress, say

ROOT = Path(__file__).parent.parent
WORK = """
import os, sys, warnings
from worldmodels.commands import terminal as cli

def main():
    from worldmodels.data import progress
    progress.QUIET_SECONDS = progress.LINE_SECONDS = 0.0
    with cli.progress("working", 400) as advance:
        for step in range(400):
            print("a line of müller, θ and ≥", step, "x" * 1000, flush=step % 7 == 0)
            print("to stderr: θ", step, "y" * 1000, file=sys.stderr)
            advance()
    warnings.warn("θ")
    cli.print_table("Tafel θ", ["model", "n"], [["müller", 0.5]])
    with open("done", "w") as file:
        file.write("all of it")

cli.main_guard(main)
"""


def work(folder: Path, redirection: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script that shows much and then writes a file, from a shell."""
    (folder / "work.py").write_text(WORK, encoding="utf-8")
    line = f"{sys.executable} work.py {redirection}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "redirection",
    [
        "| head -1",
        "2>&1 | head -1",
        "2> >(head -1)",
        ">&-",
        "2>&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        "> /dev/full",
        "2> /dev/full",
        "> /dev/full 2>&1",
    ],
)
def test_the_work_is_done_whoever_reads(redirection: str, tmp_path: Path) -> None:
    done = work(tmp_path, redirection)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text() == "all of it"
    assert b"Traceback" not in done.stdout + done.stderr
    if redirection == "> /dev/full":
        assert done.stderr.count(b"output is lost: No space left on device") == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_a_question_mark(encoding: str, tmp_path: Path) -> None:
    done = work(tmp_path, "", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
    shown = done.stdout.decode(encoding)
    assert ("müller, θ" if encoding == "utf-8" else "?") in shown.splitlines()[0]
    assert "warning: " in done.stderr.decode(encoding)


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Otherwise what a library writes to stderr would land in it."""
    code = (
        "import os, sys; from worldmodels.commands import terminal\n"
        "file = open('data', 'w'); os.write(2, b'a warning of a library'); sys.exit(file.fileno())"
    )
    line = f'{sys.executable} -c "$CODE" <&- >&- 2>&-'
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env={**os.environ, "CODE": code}, timeout=60
    )
    assert done.returncode > 2
    assert (tmp_path / "data").read_bytes() == b""


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    "stream", [None, Broken(), io.StringIO()], ids=["none", "broken", "closed"]
)
def test_progress_without_a_reader_is_silence(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(stream, io.StringIO) and not isinstance(stream, Broken):
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_module, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    say("a line")
    with Progress("working", 5) as bar:
        for done in range(5):
            bar.reach(done)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_number_in_a_table_is_cut(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import rich.console

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ["model", *(f"n = {10**power}" for power in range(6)), "valid [s]"]
    names = ["jump", "oracle (own integrator)"]
    cells = [[f"{n}.{p}e-{p}\n({p}.1e-{n}, {p}.9e-{n})" for p in range(6)] for n in range(2)]
    rows = [[name, *numbers, ">= 10.00"] for name, numbers in zip(names, cells, strict=True)]
    monkeypatch.setattr(rich.console.Console, "is_terminal", False, raising=False)
    cli.print_table("title", columns, rows)
    shown = capsys.readouterr().out
    assert "…" not in shown
    for text in [line for row in rows for cell in row[1:] for line in cell.splitlines()]:
        assert text in shown
    assert all(column in shown for column in columns)
    if width >= 60:
        assert max(map(len, shown.splitlines())) <= width
