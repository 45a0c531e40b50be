"""Item-kNN, against plain loops over the formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core.item_knn import (
    NearestItems,
    SimilarityWeighting,
    most_neighbours,
    similarity_weights,
)
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING
from recsys_pipeline_tests.worlds import pattern_of, patterns

#   item  0  1  2  3
ROWS = [[0, 1], [0, 1, 2], [1], []]
SMALL = pattern_of(ROWS, 4)
ONES = np.ones(SMALL.n_interactions, np.float32)


def similarity(pattern, weights, shrinkage):
    """(n_items, n_items) by the formula, 0 where two items share nobody."""
    by_user = np.zeros(pattern.shape)
    by_user[pattern.user_of_interaction, pattern.indices] = weights
    shrunk_by = shrinkage * np.mean(np.square(weights.astype(np.float64))) if len(weights) else 0.0
    found = np.zeros((pattern.n_items, pattern.n_items))
    for i in range(pattern.n_items):
        for j in range(pattern.n_items):
            dot = by_user[:, i] @ by_user[:, j]
            if dot > 0:
                norms = np.linalg.norm(by_user[:, i]) * np.linalg.norm(by_user[:, j])
                found[i, j] = dot / (norms + shrunk_by)
    return found.astype(np.float32).astype(np.float64)


def lists_by_loops(pattern, weights, n_neighbours, shrinkage, exclusions, k):
    """Each item counts itself and its nearest, among equals the lower index."""
    of_items = similarity(pattern, weights, shrinkage)
    lists = np.full((pattern.n_users, k), NOTHING)
    counted = []
    for i in range(pattern.n_items):
        others = [j for j in range(pattern.n_items) if j != i and of_items[i, j] > 0]
        counted.append({i, *sorted(others, key=lambda j: (-of_items[i, j], j))[:n_neighbours]})
    for user in range(pattern.n_users):
        own = range(pattern.indptr[user], pattern.indptr[user + 1])
        scores = {}
        for i in range(pattern.n_items):
            scores[i] = sum(
                float(weights[at]) * of_items[i, pattern.indices[at]]
                for at in own
                if pattern.indices[at] in counted[i]
            )
        excluded = set(exclusions.indices[exclusions.indptr[user] : exclusions.indptr[user + 1]].tolist())
        best = sorted(
            (i for i in scores if scores[i] > 0 and i not in excluded), key=lambda i: (-scores[i], i)
        )
        lists[user, : len(best[:k])] = best[:k]
    return lists


def listed(pattern, weights, numbers, shrinkages, n_neighbours, shrinkage, exclusions, k):
    lister = NearestItems.of(pattern, weights, numbers, shrinkages).lister(n_neighbours, shrinkage)
    return lister(np.arange(pattern.n_users, dtype=np.int32), exclusions, k)


def test_the_cosine_is_shrunk_by_a_number_of_users():
    """Items 0 and 1 share two users, of 2 and 3: 2 / (sqrt(6) + 4); items 1 and 2 one: 1 / (sqrt(3) + 4)."""
    nearest = NearestItems.of(SMALL, ONES, [2], [4.0])
    of_item_1 = slice(nearest.begins[1], nearest.begins[1] + nearest.counts[0, 1])
    found = dict(
        zip(nearest.items[0, of_item_1].tolist(), nearest.similarities[0, of_item_1].tolist(), strict=True)
    )

    assert found == {
        0: pytest.approx(2 / (np.sqrt(6) + 4), rel=1e-6),
        2: pytest.approx(1 / (np.sqrt(3) + 4), rel=1e-6),
    }
    assert nearest.own[0].tolist() == pytest.approx([2 / 6, 3 / 7, 1 / 5, 0])


def test_what_is_recommended_by_hand():
    """User 0 has items 0 and 1; without shrinkage item 2 gets 1/sqrt(2) of item 0 and 1/sqrt(3) of item 1."""
    everyone = np.arange(4, dtype=np.int32)
    lister = NearestItems.of(SMALL, ONES, [3], [0.0]).lister(3, 0.0)

    assert lister(everyone, SMALL, 2).tolist() == [
        [2, NOTHING],
        [NOTHING, NOTHING],
        [0, 2],
        [NOTHING, NOTHING],
    ]


def test_an_item_is_its_own_nearest_where_it_may_be_recommended_again():
    nothing = Pattern.empty(4, 4)

    assert listed(SMALL, ONES, [2], [0.0], 2, 0.0, nothing, 3)[2].tolist() == [1, 0, 2]


def test_only_the_nearest_count():
    """The nearest of item 2 is item 0; user 2, who has item 1 alone, is not recommended it."""
    assert listed(SMALL, ONES, [1], [0.0], 1, 0.0, SMALL, 2)[2].tolist() == [0, NOTHING]


def test_of_equally_near_items_the_one_of_lower_index_counts():
    """Items 1 and 2 are equally near to item 3, which counts one of them."""
    pattern = pattern_of([[1, 2, 3], [1], [2]], 4)
    found = listed(pattern, np.ones(5, np.float32), [1], [0.0], 1, 0.0, pattern, 2)

    assert found[1:].tolist() == [[3, NOTHING], [NOTHING, NOTHING]]


def test_of_equal_scores_the_lower_index_comes_first():
    pattern = pattern_of([[0, 1, 2], [0, 1, 2], [0]], 3)

    assert listed(pattern, np.ones(7, np.float32), [2], [0.0], 2, 0.0, pattern, 2)[2].tolist() == [1, 2]


@given(
    patterns(),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.5, 20.0]),
    st.sampled_from([1, 2, 3, 100]),
)
def test_lists_are_those_of_the_formula(pattern, seed, shrinkage, n_neighbours):
    rng = np.random.default_rng(seed)
    # Powers of two: sums are exact, so that ties are ties on every way.
    weights = rng.choice([1.0, 2.0], pattern.n_interactions).astype(np.float32)
    exclusions = pattern.select(rng.random(pattern.n_interactions) < 0.5)
    by = [n_neighbours, 2, 5], [20.0, shrinkage]

    found = listed(pattern, weights, *by, n_neighbours, shrinkage, exclusions, 4)
    expected = lists_by_loops(pattern, weights, n_neighbours, shrinkage, exclusions, 4)
    assert found.tolist() == expected.tolist()


@given(patterns(max_users=12))
def test_several_numbers_and_shrinkages_at_once_are_each_as_alone(pattern):
    weights = np.ones(pattern.n_interactions, np.float32)
    nearest = NearestItems.of(pattern, weights, [1, 3, 2], [5.0, 0.0])
    everyone = np.arange(pattern.n_users, dtype=np.int32)
    nothing = Pattern.empty(*pattern.shape)
    for n_neighbours in (1, 2, 3):
        for shrinkage in (0.0, 5.0):
            alone = listed(pattern, weights, [n_neighbours], [shrinkage], n_neighbours, shrinkage, nothing, 5)
            assert nearest.lister(n_neighbours, shrinkage)(everyone, nothing, 5).tolist() == alone.tolist()


def test_it_refuses_a_number_for_which_it_is_not_ready():
    with pytest.raises(ValueError, match=r"ready for \(4, 2\) neighbours, not 3"):
        NearestItems.of(SMALL, ONES, [2, 4], [0.0]).lister(3, 0.0)


@given(patterns())
def test_there_is_room_for_every_neighbour(pattern):
    together = np.zeros((pattern.n_items, pattern.n_items))
    for user in range(pattern.n_users):
        own = pattern.indices[pattern.indptr[user] : pattern.indptr[user + 1]]
        together[np.ix_(own, own)] = 1
    np.fill_diagonal(together, 0)

    assert (most_neighbours(pattern) >= together.sum(axis=1)).all()
    assert (most_neighbours(pattern) < max(pattern.n_items, 1)).all()


def test_the_weights_by_their_formulas():
    strengths = np.array([1.0, 4.0, 9.0, 1.0, 4.0, 1.0])
    pattern = pattern_of([[0, 1], [0, 1, 2], [1]], 8)
    idf = np.log(8 / np.array([3, 3, 4, 4, 4, 2]))

    def weights(weighting):
        return similarity_weights(pattern, strengths, weighting).tolist()

    assert weights(SimilarityWeighting.presence) == [1] * 6
    assert weights(SimilarityWeighting.strengths) == strengths.tolist()
    assert weights(SimilarityWeighting.tf_idf) == pytest.approx((np.sqrt(strengths) * idf).tolist())
    lengths = np.array([10, 6, 4, 0, 0, 0, 0, 0])
    norm = (0.25 + 0.75 * lengths / lengths.mean())[pattern.indices]
    bm25 = idf * strengths * 2.2 / (strengths + 1.2 * norm)
    assert weights(SimilarityWeighting.bm25) == pytest.approx(bm25.tolist())


@pytest.mark.parametrize("weighting", list(SimilarityWeighting))
def test_who_has_everything_has_weights_above_0_too(weighting):
    pattern = pattern_of([[0, 1, 2], [0]], 3)
    weights = similarity_weights(pattern, np.ones(4), weighting)

    assert (weights > 0).all()
    assert listed(pattern, weights, [2], [1.0], 2, 1.0, pattern, 2)[1].tolist() == [1, 2]
