"""Scores without factors."""

import numpy as np

from recsys_pipeline.core.ranking import NOTHING, best_lists
from recsys_pipeline.core.scorers import by_popularity, by_repeat_consumption
from recsys_pipeline_tests.worlds import pattern_of


def test_the_popular_are_the_same_for_everybody_and_nobody_gets_what_nobody_has():
    nobody = pattern_of([[], [2]], 4)
    lists = best_lists(by_popularity(np.array([1, 0, 5, 1])), np.arange(2, dtype=np.int32), nobody, 3)

    assert lists.tolist() == [[2, 0, 3], [0, 3, NOTHING]]


def test_what_the_user_has_interacted_with_comes_first_the_strongest_before_the_popular():
    training = pattern_of([[0, 1, 3], [3]], 5)
    scorer = by_repeat_consumption(training, np.array([1.0, 9.0, 1.0, 2.0]), np.array([1, 1, 7, 2, 0]))
    lists = best_lists(scorer, np.arange(2, dtype=np.int32), pattern_of([[], []], 5), 5)

    # Of equal strength, item 3 is more popular than item 0; item 4, which nobody has, is left out.
    assert lists.tolist() == [[1, 3, 0, 2, NOTHING], [3, 2, 0, 1, NOTHING]]
