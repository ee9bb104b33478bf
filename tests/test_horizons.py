"""How long a model is asked, where nobody says so, and how long it is known to have been valid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from worldmodels.evaluation.problems import usual_horizon
from worldmodels.evaluation.states import scoring
from worldmodels.evaluation.states.report import valid_text


@pytest.mark.parametrize(
    ("longest", "context", "steps"),
    [(500, 1, 100), (100, 1, 100), (50, 1, 50), (50, 4, 47), (2, 3, 1)],
)
def test_the_usual_horizon_is_one_that_the_episodes_have(
    longest: int, context: int, steps: int
) -> None:
    test = SimpleNamespace(lengths=np.array([1, longest, 2]))
    dataset = SimpleNamespace(subset={"test": test}.__getitem__)
    assert usual_horizon(dataset, 100, context) == steps


@pytest.mark.parametrize(
    ("lasting", "text"), [(0, "0.30"), (1, "0.30"), (2, ">= 0.65"), (3, ">= 1.00"), (4, ">= 1.00")]
)
def test_a_valid_time_that_an_episode_cut_short_reads_at_least(lasting: int, text: str) -> None:
    """Four rollouts of ten steps; those that are not lasting go wrong in the third."""
    errors = np.zeros((4, 10))
    errors[lasting:, 3:] = 1.0
    valid = np.ones((4, 10), np.bool_)
    cell = scoring.valid_time(errors, valid, 0.1, 0.09)
    assert cell["to_end"] == lasting / 4
    assert valid_text(cell, "{:.2f}") == text


def test_an_error_behind_an_episodes_end_does_not_count() -> None:
    errors, valid = np.zeros((3, 10)), np.ones((3, 10), np.bool_)
    errors[:, 5:], valid[:, 5:] = 9.0, False
    cell = scoring.valid_time(errors, valid, 0.1, 0.09)
    assert valid_text(cell, "{:.1f}") == ">= 0.5"


def test_a_report_of_before_that_was_known_still_reads() -> None:
    assert valid_text({"median": 2.0}, "{:.2f}") == "2.00"
    assert valid_text({"median": None, "to_end": None}, "{:.2f}") == "inf"
