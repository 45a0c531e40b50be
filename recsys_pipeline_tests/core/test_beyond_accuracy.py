"""What lists are like, counted by hand."""

import numpy as np
import pytest

from recsys_pipeline.core.beyond_accuracy import beyond_accuracy
from recsys_pipeline.core.ranking import NOTHING
from recsys_pipeline_tests.worlds import pattern_of


def test_coverage_novelty_popularity_and_reach_by_hand():
    training = pattern_of([[0, 1], [0], [0], [0]], 4)
    found = beyond_accuracy(np.array([[0, 1], [0, NOTHING]], np.int32), training)

    assert found.coverage == 2 / 4
    # Item 0 is had by all 4 users (0 bits), item 1 by one of 4 (2 bits); item 0 is recommended twice.
    assert found.novelty == pytest.approx((0 + 2 + 0) / 3)
    assert found.popularity == pytest.approx((1 + 1 / 4 + 1) / 3)
    assert found.users_reached == 1 / 2
