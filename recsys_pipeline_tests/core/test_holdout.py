"""One split: the weights that it gives to train on, made when they are asked for."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=2, bm25_K1=10.0, bm25_B=0.5)
PATTERN = pattern_of([[0, 1], [0, 2], [2, 3, 4]], 9)
STRENGTHS = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
# Item 2 of user 1.
HELD_OUT, LEFT = np.array([3]), np.array([0, 1, 2, 4, 5, 6])


def split(strengths=STRENGTHS, **changes):
    return replace(Split.leaving_out(PATTERN, strengths, HELD_OUT), **changes)


def test_whole_interactions_are_left_out_and_all_others_exclude_their_items():
    made = split()

    assert (made.users.tolist(), made.items.tolist()) == ([1], [2])
    assert made.training[DEFAULT_STRENGTHS].indices.tolist() == PATTERN.indices[LEFT].tolist()
    assert made.exclusions.indices.tolist() == PATTERN.indices[LEFT].tolist()
    assert made.can_be_hit.tolist() == [True]


def test_the_search_weighs_all_interactions_and_trains_on_those_that_are_left():
    expected = bm25_weights(PATTERN, STRENGTHS, k1=10.0, b=0.5)[LEFT]

    assert split().weights(TRIAL) == pytest.approx(expected)


def test_the_evaluation_weighs_what_is_left_alone():
    expected = bm25_weights(PATTERN.select(np.arange(7) != 3), STRENGTHS[LEFT], k1=10.0, b=0.5)

    assert split(weigh_all=False).weights(TRIAL) == pytest.approx(expected)


@pytest.mark.parametrize("weigh_all", [True, False])
def test_the_strength_of_what_is_held_out_shapes_only_weights_of_all(weigh_all):
    louder = STRENGTHS.copy()
    louder[HELD_OUT] *= 100
    before, after = (split(each, weigh_all=weigh_all).weights(TRIAL) for each in (STRENGTHS, louder))

    assert np.array_equal(before, after) == (not weigh_all)


def test_without_weighting_the_strengths_are_the_weights():
    assert split().weights(TRIAL.replace(weighting="none")).tolist() == STRENGTHS[LEFT].tolist()


def test_a_mapping_that_leaves_interactions_out_weighs_those_that_it_has():
    mapped = np.where(PATTERN.indices == 0, 0.0, STRENGTHS)
    made = Split.make(
        *(PATTERN, np.array([1], np.int32), np.array([2], np.int32)),
        {"some": mapped},
        {"some": np.where(np.arange(7) == 3, 0.0, mapped)},
        np.arange(7) != 3,
    )
    corpus = bm25_weights(PATTERN.select(mapped > 0), mapped[mapped > 0], k1=10.0, b=0.5)

    assert made.weights(TRIAL.replace(strengths="some")) == pytest.approx(corpus[[0, 2, 3, 4]])


def test_the_matrix_to_train_on_has_the_weights_at_their_places():
    user_items = split().user_items(TRIAL)

    assert user_items.shape == (3, 9)
    assert user_items[1, 2] == 0
    assert user_items[2, 4] == split().weights(TRIAL)[-1]


def test_no_weights_stay_in_memory():
    """A vector for each K1 and B at once would be 20 GB at 256 trials and 20 million interactions."""
    pattern = pattern_of([list(range(user % 3, 50)) for user in range(100)], 60)
    made = Split.leaving_out(pattern, np.ones(pattern.n_interactions), np.array([0]))
    size = made.weights(TRIAL).nbytes
    tracemalloc.start()
    try:
        for k1 in range(1, 101):
            made.weights(TRIAL.replace(bm25_K1=float(k1)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 2 * size


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(split(2 * STRENGTHS), id="strengths"),
        pytest.param(Split.leaving_out(PATTERN, STRENGTHS, np.array([0])), id="what is held out"),
        pytest.param(split(exclusions=PATTERN.select(np.arange(7) < 2)), id="exclusions"),
        pytest.param(
            Split.leaving_out(pattern_of([[0, 1], [0, 2], [2, 3, 5]], 9), STRENGTHS, HELD_OUT), id="pattern"
        ),
    ],
)
def test_its_content_tells_splits_with_other_scores_apart(other):
    def told(each):
        return [array.tolist() for array in each.content(DEFAULT_STRENGTHS)]

    assert told(split()) == told(split()) != told(other)
