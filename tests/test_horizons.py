"""How long a rollout is known to have been valid, where its episode ends."""

from __future__ import annotations

import numpy as np
import pytest

from worldmodels.evaluation.statistics import valid_time
from worldmodels.evaluation.tables import seconds


@pytest.mark.parametrize(
    ("lasting", "text"), [(0, "0.30"), (1, "0.30"), (2, ">= 0.65"), (3, ">= 1.00"), (4, ">= 1.00")]
)
def test_a_valid_time_that_an_episode_cut_short_reads_at_least(lasting: int, text: str) -> None:
    """Four rollouts of ten steps; those that are not lasting go wrong in the third."""
    errors = np.zeros((4, 10))
    errors[lasting:, 3:] = 1.0
    valid = np.ones((4, 10), np.bool_)
    cell = valid_time(errors, valid, 0.1, 0.09)
    assert cell["at_least"] == (lasting >= 2)
    assert seconds(cell) == text


def test_an_error_behind_an_episodes_end_does_not_count() -> None:
    errors, valid = np.zeros((3, 10)), np.ones((3, 10), np.bool_)
    errors[:, 5:], valid[:, 5:] = 9.0, False
    assert seconds(valid_time(errors, valid, 0.1, 0.09)) == ">= 0.50"


def test_a_report_of_before_that_was_known_still_reads() -> None:
    assert seconds({"median": 2.0}) == "2.00"
    assert seconds({"median": None}) == "inf"
