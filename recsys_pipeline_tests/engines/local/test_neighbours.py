"""Item-item models."""

import numpy as np
import pytest

from recsys_pipeline.core.ranking import NOTHING
from recsys_pipeline.engines.local import neighbours
from recsys_pipeline.engines.local.neighbours import Neighbours, by_neighbours
from recsys_pipeline_tests.worlds import pattern_of

STRENGTHS = np.array([[1, 2, 0, 0], [0, 2, 1, 0], [3, 0, 0, 0], [0, 0, 0, 4]], np.float32)


def matrix():
    return pattern_of([np.flatnonzero(row).tolist() for row in STRENGTHS], 4).user_items(
        STRENGTHS[STRENGTHS > 0]
    )


def lists(kind, n_neighbours, k=4):
    everyone = np.arange(4, dtype=np.int32)
    nothing_excluded = pattern_of([[]] * 4, 4)
    return by_neighbours(matrix(), kind, n_neighbours, num_threads=1)(everyone, nothing_excluded, k).tolist()


def test_the_best_have_the_greatest_sum_of_strength_times_cosine_over_the_users_items():
    unit = STRENGTHS / np.linalg.norm(STRENGTHS, axis=0)
    scores = STRENGTHS @ (unit.T @ unit)

    assert lists(Neighbours.cosine, 4, k=2) == [
        [item if scores[user, item] > 0 else NOTHING for item in np.argsort(-scores[user], kind="stable")[:2]]
        for user in range(4)
    ]


@pytest.mark.parametrize("kind", list(Neighbours))
def test_an_item_like_none_of_the_users_is_not_recommended(kind):
    assert lists(kind, 4)[3] == [3, NOTHING, NOTHING, NOTHING]


def test_so_many_neighbours_count():
    only_itself, both = lists(Neighbours.cosine, 1), lists(Neighbours.cosine, 4)

    assert only_itself[2] == [0, NOTHING, NOTHING, NOTHING]
    assert both[2] == [0, 1, NOTHING, NOTHING]


def test_users_in_blocks_get_the_same_lists(monkeypatch):
    whole = lists(Neighbours.bm25, 4)
    monkeypatch.setattr(neighbours, "_USERS_AT_ONCE", 3)

    assert lists(Neighbours.bm25, 4) == whole
