"""The item graph: the filter by hand, by plain loops, and for people whom it does not know."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random

from recsys_pipeline.core.item_graph import PRESENCE, STRENGTHS, GraphFilter, ItemGraph, reached_only

LINEAR_FILTER = GraphFilter(0.5, 0.5)


def everybody(matrix: csr_matrix) -> NDArray[np.int32]:
    return np.arange(matrix.shape[0], dtype=np.int32)


def some_feedback(seed: int, shape: tuple[int, int] = (40, 25)) -> csr_matrix:
    matrix = random(*shape, density=0.2, random_state=seed, format="csr", dtype=np.float32)
    matrix.data += 0.5
    return matrix


def by_plain_loops(matrix: csr_matrix, user_exponent: float, item_exponent: float) -> NDArray[np.float64]:
    entries = matrix.toarray().astype(np.float64)
    n_users, n_items = entries.shape
    user_degree, item_degree = entries.sum(axis=1), entries.sum(axis=0)
    scores = np.zeros((n_users, n_items))
    for user in range(n_users):
        for item in np.flatnonzero(entries[user]):
            for other in np.flatnonzero(entries[:, item]):
                for reached in np.flatnonzero(entries[other]):
                    step = entries[user, item] * entries[other, item] * entries[other, reached]
                    degrees = user_degree[other] ** (2 * user_exponent)
                    degrees *= item_degree[item] ** item_exponent * item_degree[reached] ** item_exponent
                    scores[user, reached] += step / degrees
    return scores


def test_two_people_who_share_an_item_worked_by_hand() -> None:
    # The first has x and y, the second y and z. So every user has degree 2, y has 2, x and z have 1, and
    # R~ is (1/sqrt2, 1/2, 0) and (0, 1/2, 1/sqrt2).
    feedback = csr_matrix(np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32))
    scores = ItemGraph.of(feedback, LINEAR_FILTER).scorer(feedback)(everybody(feedback))
    root = np.sqrt(0.5)
    x_and_y_by_the_first = root + 0.5
    np.testing.assert_allclose(
        scores[0], [x_and_y_by_the_first * root, x_and_y_by_the_first * 0.5 + 0.25, 0.5 * root], rtol=1e-6
    )
    np.testing.assert_allclose(scores[1], scores[0][::-1], rtol=1e-6)


@pytest.mark.parametrize(("user_exponent", "item_exponent"), [(0.5, 0.5), (0.35, 0.6), (0.0, 1.0)])
def test_the_scores_are_those_of_plain_loops(user_exponent: float, item_exponent: float) -> None:
    feedback = some_feedback(seed=1)
    graph = ItemGraph.of(feedback, GraphFilter(user_exponent, item_exponent, STRENGTHS))
    expected = by_plain_loops(feedback, user_exponent, item_exponent)
    np.testing.assert_allclose(graph.scorer(feedback)(everybody(feedback)), expected, rtol=1e-4, atol=1e-6)


def test_the_scores_of_a_user_do_not_depend_on_who_else_is_asked_for() -> None:
    feedback = some_feedback(seed=2)
    scorer = ItemGraph.of(feedback, LINEAR_FILTER).scorer(feedback)
    alone = np.concatenate([scorer(np.array([user], dtype=np.int32)) for user in (7, 3, 7)])
    np.testing.assert_array_equal(scorer(np.array([7, 3, 7], dtype=np.int32)), alone)


def test_somebody_new_with_the_row_of_a_user_differs_from_that_user_by_the_own_walk_alone() -> None:
    feedback = some_feedback(seed=3)
    graph = ItemGraph.of(feedback, LINEAR_FILTER)
    user = np.array([5], dtype=np.int32)
    known = graph.scorer(feedback)(user)
    new = graph.scorer(feedback[user], known=np.array([-1]))(np.zeros(1, dtype=np.int32))
    unseen = np.setdiff1d(np.arange(feedback.shape[1]), feedback[user].indices)
    assert (new[0, feedback[user].indices] > known[0, feedback[user].indices]).all()
    reached_by_the_user = by_plain_loops(feedback[user], 0.5, 0.5)[0]
    assert not reached_by_the_user[unseen].any()
    assert (new[0, unseen] >= known[0, unseen]).all()


def test_a_user_with_a_newer_row_walks_with_that_in_place_of_the_old_one() -> None:
    feedback = some_feedback(seed=4)
    graph = ItemGraph.of(feedback, LINEAR_FILTER)
    newer = some_feedback(seed=5)[[9]]
    scores = graph.scorer(newer, known=np.array([9]))(np.zeros(1, dtype=np.int32))
    without = feedback.tolil()
    without[9] = newer
    entries, degrees = without.tocsr().toarray().astype(np.float64), graph.item_scale
    steps = entries * np.power(entries.sum(axis=1, keepdims=True), -0.5) * degrees
    np.testing.assert_allclose(scores[0], newer.toarray()[0] @ steps.T @ steps, rtol=1e-4, atol=1e-6)


def test_nobody_and_nothing_has_no_score() -> None:
    feedback = csr_matrix(np.array([[1, 1, 0], [0, 0, 0]], dtype=np.float32))
    scorer = ItemGraph.of(feedback, LINEAR_FILTER).scorer(feedback)
    np.testing.assert_array_equal(scorer(everybody(feedback))[1], np.zeros(3))
    assert scorer(everybody(feedback))[0, 2] == 0
    np.testing.assert_array_equal(np.isinf(reached_only(scorer)(everybody(feedback))), [[0, 0, 1], [1, 1, 1]])


def test_an_interaction_counts_by_presence_or_by_strength() -> None:
    strengths = np.array([0.0, 2.0, 5.0])
    np.testing.assert_array_equal(GraphFilter(0.5, 0.5, PRESENCE).weigh(strengths), [0, 1, 1])
    np.testing.assert_array_equal(GraphFilter(0.5, 0.5, STRENGTHS).weigh(strengths), [0, 2, 5])


def test_parameters_survive_json() -> None:
    parameters = GraphFilter(0.35, 0.5, STRENGTHS, {"buy": 2.0})
    assert GraphFilter.from_mapping(parameters._asdict()) == parameters
