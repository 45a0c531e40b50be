"""Lists without a trained model."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_pipeline.core.baselines import by_popularity, by_repeat_consumption, sparse_lists
from recsys_pipeline.core.ranking import NOTHING
from recsys_pipeline_tests.worlds import pattern_of


def test_the_popular_are_the_same_for_everybody_and_nobody_gets_what_nobody_has():
    nobody = pattern_of([[], [2]], 4)
    lists = by_popularity(np.array([1, 0, 5, 1]))(np.arange(2, dtype=np.int32), nobody, 3)

    assert lists.tolist() == [[2, 0, 3], [0, 3, NOTHING]]


def test_what_the_user_has_interacted_with_comes_first_the_strongest_before_the_popular():
    training = pattern_of([[0, 1, 3], [3]], 5)
    lister = by_repeat_consumption(training, np.array([1.0, 9.0, 1.0, 2.0]), np.array([1, 1, 7, 2, 0]))
    lists = lister(np.arange(2, dtype=np.int32), pattern_of([[], []], 5), 5)

    # Of equal strength, item 3 is more popular than item 0; item 4, which nobody has, is left out.
    assert lists.tolist() == [[1, 3, 0, 2, NOTHING], [3, 2, 0, 1, NOTHING]]


@st.composite
def sparse_worlds(draw):
    """Small integers as scores, so that many are equal, some at or below 0; some items excluded."""
    n_items = draw(st.integers(1, 8))
    n_users = draw(st.integers(1, 4))
    score = st.sampled_from([-1.0, 0.0, 1.0, 2.0])
    rows = [draw(st.dictionaries(st.integers(0, n_items - 1), score)) for _ in range(n_users)]
    excluded = [sorted(draw(st.sets(st.integers(0, n_items - 1)))) for _ in range(n_users)]
    return n_items, rows, excluded, draw(st.integers(1, 10))


@given(world=sparse_worlds())
def test_sparse_lists_equal_a_full_sort_in_whatever_order_the_scores_are_stored(world):
    n_items, rows, excluded, k = world
    items = np.array([item for row in rows for item in row], np.int32)
    scores = np.array([score for row in rows for score in row.values()], np.float32)
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    matrix = csr_matrix((scores, items, indptr), shape=(len(rows), n_items))
    lists = sparse_lists(matrix, np.arange(len(rows), dtype=np.int32), pattern_of(excluded, n_items), k)

    for row, out, listed in zip(rows, excluded, lists.tolist(), strict=True):
        offered = [item for item, score in row.items() if score > 0 and item not in out]
        expected = sorted(offered, key=lambda item: (-row[item], item))[:k]
        assert listed == expected + [NOTHING] * (k - len(expected))
