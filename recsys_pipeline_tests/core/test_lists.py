"""Recommended lists are those of a full sort, and what they are like is counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core import lists as module
from recsys_pipeline.core.lists import (
    NOTHING,
    best_lists,
    by_factors,
    by_popularity,
    ranks_in_lists,
    reach,
)
from recsys_pipeline_tests.worlds import pattern_of


@st.composite
def scored_worlds(draw):
    """Small integers as scores, so that many are equal, some of minus infinity; some items hidden."""
    n_items = draw(st.integers(1, 20))
    n_users = draw(st.integers(1, 4))
    score = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0])
    scores = [draw(st.lists(score, min_size=n_items, max_size=n_items)) for _ in range(n_users)]
    seen = [sorted(draw(st.sets(st.integers(0, n_items - 1)))) for _ in range(n_users)]
    return np.array(scores, np.float32), pattern_of(seen, n_items), draw(st.integers(1, 12))


@given(world=scored_worlds())
def test_equal_a_full_sort(world):
    scores, seen, k = world
    users = np.arange(len(scores), dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 3)
        patch.setattr(module, "_SCORES_AT_ONCE", 40)
        lists = best_lists(lambda block: scores[block].copy(), users, seen, k)

    for user, listed in enumerate(lists.tolist()):
        hidden = set(seen.indices[seen.indptr[user] : seen.indptr[user + 1]].tolist())
        offered = [i for i in range(seen.n_items) if i not in hidden and scores[user, i] > -np.inf]
        expected = sorted(offered, key=lambda item: (-scores[user, item], item))[:k]
        assert listed == expected + [NOTHING] * (k - len(expected))


def test_ranks_are_places_in_the_list_or_beyond_it():
    lists = np.array([[5, 3, NOTHING], [1, 2, 3]], np.int32)
    row, items = np.array([0, 0, 1, 1, 0]), np.array([3, 4, 1, 3, -1], np.int32)

    assert ranks_in_lists(lists, row, items).tolist() == [2, 4, 1, 3, 4]


def test_reach_by_hand():
    training = pattern_of([[0, 1], [0], [0], [0]], 4)
    found = reach(np.array([[0, 1], [0, NOTHING]], np.int32), training)

    assert found.coverage == 2 / 4
    # Item 0 is had by all 4 users (0 bits), item 1 by one of 4 (2 bits); item 0 is recommended twice.
    assert found.novelty == pytest.approx((0 + 2 + 0) / 3)
    assert found.popularity == pytest.approx((1 + 1 / 4 + 1) / 3)
    assert found.users_reached == 1 / 2


def test_factors_of_zero_recommend_nothing():
    user_factors = np.array([[1, 1], [0, 0]], np.float32)
    item_factors = np.array([[1, 0], [0, 0], [0, 2]], np.float32)
    nobody = pattern_of([[], []], 3)

    lists = best_lists(by_factors(user_factors, item_factors), np.arange(2, dtype=np.int32), nobody, 3)
    assert lists.tolist() == [[2, 0, NOTHING], [NOTHING] * 3]


def test_the_popular_are_the_same_for_everybody_and_nobody_gets_what_nobody_has():
    nobody = pattern_of([[], [2]], 4)
    lists = best_lists(by_popularity(np.array([1, 0, 5, 1])), np.arange(2, dtype=np.int32), nobody, 3)

    assert lists.tolist() == [[2, 0, 3], [0, 3, NOTHING]]
