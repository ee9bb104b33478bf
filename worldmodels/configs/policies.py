"""What may act while a buffer is collected, by the words that name it."""

from __future__ import annotations

import re

from worldmodels.configs.schema import require, suggestion

POLICIES = ("random", "zero", "bang", "mixed", "ou")
"""Policies of this package; any other text names an agent or a function."""
GIVEN = "given"
"""What acted in episodes that were not collected here."""
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_users(policy: str) -> bool:
    """Whether a policy is the user's: the file of an agent, or a function."""
    return policy not in (*POLICIES, GIVEN)


def require_policy(name: str, policy: str) -> None:
    """Raise ``ConfigError`` for a text that names no policy."""
    valid = (
        policy in (*POLICIES, GIVEN) or policy.endswith(".zip") or bool(_FUNCTION.fullmatch(policy))
    )
    expected = (
        f"one of {', '.join(POLICIES)}, the .zip of an agent, or module:function"
        f"{suggestion(policy, POLICIES)}"
    )
    require(name, policy, valid, expected)
