"""Item-item models."""

import numpy as np
import pytest

from recsys_pipeline.engines.local.neighbours import Neighbours, by_neighbours
from recsys_pipeline_tests.worlds import pattern_of

STRENGTHS = np.array([[1, 2, 0, 0], [0, 2, 1, 0], [3, 0, 0, 0], [0, 0, 0, 4]], np.float32)


def matrix():
    return pattern_of([np.flatnonzero(row).tolist() for row in STRENGTHS], 4).user_items(
        STRENGTHS[STRENGTHS > 0]
    )


def test_a_score_is_the_sum_of_strength_times_cosine_over_the_users_items():
    scores = by_neighbours(matrix(), Neighbours.cosine, 4)(np.arange(4, dtype=np.int32))

    unit = STRENGTHS / np.linalg.norm(STRENGTHS, axis=0)
    expected = STRENGTHS @ (unit.T @ unit)
    assert scores == pytest.approx(np.where(expected > 0, expected, -np.inf))


@pytest.mark.parametrize("kind", list(Neighbours))
def test_an_item_like_none_of_the_users_is_not_recommended(kind):
    (scores,) = by_neighbours(matrix(), kind, 4)(np.array([3], np.int32))

    assert np.isneginf(scores).tolist() == [True, True, True, False]


def test_so_many_neighbours_count():
    everyone = np.arange(4, dtype=np.int32)
    (only_itself, both) = (by_neighbours(matrix(), Neighbours.cosine, n)(everyone) for n in (1, 4))

    assert np.isneginf(only_itself[2]).tolist() == [False, True, True, True]
    assert np.isneginf(both[2]).tolist() == [False, False, True, True]
