"""The table of a sweep that runs: what it says of each cell, and where it is drawn."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console

import worldmodels
from worldmodels.commands.sweep_table import SweepTable
from worldmodels.training import sweeps

ROOT = Path(__file__).parent.parent
TINY = ("epochs=2", "optim.steps_per_epoch=3", "optim.batch_size=16", "data.episodes=12")


def table_of(folder: Path, seeds: int = 4) -> SweepTable:
    config = worldmodels.default_config("pendulum", "jump")
    return SweepTable(sweeps.plan({"jump": config}, range(seeds), {}, folder))


def trained(folder: Path, *errors: float) -> None:
    """What a training leaves in its run's folder while it runs."""
    folder.mkdir()
    (folder / "run.json").write_text('{"status": "running"}')
    rows = [json.dumps({"epoch": i, "eval/nmse": error}) for i, error in enumerate(errors, 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))


def test_cells_are_known_by_their_runs(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    trained(tmp_path / "jump-s1", 0.5, 0.25, 0.75)
    trained(tmp_path / "jump-s3", 0.1)
    os.utime(tmp_path / "jump-s3/run.json", (1.0, 1.0))  # of a sweep that was killed
    table.results["jump-s0"] = {"status": "failed", "error": "x", "seconds": 3.2}
    assert [row[:4] for row in table.rows()] == [
        ("jump-s0", "failed", "", ""),
        ("jump-s1", "training", "3/60", "0.25"),
        ("jump-s2", "waiting", "", ""),
        ("jump-s3", "waiting", "", ""),
    ]
    trained(tmp_path / "jump-s2")
    assert table.rows()[2][:3] == ("jump-s2", "training", "")
    with (tmp_path / "jump-s1/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "eval/nmse": 0.125}\n')
    assert table.rows()[1][2:4] == ("4/60", "0.12")


def test_cells_at_work_are_shown_first_where_not_all_fit(tmp_path: Path) -> None:
    table = table_of(tmp_path, 30)
    trained(tmp_path / "jump-s29", 0.5)
    table.results["jump-s4"] = {"status": "done", "best_nmse": 0.5, "seconds": 1.0}
    text = io.StringIO()
    Console(file=text, width=80).print(table.drawn(12))
    lines = text.getvalue().splitlines()
    assert len(lines) <= 12 and "1 of 30 cells done" in lines[0]
    assert "jump-s29" in lines[4] and "jump-s4" in lines[5]
    assert lines[-1].strip() == "and 25 waiting"


def run_on_a_terminal(folder: Path, *words: str) -> tuple[str, str]:
    """stdout, and what a terminal of 80 columns behind stderr was sent, of a Python process."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the last writer is gone
            break
        if not part:
            break
        sent += part
    os.close(ours)
    assert process.stdout is not None
    with process.stdout as stream:
        told = stream.read()
    assert process.wait() == 0, sent.decode()
    return told, sent.decode()


def test_a_terminal_gets_a_table_that_goes_and_a_file_gets_lines(tmp_path: Path) -> None:
    words = (
        "-m",
        "physgym",
        "sweep",
        "--models",
        "jump",
        "--seeds",
        "0",
        "--set",
        *TINY,
        "--out",
        "s",
        "--no-report",
    )
    told, sent = run_on_a_terminal(tmp_path, *words)
    assert "\x1b[" not in told and "jump-s0: done, validation error" in told
    assert "0 of 1 cells done" in sent and "training" in sent
    assert "\x1b[1A" in sent and "\x1b[2K" in sent, "redrawn in place, and taken away"


BAR = """
import time
from worldmodels.data.progress import Progress

with Progress("training, epoch", 40) as bar:
    for done in range(40):
        time.sleep(0.05)
        bar.reach(done, "loss 1.5e-08, validation error 1.6e-08 (copying 1.2, the mean 1), 9,222 samples/s")
"""


def test_nothing_of_a_bar_is_cut_at_eighty_columns(tmp_path: Path) -> None:
    _, sent = run_on_a_terminal(tmp_path, "-c", BAR)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    assert "training, epoch" in plain and "0:00:0" in plain and "\u2026" not in plain
    assert "9,222" in plain and "samples/s" in plain
