"""What a check says: an error that names verb, finding, expectation and fix, or a warning of the same."""

from __future__ import annotations

import warnings


class CheckError(AssertionError):
    """A model breaks a promise of its interface; the message says which, and what to change.

    An ``AssertionError``, as Gymnasium's ``check_env`` raises, so that test runners show it as a failed test; but
    raised, never asserted, so that it stands under ``python -O``, too.
    """

    def __init__(self, check: str, verb: str, found: str, expected: str, fix: str) -> None:
        super().__init__(f"{verb}: {found}; expected {expected}. {fix} (check {check!r})")
        self.check, self.verb = check, verb
        self.found, self.expected, self.fix = found, expected, fix

    def __reduce__(self) -> tuple[object, ...]:
        return CheckError, (self.check, self.verb, self.found, self.expected, self.fix)


def advise(check: str, verb: str, found: str, fix: str) -> None:
    """Warn (``UserWarning``) of what breaks no promise, but is unwise."""
    warnings.warn(f"{verb}: {found}. {fix} (check {check!r})", UserWarning, stacklevel=3)
