"""BM25 weights: the formula again as a plain loop, and `implicit`'s function."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from implicit.nearest_neighbours import bm25_weight
from scipy.sparse import csr_matrix

from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline_tests.worlds import pattern_of, patterns


@st.composite
def weighted_patterns(draw):
    pattern = draw(patterns())
    assume(pattern.n_interactions)
    strengths = draw(
        st.lists(st.integers(1, 20), min_size=pattern.n_interactions, max_size=pattern.n_interactions)
    )
    return pattern, np.array(strengths, dtype=float), draw(st.floats(0.1, 500)), draw(st.floats(0, 1))


@given(weighted_patterns())
def test_follows_the_formula(world):
    pattern, strengths, k1, b = world
    lengths = [strengths[pattern.indices == item].sum() for item in range(pattern.n_items)]
    mean_length = sum(lengths) / pattern.n_items
    expected = []
    for user, item, s in zip(pattern.user_of_interaction, pattern.indices, strengths, strict=True):
        idf = math.log(pattern.n_items) - math.log(1 + np.count_nonzero(pattern.user_of_interaction == user))
        norm = 1 - b + b * lengths[item] / mean_length
        expected.append(idf * s * (k1 + 1) / (s + k1 * norm))

    assert bm25_weights(pattern, strengths, k1=k1, b=b) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(weighted_patterns())
def test_equals_implicits_weights_of_the_items_x_users_matrix(world):
    pattern, strengths, k1, b = world
    item_users = csr_matrix(
        (strengths, (pattern.indices, pattern.user_of_interaction)), shape=pattern.shape[::-1]
    )
    theirs = csr_matrix(bm25_weight(item_users, k1, b).T)

    ours = bm25_weights(pattern, strengths, k1=k1, b=b)
    order = np.argsort(pattern.indices + pattern.user_of_interaction.astype(int) * pattern.n_items)
    assert ours[order] == pytest.approx(
        theirs.toarray()[pattern.user_of_interaction, pattern.indices], rel=1e-12
    )


@given(weighted_patterns())
def test_only_who_touched_nearly_everything_has_no_signal(world):
    pattern, strengths, k1, b = world
    weights = bm25_weights(pattern, strengths, k1=k1, b=b)

    touched = pattern.interactions_per_user[pattern.user_of_interaction]
    assert ((weights < 0) == (touched == pattern.n_items)).all()
    assert (weights[touched < pattern.n_items - 1] > 0).all()


def test_a_popular_item_weighs_less_and_b_decides_how_much():
    pattern = pattern_of([[0], [0, 1], [0, 2]], 9)
    strengths = np.ones(pattern.n_interactions)

    discounted = bm25_weights(pattern, strengths, k1=10, b=1)
    ignored = bm25_weights(pattern, strengths, k1=10, b=0)
    assert discounted[1] < discounted[2]
    assert ignored[1] == ignored[2]
