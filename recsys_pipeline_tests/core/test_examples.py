"""A few users by whom a person can judge a model."""

import numpy as np
import pytest

from recsys_pipeline.core.examples import example_users, strongest_interactions
from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline_tests.worlds import pattern_of


def with_activities(counts):
    """Users with so many interactions each."""
    return pattern_of([list(range(count)) for count in counts], max(counts) + 1)


def chosen(counts):
    return [(each.user, each.interactions, each.share) for each in example_users(with_activities(counts))]


def test_they_are_of_different_activity():
    # Users 100, 99, ... 1 have 1, 2, ... 100 interactions; user 0 has none and does not count.
    counts = [0, *range(100, 0, -1)]

    assert chosen(counts) == [
        (90, 11, 0.1),
        (50, 51, 0.5),
        (11, 90, 0.9),
        (2, 99, 0.99),
        (1, 100, 1.0),
    ]


@pytest.mark.parametrize("n_users", [1, 2, 3])
def test_of_few_users_nobody_comes_twice(n_users):
    users, _, shares = zip(*chosen([5] * n_users), strict=True)

    assert users == tuple(range(n_users))
    assert shares[-1] == 1.0


def test_without_interactions_there_is_none():
    assert example_users(Pattern.empty(3, 4)) == []


def test_the_strongest_interactions_come_first_with_what_happened():
    contents = Contents(
        pattern_of([[7], [1, 2, 5, 6]], 8),
        weights=np.array([9.0, 0.5, 2.0, 0.0, 2.0], np.float32),
        excluded=np.ones(5, bool),
        counts={"view": np.array([1, 1, 4, 1, 2], np.int32), "click": np.array([0, 0, 1, 0, 2], np.int32)},
    )

    assert strongest_interactions(contents, 1, 3) == [
        (2, {"view": 4, "click": 1}),
        (6, {"view": 2, "click": 2}),
        (1, {"view": 1}),
    ]
    assert strongest_interactions(contents, 0, 3) == [(7, {"view": 1})]
