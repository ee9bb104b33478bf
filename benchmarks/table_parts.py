"""What the makers of tables share: names, and how figures are written."""

from __future__ import annotations

from collections.abc import Sequence

from worldmodels.evaluation.summary import interval

SYSTEMS = {
    "oscillator": "oscillator",
    "pendulum": "pendulum",
    "spaceship": "spaceship",
    "three_body": "three bodies",
}

Table = list[list[str]]
"""Rows of cells; the first is the header."""


def part(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if ratio < 0.1 else f"1/{1 / ratio:.1f}"


def pixels(value: float | None) -> str:
    return "lost" if value is None else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """The mean over seeds with half of its 95 % t-interval; the value alone where there is one."""
    mean, half = interval(values)
    return f"{mean:.1f}" if half is None else f"{mean:.1f} ± {half:.1f}"
