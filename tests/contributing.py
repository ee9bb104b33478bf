"""The files that CONTRIBUTING.md shows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "CONTRIBUTING.md"


@cache
def blocks() -> dict[str, str]:
    """Text of each file by name: blocks of Python whose first line is a comment with the name."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.findall(r"```python\n(# (\w+\.py)\n.*?)```", text, flags=re.DOTALL)
    return {name: body for body, name in found}
