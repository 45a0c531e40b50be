"""EASE, against the conditions that its weights solve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core.ease import ease_scorer, item_weights
from recsys_pipeline_tests.worlds import pattern_of, patterns


def presences(pattern):
    matrix = np.zeros(pattern.shape)
    matrix[pattern.user_of_interaction, pattern.indices] = 1
    return matrix


def weights_by_loops(matrix, penalty):
    """Each column by itself: ridge regression of an item on all others."""
    n_items = matrix.shape[1]
    weights = np.zeros((n_items, n_items))
    for j in range(n_items):
        others = [i for i in range(n_items) if i != j]
        x, y = matrix[:, others], matrix[:, j]
        weights[others, j] = np.linalg.solve(x.T @ x + penalty * np.eye(len(others)), x.T @ y)
    return weights


def test_two_items_by_hand():
    """Item 0 has users 0 and 1, item 1 has user 0: B_01 = 1 / (2 + 1), B_10 = 1 / (1 + 1)."""
    user_items = pattern_of([[0, 1], [0]], 2).user_items(np.ones(3))

    assert item_weights(user_items, 1.0) == pytest.approx(np.array([[0, 1 / 3], [1 / 2, 0]]))


@given(patterns(), st.sampled_from([0.1, 1.0, 50.0]))
def test_each_item_is_a_ridge_regression_on_all_others(pattern, penalty):
    found = item_weights(pattern.user_items(np.ones(pattern.n_interactions)), penalty)

    assert found == pytest.approx(weights_by_loops(presences(pattern), penalty), abs=1e-5)


@given(patterns())
def test_the_penalty_counts_in_mean_numbers_of_users_and_what_is_unknown_is_not_recommended(pattern):
    scores = ease_scorer(pattern, 2.0)(np.arange(pattern.n_users, dtype=np.int32))
    matrix = presences(pattern)
    known, active = matrix.any(axis=0), matrix.any(axis=1)

    assert np.isneginf(scores[~active]).all()
    assert np.isneginf(scores[:, ~known]).all()
    if known.any():
        penalty = 2.0 * matrix.sum() / known.sum()
        expected = matrix @ weights_by_loops(matrix, penalty)
        both = np.ix_(active, known)
        assert scores[both] == pytest.approx(expected[both], abs=1e-5)
